//! Somebody holds a lock that a change of the cluster needs: whoever waits says who that is, since when,
//! and how it is ended.

use crate::lifecycle::{
    FIRST, distribute_items, name_of, node_id, wait_for_node_state, wait_until_followed,
    with_items, worker,
};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::{Row, Session};
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, until};
use std::net::IpAddr;

pub fn suite() -> Vec<Test> {
    suite!("holders", &[Need::Fleet, Need::Citus, Need::Vector];
        a_session_that_keeps_a_worker_from_joining_is_named,
        a_prepared_transaction_that_keeps_a_worker_from_joining_is_named,
        a_pause_that_is_not_committed_is_named,
        a_writer_that_keeps_a_worker_from_moving_is_named,
        a_client_that_keeps_a_worker_from_leaving_is_named,
        a_session_that_keeps_all_workers_from_leaving_is_named,
        a_cluster_that_is_blocked_on_purpose_says_until_when_and_by_whom,
    )
}

/// Waits until the reason that is shown for an address tells of all this.
#[track_caller]
fn wait_for_reason(cluster: &Cluster, address: IpAddr, facts: &[&str]) -> Row {
    until(&format!("{facts:?} is the reason"), SOON, || {
        let row = cluster.worker_at(address)?;
        let tells = facts.iter().all(|fact| row["reason"].contains(fact));
        if tells { Ok(row) } else { Err(format!("{row:?}")) }
    })
}

/// A session that is called something and has begun this.
#[track_caller]
fn holding(server: &Server, called: &str, sql: &str) -> Session {
    let mut session = server.session();
    session.run(&format!("SET application_name = '{called}'; BEGIN; {sql}"));
    session
}

/// The one statement that a remedy ends with.
fn ending(remedy: &str) -> String {
    let start = ["SELECT pg_terminate", "ROLLBACK PREPARED"].iter().find_map(|it| remedy.find(it));
    remedy[start.unwrap_or_else(|| panic!("no statement in {remedy:?}"))..].to_owned()
}

fn a_session_that_keeps_a_worker_from_joining_is_named() {
    let cluster = Plan::workers(1).unannounced().start();
    cluster.coordinator.run("CREATE ROLE dba SUPERUSER LOGIN");
    let mut session = cluster.coordinator.session_as("dba", "postgres");
    session
        .run("SET application_name = 'night shift'; BEGIN; LOCK TABLE pg_dist_node IN SHARE MODE");
    // Somebody else who reads, which is in nobody's way.
    let mut reader = holding(&cluster.coordinator, "reader", "SELECT count(*) FROM pg_dist_node");
    let pid = session.pid().to_string();
    cluster.announce_all();
    let facts = [&format!("process {pid}"), "night shift", "role dba", "since 20"];
    let row = wait_for_reason(&cluster, cluster.workers[0].address, &facts);
    assert_eq!((&row["code"], &row["state"]), ("lock_held", "ready"), "{row:?}");
    assert!(!row["reason"].contains(&reader.pid().to_string()), "{row:?}");
    let pass = cluster.coordinator.rows("SELECT outcome, reason FROM citus_autoregister()");
    assert!(pass[0]["reason"].contains("night shift"), "{pass:?}");
    cluster.coordinator.run(&ending(&row["remedy"]));
    cluster.wait_until_all_active();
    reader.run("COMMIT");
}

fn a_prepared_transaction_that_keeps_a_worker_from_joining_is_named() {
    let cluster = Plan::workers(1).unannounced().start();
    cluster.coordinator.session().run(
        "BEGIN; LOCK TABLE pg_dist_node IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'it''s forgotten'",
    );
    cluster.announce_all();
    let facts = ["it's forgotten", "role postgres", "since 20"];
    let row = wait_for_reason(&cluster, cluster.workers[0].address, &facts);
    assert_eq!(&row["code"], "lock_held", "{row:?}");
    cluster.coordinator.run(&ending(&row["remedy"]));
    cluster.wait_until_all_active();
}

fn a_pause_that_is_not_committed_is_named() {
    let cluster = Plan::workers(1).unannounced().start();
    let mut session = holding(&cluster.coordinator, "hesitant", "SELECT fleet.pause()");
    cluster.announce_all();
    let pid = session.pid().to_string();
    wait_for_reason(&cluster, cluster.workers[0].address, &["hesitant", &pid]);
    session.run("ROLLBACK");
    cluster.wait_until_all_active();
}

