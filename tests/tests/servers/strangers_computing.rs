//! Servers that have libpq compute without end: the controller and the sessions that ask remain masters of
//! their time, and everybody else is looked after meanwhile.

use crate::stopping::{best_of_three, stops_within};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::net::{Manner, Stranger};
use citus_fleet_tests::run::port;
use citus_fleet_tests::server::process::is_alive;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, until};
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    suite!("strangers_computing", &[Need::Fleet, Need::Citus, Need::Vector];
        the_controller_lets_go_of_a_computation,
        others_are_registered_and_followed_meanwhile,
        strangers_that_compute_are_limited_in_number,
        a_session_lets_go_of_a_computation,
    )
}

/// The computations of this suite keep the processors busy; whoever waited for one would wait for minutes.
const PROMPTLY: Duration = Duration::from_secs(1);

/// Each burns a processor for as long as its test takes.
fn endless(cluster: &Cluster) -> Stranger {
    Stranger::start(cluster.subnet.address(), port(), Manner::EndlessScram)
}

/// A cluster in which strangers may have SCRAM without TLS, and so without a certificate of theirs.
fn plan(workers: usize) -> Plan {
    Plan::workers(workers).unannounced().set("citus_fleet.unbound_passwords", "on")
}

#[track_caller]
fn start(plan: Plan) -> Cluster {
    let cluster = plan.start();
    cluster
        .coordinator
        .run("INSERT INTO pg_catalog.pg_dist_authinfo VALUES (0, 'postgres', 'password=canary')");
    cluster
}

#[track_caller]
fn wait_until_computing(cluster: &Cluster, address: IpAddr) {
    wait_for_code(cluster, address, "login_computing");
}

#[track_caller]
fn wait_for_code(cluster: &Cluster, address: IpAddr, code: &str) {
    until(&format!("{address} is {code}"), SOON, || {
        let row = cluster.worker_at(address)?;
        if &row["code"] == code { Ok(()) } else { Err(format!("{row:?}")) }
    });
}

/// Processor time that a process has had, in hundredths of a second.
pub fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[track_caller]
fn has_not_crashed(server: &Server) {
    let log = server.log();
    for word in ["terminated by signal", "crash of another server process", "PANIC"] {
        assert!(!log.contains(word), "{log}");
    }
}

fn the_controller_lets_go_of_a_computation() {
    let cluster = start(plan(0).set("citus_fleet.probe_timeout", "60s"));
    let coordinator = &cluster.coordinator;
    coordinator.run("CREATE DATABASE other");
    let stranger = endless(&cluster);
    cluster.announce(&[stranger.address.ip()]);
    let mut logins = 0;
    // Each new controller logs in once, and then computes.
    let mut computes = |pid: u32| {
        logins += 1;
        until("it has logged in", SOON, || match stranger.accepted() {
            times if times >= logins => Ok(()),
            times => Err(times),
        });
        let before = ticks(pid);
        until("it computes", SOON, || match ticks(pid) - before {
            20.. => Ok(()),
            few => Err(few),
        });
    };
    computes(cluster.controller());
    // A barrier is answered: every process has to close the files of that database.
    let started = Instant::now();
    coordinator.run("DROP DATABASE other");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // A cancel is.
    best_of_three("statement_timeout", PROMPTLY, || {
        let mut session = coordinator.session();
        session.run("SET statement_timeout = '300ms'");
        let started = Instant::now();
        assert_eq!(session.error("SELECT citus_autoregister()").state, "57014");
        started.elapsed().saturating_sub(Duration::from_millis(300))
    });
    // The end of the process is, which is in the middle of it already the first time.
    let mut is_first = true;
    stops_within(PROMPTLY, coordinator, |pid| {
        if !std::mem::take(&mut is_first) {
            computes(pid);
        }
    });
    // And the end of the server is.
    best_of_three("a fast shutdown", PROMPTLY, || {
        computes(cluster.controller());
        let took = coordinator.stop(Shutdown::Fast);
        coordinator.begin();
        took
    });
    has_not_crashed(coordinator);
}

