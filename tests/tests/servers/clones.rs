//! Clones, which Citus 13.2 and later make workers of: standbys that it has registered beside their source. A
//! clone has the system identifier of its source, and neither is taken for the other.

use crate::lifecycle::{FIRST, node_id, wait_for_node_state, with_items};
use crate::removal::call;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::writer::{Writer, assert_exact};
use citus_fleet_tests::{Cluster, Need, Server, until};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("clones", &[Need::Fleet, Need::Citus, Need::Vector];
        a_clone_is_shown_promoted_and_outlives_its_source,
    )
}

#[track_caller]
fn clone(cluster: &Cluster, source: &Server) -> (Server, String) {
    // The name that the source sees it by, which Citus looks for.
    let address = cluster.subnet.address();
    let spec = source.twin(&address.to_string(), address);
    let clone = Server::standby_of(source, spec);
    let nodeid = cluster.coordinator.value(&format!(
        "SELECT citus_add_clone_node('{}', {}, '{}', {})",
        clone.address, clone.port, source.address, source.port
    ));
    (clone, nodeid)
}

fn a_clone_is_shown_promoted_and_outlives_its_source() {
    let cluster = with_items(Plan::workers(1));
    let can = "SELECT count(*) FROM pg_proc WHERE proname = 'citus_add_clone_node'";
    if cluster.coordinator.value(can) == "0" {
        return;
    }
    let source = &cluster.workers[0];
    let source_id = node_id(&cluster, source);
    let (clone, clone_id) = clone(&cluster, source);
    // It is shown whether a source names it or not.
    let says = format!("a clone of node {source_id}");
    for is_named in [false, true] {
        if is_named {
            cluster.announce_with(&[clone.address]);
        }
        until("it is shown as a clone", Duration::from_secs(20), || {
            let sql = format!("SELECT * FROM fleet.workers WHERE nodename = '{}'", clone.address);
            match cluster.coordinator.try_rows(&sql).map_err(|error| error.to_string())?.as_slice()
            {
                [row] if &row["code"] == "clone" && row["source"].is_empty() != is_named => {
                    assert_eq!((&row["state"], &row["nodeid"]), ("standby", clone_id.as_str()));
                    assert!(row["reason"].contains(&says), "{row:?}");
                    Ok(())
                }
                rows => Err(format!("{rows:?}")),
            }
        });
    }
    cluster.wait_for_state(source.address, "active");
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    let last = writer.finish();
    cluster
        .coordinator
        .session()
        .run(&format!("SELECT citus_promote_clone_and_rebalance({clone_id})"));
    wait_for_node_state(&cluster, &clone_id, "active");
    wait_for_node_state(&cluster, &source_id, "active");
    cluster.wait_for_cycles(5);
    let conflicts = "SELECT count(*) FROM fleet.events WHERE event IN ('conflict', 'blank')";
    assert_eq!(cluster.coordinator.value(conflicts), "0");
    assert_exact(&cluster.coordinator, last);
    // The source goes, and only the source.
    cluster.coordinator.session().run(&call(source));
    cluster.wait_for_state(source.address, "removed");
    wait_for_node_state(&cluster, &clone_id, "active");
    clone.restart();
    cluster.coordinator.restart();
    wait_for_node_state(&cluster, &clone_id, "active");
    cluster.wait_for_state(source.address, "removed");
    assert_exact(&cluster.coordinator, last);
    assert_eq!(cluster.coordinator.value(conflicts), "0");
}
