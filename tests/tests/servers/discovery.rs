//! What DNS answers, and what the controller makes of it. On servers without Citus, so that it runs
//! everywhere: a good worker is `ready` here.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::{Plan, WORKER};
use citus_fleet_tests::dns::MOST;
use citus_fleet_tests::fleet::{SOON, controller, wait_for_state};
use citus_fleet_tests::run::port;
use citus_fleet_tests::wait::throughout;
use citus_fleet_tests::{Behaviour, Cluster, Need, Server, Spec, until};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("discovery", &[Need::Fleet];
        every_kind_of_source_is_found,
        a_pattern_ends_after_three_missing_names,
        a_failed_lookup_keeps_the_set,
        a_cname_loop_is_a_failed_lookup,
        a_failing_source_does_not_delay_the_others,
        a_name_that_is_gone_takes_its_candidates_along,
        a_ttl_hides_no_new_worker,
        truncated_answers_are_asked_for_over_tcp,
        ten_thousand_answers_are_refused_with_an_alarm,
        forged_answers_are_ignored,
        hostile_names_in_answers_reach_nothing,
        sources_change_while_it_runs,
        the_hosts_file_is_honoured,
    );
    tests.extend(suite!("discovery", &[Need::Fleet, Need::Ipv6];
        half_an_answer_keeps_the_other_half,
    ));
    tests
}

/// A plain coordinator and plain workers, with short cycles.
fn plan(workers: usize) -> Plan {
    Plan::workers(workers)
        .without_citus()
        .set("citus_fleet.allowed_networks", "127.0.0.0/8, ::1")
        .set("citus_fleet.interval", "200ms")
        .set("citus_fleet.probe_timeout", "300ms")
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    let rows =
        cluster.coordinator.rows("SELECT host(address::text::inet) AS ip FROM fleet.workers");
    let mut addresses: Vec<String> = rows.iter().map(|row| row["ip"].to_string()).collect();
    addresses.sort();
    addresses
}

#[track_caller]
fn wait_for_addresses(cluster: &Cluster, wanted: &[IpAddr]) {
    let mut wanted: Vec<String> = wanted.iter().map(IpAddr::to_string).collect();
    wanted.sort();
    until("fleet.workers lists what DNS names", SOON, || {
        let now = addresses(cluster);
        if now == wanted { Ok(()) } else { Err(format!("{now:?} instead of {wanted:?}")) }
    });
}

fn every_kind_of_source_is_found() {
    let cluster = plan(4).unannounced().start();
    let [host, numbered, literal, target] = &cluster.workers[..] else { unreachable!() };
    let other_port = port() + 1;
    let moved = Server::start(Spec { port: other_port, ..cluster.plain_spec("other-port") });

    cluster.announce(&[host.address]);
    cluster.dns.addresses("pg-1", &[numbered.address]);
    cluster.dns.addresses("t1.pool", &[target.address]);
    cluster.dns.addresses("t2.pool", &[moved.address]);
    cluster.dns.services("_postgresql._tcp.pool", &[(port(), "t1.pool"), (other_port, "t2.pool")]);
    let sources = [
        format!("{WORKER}:{}", port()),
        format!("pg-{{n}}:{}", port()),
        format!("{}:{}", literal.address, port()),
        "srv:_postgresql._tcp.pool".to_string(),
    ];
    cluster.coordinator.set("citus_fleet.workers", &sources.join(", "));
    for (server, source) in [(host, 0), (numbered, 1), (literal, 2), (target, 3), (&moved, 3)] {
        let row = cluster.wait_for_state(server.address, "ready");
        assert_eq!(row["source"], sources[source]);
        assert_eq!(row["nodeport"], server.port.to_string());
        assert_eq!(row["system_identifier"], server.system_identifier());
    }
}

fn a_pattern_ends_after_three_missing_names() {
    let cluster = plan(0).set("citus_fleet.workers", &format!("pg-{{n}}:{}", port())).start();
    let at: Vec<IpAddr> = (0..3).map(|_| cluster.subnet.address().into()).collect();
    for (name, address) in [("pg-1", at[0]), ("pg-4", at[1]), ("pg-8", at[2])] {
        cluster.dns.addresses(name, &[address]);
    }
    wait_for_addresses(&cluster, &at[..2]);
    cluster.dns.addresses("pg-6", &[at[0]]);
    wait_for_addresses(&cluster, &at);
}