fn others_are_registered_and_followed_meanwhile() {
    let cluster = start(plan(1));
    let stranger = endless(&cluster);
    cluster.announce(&[stranger.address.ip()]);
    wait_until_computing(&cluster, stranger.address.ip());
    let pid = cluster.controller();
    let good = cluster.workers[0].address;
    cluster.announce_with(&[stranger.address.ip()]);
    cluster.wait_for_state(good, "active");
    let later = Server::start(cluster.worker_spec("later"));
    cluster.announce_with(&[stranger.address.ip(), later.address]);
    cluster.wait_for_state(later.address, "active");
    let rows = cluster.coordinator.rows("SELECT * FROM citus_autoregister()");
    assert_eq!(rows.len(), 3, "{rows:?}");
    // It is left alone while its computation goes on.
    assert_eq!(stranger.accepted(), 1);
    assert_eq!(cluster.controller(), pid);
    has_not_crashed(&cluster.coordinator);
}

fn strangers_that_compute_are_limited_in_number() {
    let cluster = start(plan(1).set("citus_fleet.interval", "500ms"));
    let good = cluster.workers[0].address;
    cluster.announce_all();
    cluster.wait_for_state(good, "active");
    let strangers: Vec<Stranger> = (0..4).map(|_| endless(&cluster)).collect();
    let mut all: Vec<IpAddr> = strangers.iter().map(|stranger| stranger.address.ip()).collect();
    cluster.announce_with(&all);
    for address in &all {
        wait_until_computing(&cluster, *address);
    }
    let later = Server::start(cluster.worker_spec("later"));
    all.push(later.address);
    cluster.announce_with(&all);
    wait_for_code(&cluster, later.address, "logins_crowded");
    // Who is registered is asked as before.
    let seen = |than: &str| {
        let row = cluster.worker_at(good)?;
        let is_asked = &row["state"] == "active" && &row["last_seen"] > than;
        if is_asked { Ok(row["last_seen"].to_string()) } else { Err(format!("{row:?}")) }
    };
    let before = until("it was asked", SOON, || seen(""));
    until("it is asked again", SOON, || seen(&before));
    cluster.coordinator.stop(Shutdown::Fast);
    has_not_crashed(&cluster.coordinator);
}

fn a_session_lets_go_of_a_computation() {
    let cluster = start(plan(1).set("citus_fleet.enabled", "off"));
    let coordinator = &cluster.coordinator;
    cluster.add_by_hand(&cluster.workers[0]);
    // A worker that has been taken over by somebody else.
    let stranger = endless(&cluster);
    coordinator.run(&format!(
        "SELECT citus_add_inactive_node('{}', {});
         UPDATE pg_dist_node SET isactive = true WHERE nodename = '{0}'",
        stranger.address.ip(),
        stranger.address.port()
    ));
    let pid = cluster.controller();
    wait_until_computing(&cluster, stranger.address.ip());
    let mut session = coordinator.session();
    session.run("SET citus_fleet.health_timeout = '700ms'");
    let backend = session.pid();
    let answered = |session: &mut citus_fleet_tests::server::Session| {
        let started = Instant::now();
        let nodes = session.rows("SELECT * FROM fleet.vector_nodes");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        nodes.len()
    };
    assert!(answered(&mut session) >= 2);
    // Again, while the thread of the first time still computes.
    assert!(answered(&mut session) >= 2);
    assert_eq!(session.value("SELECT 1"), "1");
    drop(session);
    until(
        "the backend has ended",
        SOON,
        || if is_alive(backend) { Err("it runs") } else { Ok(()) },
    );
    // Whoever is cancelled, or terminated, in the middle of it ends as well.
    let mut session = coordinator.session();
    session.run("SET statement_timeout = '500ms'; SET citus_fleet.health_timeout = '60s'");
    assert_eq!(session.error("SELECT * FROM fleet.vector_nodes").state, "57014");
    let backend = session.pid();
    coordinator.run(&format!("SELECT pg_terminate_backend({backend})"));
    until(
        "the backend has ended",
        SOON,
        || if is_alive(backend) { Err("it runs") } else { Ok(()) },
    );
    assert_eq!(cluster.controller(), pid);
    has_not_crashed(coordinator);
}
