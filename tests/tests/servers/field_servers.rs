//! Cases from the field about who may be followed, and taken for a worker's server. Each plays the sequence
//! on real servers and counts rows.

use crate::field::{
    backup, cut_off, standby, wait_for_code, wait_until_marked, wait_until_seen, write,
};
use crate::lifecycle::{
    FIRST, node_id, stays_at, wait_for_node_state, wait_until_followed, with_items, worker,
};
use crate::lifecycle_failover::wait_until_replayed;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, until};

pub fn suite() -> Vec<Test> {
    suite!("field_servers", &[Need::Fleet, Need::Citus, Need::Vector];
        a_running_primary_that_lets_nobody_in_is_not_silent,
        a_worker_under_another_identity_keeps_its_row,
        a_move_that_a_lock_holds_up_keeps_its_mark,
        a_position_from_before_a_follow_is_not_one_of_the_new_server,
        nobody_elses_worker_is_accepted,
        an_accepted_server_has_its_metadata_written_anew,
        a_promoted_secondary_says_which_node_is_in_its_way,
        an_owner_of_the_database_cannot_choose_the_controllers_role,
    )
}

fn address_of(cluster: &Cluster, nodeid: &str) -> String {
    cluster.coordinator.value(&format!("SELECT nodename FROM pg_dist_node WHERE nodeid = {nodeid}"))
}

/// pg_hba.conf of a running worker rejects the coordinator, and its standby is promoted.
fn a_running_primary_that_lets_nobody_in_is_not_silent() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let beside = standby(&cluster, "beside");
    cluster.announce_with(&[beside.address]);
    cluster.wait_for_state(beside.address, "standby");
    cluster.coordinator.forget_session();
    let (old, port) = (cluster.workers[0].address, cluster.workers[0].port);
    cluster.workers[0].set_hba(&["host all all 0.0.0.0/0 reject"]);
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    wait_until_replayed(&cluster.workers[0], &beside);
    beside.promote();
    let told = wait_for_code(&cluster, old, "held_by_its_address");
    assert!(told.contains(&beside.address.to_string()), "{told}");
    // Longer than silence takes, and after a restart of the controller.
    cluster.coordinator.restart();
    until("six seconds have passed", SOON, || {
        let sql = "SELECT now() - pg_postmaster_start_time() > interval '8 s'";
        if cluster.coordinator.try_value(sql)? == "t" { Ok(()) } else { Err("not yet".to_owned()) }
    });
    stays_at(&cluster, &nodeid, old);
    wait_for_code(&cluster, old, "held_by_its_address");

    // The operator knows, and the row follows without waiting for the old one to let anybody in.
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('{old}', {port})"));
    cluster.workers[0] = beside;
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    assert_exact(&cluster.coordinator, FIRST);
}

/// pg_upgrade of a worker, and a standby from before it.
fn a_worker_under_another_identity_keeps_its_row() {
    let cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let before = standby(&cluster, "before");
    cluster.announce_with(&[before.address]);
    cluster.wait_for_state(before.address, "standby");
    cluster.coordinator.forget_session();
    let (address, port) = (cluster.workers[0].address, cluster.workers[0].port);
    cluster.workers[0].run("SELECT citus_prepare_pg_upgrade()");
    cluster.workers[0].upgrade();
    wait_for_code(&cluster, address, "upgrade_not_finished");
    cluster.workers[0].run("SELECT citus_finish_pg_upgrade()");
    let told = wait_for_code(&cluster, address, "another_server");
    assert!(told.contains("fleet.accept_server("), "{told}");
    before.promote();
    wait_for_code(&cluster, address, "two_servers");
    cluster.wait_for_cycles(8);
    stays_at(&cluster, &nodeid, address);
    before.stop(Shutdown::Fast);
    cluster.wait_for_state(before.address, "unreachable");
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('{address}', {port})"));
    wait_until_followed(&cluster, &nodeid, address);
    assert_exact(&cluster.coordinator, FIRST);
}