fn a_failed_lookup_keeps_the_set() {
    let cluster = plan(1).start();
    for behaviour in [
        Behaviour::ServFail,
        Behaviour::Refused,
        Behaviour::Silent,
        Behaviour::Truncated,
        Behaviour::Malformed,
        Behaviour::WrongId,
    ] {
        keeps_the_set(&cluster, behaviour);
    }
}

fn a_cname_loop_is_a_failed_lookup() {
    keeps_the_set(&plan(1).start(), Behaviour::CnameLoop);
}

/// Lets DNS misbehave, and checks that nothing is forgotten, that the failure is told, and that the
/// next good answer counts.
#[track_caller]
fn keeps_the_set(cluster: &Cluster, behaviour: Behaviour) {
    // Only a candidate that is not registered shows by staying that the set was kept.
    let nobody: IpAddr = cluster.subnet.address().into();
    let good = cluster.workers[0].address;
    cluster.announce_with(&[nobody]);
    cluster.wait_for_state(good, "ready");
    cluster.wait_for_state(nobody, "unreachable");
    cluster.dns.behave(behaviour);
    cluster.wait_for_cycles(2);
    let state = |address| cluster.worker_at(address).map(|row| row["state"].to_string());
    assert_eq!(state(good), Ok("ready".into()), "{behaviour:?}");
    assert_eq!(state(nobody), Ok("unreachable".into()), "{behaviour:?}");
    let errors = cluster.coordinator.value("SELECT fleet.status()->>'errors'");
    assert!(errors.contains(&format!("{WORKER}:{}", port())), "{behaviour:?}: {errors}");

    cluster.dns.behave(Behaviour::Answer);
    let late: IpAddr = cluster.subnet.address().into();
    cluster.announce_with(&[nobody, late]);
    wait_for_addresses(cluster, &[good, nobody, late]);
}

fn half_an_answer_keeps_the_other_half() {
    let cluster = plan(0).start();
    let four: IpAddr = cluster.subnet.address().into();
    let six: IpAddr = "::1".parse().expect("an address");
    cluster.announce(&[four, six]);
    wait_for_addresses(&cluster, &[four, six]);
    for (kind, behaviour) in [("A", Behaviour::ServFail), ("AAAA", Behaviour::Silent)] {
        cluster.dns.behave_for_type(WORKER, kind, behaviour);
        cluster.wait_for_cycles(2);
        wait_for_addresses(&cluster, &[four, six]);
        cluster.dns.behave_for_type(WORKER, kind, Behaviour::Answer);
    }
}

fn a_failing_source_does_not_delay_the_others() {
    let cluster = plan(1).unannounced().start();
    cluster.dns.behave_for("silent", Behaviour::Silent);
    let good = &cluster.workers[0];
    let sources = format!("silent, {}:{}", good.address, good.port);
    cluster.coordinator.set("citus_fleet.workers", &sources);
    until("the good source is served", Duration::from_secs(5), || {
        let row = cluster.worker_at(good.address)?;
        if &row["state"] == "ready" { Ok(()) } else { Err(format!("{row:?}")) }
    });
}

fn a_name_that_is_gone_takes_its_candidates_along() {
    let cluster = plan(1).start();
    for behaviour in [Behaviour::NxDomain, Behaviour::NoData] {
        cluster.dns.behave(Behaviour::Answer);
        cluster.wait_for_state(cluster.workers[0].address, "ready");
        cluster.dns.behave(behaviour);
        wait_for_addresses(&cluster, &[]);
    }
}

fn a_ttl_hides_no_new_worker() {
    let cluster = plan(2).unannounced().start();
    cluster.dns.ttl(86_400);
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    cluster.announce_all();
    until("the second worker is seen", Duration::from_secs(3), || {
        cluster.worker_at(cluster.workers[1].address).map(drop)
    });
    for ttl in [0, u32::MAX] {
        cluster.dns.ttl(ttl);
        cluster.wait_for_cycles(1);
        assert_eq!(addresses(&cluster).len(), 2);
    }
}

fn truncated_answers_are_asked_for_over_tcp() {
    let cluster = plan(1).start();
    cluster.dns.behave(Behaviour::TruncatedUdp);
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    cluster.dns.behave(Behaviour::Answer);
    // More than one packet holds, so truncated for real. Nobody listens there.
    let many: Vec<IpAddr> = (0..200).map(|_| cluster.subnet.address().into()).collect();
    cluster.announce(&many);
    wait_for_addresses(&cluster, &many);
}

