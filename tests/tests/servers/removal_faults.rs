//! Workers are removed whatever has become of them: stopped, hanging, replaced by a stranger, or two at once.
//! Nothing is written to a stranger, and nobody waits for whoever does not answer.

use crate::lifecycle::{FIRST, distribute_items, node_id, wait_for_node_state, with_items};
use crate::removal::{call, traces};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::wait::within;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, until};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("removal_faults", &[Need::Fleet, Need::Citus, Need::Vector];
        a_frozen_worker_goes_at_once,
        a_stranger_at_the_address_is_not_written_to,
        two_dead_workers_go_one_after_the_other,
        of_two_dead_workers_one_comes_back,
        a_dead_and_a_replaced_worker_go,
        leftovers_that_endanger_a_drain_are_told_of,
    )
}

/// Workers of which the last `empty` hold no shards.
#[track_caller]
fn with_empty(workers: usize, empty: usize) -> Cluster {
    let cluster = Plan::workers(workers).start();
    cluster.wait_until_all_active();
    for worker in &cluster.workers[workers - empty..] {
        cluster.coordinator.run(&format!(
            "SELECT citus_set_node_property('{}', {}, 'shouldhaveshards', false)",
            worker.address, worker.port
        ));
    }
    distribute_items(&cluster);
    cluster
        .coordinator
        .run("CREATE TABLE labels (id int PRIMARY KEY); SELECT create_reference_table('labels')");
    cluster
}

/// Removes one that cannot be asked; nobody may wait for it.
#[track_caller]
fn remove_unheard(cluster: &Cluster, worker: &Server) {
    let sql = format!("SELECT fleet.remove_worker('{}', {}, false)", worker.address, worker.port);
    let (_, taken) =
        within("the removal", Duration::from_secs(15), || cluster.coordinator.session().run(&sql));
    assert!(taken < Duration::from_secs(10), "{taken:?}");
}

fn a_frozen_worker_goes_at_once() {
    let cluster = with_empty(2, 1);
    let frozen = &cluster.workers[1];
    let nodeid = node_id(&cluster, frozen);
    frozen.freeze();
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    assert_eq!(cluster.coordinator.session().error(&call(frozen)).state, "55000");
    remove_unheard(&cluster, frozen);
    frozen.thaw();
    let row = cluster.wait_for_state(frozen.address, "removed");
    assert!(row["reason"].contains("still takes itself for a worker"), "{row:?}");
    assert_eq!(cluster.nodes().len(), 1);
    assert_exact(&cluster.coordinator, FIRST);
}

/// Another cluster, and its worker at the address of one of ours that has died.
#[track_caller]
fn replace(cluster: &Cluster, dead: &Server) -> Cluster {
    let mut other = Plan::workers(2).without_fleet().start();
    for worker in &other.workers {
        other.add_by_hand(worker);
    }
    let nodeid = node_id(cluster, dead);
    dead.stop(Shutdown::Immediate);
    wait_for_node_state(cluster, &nodeid, "unreachable");
    let stranger = &mut other.workers[1];
    stranger.stop(Shutdown::Fast);
    stranger.move_to(dead.address);
    stranger.begin();
    wait_for_node_state(cluster, &nodeid, "conflict");
    other
}

fn holdings(server: &Server) -> Vec<String> {
    ["pg_dist_local_group", "pg_dist_node", "pg_dist_partition", "pg_dist_placement"]
        .iter()
        .map(|table| {
            format!("{:?}", server.rows(&format!("SELECT t::text FROM {table} t ORDER BY 1")))
        })
        .collect()
}

fn a_stranger_at_the_address_is_not_written_to() {
    let cluster = with_empty(2, 1);
    let dead = &cluster.workers[1];
    let nodeid = node_id(&cluster, dead);
    let other = replace(&cluster, dead);
    let stranger = &other.workers[1];
    let before = holdings(stranger);
    remove_unheard(&cluster, dead);
    assert_eq!(holdings(stranger), before, "the stranger was written to");
    let gone = format!("SELECT count(*) FROM pg_dist_node WHERE nodeid = {nodeid}");
    for server in [&cluster.coordinator, &cluster.workers[0]] {
        assert_eq!(server.session().value(&gone), "0", "{}", server.name);
    }
    cluster.wait_for_state(dead.address, "refused");
    cluster.wait_for_cycles(3);
    assert_eq!(holdings(stranger), before);
    assert_exact(&cluster.coordinator, FIRST);
}