/// A client's open transaction holds up every attempt to lead the row to the promoted server.
fn a_move_that_a_lock_holds_up_keeps_its_mark() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let next = standby(&cluster, "next");
    cluster.announce_with(&[next.address]);
    cluster.wait_for_state(next.address, "standby");
    let id = cluster.coordinator.value(&format!(
        "SELECT min(id) FROM generate_series(1, {FIRST}) id
         JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('items', id)
         JOIN pg_dist_node n USING (groupid) WHERE n.nodeid = {nodeid}"
    ));
    let mut client = cluster.coordinator.session();
    client.run(&format!("BEGIN; UPDATE items SET v = v WHERE id = {id}"));
    wait_until_replayed(&cluster.workers[0], &next);
    cluster.workers[0].kill();
    next.promote();
    until("the lock is in the way", SOON, || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        if row["reason"].contains("held by") { Ok(()) } else { Err(format!("{row:?}")) }
    });
    // More attempts than marks are kept.
    for _ in 0..18 {
        cluster.coordinator.session().run("SELECT citus_autoregister()");
    }
    let marks: u64 = next.value("SELECT count(*) FROM fleet.marks").parse().unwrap();
    assert!((2..=18).contains(&marks), "{marks} marks");
    client.run("ROLLBACK");
    cluster.coordinator.session().run("SELECT citus_autoregister()");
    cluster.workers[0] = next;
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    assert_exact(&cluster.coordinator, FIRST);
}

/// A lagging standby is followed with loss, and the first answer of the new server comes late.
fn a_position_from_before_a_follow_is_not_one_of_the_new_server() {
    let plan = Plan::workers(2).set("citus_fleet.probe_timeout", "3s");
    let mut cluster = with_items(plan);
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let lagging = standby(&cluster, "lagging");
    cluster.announce_with(&[lagging.address]);
    cluster.wait_for_state(lagging.address, "standby");
    cut_off(&cluster.workers[0], &lagging);
    write(&cluster, 300);
    wait_until_seen(&cluster, &nodeid);
    lagging.set("post_auth_delay", "1");
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    lagging.promote();
    cluster.workers[0] = lagging;
    let now = cluster.workers[0].address.to_string();
    until("the row has followed", SOON, || {
        let at = address_of(&cluster, &nodeid);
        if at == now { Ok(()) } else { Err(at) }
    });
    cluster.wait_for_cycles(8);
    let row = worker(&cluster.coordinator, &nodeid).expect("the worker");
    assert_eq!(&row["code"], "followed_with_loss", "{row:?}");
    let rival = format!("SELECT rival IS NULL FROM fleet.identities WHERE nodeid = {nodeid}");
    assert_eq!(cluster.coordinator.value(&rival), "t");
}

/// Another cluster has shards of the same names; and a server that was left behind is nobody's while the
/// worker runs.
fn nobody_elses_worker_is_accepted() {
    let mut cluster = with_items(Plan::workers(2));
    let other = with_items(Plan::workers(1));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let theirs = &other.workers[0];
    let next = standby(&cluster, "next");
    cluster.announce_with(&[theirs.address, next.address]);
    wait_for_code(&cluster, theirs.address, "foreign_worker");
    let accept = |at: &Server| format!("SELECT fleet.accept_server('{}', {})", at.address, at.port);
    let refusal = cluster.coordinator.error(&accept(theirs));
    assert_eq!(refusal.state, "55000");
    assert!(refusal.detail.contains("as the coordinator"), "{refusal:?}");

    wait_until_replayed(&cluster.workers[0], &next);
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    next.promote();
    let old = std::mem::replace(&mut cluster.workers[0], next);
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    old.begin();
    cluster.announce_with(&[old.address]);
    wait_for_code(&cluster, old.address, "left_behind");
    let refusal = cluster.coordinator.error(&accept(&old));
    assert_eq!(refusal.state, "55000");
    assert!(refusal.message.contains("is in order"), "{refusal:?}");
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    assert_exact(&cluster.coordinator, FIRST);
    assert_exact(&other.coordinator, FIRST);
}

