//! Cases from the field: what real clusters did to this extension. Each plays the sequence on real servers
//! and counts rows.

use crate::lifecycle::{
    FIRST, node_id, stays_at, wait_for_node_state, wait_until_followed, with_items, worker,
};
use crate::lifecycle_failover::wait_until_replayed;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, Writer, until};

pub fn suite() -> Vec<Test> {
    suite!("field", &[Need::Fleet, Need::Citus, Need::Vector];
        a_standby_that_never_saw_the_last_primarys_rows_is_not_followed,
        two_primaries_that_were_seen_together_stay_a_conflict,
        what_a_promoted_server_lacks_is_measured_and_can_be_too_much,
        a_restored_copy_of_the_coordinator_changes_nothing,
        two_coordinators_do_not_share_a_worker,
        who_is_no_coordinator_registers_nobody,
        an_older_state_of_a_worker_is_noticed,
        an_older_state_in_a_workers_place_does_not_heal_by_writing_on,
        a_table_that_came_since_the_probe_is_not_dropped,
        a_stranger_at_an_old_address_keeps_its_table,
    )
}

/// A standby of the cluster's first worker that streams and confirms nothing.
#[track_caller]
pub fn standby(cluster: &Cluster, name: &str) -> Server {
    let primary = &cluster.workers[0];
    let standby = Server::standby_of(primary, primary.twin(name, cluster.subnet.address()));
    wait_until_replayed(primary, &standby);
    standby
}

