//! What a login to a candidate can run into: each failure is told apart, none costs the others time.
//! On servers without Citus where that is enough: a good worker is `ready` there.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::{Plan, WORKER};
use citus_fleet_tests::fleet::{SOON, wait_for_state};
use citus_fleet_tests::net::{BlackHole, Manner, Stranger};
use citus_fleet_tests::run::port;
use citus_fleet_tests::tls::Authority;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, Spec, until};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("probe", &[Need::Fleet];
        addresses_without_a_server_are_told_apart,
        servers_that_let_nobody_in_are_told_apart,
        a_missing_database_is_named,
        an_endless_answer_costs_no_memory,
    );
    tests.extend(suite!("probe", &[Need::Fleet, Need::Citus];
        passwords_come_from_pg_dist_authinfo,
        bad_addresses_do_not_delay_a_good_worker,
        a_frozen_worker_is_unreachable_and_stays_registered,
    ));
    tests.extend(suite!("probe", &[Need::Fleet, Need::Citus, Need::OpenSsl];
        tls_is_as_strict_as_node_conninfo_says,
    ));
    tests.extend(suite!("probe", &[Need::Fleet, Need::Citus, Need::OpenSsl, Need::Mounts];
        a_worker_with_a_name_in_its_certificate_can_be_accepted,
    ));
    tests
}

fn plain(workers: usize) -> Plan {
    Plan::workers(workers)
        .without_citus()
        .set("citus_fleet.allowed_networks", "127.0.0.0/8")
        .set("citus_fleet.interval", "500ms")
        .set("citus_fleet.probe_timeout", "1s")
}

/// Waits until the address is `unreachable`, for a reason that holds one of these words.
#[track_caller]
fn wait_until_unreachable(coordinator: &Server, address: IpAddr, words: &[&str]) -> String {
    until(&format!("{address} is unreachable: {words:?}"), SOON, || {
        let row = citus_fleet_tests::fleet::worker_at(coordinator, address)?;
        let reason = row["reason"].to_lowercase();
        let fits = &row["state"] == "unreachable" && words.iter().any(|word| reason.contains(word));
        if !fits || row["remedy"].is_empty() {
            return Err(format!("{row:?}"));
        }
        Ok(reason)
    })
}

fn addresses_without_a_server_are_told_apart() {
    let cluster = plain(1).start();
    let next = || cluster.subnet.address();
    let nobody = next();
    let hole = BlackHole::start(next(), port());
    let stranger = |manner| Stranger::start(next(), port(), manner);
    let silent = stranger(Manner::Silent);
    let drip = stranger(Manner::Drip);
    let garbage = stranger(Manner::Garbage);
    let close = stranger(Manner::Close);
    let strangers = [&silent, &drip, &garbage, &close].map(|stranger| stranger.address.ip());
    let mut all = vec![nobody.into(), hole.address.ip()];
    all.extend(strangers);
    cluster.announce_with(&all);

    cluster.wait_for_state(cluster.workers[0].address, "ready");
    let coordinator = &cluster.coordinator;
    wait_until_unreachable(coordinator, nobody.into(), &["refused"]);
    for address in [hole.address.ip(), silent.address.ip()] {
        wait_until_unreachable(coordinator, address, &["time"]);
    }
    let at_the_end =
        |stranger: &Stranger| wait_until_unreachable(coordinator, stranger.address.ip(), &[""]);
    at_the_end(&drip);
    let garbage = at_the_end(&garbage);
    assert!(!garbage.chars().any(char::is_control), "{garbage:?}");
    at_the_end(&close);
}

fn servers_that_let_nobody_in_are_told_apart() {
    let cluster = plain(1).start();
    let rejecting = cluster.plain_spec("rejecting").hba(["host all all 127.0.0.0/8 reject"]);
    let full = cluster
        .plain_spec("full")
        .set("max_connections", "5")
        .set("superuser_reserved_connections", "2")
        .set("max_wal_senders", "0")
        .set("wal_level", "replica");
    let primary = cluster.plain_spec("primary");
    let [rejecting, full, primary] = &Server::start_all(vec![rejecting, full, primary])[..] else {
        unreachable!()
    };
    let closed = cluster.plain_spec("closed").set("hot_standby", "off");
    let closed = Server::standby_of(primary, closed);
    let mut taken = Vec::new();
    while let Ok(session) = full.try_session("postgres", "postgres") {
        taken.push(session);
    }
    assert_eq!(taken.len(), 5);

    cluster.announce_with(&[rejecting.address, full.address, closed.address]);
    let coordinator = &cluster.coordinator;
    wait_until_unreachable(coordinator, rejecting.address, &["pg_hba"]);
    wait_until_unreachable(coordinator, full.address, &["too many"]);
    wait_until_unreachable(coordinator, closed.address, &["not accepting", "starting up"]);
    cluster.wait_for_state(cluster.workers[0].address, "ready");

    // Each is let in as soon as its trouble is over.
    taken.clear();
    rejecting.set_hba(&["host all all 127.0.0.0/8 trust"]);
    for server in [full, rejecting] {
        cluster.wait_for_state(server.address, "ready");
    }
}