fn two_dead_workers_go_one_after_the_other() {
    let cluster = with_empty(3, 2);
    let [stays, one, other] = &cluster.workers[..] else { unreachable!() };
    let dead = [one, other].map(|worker| (worker, node_id(&cluster, worker)));
    for (worker, nodeid) in &dead {
        worker.stop(Shutdown::Immediate);
        wait_for_node_state(&cluster, nodeid, "unreachable");
    }
    for (worker, nodeid) in &dead {
        remove_unheard(&cluster, worker);
        let gone = format!("SELECT count(*) FROM pg_dist_node WHERE nodeid = {nodeid}");
        for server in [&cluster.coordinator, stays] {
            assert_eq!(server.session().value(&gone), "0", "{}", server.name);
        }
    }
    assert_exact(stays, FIRST);
    // Nothing is in the way of the next.
    let new = Server::start(cluster.worker_spec("new"));
    cluster.announce(&[stays.address, new.address]);
    cluster.wait_for_state(new.address, "active");
}

fn of_two_dead_workers_one_comes_back() {
    let cluster = with_empty(3, 2);
    let [stays, back, gone] = &cluster.workers[..] else { unreachable!() };
    let nodeid = node_id(&cluster, back);
    for worker in [back, gone] {
        worker.stop(Shutdown::Immediate);
    }
    for worker in [back, gone] {
        wait_for_node_state(&cluster, &node_id(&cluster, worker), "unreachable");
    }
    remove_unheard(&cluster, gone);
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    back.begin();
    wait_for_node_state(&cluster, &nodeid, "active");
    // It has been told of what it had missed.
    let nodes = "SELECT nodeid, groupid, isactive, hasmetadata, metadatasynced FROM pg_dist_node ORDER BY nodeid";
    until("it knows the cluster as it is", SOON, || {
        let (ours, theirs) =
            (cluster.coordinator.session().rows(nodes), back.session().rows(nodes));
        let is_whole =
            ours.iter().all(|row| &row["hasmetadata"] == "t" && &row["metadatasynced"] == "t");
        let (ours, theirs) = (format!("{ours:?}"), format!("{theirs:?}"));
        if is_whole && ours == theirs { Ok(()) } else { Err(format!("{ours}, but {theirs}")) }
    });
    for server in [back, stays] {
        assert_exact(server, FIRST);
    }
}

fn a_dead_and_a_replaced_worker_go() {
    let cluster = with_empty(3, 2);
    let [stays, dead, replaced] = &cluster.workers[..] else { unreachable!() };
    let nodeids = [dead, replaced].map(|worker| node_id(&cluster, worker));
    dead.stop(Shutdown::Immediate);
    wait_for_node_state(&cluster, &nodeids[0], "unreachable");
    let other = replace(&cluster, replaced);
    let before = holdings(&other.workers[1]);
    remove_unheard(&cluster, dead);
    assert_eq!(holdings(&other.workers[1]), before, "the stranger was written to");
    wait_for_node_state(&cluster, &nodeids[1], "conflict");
    remove_unheard(&cluster, replaced);
    assert_eq!(holdings(&other.workers[1]), before, "the stranger was written to");
    assert_eq!(cluster.nodes().len(), 1);
    assert_exact(stays, FIRST);
}

fn leftovers_that_endanger_a_drain_are_told_of() {
    let cluster = with_items(Plan::workers(3).set("citus.defer_shard_delete_interval", "-1"));
    let [from, to, leaving] = &cluster.workers[..] else { unreachable!() };
    let citus =
        cluster.coordinator.value("SELECT extversion FROM pg_extension WHERE extname = 'citus'");
    let is_at_risk = ["13.2-", "13.3-", "14.0-", "14.1-"].iter().any(|it| citus.starts_with(it));
    let advice = || {
        let sql = "SELECT status, finding, remedy FROM fleet.doctor() WHERE \"check\" = 'pg_dist_cleanup'";
        cluster.coordinator.rows(sql).pop().expect("the check is there")
    };
    assert_eq!(&advice()["status"], "ok");
    let told = || cluster.coordinator.log().matches("can drop a live shard").count();
    let shard = cluster.coordinator.value(&format!(
        "SELECT min(shardid) FROM citus_shards WHERE nodename = '{}'",
        from.address
    ));
    cluster.coordinator.session().run(&format!(
        "SELECT citus_move_shard_placement({shard}, '{}', {}, '{}', {}, 'block_writes')",
        from.address, from.port, to.address, to.port
    ));
    let row = advice();
    if is_at_risk {
        assert!(row["finding"].contains("1 shards") && row["remedy"].contains("CALL"), "{row:?}");
    }
    assert_eq!(&row["status"] == "warning", is_at_risk, "{row:?}");
    assert_eq!(told(), 0);
    cluster.coordinator.session().run(&call(leaving));
    assert_eq!(told(), usize::from(is_at_risk));
    cluster.coordinator.run("CALL citus_cleanup_orphaned_resources()");
    assert_eq!(&advice()["status"], "ok");
    until("nothing is left on it", SOON, || traces(leaving));
    assert_exact(&cluster.coordinator, FIRST);
}
