//! The settings' check hooks: what is refused, with the part that is wrong, and what is not.

use crate::sql_surface::plain;
use crate::suite::{Test, suite};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::run::port;
use citus_fleet_tests::{Need, until};

pub fn suite() -> Vec<Test> {
    suite!("settings", &[Need::Fleet];
        bad_settings_are_refused_with_the_part_that_is_wrong,
        good_settings_are_accepted,
    )
}

fn bad_settings_are_refused_with_the_part_that_is_wrong() {
    let server = plain().start().coordinator;
    let long = format!("{}.test", "a".repeat(64));
    for (setting, value, part) in [
        ("workers", "worker:0", "0"),
        ("workers", "worker:70000", "70000"),
        ("workers", "worker:", "worker:"),
        ("workers", "worker:12x", "12x"),
        ("workers", "good,,other", "\"\""),
        ("workers", "good, bad/name", "bad/name"),
        ("workers", "good, /tmp", "/tmp"),
        ("workers", "@abstract", "@abstract"),
        ("workers", "two words", "two words"),
        ("workers", "quo'te", "quo'te"),
        ("workers", "quo\"te", "quo"),
        ("workers", "back\\slash", "slash"),
        ("workers", "host=evil", "host=evil"),
        ("workers", "new\nline", "line"),
        ("workers", "tab\tname", "name"),
        ("workers", "bell\u{7}", "bell"),
        ("workers", "söhne", "s"),
        ("workers", "srv:", "srv:"),
        ("workers", "srv:a b", "a b"),
        ("workers", "w-{m}", "w-{m}"),
        ("workers", "w-{n}-{n}", "w-{n}-{n}"),
        ("workers", "10.0.0.256:5432", "10.0.0.256"),
        ("workers", "[::1", "[::1"),
        ("workers", "-dash", "-dash"),
        ("workers", "dots..dots", "dots..dots"),
        ("workers", &long, "aaaa"),
        ("nameserver", "127.0.0.1:0", "0"),
        ("nameserver", "127.0.0.1:70000", "70000"),
        ("nameserver", "not-an-address", "not-an-address"),
        ("allowed_networks", "10.0.0.0/33", "10.0.0.0/33"),
        ("allowed_networks", "private, 10.0.0/8", "10.0.0/8"),
        ("allowed_networks", "publik", "publik"),
        ("allowed_names", "ok.test, bad name", "bad name"),
        ("node_names", "whatever", "whatever"),
        ("coordinator_host", "a,b", "a,b"),
        ("coordinator_host", "host:0", "0"),
        ("max_workers", "0", "0"),
        ("interval", "0", "0"),
        ("probe_timeout", "-1", "-1"),
        ("absent_after", "-1", "-1"),
        ("event_retention", "soon", "soon"),
        ("enabled", "perhaps", "enabled"),
    ] {
        let name = format!("citus_fleet.{setting}");
        match server.try_alter_system(&name, value) {
            Ok(()) => panic!("{name} = {value:?} was accepted"),
            Err(error) => {
                let told = format!("{} {} {}", error.message, error.detail, error.hint);
                assert_eq!(error.state, "22023", "{name} = {value:?}: {error}");
                assert!(told.contains(part), "{name} = {value:?} does not name {part:?}: {error}");
            }
        }
    }
    // A bad value in the file keeps the old one, and the server.
    let conf = server.data().join("postgresql.auto.conf");
    std::fs::write(&conf, "citus_fleet.workers = 'a/b'\n").expect("the file can be written");
    server.run("SELECT pg_reload_conf()");
    until("the log names the part", SOON, || {
        if server.log().contains("a/b") { Ok(()) } else { Err("no word of it") }
    });
    assert_eq!(server.session().value("SHOW citus_fleet.workers"), format!("worker:{}", port()));
}

fn good_settings_are_accepted() {
    let server = plain().start().coordinator;
    for (setting, value) in [
        ("workers", ""),
        ("workers", "worker"),
        (
            "workers",
            " a , b:5433 ,srv:_postgresql._tcp.citus-workers, citus-worker-{n}.ns:6000, 10.0.0.7:5432, [fd00::7]:5432, fd00::8",
        ),
        ("workers", "Under_Score.Test."),
        ("workers", "xn--80ak6aa92e.test, w.1"),
        ("nameserver", ""),
        ("nameserver", "127.0.0.1"),
        ("nameserver", "127.0.0.1:5353"),
        ("nameserver", "[::1]:5353"),
        ("allowed_networks", "private, 203.0.113.0/24, 2001:db8::/32, 198.51.100.7"),
        ("allowed_names", ".svc.cluster.local, example.test"),
        ("node_names", "address"),
        ("coordinator_host", "coordinator"),
        ("coordinator_host", "10.0.0.1:5433"),
        ("max_workers", "1"),
        ("interval", "1min"),
        ("event_retention", "30d"),
    ] {
        let name = format!("citus_fleet.{setting}");
        let accepted = server.try_alter_system(&name, value);
        assert!(accepted.is_ok(), "{name} = {value:?}: {accepted:?}");
    }
}