fn a_missing_database_is_named() {
    let cluster = plain(2).not_created().set("citus_fleet.database", "app").start();
    let [with, without] = &cluster.workers[..] else { unreachable!() };
    for server in [&cluster.coordinator, with] {
        server.run("CREATE DATABASE app");
    }
    let mut app = cluster.coordinator.session_as("postgres", "app");
    app.run("CREATE EXTENSION citus_fleet");
    let mut wait_for = |address: IpAddr, state: &str| {
        until(&format!("{address} is {state}"), SOON, || {
            let query = format!(
                "SELECT * FROM fleet.workers WHERE host(address::text::inet) = '{address}'"
            );
            let mut rows = app.try_rows(&query).map_err(|error| error.to_string())?;
            let row = rows.pop().ok_or("it is not listed")?;
            if &row["state"] == state { Ok(row) } else { Err(format!("{row:?}")) }
        })
    };
    wait_for(with.address, "ready");
    let row = wait_for(without.address, "unreachable");
    assert!(row["reason"].contains("\"app\""), "{row:?}");
    without.run("CREATE DATABASE app");
    wait_for(without.address, "ready");
}

fn an_endless_answer_costs_no_memory() {
    let cluster = plain(1).start();
    let pid = cluster.controller();
    let rows = Stranger::start(cluster.subnet.address(), port(), Manner::EndlessRows);
    let notices = Stranger::start(cluster.subnet.address(), port(), Manner::EndlessNotices);
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    let before = resident_kib(pid);
    cluster.announce_with(&[rows.address.ip(), notices.address.ip()]);
    for stranger in [&rows, &notices] {
        wait_until_unreachable(&cluster.coordinator, stranger.address.ip(), &[""]);
        until("it is tried again", SOON, || match stranger.accepted() {
            3.. => Ok(()),
            times => Err(times),
        });
    }
    let grown = resident_kib(pid).saturating_sub(before);
    assert!(grown < 32 * 1024, "the controller grew by {grown} KiB");
    assert!(!cluster.coordinator.log().contains("on and on"), "a stranger's notices fill the log");
    assert_eq!(cluster.controller(), pid);
    cluster.wait_for_state(cluster.workers[0].address, "ready");
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn passwords_come_from_pg_dist_authinfo() {
    // There is no TLS here to bind them to.
    let cluster = Plan::workers(2).unannounced().set("citus_fleet.unbound_passwords", "on").start();
    let [right, wrong] = &cluster.workers[..] else { unreachable!() };
    // Citus gives a new worker the coordinator's roles with their passwords, so all have one.
    cluster.coordinator.run("ALTER ROLE postgres PASSWORD 'canary-right'");
    for (worker, password) in [(right, "canary-right"), (wrong, "canary-other")] {
        worker.run(&format!("ALTER ROLE postgres PASSWORD '{password}'"));
        worker.set_hba(&["host all all 127.0.0.0/8 scram-sha-256"]);
    }
    cluster.coordinator.run(
        "INSERT INTO pg_catalog.pg_dist_authinfo VALUES (0, 'postgres', 'password=canary-right')",
    );
    cluster.announce_all();
    cluster.wait_for_state(right.address, "active");
    wait_until_unreachable(
        &cluster.coordinator,
        wrong.address,
        &["password authentication failed"],
    );
    assert_eq!(cluster.nodes().len(), 1);
    // Nothing that a monitor may read, and no log, tells the password.
    let told = cluster.coordinator.value(
        "SELECT string_agg(t::text, ' ') FROM (SELECT w::text FROM fleet.workers w
         UNION ALL SELECT e::text FROM fleet.events e
         UNION ALL SELECT d::text FROM fleet.doctor() d
         UNION ALL SELECT fleet.status()::text) AS t",
    );
    for text in [told, cluster.coordinator.log(), wrong.log()] {
        assert!(!text.contains("canary-right"), "the password is in: {text}");
    }
    wrong.run("ALTER ROLE postgres PASSWORD 'canary-right'");
    cluster.wait_for_state(wrong.address, "active");
}

