//! `citus_fleet.rebalance_on_join`: shards move to workers that have joined, by one job of Citus's
//! own, and not while anything else is going on.

use crate::lifecycle::{FIRST, distribute_items, node_id, wait_for_node_state};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Writer, until};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("rebalance", &[Need::Fleet, Need::Citus, Need::Vector];
        shards_move_to_a_worker_that_has_joined,
        a_sick_worker_keeps_shards_from_moving,
    )
}

/// Joins have to settle first, and moves take their time.
const REBALANCED: Duration = Duration::from_secs(90);

const JOBS: &str = "SELECT count(*) FROM pg_dist_background_job";

/// Two workers with all the shards, and one that DNS does not name yet.
#[track_caller]
fn two_of_three() -> Cluster {
    let cluster = Plan::workers(3).set("citus_fleet.rebalance_on_join", "on").unannounced().start();
    let [first, second, _] = &cluster.workers[..] else { unreachable!() };
    cluster.announce(&[first.address, second.address]);
    cluster.wait_for_state(first.address, "active");
    cluster.wait_for_state(second.address, "active");
    distribute_items(&cluster);
    cluster
}

/// Waits until a worker has shards and the job that moved them is done.
#[track_caller]
fn wait_until_rebalanced(cluster: &Cluster, joined: &Server) {
    until("shards have moved", REBALANCED, || {
        let job = cluster.coordinator.try_value("SELECT state FROM pg_dist_background_job")?;
        let sql =
            format!("SELECT count(*) FROM citus_shards WHERE nodename = '{}'", joined.address);
        let shards = cluster.coordinator.try_value(&sql)?;
        let is_done = job == "finished" && shards == "2";
        if is_done { Ok(()) } else { Err(format!("job {job}, {shards} shards")) }
    });
}

fn shards_move_to_a_worker_that_has_joined() {
    let cluster = two_of_three();
    let joined = &cluster.workers[2];
    let writer = Writer::start(&cluster.coordinator, FIRST);
    cluster.announce_all();
    cluster.wait_for_state(joined.address, "active");
    let row = until("it says what it waits for", REBALANCED, || {
        let row = cluster.worker_at(joined.address)?;
        if row["reason"].is_empty() { Err(format!("{row:?}")) } else { Ok(row) }
    });
    assert!(row["reason"].contains("just joined"), "{row:?}");
    until("it shows how far the moves are", REBALANCED, || {
        let row = cluster.worker_at(joined.address)?;
        if row["reason"].contains("of 2 moves") { Ok(()) } else { Err(format!("{row:?}")) }
    });
    wait_until_rebalanced(&cluster, joined);
    writer.wait_for_more();
    assert_exact(&cluster.coordinator, writer.finish());
    // Once: it is balanced, and nobody has joined since.
    cluster.wait_for_cycles(3);
    assert_eq!(cluster.coordinator.value(JOBS), "1");
    assert_eq!(cluster.wait_for_state(joined.address, "active")["reason"].to_string(), "");
}

fn a_sick_worker_keeps_shards_from_moving() {
    let cluster = two_of_three();
    let [sick, _, joined] = &cluster.workers[..] else { unreachable!() };
    let nodeid = node_id(&cluster, sick);
    cluster.announce_all();
    cluster.wait_for_state(joined.address, "active");
    sick.freeze();
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    let reason = format!("{}:{} is unreachable", sick.address, sick.port);
    until("it says what it waits for", REBALANCED, || {
        let row = cluster.worker_at(joined.address)?;
        if row["reason"].contains(&reason) { Ok(()) } else { Err(format!("{row:?}")) }
    });
    cluster.wait_for_cycles(3);
    assert_eq!(cluster.coordinator.value(JOBS), "0");
    sick.thaw();
    wait_until_rebalanced(&cluster, joined);
    assert_exact(&cluster.coordinator, FIRST);
}
