//! Workers whose primary dies, hangs or is replaced: the row follows the server that has all rows, and
//! no other, while a client goes on writing.

use crate::commands::autoregister;
use crate::lifecycle::{
    FIRST, Placements, moves, node_id, stays_at, wait_for_node_state, wait_until_active_at,
    wait_until_followed, with_items, worker,
};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, Writer, until};

pub fn suite() -> Vec<Test> {
    suite!("lifecycle_failover", &[Need::Fleet, Need::Citus, Need::Vector];
        a_standby_is_promoted_after_the_primary_was_killed,
        a_standby_is_promoted_while_the_primary_hangs,
        a_write_that_hangs_on_the_primary_delays_the_update,
        two_primaries_are_a_conflict_until_an_operator_decides,
        a_primary_that_was_left_behind_is_not_followed_back,
    )
}

/// A standby of the cluster's first worker, which confirms every row before the client hears of it.
#[track_caller]
fn standby_of_first(cluster: &Cluster) -> Server {
    let primary = &cluster.workers[0];
    let standby = Server::standby_of(primary, primary.twin("standby", cluster.subnet.address()));
    primary.set("synchronous_standby_names", "*");
    until("the standby confirms", SOON, || {
        let state = primary.try_value("SELECT sync_state FROM pg_stat_replication")?;
        if state == "sync" { Ok(()) } else { Err(state) }
    });
    standby
}

fn a_standby_is_promoted_after_the_primary_was_killed() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let placements = Placements::of(&cluster);
    let standby = standby_of_first(&cluster);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    let old = cluster.workers[0].address;
    cluster.announce_with(&[standby.address]);
    cluster.wait_for_state(standby.address, "standby");
    stays_at(&cluster, &nodeid, old);
    writer.wait_for_more();

    cluster.workers[0].kill();
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    stays_at(&cluster, &nodeid, old);
    cluster.wait_for_state(standby.address, "standby");
    standby.promote();
    // The promoted server is the worker from now on; the old one is gone with its host.
    cluster.workers[0] = standby;
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    writer.wait_for_more();
    let last = writer.finish();

    assert_exact(&cluster.coordinator, last);
    assert_eq!(Placements::of(&cluster), placements);
    assert_eq!(moves(&cluster), 1);
    assert_exact(&cluster.workers[1], last);
}

/// Waits until a standby has all that its primary has.
#[track_caller]
pub fn wait_until_replayed(primary: &Server, standby: &Server) {
    let lsn = primary.session().value("SELECT pg_current_wal_lsn()");
    until("the standby has it all", SOON, || {
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        match standby.try_value(&sql)?.as_str() {
            "t" => Ok(()),
            other => Err(other.to_string()),
        }
    });
}

fn two_primaries_are_a_conflict_until_an_operator_decides() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let (old, placements) = (cluster.workers[0].address, Placements::of(&cluster));
    let standby = standby_of_first(&cluster);
    wait_until_replayed(&cluster.workers[0], &standby);
    cluster.announce_with(&[standby.address]);
    cluster.wait_for_state(standby.address, "standby");
    standby.promote();
    cluster.workers[0].set("synchronous_standby_names", "");

    let row = wait_for_node_state(&cluster, &nodeid, "conflict");
    assert!(row["reason"].contains(&standby.address.to_string()), "{row:?}");
    assert!(!row["remedy"].is_empty(), "{row:?}");
    stays_at(&cluster, &nodeid, old);
    autoregister(&cluster);
    stays_at(&cluster, &nodeid, old);
    assert_exact(&cluster.coordinator, FIRST);
    assert_eq!(Placements::of(&cluster), placements);

    // The operator decides for the one that was promoted; nobody else does.
    let port = cluster.workers[0].port;
    cluster.workers[0].stop(Shutdown::Fast);
    cluster.workers[0] = standby;
    stays_at(&cluster, &nodeid, old);
    cluster.coordinator.run(&format!("SELECT fleet.accept_server('{old}', {port})"));
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    assert_exact(&cluster.coordinator, writer.finish());
    assert_eq!(moves(&cluster), 1);
}