fn bad_addresses_do_not_delay_a_good_worker() {
    let cluster = Plan::workers(1)
        .unannounced()
        .set("citus_fleet.interval", "5s")
        .set("citus_fleet.probe_timeout", "3s")
        .start();
    let holes: Vec<BlackHole> =
        (0..4).map(|_| BlackHole::start(cluster.subnet.address(), port())).collect();
    let silent = Stranger::start(cluster.subnet.address(), port(), Manner::Silent);
    cluster.dns.behave_for("silent", citus_fleet_tests::Behaviour::Silent);
    cluster
        .coordinator
        .set("citus_fleet.workers", &format!("silent, nowhere, {WORKER}:{}", port()));
    let mut bad: Vec<IpAddr> = holes.iter().map(|hole| hole.address.ip()).collect();
    bad.push(silent.address.ip());
    cluster.announce_with(&bad);
    let good = cluster.workers[0].address;
    // The next cycle comes within 5 s, its lookups and its probes take 3 s each at the most.
    until("the good worker is active", Duration::from_secs(12), || {
        let row = cluster.worker_at(good)?;
        if &row["state"] == "active" { Ok(()) } else { Err(format!("{row:?}")) }
    });
    for address in bad {
        cluster.wait_for_state(address, "unreachable");
    }
    // With those known to be dead, the next worker is on time.
    let next = Server::start(cluster.worker_spec("next"));
    cluster.announce_with(&[next.address]);
    cluster.wait_for_state(next.address, "active");
}

fn a_frozen_worker_is_unreachable_and_stays_registered() {
    let cluster = Cluster::with_workers(2);
    cluster.wait_until_all_active();
    let before = cluster.nodes().len();
    cluster.workers[1].freeze();
    wait_until_unreachable(&cluster.coordinator, cluster.workers[1].address, &["time"]);
    assert_eq!(cluster.nodes().len(), before);
    cluster.wait_for_state(cluster.workers[0].address, "active");
    cluster.workers[1].thaw();
    cluster.wait_until_all_active();
    cluster.workers[1].stop(Shutdown::Fast);
    wait_until_unreachable(&cluster.coordinator, cluster.workers[1].address, &["refused"]);
    cluster.workers[1].begin();
    cluster.wait_until_all_active();
    assert_eq!(cluster.nodes().len(), before);
}

/// Whose certificate has no address in it can only be asked by its name, also by `fleet.accept_server`.
fn a_worker_with_a_name_in_its_certificate_can_be_accepted() {
    let authority = Authority::new();
    let conninfo = format!("sslmode=verify-full sslrootcert={}", authority.root().display());
    let plan = Plan::workers(0).own_resolver().set("citus.node_conninfo", &conninfo);
    let mut cluster = plan.set("citus_fleet.allowed_networks", "127.0.0.0/8").start();
    cluster.coordinator.certify(&authority.issue(cluster.coordinator.address));
    cluster.coordinator.restart();
    let spec = cluster.worker_spec("named").certificate(&authority.issue_to("worker"));
    let worker = Server::start(spec);
    cluster.dns.addresses("worker", &[worker.address]);
    wait_for_state(&cluster.coordinator, worker.address, "active");
    let name = "SELECT nodename FROM pg_dist_node WHERE groupid <> 0";
    assert_eq!(cluster.coordinator.value(name), "worker");
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('worker', {})", worker.port));
    wait_for_state(&cluster.coordinator, worker.address, "active");
}

fn tls_is_as_strict_as_node_conninfo_says() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let conninfo = format!("sslmode=verify-full sslrootcert={}", authority.root().display());
    let mut cluster = Plan::workers(0).unannounced().set("citus.node_conninfo", &conninfo).start();
    // Workers are to verify the coordinator too.
    let certificate = authority.issue(cluster.coordinator.address);
    cluster.coordinator.certify(&certificate);
    cluster.coordinator.restart();
    let spec = |name: &str| cluster.worker_spec(name);
    let certified = |name: &str, authority: &Authority, other: Option<Ipv4Addr>| -> Spec {
        let spec = spec(name);
        let address = other.map_or(spec.addresses[0], IpAddr::from);
        spec.certificate(&authority.issue(address))
    };
    let servers = Server::start_all(vec![
        certified("good", &authority, None),
        certified("other-authority", &stranger, None),
        certified("other-address", &authority, Some(Ipv4Addr::new(127, 99, 99, 99))),
        spec("no-tls"),
    ]);
    let addresses: Vec<IpAddr> = servers.iter().map(|server| server.address).collect();
    cluster.announce(&addresses);
    wait_for_state(&cluster.coordinator, addresses[0], "active");
    wait_until_unreachable(&cluster.coordinator, addresses[1], &["certificate verify failed"]);
    wait_until_unreachable(&cluster.coordinator, addresses[2], &["does not match"]);
    wait_until_unreachable(&cluster.coordinator, addresses[3], &["ssl"]);
    assert_eq!(cluster.nodes().len(), 1);
}