/// Waits until the node's server carries the coordinator's mark.
#[track_caller]
pub fn wait_until_marked(cluster: &Cluster, nodeid: &str) {
    until("the worker is marked", SOON, || {
        let sql = format!("SELECT mark IS NOT NULL FROM fleet.identities WHERE nodeid = {nodeid}");
        match cluster.coordinator.try_value(&sql)?.as_str() {
            "t" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

/// Cuts a standby off from its primary, which goes on.
#[track_caller]
pub fn cut_off(primary: &Server, standby: &Server) {
    standby.set("primary_conninfo", "host=127.0.0.1 port=1");
    until("it receives nothing any more", SOON, || {
        let sql = "SELECT count(*) FROM pg_stat_replication";
        match primary.try_value(sql)?.as_str() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

/// The data directory of the cluster's first worker as it is now; its server does not run.
#[track_caller]
pub fn backup(cluster: &Cluster) -> Server {
    let worker = &cluster.workers[0];
    let backup = Server::clone_of(worker, worker.twin("backup", cluster.subnet.address()));
    backup.stop(Shutdown::Fast);
    backup
}

/// Has at least so many more rows written; says which is the last.
#[track_caller]
pub fn write(cluster: &Cluster, more: u64) -> u64 {
    let writer = Writer::start(&cluster.coordinator, FIRST);
    while writer.acknowledged() < FIRST + more {
        writer.wait_for_more();
    }
    writer.finish()
}

/// Waits until the controller has seen, and written down, all that the cluster's first worker has flushed by
/// now; how far that is.
#[track_caller]
pub fn wait_until_seen(cluster: &Cluster, nodeid: &str) -> String {
    let worker = &cluster.workers[0];
    // The end of a page is no position that is recorded.
    let is_at_an_end = "SELECT (pg_current_wal_flush_lsn() - '0/0') % 1024 = 0";
    while worker.value(is_at_an_end) == "t" {
        worker.run("SELECT pg_logical_emit_message(true, 'test', 'one record more')");
    }
    let came = worker.value("SELECT pg_current_wal_flush_lsn()");
    until("the controller has seen all of it", SOON, || {
        let sql =
            format!("SELECT position >= '{came}' FROM fleet.identities WHERE nodeid = {nodeid}");
        let is_seen = cluster.coordinator.try_value(&sql)?;
        if is_seen == "t" { Ok(()) } else { Err(is_seen) }
    });
    came
}

/// The code that the fleet shows for an address.
#[track_caller]
pub fn wait_for_code(cluster: &Cluster, address: std::net::IpAddr, code: &str) -> String {
    until(&format!("{address} is {code}"), SOON, || {
        let sql = format!(
            "SELECT code || ': ' || coalesce(reason, '') || ' / ' || coalesce(remedy, '')
             FROM fleet.workers WHERE address = '{address}'"
        );
        let text = cluster.coordinator.try_value(&sql)?;
        if text.starts_with(&format!("{code}:")) { Ok(text) } else { Err(text) }
    })
}

/// Case 1. Two standbys, promoted one after the other, both reach timeline 2.
fn a_standby_that_never_saw_the_last_primarys_rows_is_not_followed() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let (first, second) = (standby(&cluster, "first"), standby(&cluster, "second"));
    cluster.announce_with(&[first.address, second.address]);
    cluster.wait_for_state(first.address, "standby");
    cluster.wait_for_state(second.address, "standby");
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    first.promote();
    cluster.workers[0] = first;
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    let last = write(&cluster, 300);

    let with_rows = cluster.workers[0].address;
    cluster.workers[0].kill();
    second.promote();
    let told = wait_for_code(&cluster, second.address, "parted");
    assert!(told.contains("fleet.accept_server("), "{told}");
    stays_at(&cluster, &nodeid, with_rows);
    wait_for_node_state(&cluster, &nodeid, "unreachable");

    // The one with the rows comes back, and nothing was lost.
    cluster.workers[0].begin();
    wait_until_followed(&cluster, &nodeid, with_rows);
    assert_exact(&cluster.coordinator, last);
    let missing = cluster.coordinator.value(
        "SELECT count(*) FROM fleet.events WHERE event = 'followed' AND (detail->>'lost_bytes')::int8 > 0",
    );
    assert_eq!(missing, "0");
}

/// Case 2. A standby is promoted beside its running worker, which is restarted later.
fn two_primaries_that_were_seen_together_stay_a_conflict() {
    let cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let old = cluster.workers[0].address;
    let copy = standby(&cluster, "copy");
    cluster.announce_with(&[copy.address]);
    cluster.wait_for_state(copy.address, "standby");
    copy.promote();
    wait_for_node_state(&cluster, &nodeid, "conflict");
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    let last = writer.finish();

    cluster.coordinator.forget_session();
    cluster.workers[0].stop(Shutdown::Fast);
    wait_for_node_state(&cluster, &nodeid, "conflict");
    stays_at(&cluster, &nodeid, old);
    cluster.coordinator.restart();
    let row = wait_for_node_state(&cluster, &nodeid, "conflict");
    assert!(row["remedy"].contains("fleet.accept_server("), "{row:?}");
    stays_at(&cluster, &nodeid, old);
    cluster.workers[0].begin();
    copy.stop(Shutdown::Fast);
    cluster.wait_for_cycles(3);
    wait_for_node_state(&cluster, &nodeid, "conflict");
    assert_exact(&cluster.coordinator, last);

    let port = cluster.workers[0].port;
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('{old}', {port})"));
    wait_until_followed(&cluster, &nodeid, old);
    assert_exact(&cluster.coordinator, last);
    // Also when the other one is back.
    copy.begin();
    wait_for_code(&cluster, copy.address, "copy");
    stays_at(&cluster, &nodeid, old);
    wait_until_followed(&cluster, &nodeid, old);
}

fn what_a_promoted_server_lacks_is_measured_and_can_be_too_much() {
    let mut cluster = with_items(Plan::workers(2).set("citus_fleet.max_lost_wal", "0"));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let lagging = standby(&cluster, "lagging");
    cluster.announce_with(&[lagging.address]);
    cluster.wait_for_state(lagging.address, "standby");
    // It is cut off, and the worker goes on.
    cut_off(&cluster.workers[0], &lagging);
    write(&cluster, 100);
    wait_until_seen(&cluster, &nodeid);
    let old = cluster.workers[0].address;
    let port = cluster.workers[0].port;
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    lagging.promote();
    until("it lacks too much", SOON, || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        let is_told = row["state"] == *"conflict" && row["reason"].contains("max_lost_wal is 0");
        if is_told { Ok(()) } else { Err(format!("{row:?}")) }
    });
    stays_at(&cluster, &nodeid, old);

    cluster.workers[0] = lagging;
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('{old}', {port})"));
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    let rows: u64 = cluster.coordinator.value("SELECT count(*) FROM items").parse().unwrap();
    assert!(rows < FIRST + 100, "{rows} rows: nothing was lost, and the test proves nothing");
    let lost =
        "SELECT (detail->>'lost_bytes')::int8 > 0 FROM fleet.events WHERE event = 'accepted'";
    assert_eq!(cluster.coordinator.value(lost), "t");
}

/// Case 3. A base backup of the coordinator is started elsewhere, with the configuration of its own.
fn a_restored_copy_of_the_coordinator_changes_nothing() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let copy = Server::clone_of(
        &cluster.coordinator,
        cluster.coordinator.twin("copy", cluster.subnet.address()),
    );
    // The worker moves: both would follow it.
    let address = cluster.subnet.address();
    cluster.workers[0].stop(Shutdown::Fast);
    cluster.workers[0].move_to(address);
    cluster.announce_all();
    cluster.workers[0].begin();
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    until("the copy says that there are two", SOON, || {
        let text = copy.try_value("SELECT fleet.status()->>'disputed'")?;
        if text == "true" { Ok(()) } else { Err(text) }
    });
    let error = copy.error("SELECT fleet.remove_worker('127.0.0.1', 1)");
    assert!(!error.message.is_empty());
    let rows = "SELECT count(*) FROM pg_dist_node n WHERE n.nodename = ";
    let moved = cluster.workers[0].address;
    assert_eq!(copy.value(&format!("{rows} '{moved}'")), "0", "the copy has followed");
    assert_eq!(cluster.coordinator.value(&format!("{rows} '{moved}'")), "1");
    // What the workers know is the coordinator's view.
    let view =
        "SELECT string_agg(nodename || ':' || nodeport, ' ' ORDER BY nodeid) FROM pg_dist_node";
    let ours = cluster.coordinator.value(view);
    for one in &cluster.workers {
        until("the worker has the coordinator's view", SOON, || {
            let theirs = one.try_value(view)?;
            if theirs == ours { Ok(()) } else { Err(theirs) }
        });
    }
    assert_exact(&cluster.coordinator, FIRST);
}

/// Case 36. Two coordinators have one source and a blank worker.
fn two_coordinators_do_not_share_a_worker() {
    let cluster = Plan::workers(1).unannounced().start();
    let plan = Plan::workers(0);
    let spec = plan.coordinator_spec("rival", &cluster.subnet, &cluster.dns);
    let rival = Server::start(spec);
    let (host, port) = (rival.address, rival.port);
    rival.run(&format!("SELECT citus_set_coordinator_host('{host}', {port})"));
    rival.run("CREATE EXTENSION citus_fleet");
    cluster.announce_all();
    let has =
        |server: &Server| server.try_value("SELECT count(*) FROM pg_dist_node WHERE groupid <> 0");
    until("one of them has it", SOON, || {
        match (has(&cluster.coordinator)?.as_str(), has(&rival)?.as_str()) {
            ("1", "0") | ("0", "1") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let (winner, loser) = match has(&rival).unwrap().as_str() {
        "1" => (&rival, &cluster.coordinator),
        _ => (&cluster.coordinator, &rival),
    };
    until("the other refuses it", SOON, || {
        let code = loser.try_value("SELECT code FROM fleet.workers")?;
        if code == "foreign_worker" { Ok(()) } else { Err(code) }
    });
    // Taken over by force, it is a conflict within a probe.
    let worker = &cluster.workers[0];
    let (address, port) = (worker.address, worker.port);
    loser.run(&format!("SELECT citus_add_node('{address}', {port})"));
    until("the first one notices", SOON, || {
        let code = winner.try_value("SELECT code FROM fleet.workers WHERE nodeid IS NOT NULL")?;
        if matches!(code.as_str(), "taken_over" | "other_group") { Ok(()) } else { Err(code) }
    });
}

/// Case 37. A server with the sources in its configuration and neither a row nor a name of its own.
fn who_is_no_coordinator_registers_nobody() {
    let cluster = Plan::workers(1).start();
    cluster.wait_until_all_active();
    let plan = Plan::workers(0).set("citus_fleet.allowed_networks", "127.0.0.0/8");
    let stranger = Server::start(plan.coordinator_spec("stranger", &cluster.subnet, &cluster.dns));
    stranger.run("CREATE EXTENSION citus_fleet");
    let blank = Server::start(cluster.worker_spec("blank"));
    cluster.coordinator.run("SELECT fleet.pause()");
    cluster.announce_with(&[blank.address]);
    until("it says that it is not known to be a coordinator", SOON, || {
        let sql = format!("SELECT code FROM fleet.workers WHERE address = '{}'", blank.address);
        let code = stranger.try_value(&sql)?;
        if code == "no_own_address" { Ok(()) } else { Err(code) }
    });
    assert_eq!(stranger.value("SELECT count(*) FROM pg_dist_node"), "0");
    assert_eq!(blank.value("SELECT count(*) FROM pg_dist_node"), "0");
}

/// Case 5. A worker's data directory is taken back to an older state.
fn an_older_state_of_a_worker_is_noticed() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let backup = backup(&cluster);
    write(&cluster, 300);
    wait_until_seen(&cluster, &nodeid);
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    backup.begin();
    cluster.announce_with(&[backup.address]);
    wait_for_code(&cluster, backup.address, "parted");
    stays_at(&cluster, &nodeid, cluster.workers[0].address);
    cluster.workers[0].begin();
    backup.stop(Shutdown::Fast);
    let back = cluster.workers[0].address;
    wait_until_followed(&cluster, &nodeid, back);
    cluster.workers.truncate(2);
}

/// The same at the worker's own address, where clients go on writing to it.
fn an_older_state_in_a_workers_place_does_not_heal_by_writing_on() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let (address, port) = (cluster.workers[0].address, cluster.workers[0].port);
    let mut backup = backup(&cluster);
    let last = write(&cluster, 300);
    // It is recorded, and so known to a controller that is started anew.
    let came = wait_until_seen(&cluster, &nodeid);
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    backup.move_to(address);
    backup.begin();
    cluster.workers[0] = backup;
    wait_for_code(&cluster, address, "diverged");
    let ids: u64 = cluster.coordinator.value("SELECT count(*) FROM items").parse().unwrap();
    assert!(ids < last, "{ids} rows of {last}: nothing was lost, and the test proves nothing");

    let writer = Writer::start(&cluster.coordinator, last);
    until("it has written as much again", SOON, || {
        let sql = format!("SELECT pg_current_wal_flush_lsn() > '{came}'");
        let has = cluster.workers[0].try_value(&sql)?;
        if has == "t" { Ok(()) } else { Err(has) }
    });
    writer.finish();
    cluster.wait_for_cycles(3);
    cluster.coordinator.restart();
    cluster.wait_for_cycles(3);
    wait_for_node_state(&cluster, &nodeid, "conflict");
    let told = wait_for_code(&cluster, address, "diverged");
    assert!(told.contains("fleet.accept_server("), "{told}");

    let events = "SELECT coalesce(string_agg(code, ' ' ORDER BY id), '') FROM fleet.events
                  WHERE id > (SELECT max(id) FROM fleet.events WHERE event = 'accepted')";
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('{address}', {port})"));
    wait_until_followed(&cluster, &nodeid, address);
    cluster.wait_for_cycles(3);
    let since = cluster.coordinator.value(events);
    assert!(!since.contains("parted") && !since.contains("diverged"), "{since}");
}

/// A table that is created on a candidate after it was probed.
fn a_table_that_came_since_the_probe_is_not_dropped() {
    let cluster = with_items(Plan::workers(1).set("citus_fleet.interval", "60s"));
    let newcomer = Server::start(cluster.worker_spec("newcomer"));
    cluster.coordinator.run("SELECT fleet.pause()");
    cluster.announce_with(&[newcomer.address]);
    cluster.coordinator.run("SELECT pg_catalog.citus_autoregister(true)");
    wait_for_code(&cluster, newcomer.address, "fleet_paused");
    newcomer.run("CREATE TABLE items (a int, note text); INSERT INTO items VALUES (1, 'mine')");
    cluster.coordinator.run("SELECT fleet.resume()");
    wait_for_code(&cluster, newcomer.address, "table_would_be_dropped");
    assert_eq!(newcomer.value("SELECT note FROM items"), "mine");
}

/// A worker moves, and somebody else's empty server with a table of that name has its old address.
fn a_stranger_at_an_old_address_keeps_its_table() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let (old, port) = (cluster.workers[0].address, cluster.workers[0].port);
    let next = cluster.subnet.address();
    cluster.workers[0].stop(Shutdown::Fast);
    cluster.workers[0].move_to(next);
    let mut spec = cluster.worker_spec("stranger");
    spec.addresses = vec![old];
    let stranger = Server::start(spec);
    assert_eq!(stranger.port, port);
    stranger.run("CREATE TABLE items (a int, note text); INSERT INTO items VALUES (1, 'mine')");
    cluster.workers[0].begin();
    cluster.announce_with(&[old]);
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    wait_for_code(&cluster, old, "table_would_be_dropped");
    assert_eq!(stranger.value("SELECT note FROM items"), "mine");
}