/// A worker is restored to a time when it still had a shard that has moved away since.
fn an_accepted_server_has_its_metadata_written_anew() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let (address, port) = (cluster.workers[0].address, cluster.workers[0].port);
    let mut backup = backup(&cluster);
    let other = &cluster.workers[1];
    let moved = cluster.coordinator.value(&format!(
        "SELECT min(shardid) FROM citus_shards WHERE nodename = '{address}' AND table_name = 'items'::regclass"
    ));
    cluster.coordinator.run(&format!(
        "SELECT citus_move_shard_placement({moved}, '{address}', {port}, '{}', {}, 'block_writes')",
        other.address, other.port
    ));
    cluster.coordinator.run("CALL citus_cleanup_orphaned_resources()");
    wait_until_seen(&cluster, &nodeid);
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    backup.move_to(address);
    backup.begin();
    cluster.workers[0] = backup;
    wait_for_node_state(&cluster, &nodeid, "conflict");
    let placed = format!("SELECT groupid FROM pg_dist_placement WHERE shardid = {moved}");
    let where_it_is = cluster.coordinator.value(&placed);
    assert_ne!(cluster.workers[0].value(&placed), where_it_is, "the backup proves nothing");
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('{address}', {port})"));
    wait_until_followed(&cluster, &nodeid, address);
    assert_eq!(cluster.workers[0].value(&placed), where_it_is);
    let count = "SELECT count(*) FROM items";
    assert_eq!(cluster.workers[0].value(count), cluster.coordinator.value(count));
}

/// Citus has a row for the standby, under the address that the worker's row is to get.
fn a_promoted_secondary_says_which_node_is_in_its_way() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    wait_until_marked(&cluster, &nodeid);
    let second = standby(&cluster, "second");
    let (old, port) = (cluster.workers[0].address, cluster.workers[0].port);
    cluster.coordinator.run(&format!(
        "SELECT citus_add_secondary_node('{}', {}, '{old}', {port})",
        second.address, second.port
    ));
    cluster.announce_with(&[second.address]);
    cluster.wait_for_cycles(3);
    wait_until_replayed(&cluster.workers[0], &second);
    cluster.coordinator.forget_session();
    cluster.workers[0].kill();
    second.promote();
    cluster.workers[0] = second;
    let told = wait_for_code(&cluster, old, "address_taken");
    let remedy = told.split(" / ").last().and_then(|text| text.split(';').next());
    let remedy = remedy.filter(|sql| sql.starts_with("SELECT citus_update_node("));
    cluster.coordinator.run(remedy.unwrap_or_else(|| panic!("{told}")));
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    assert_exact(&cluster.coordinator, FIRST);
}

/// `ALTER DATABASE … SET role` of an owner who is no superuser, on either side.
fn an_owner_of_the_database_cannot_choose_the_controllers_role() {
    let cluster = with_items(Plan::workers(1));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    for server in [&cluster.coordinator, &cluster.workers[0]] {
        server.session().run(
            "SET citus.enable_ddl_propagation = off; SET citus.enable_alter_database_owner = off;
             CREATE ROLE mallory LOGIN; ALTER DATABASE postgres OWNER TO mallory;
             ALTER DATABASE postgres SET role = 'mallory'",
        );
    }
    cluster.coordinator.forget_session();
    cluster.workers[0].restart();
    cluster.coordinator.restart();
    let mut session = cluster.coordinator.session();
    session.run("RESET role; SET role = none");
    until("the controller goes on", SOON, || {
        let sql = format!("SELECT state FROM fleet.workers WHERE nodeid = {nodeid}");
        match session.try_rows(&sql) {
            Ok(rows) if rows.first().is_some_and(|row| row.first() == "active") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