fn a_writer_that_keeps_a_worker_from_moving_is_named() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeids: Vec<String> = cluster.workers.iter().map(|it| node_id(&cluster, it)).collect();
    // A row of a shard on each worker.
    let on = |nodeid: &str| {
        cluster.coordinator.value(&format!(
            "SELECT min(id) FROM generate_series(1, {FIRST}) id
             JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('items', id)
             JOIN pg_dist_node n USING (groupid) WHERE n.nodeid = {nodeid}"
        ))
    };
    let writes = |nodeid: &str| format!("UPDATE items SET v = v WHERE id = {}", on(nodeid));
    let mut bystander = holding(&cluster.coordinator, "bystander", &writes(&nodeids[0]));
    let mut writer = holding(&cluster.coordinator, "writer", &writes(&nodeids[1]));
    let pid = writer.pid().to_string();
    let new = IpAddr::from(cluster.subnet.address());
    cluster.workers[1].stop(Shutdown::Immediate);
    wait_for_node_state(&cluster, &nodeids[1], "unreachable");
    cluster.workers[1].move_to(new);
    cluster.workers[1].begin();
    cluster.announce_all();
    let row = until("the writer is named", SOON, || {
        let row = worker(&cluster.coordinator, &nodeids[1])?;
        // From when its server was found on, nobody is to start it.
        assert!(
            !row["reason"].contains(&new.to_string()) || !row["remedy"].contains("Start"),
            "{row:?}"
        );
        if row["reason"].contains(&pid) { Ok(row) } else { Err(format!("{row:?}")) }
    });
    assert!(!row["reason"].contains("bystander"), "{row:?}");
    assert!(row["remedy"].contains(&format!("pg_terminate_backend({pid})")), "{row:?}");
    assert_ne!(name_of(&cluster, &nodeids[1]), new.to_string());
    writer.try_rows("ROLLBACK").map(drop).expect("it is still there");
    bystander.run("ROLLBACK");
    wait_until_followed(&cluster, &nodeids[1], new);
    assert_exact(&cluster.coordinator, FIRST);
}

fn remove(worker: &Server) -> String {
    format!("SELECT fleet.remove_worker('{}', {})", worker.address, worker.port)
}

fn a_client_that_keeps_a_worker_from_leaving_is_named() {
    let cluster = with_items(Plan::workers(2));
    let leaving = &cluster.workers[1];
    let nodeid = node_id(&cluster, leaving);
    let mut client = holding(leaving, "report", "SELECT count(*) FROM items");
    let pid = client.pid().to_string();
    let error = cluster.coordinator.session().error(&remove(leaving));
    assert_eq!(error.state, "55P03", "{error}");
    for fact in ["report", &pid, &leaving.address.to_string()] {
        assert!(error.detail.contains(fact), "no {fact}: {error}");
    }
    assert!(error.hint.contains(&format!("pg_terminate_backend({pid})")), "{error}");
    wait_for_node_state(&cluster, &nodeid, "active");
    leaving.run(&format!("SELECT pg_terminate_backend({pid}, 10000)"));
    cluster.coordinator.session().run(&remove(leaving));
    assert_exact(&cluster.coordinator, FIRST);
}

fn a_session_that_keeps_all_workers_from_leaving_is_named() {
    let cluster = Plan::workers(1).start();
    cluster.wait_until_all_active();
    distribute_items(&cluster);
    cluster.keep_shards_on_coordinator();
    let leaving = &cluster.workers[0];
    let mut other =
        holding(&cluster.coordinator, "sleepy", "LOCK TABLE pg_dist_node IN ROW SHARE MODE");
    let pid = other.pid().to_string();
    let mut session = cluster.coordinator.session();
    session.run("SET lock_timeout = '3s'");
    let error = session.error(&remove(leaving));
    assert_eq!(error.state, "55P03", "{error}");
    assert!(error.detail.contains("sleepy") && error.detail.contains(&pid), "{error}");
    assert!(error.hint.contains(&format!("pg_terminate_backend({pid})")), "{error}");
    other.run("COMMIT");
    session.run(&remove(leaving));
    assert_exact(&cluster.coordinator, FIRST);
}

fn a_cluster_that_is_blocked_on_purpose_says_until_when_and_by_whom() {
    let cluster = Plan::workers(1).unannounced().start();
    let can = "SELECT to_regprocedure('citus_cluster_changes_block(int)') IS NOT NULL";
    if cluster.coordinator.value(can) == "f" {
        return;
    }
    let mut session = cluster.coordinator.session();
    session.run("SET application_name = 'backup'; SELECT citus_cluster_changes_block(300000)");
    cluster.announce_all();
    let facts = ["blocked until 20", "backup", "role postgres"];
    let row = wait_for_reason(&cluster, cluster.workers[0].address, &facts);
    assert_eq!(&row["code"], "changes_blocked", "{row:?}");
    assert!(row["remedy"].contains("citus_cluster_changes_unblock()"), "{row:?}");
    session.run("SELECT citus_cluster_changes_unblock()");
    cluster.wait_until_all_active();
}