fn ten_thousand_answers_are_refused_with_an_alarm() {
    let cluster = plan(1).start();
    let good = cluster.workers[0].address;
    cluster.wait_for_state(good, "ready");
    let names = ["many-a", "many-b", "many-c", "many-d"];
    for (number, name) in names.iter().enumerate() {
        // Addresses of the coordinator's own network that nobody listens at; 12,000 in all.
        let first = u32::from(Ipv4Addr::new(127, 200 + number as u8, 0, 1));
        let records: Vec<IpAddr> =
            (0..MOST as u32).map(|n| Ipv4Addr::from(first + n).into()).collect();
        cluster.dns.addresses(name, &records);
    }
    let own = format!("{WORKER}:{}", port());
    let sources: Vec<String> =
        names.iter().map(|name| format!("{name}:{}", port())).chain([own]).collect();
    cluster.coordinator.set("citus_fleet.workers", &sources.join(","));
    until("fleet.doctor() raises the alarm", SOON, || {
        let rows = cluster.coordinator.try_rows("SELECT * FROM fleet.doctor()");
        let rows = rows.map_err(|error| error.to_string())?;
        let alarm =
            rows.iter().find(|row| row["finding"].contains("many-a") && &row["status"] != "ok");
        alarm.map(drop).ok_or_else(|| format!("{rows:?}"))
    });
    let status = cluster.coordinator.value("SELECT fleet.status()");
    assert!(status.contains("max_workers"), "{status}");
    assert_eq!(addresses(&cluster), [good.to_string()]);
    assert_eq!(cluster.coordinator.value("SELECT state FROM fleet.workers"), "ready");
}

fn forged_answers_are_ignored() {
    let cluster = plan(1).start();
    cluster.dns.behave(Behaviour::ForgedFirst);
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    throughout("the forged NXDOMAIN is not believed", Duration::from_secs(1), || {
        cluster.worker_at(cluster.workers[0].address).map(drop)
    });
}

fn hostile_names_in_answers_reach_nothing() {
    let cluster = plan(1).unannounced().start();
    let good = &cluster.workers[0];
    let elsewhere: IpAddr = cluster.subnet.address().into();
    let hostile = [
        "evil,host=x",
        "x' OR 1=1 --",
        "a/b",
        "/tmp",
        "@abstract",
        "two words",
        "new\nline",
        "\"quoted\"",
        "nul\0byte",
        "semi;colon",
        "10.1",
        "-dash",
    ];
    for name in hostile {
        cluster.dns.addresses(name, &[elsewhere]);
    }
    cluster.dns.addresses("good", &[good.address]);
    cluster.dns.pointers(good.address, &["evil,host=x"]);
    let mut targets: Vec<(u16, &str)> = hostile.iter().map(|name| (port(), *name)).collect();
    targets.extend([(0, "good"), (port(), "."), (port(), "good")]);
    cluster.dns.services("_pg._tcp.pool", &targets);
    cluster.coordinator.set("citus_fleet.workers", "srv:_pg._tcp.pool");

    let row = cluster.wait_for_state(good.address, "ready");
    assert!(!row["nodename"].contains("evil"), "{row:?}");
    cluster.wait_for_cycles(1);
    assert_eq!(addresses(&cluster), [good.address.to_string()]);
    for name in hostile {
        assert_eq!(cluster.dns.queries_for(name), 0, "{name:?} was looked up");
    }
    let status = cluster.coordinator.value("SELECT fleet.status()");
    assert!(!status.contains("\\n") && !status.contains("\\u0000"), "{status}");
}

fn sources_change_while_it_runs() {
    let cluster = plan(2).unannounced().start();
    let [first, second] = &cluster.workers[..] else { unreachable!() };
    cluster.announce(&[first.address]);
    cluster.dns.addresses("other", &[second.address]);
    cluster.wait_for_state(first.address, "ready");
    let pid = cluster.controller();
    cluster.coordinator.set("citus_fleet.workers", &format!("other:{}", port()));
    cluster.wait_for_state(second.address, "ready");
    wait_for_addresses(&cluster, &[second.address]);
    cluster.coordinator.set("citus_fleet.workers", "");
    wait_for_addresses(&cluster, &[]);
    assert_eq!(cluster.controller(), pid);
}

fn the_hosts_file_is_honoured() {
    let cluster = plan(0).start();
    // The one server of the run at this address.
    let worker = Server::start(Spec::new("localhost", Ipv4Addr::LOCALHOST));
    cluster.coordinator.set_all(&[
        ("citus_fleet.nameserver", ""),
        ("citus_fleet.workers", &format!("localhost:{}", port())),
    ]);
    wait_for_state(&cluster.coordinator, worker.address, "ready");
    controller(&cluster.coordinator);
    assert_eq!(cluster.dns.queries_for("localhost"), 0);
}
