//! What an operator calls: `citus_autoregister()`, `fleet.pause()`, and `citus_fleet.enabled`.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::Row;
use citus_fleet_tests::{Cluster, Need, Server, until};

pub fn suite() -> Vec<Test> {
    suite!("commands", &[Need::Fleet, Need::Citus, Need::Vector];
        autoregister_says_what_it_does,
        autoregister_is_not_undone_by_a_rollback,
        pause_and_resume,
        enabled_off_only_observes,
    )
}

fn actions(rows: &[Row]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> =
        rows.iter().map(|row| (row["action"].to_string(), row["outcome"].to_string())).collect();
    pairs.sort();
    pairs
}

pub fn autoregister(cluster: &Cluster) -> Vec<Row> {
    cluster.coordinator.rows("SELECT * FROM citus_autoregister()")
}

fn autoregister_says_what_it_does() {
    // Only the calls can have done it: one that ends also wakes the controller for a cycle of its own.
    let cluster = Plan::workers(2).unannounced().set("citus_fleet.enabled", "off").start();
    let refused = Server::start(cluster.plain_spec("no-citus"));
    until("the first cycle is over", SOON, || {
        match cluster.coordinator.try_value("SELECT fleet.status()->>'cycles'")?.as_str() {
            "" | "0" => Err("no cycle yet".to_string()),
            _ => Ok(()),
        }
    });
    cluster.announce_with(&[refused.address]);

    let planned = cluster.coordinator.rows("SELECT * FROM citus_autoregister(dry_run => true)");
    let registered = |outcome: &str| ("register".to_string(), outcome.to_string());
    let by_outcome: Vec<_> =
        actions(&planned).into_iter().filter(|(action, _)| action == "register").collect();
    assert_eq!(by_outcome, [registered("planned"), registered("planned")]);
    assert!(cluster.nodes().is_empty());

    let done = autoregister(&cluster);
    let by_outcome: Vec<_> =
        actions(&done).into_iter().filter(|(action, _)| action == "register").collect();
    assert_eq!(by_outcome, [registered("done"), registered("done")]);
    let nodes = cluster.nodes();
    assert_eq!(nodes.len(), 2);
    for row in done.iter().filter(|row| &row["action"] == "register") {
        let node = nodes.iter().find(|node| node["nodeid"] == row["nodeid"]);
        assert_eq!(node.map(|node| &node["nodename"]), Some(&row["nodename"]), "{row:?}");
    }
    let refusal = done.iter().find(|row| row["nodename"] == refused.address.to_string());
    let refusal = refusal.unwrap_or_else(|| panic!("no word of the refused server: {done:?}"));
    assert_eq!(&refusal["action"], "refuse");
    assert!(refusal["reason"].contains("citus"), "{refusal:?}");

    let again = autoregister(&cluster);
    assert!(again.iter().all(|row| matches!(&row["action"], "none" | "refuse")), "{again:?}");
    assert_eq!(again.iter().filter(|row| &row["action"] == "none").count(), 2, "{again:?}");
    assert_eq!(cluster.nodes().len(), 2);
}

fn autoregister_is_not_undone_by_a_rollback() {
    let cluster = Plan::workers(1).set("citus_fleet.enabled", "off").start();
    let mut session = cluster.coordinator.session();
    session.run("BEGIN");
    let rows = session.rows("SELECT * FROM citus_autoregister()");
    assert!(rows.iter().any(|row| &row["outcome"] == "done"), "{rows:?}");
    session.run("ROLLBACK");
    assert_eq!(cluster.nodes().len(), 1);
    cluster.wait_for_state(cluster.workers[0].address, "active");
}

fn pause_and_resume() {
    let cluster = Plan::workers(1).unannounced().start();
    cluster.coordinator.run("SELECT fleet.pause()");
    cluster.announce_all();
    let address = cluster.workers[0].address;
    let row = cluster.wait_for_state(address, "ready");
    assert!(row["reason"].to_lowercase().contains("pause"), "{row:?}");
    assert!(row["remedy"].contains("fleet.resume"), "{row:?}");
    assert_eq!(cluster.coordinator.value("SELECT fleet.status()->>'paused'"), "true");
    let rows = autoregister(&cluster);
    assert_eq!(actions(&rows), [("register".to_string(), "skipped".to_string())]);
    assert!(cluster.nodes().is_empty());

    cluster.coordinator.restart();
    cluster.wait_for_state(address, "ready");
    assert_eq!(cluster.coordinator.value("SELECT fleet.status()->>'paused'"), "true");
    cluster.coordinator.run("SELECT fleet.resume()");
    cluster.wait_for_state(address, "active");
    assert_eq!(cluster.coordinator.value("SELECT fleet.status()->>'paused'"), "false");
}

fn enabled_off_only_observes() {
    let cluster = Plan::workers(1).set("citus_fleet.enabled", "off").start();
    let address = cluster.workers[0].address;
    let row = cluster.wait_for_state(address, "ready");
    assert!(row["reason"].contains("enabled"), "{row:?}");
    cluster.wait_for_cycles(2);
    assert!(cluster.nodes().is_empty());
    cluster.coordinator.set("citus_fleet.enabled", "on");
    cluster.wait_for_state(address, "active");
}
