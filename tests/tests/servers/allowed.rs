//! Addresses and names that may not be talked to at all, whatever lives there.

use crate::preflight::cluster;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::{Plan, WORKER};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::run::port;
use citus_fleet_tests::{Need, Server, until};
use std::net::IpAddr;

pub fn suite() -> Vec<Test> {
    suite!("allowed", &[Need::Fleet, Need::Citus, Need::Vector];
        the_coordinator_among_the_workers,
        loopback_needs_a_coordinator_on_loopback,
        addresses_that_are_no_workers,
        networks_that_are_not_allowed,
        names_that_are_not_allowed,
    )
}

fn the_coordinator_among_the_workers() {
    let cluster = cluster();
    cluster.announce_with(&[cluster.coordinator.address]);
    cluster.wait_until_all_active();
    cluster.wait_for_cycles(2);
    assert_eq!(cluster.nodes().len(), 1);
    let own = "SELECT count(*) FROM pg_dist_node WHERE groupid = 0";
    assert_eq!(cluster.coordinator.value(own), "1");
    if let Ok(row) = cluster.worker_at(cluster.coordinator.address) {
        assert_eq!(&row["state"], "refused", "{row:?}");
    }
}

fn loopback_needs_a_coordinator_on_loopback() {
    let cluster = Plan::workers(1).unannounced().start();
    // Not loopback, and nobody is ever asked for it: there are no workers.
    cluster.coordinator.run("SELECT citus_set_coordinator_host('coordinator.invalid', 5432)");
    cluster.announce_all();
    let address = cluster.workers[0].address;
    let row = cluster.wait_for_state(address, "refused");
    assert!(row["reason"].contains("loopback"), "{row:?}");
    cluster.coordinator.set("citus_fleet.allowed_networks", "private, 127.0.0.0/8");
    until("the address is no longer refused", SOON, || {
        let row = cluster.worker_at(address)?;
        if row["reason"].contains("loopback") { Err(format!("{row:?}")) } else { Ok(()) }
    });
}

fn addresses_that_are_no_workers() {
    let cluster = cluster();
    // None of these can be connected to, or is ever left this machine for.
    let odd = [
        "0.0.0.0",
        "169.254.7.7",
        "224.0.0.7",
        "255.255.255.255",
        "::",
        "ff02::7",
        "::ffff:127.0.0.9",
    ];
    let odd: Vec<IpAddr> = odd.iter().map(|text| text.parse().expect("an address")).collect();
    cluster.announce_with(&odd);
    cluster.wait_until_all_active();
    for address in &odd {
        let row = cluster.wait_for_state(*address, "refused");
        assert!(row["reason"].contains(&address.to_string()), "{row:?}");
        assert_eq!(&row["round_trip_ms"], "", "it was probed: {row:?}");
    }
    assert_eq!(cluster.nodes().len(), 1);
}

fn networks_that_are_not_allowed() {
    let cluster = cluster();
    let outside = Server::start(cluster.worker_spec("outside").set("log_connections", "on"));
    let inside = cluster.workers[0].address;
    // The loopback rule lets every loopback address in where the coordinator is one: name another.
    cluster.coordinator.run("SELECT citus_set_coordinator_host('coordinator.invalid', 5432)");
    cluster.coordinator.set("citus_fleet.allowed_networks", &format!("{inside}/32"));
    cluster.announce_with(&[outside.address]);
    let row = cluster.wait_for_state(outside.address, "refused");
    assert!(row["reason"].contains(&outside.address.to_string()), "{row:?}");
    until("the one inside is not refused", SOON, || {
        let row = cluster.worker_at(inside)?;
        if &row["state"] == "refused" { Err(format!("{row:?}")) } else { Ok(()) }
    });
    assert!(outside.log().contains("connection received: host=[local]"));
    assert!(!outside.log().contains("connection received: host=127."), "it was connected to");
}

fn names_that_are_not_allowed() {
    let cluster = cluster();
    let other = Server::start(cluster.worker_spec("other"));
    cluster.dns.addresses("worker.allowed.test", &[cluster.workers[0].address]);
    cluster.dns.addresses("worker.notallowed.test", &[other.address]);
    let source = |name: &str| format!("{name}:{}", port());
    let sources = [source("worker.allowed.test"), source("worker.notallowed.test"), source(WORKER)];
    cluster.coordinator.set_all(&[
        ("citus_fleet.allowed_names", "allowed.test"),
        ("citus_fleet.workers", &sources.join(",")),
    ]);
    cluster.wait_until_all_active();
    let row = cluster.wait_for_state(other.address, "refused");
    assert!(row["reason"].contains("worker.notallowed.test"), "{row:?}");
    cluster.coordinator.set("citus_fleet.allowed_names", "");
    cluster.wait_for_state(other.address, "active");
}