/// A primary that was replaced comes back by itself, as a host that boots again does. It lacks what
/// was written since, so it may not get the row, not even while its successor is down.
fn a_primary_that_was_left_behind_is_not_followed_back() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let standby = standby_of_first(&cluster);
    cluster.announce_with(&[standby.address]);
    cluster.wait_for_state(standby.address, "standby");
    cluster.workers[0].kill();
    standby.promote();
    let behind = std::mem::replace(&mut cluster.workers[0], standby);
    let successor = cluster.workers[0].address;
    wait_until_followed(&cluster, &nodeid, successor);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    let last = writer.finish();

    behind.begin();
    cluster.announce_with(&[behind.address]);
    let row = cluster.wait_for_state(behind.address, "conflict");
    assert!(row["reason"].contains("left behind at timeline 1"), "{row:?}");
    stays_at(&cluster, &nodeid, successor);
    assert_exact(&cluster.coordinator, last);
    cluster.workers[0].stop(Shutdown::Fast);
    stays_at(&cluster, &nodeid, successor);
    autoregister(&cluster);
    stays_at(&cluster, &nodeid, successor);

    cluster.workers[0].begin();
    behind.stop(Shutdown::Fast);
    wait_until_followed(&cluster, &nodeid, successor);
    assert_exact(&cluster.coordinator, last);
}

/// Back to life, a primary that hung is too late.
fn a_standby_is_promoted_while_the_primary_hangs() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let placements = Placements::of(&cluster);
    let standby = standby_of_first(&cluster);
    wait_until_replayed(&cluster.workers[0], &standby);
    cluster.announce_with(&[standby.address]);
    cluster.wait_for_state(standby.address, "standby");
    cluster.coordinator.forget_session();
    cluster.workers[0].freeze();
    standby.promote();
    let hung = std::mem::replace(&mut cluster.workers[0], standby);
    let successor = cluster.workers[0].address;
    // The workers' copies have to wait: Citus's daemon, which sends them, waits for the one that hangs.
    wait_until_active_at(&cluster, &nodeid, successor);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();

    hung.thaw();
    cluster.announce_with(&[hung.address]);
    cluster.wait_for_state(hung.address, "conflict");
    stays_at(&cluster, &nodeid, successor);
    writer.wait_for_more();
    hung.stop(Shutdown::Immediate);
    wait_until_followed(&cluster, &nodeid, successor);
    assert_exact(&cluster.coordinator, writer.finish());
    assert_eq!(Placements::of(&cluster), placements);
    assert_eq!(moves(&cluster), 1);
}

/// A host that hangs closes no connection. A write that waits for its answer holds the lock that the
/// update needs, and Citus can neither cancel nor end it (its PQcancel waits for the same host), so
/// the update gives way until the host is fenced.
fn a_write_that_hangs_on_the_primary_delays_the_update() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let standby = standby_of_first(&cluster);
    cluster.announce_with(&[standby.address]);
    cluster.wait_for_state(standby.address, "standby");
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    cluster.workers[0].freeze();
    standby.promote();
    let hung = std::mem::replace(&mut cluster.workers[0], standby);
    until("the update gives way, and says where the server is", SOON, || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        let words = [cluster.workers[0].address.to_string(), "lock timeout".to_string()];
        let is_told = words.iter().all(|word| row["reason"].contains(word));
        let stays = row["nodename"] == hung.address.to_string();
        if is_told && stays { Ok(()) } else { Err(format!("{row:?}")) }
    });
    hung.kill();
    wait_until_followed(&cluster, &nodeid, cluster.workers[0].address);
    writer.wait_for_more();
    assert_exact(&cluster.coordinator, writer.finish());
    assert_eq!(moves(&cluster), 1);
}
