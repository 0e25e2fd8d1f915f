//! Registered workers that hang or come back empty, and controllers that are killed or replaced in
//! the middle of their work: what was in order before is in order after, with every row.

use crate::controller::wait_for_lock_wait;
use crate::lifecycle::{
    FIRST, Placements, moves, name_of, node_id, stays_at, wait_for_node_state, wait_until_followed,
    with_items,
};
use crate::lifecycle_failover::wait_until_replayed;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::{SOON, controller, wait_for_state};
use citus_fleet_tests::net::is_connected;
use citus_fleet_tests::server::Session;
use citus_fleet_tests::server::process::send;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, Writer, until};
use std::net::{IpAddr, SocketAddr};

pub fn suite() -> Vec<Test> {
    suite!("lifecycle_faults", &[Need::Fleet, Need::Citus, Need::Vector];
        a_worker_that_comes_back_blank_is_left_alone,
        a_frozen_worker_is_unreachable_and_nothing_else,
        the_controller_is_killed_around_a_move,
        the_controller_is_killed_in_the_middle_of_a_swap,
        the_coordinator_fails_over,
    )
}

fn a_worker_that_comes_back_blank_is_left_alone() {
    let cluster = with_items(Plan::workers(2));
    let [stays, lost] = &cluster.workers[..] else { unreachable!() };
    let nodeid = node_id(&cluster, lost);
    // What is left of the table while one worker is gone.
    let ids = format!(
        "SELECT array_agg(id ORDER BY id) FROM generate_series(1, {FIRST}) id
         JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('items', id)
         JOIN pg_dist_node n USING (groupid) WHERE n.nodeid <> {nodeid}"
    );
    let ids = cluster.coordinator.value(&ids);
    let count = ids.split(',').count();
    assert!((1..FIRST as usize).contains(&count), "{ids}");

    lost.stop(Shutdown::Fast);
    let mut spec = cluster.worker_spec("blank");
    spec.addresses = vec![lost.address];
    let blank = Server::start(spec);
    blank.run("CREATE TABLE notes (note text); INSERT INTO notes VALUES ('mine')");
    let holdings = || -> Vec<String> {
        let tables =
            "SELECT relname, relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        let local = "SELECT g::text FROM pg_dist_local_group g";
        let notes = "SELECT note FROM notes";
        let nodes = "SELECT n::text FROM pg_dist_node n";
        [tables, local, notes, nodes].map(|sql| format!("{:?}", blank.rows(sql))).to_vec()
    };
    let before = holdings();
    let row = cluster.wait_for_state(blank.address, "blank");
    assert!(!row["reason"].is_empty() && !row["remedy"].is_empty(), "{row:?}");

    let new = Server::start(cluster.worker_spec("new"));
    cluster.announce_with(&[new.address]);
    let row = cluster.wait_for_state(new.address, "ready");
    assert!(row["reason"].contains(&lost.address.to_string()), "no culprit: {row:?}");
    cluster.coordinator.run("SELECT * FROM citus_autoregister()");
    stays_at(&cluster, &nodeid, lost.address);
    cluster.wait_for_state(blank.address, "blank");
    cluster.wait_for_state(stays.address, "active");
    assert_eq!(holdings(), before, "the blank server was written to");
    assert_eq!(cluster.nodes().len(), 2);
    let rest = format!("SELECT id, v FROM items WHERE id = ANY ('{ids}') ORDER BY id");
    let rest = cluster.coordinator.session().rows(&rest);
    assert_eq!(rest.len(), count);
    assert!(rest.iter().all(|row| row["v"] == format!("[{},0,1]", &row["id"])), "{rest:?}");

    // The volume is found again.
    blank.stop(Shutdown::Fast);
    lost.begin();
    wait_until_followed(&cluster, &nodeid, lost.address);
    cluster.wait_for_state(new.address, "active");
    assert_exact(&cluster.coordinator, FIRST);
    assert_eq!(moves(&cluster), 0);
}

fn a_frozen_worker_is_unreachable_and_nothing_else() {
    let cluster = with_items(Plan::workers(2));
    let frozen = &cluster.workers[1];
    let nodeid = node_id(&cluster, frozen);
    let placements = Placements::of(&cluster);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    // DNS has another address for it already, where nobody is yet.
    cluster.announce_with(&[cluster.subnet.address().into()]);
    frozen.freeze();
    let row = wait_for_node_state(&cluster, &nodeid, "unreachable");
    assert!(!row["reason"].is_empty(), "{row:?}");
    stays_at(&cluster, &nodeid, frozen.address);
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    frozen.thaw();
    wait_until_followed(&cluster, &nodeid, frozen.address);
    writer.wait_for_more();
    assert_exact(&cluster.coordinator, writer.finish());
    assert_eq!(Placements::of(&cluster), placements);
    assert_eq!(moves(&cluster), 0);
}

/// SIGKILL for the controller, upon which the postmaster restarts everything.
#[track_caller]
fn kill_controller(cluster: &Cluster) {
    let killed = cluster.controller();
    send(killed, libc::SIGKILL);
    until("another controller runs", SOON, || {
        let now = cluster.coordinator.try_value(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'citus_fleet controller'",
        )?;
        if now == killed.to_string() { Err(now) } else { Ok(()) }
    });
    cluster.coordinator.forget_session();
}

/// Gives the second worker a new address, with its server down and DNS in the know.
#[track_caller]
fn take_away(cluster: &mut Cluster, nodeid: &str) -> IpAddr {
    let new = IpAddr::from(cluster.subnet.address());
    cluster.workers[1].stop(Shutdown::Immediate);
    wait_for_node_state(cluster, nodeid, "unreachable");
    cluster.workers[1].move_to(new);
    cluster.announce_all();
    cluster.wait_for_state(new, "unreachable");
    new
}

/// Holds the shards of `items` as a client does that has written to them and not committed yet.
#[track_caller]
fn hold_shards(cluster: &Cluster) -> Session {
    let mut session = cluster.coordinator.session();
    session.run("BEGIN; UPDATE items SET v = '[0,0,0]'");
    session
}

fn wait_for_controllers_lock(cluster: &Cluster) {
    until("the controller waits for a lock", SOON, || {
        let event = cluster.coordinator.session().value(
            "SELECT coalesce(wait_event_type, '') FROM pg_stat_activity
             WHERE backend_type = 'citus_fleet controller'",
        );
        if event == "Lock" { Ok(()) } else { Err(event) }
    });
}

fn the_controller_is_killed_around_a_move() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeid = node_id(&cluster, &cluster.workers[1]);
    let placements = Placements::of(&cluster);
    let writer = Writer::start(&cluster.coordinator, FIRST);

    // While it probes the new address, where a frozen server lets it wait.
    let new = IpAddr::from(cluster.subnet.address());
    cluster.workers[1].stop(Shutdown::Immediate);
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    cluster.workers[1].move_to(new);
    cluster.workers[1].begin();
    cluster.workers[1].freeze();
    cluster.announce_all();
    let endpoint = SocketAddr::new(new, cluster.workers[1].port);
    until("it probes", SOON, || if is_connected(endpoint) { Ok(()) } else { Err("no one") });
    kill_controller(&cluster);
    cluster.workers[1].thaw();
    wait_until_followed(&cluster, &nodeid, new);

    // While its update waits for a writer. The kill ends the writer, too.
    let holder = hold_shards(&cluster);
    let new = take_away(&mut cluster, &nodeid);
    cluster.workers[1].begin();
    wait_for_controllers_lock(&cluster);
    kill_controller(&cluster);
    wait_until_followed(&cluster, &nodeid, new);
    drop(holder);

    // While it waits for pg_dist_node.
    let new = take_away(&mut cluster, &nodeid);
    let mut holder = cluster.coordinator.session();
    holder.run("BEGIN; LOCK TABLE pg_dist_node IN SHARE MODE");
    cluster.workers[1].begin();
    wait_for_lock_wait(&cluster.coordinator);
    kill_controller(&cluster);
    wait_until_followed(&cluster, &nodeid, new);

    // When the row has followed, and before the event is written.
    let new = take_away(&mut cluster, &nodeid);
    let mut holder = cluster.coordinator.session();
    holder.run("BEGIN; LOCK TABLE fleet.events IN SHARE MODE");
    cluster.workers[1].begin();
    until("the row has followed", SOON, || match name_of(&cluster, &nodeid) {
        name if name == new.to_string() => Ok(()),
        name => Err(name),
    });
    wait_for_controllers_lock(&cluster);
    kill_controller(&cluster);
    wait_until_followed(&cluster, &nodeid, new);

    writer.wait_for_more();
    let last = writer.finish();
    assert_exact(&cluster.coordinator, last);
    assert_eq!(Placements::of(&cluster), placements);
    cluster.wait_for_cycles(2);
    assert_eq!(moves(&cluster), 4);
    let entered = cluster.coordinator.value(&format!(
        "SELECT count(*) FROM fleet.events WHERE nodename = '{new}' AND event = 'active'"
    ));
    assert_eq!(entered, "1");
}

fn the_controller_is_killed_in_the_middle_of_a_swap() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeids: Vec<String> = cluster.workers.iter().map(|w| node_id(&cluster, w)).collect();
    let placements = Placements::of(&cluster);
    let addresses: Vec<IpAddr> = cluster.workers.iter().map(|w| w.address).collect();
    // The second row's shards are held: the swap stops when it has touched the first one only.
    let mut holder = cluster.coordinator.session();
    let id = cluster.coordinator.value(&format!(
        "SELECT min(id) FROM generate_series(1, {FIRST}) id
         JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('items', id)
         JOIN pg_dist_node n USING (groupid) WHERE n.nodeid = {}",
        nodeids[1]
    ));
    holder.run(&format!("BEGIN; UPDATE items SET v = '[0,0,0]' WHERE id = {id}"));
    for worker in &cluster.workers {
        worker.stop(Shutdown::Immediate);
    }
    cluster.workers[0].move_to(addresses[1]);
    cluster.workers[1].move_to(addresses[0]);
    for worker in &cluster.workers {
        worker.begin();
    }
    wait_for_controllers_lock(&cluster);
    for (nodeid, address) in nodeids.iter().zip(&addresses) {
        assert_eq!(name_of(&cluster, nodeid), address.to_string(), "half a swap is visible");
    }
    kill_controller(&cluster);
    drop(holder);
    for (nodeid, worker) in nodeids.iter().zip(&cluster.workers) {
        wait_until_followed(&cluster, nodeid, worker.address);
    }
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    assert_exact(&cluster.coordinator, writer.finish());
    assert_eq!(Placements::of(&cluster), placements);
    assert_eq!(moves(&cluster), 2);
}

pub const EVENTS: &str =
    "SELECT at, nodename, nodeport, nodeid, event, detail FROM fleet.events ORDER BY at, nodename";
/// Who the workers are; how far they have come, and their marks, come a moment later.
pub const IDENTITIES: &str =
    "SELECT nodeid, system_identifier, timeline, history, lost_wal, rival, disabled_by_fleet
     FROM fleet.identities ORDER BY nodeid";

fn the_coordinator_fails_over() {
    let mut cluster = with_items(Plan::workers(2));
    let nodeids: Vec<String> = cluster.workers.iter().map(|w| node_id(&cluster, w)).collect();
    let address = IpAddr::from(cluster.subnet.address());
    let spec = cluster
        .coordinator
        .twin("standby", address)
        .set("citus_fleet.coordinator_host", &format!("{address}:{}", cluster.coordinator.port));
    let standby = Server::standby_of(&cluster.coordinator, spec);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    // Something that happened, and is over.
    let (old, new) = (cluster.workers[1].address, IpAddr::from(cluster.subnet.address()));
    cluster.workers[1].stop(Shutdown::Fast);
    cluster.workers[1].move_to(new);
    cluster.workers[1].begin();
    cluster.announce_all();
    wait_until_followed(&cluster, &nodeids[1], new);
    writer.wait_for_more();
    let last = writer.finish();
    cluster.wait_for_cycles(2);
    wait_until_replayed(&cluster.coordinator, &standby);
    let running = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'citus_fleet%'";
    assert_eq!(standby.value(running), "0", "a standby has a controller");
    let list = |server: &Server, sql: &str| -> Vec<String> {
        server.rows(sql).iter().map(|row| format!("{row:?}")).collect()
    };
    let (events, identities) =
        (list(&cluster.coordinator, EVENTS), list(&cluster.coordinator, IDENTITIES));
    assert!(events.iter().any(|event| event.contains(&old.to_string())), "{events:?}");
    let placements = Placements::of(&cluster);

    cluster.coordinator.kill();
    standby.promote();
    cluster.coordinator = standby;
    controller(&cluster.coordinator);
    until("the coordinator's row follows it", SOON, || {
        let sql = "SELECT nodename FROM pg_dist_node WHERE groupid = 0";
        match cluster.coordinator.try_value(sql)? {
            name if name == address.to_string() => Ok(()),
            name => Err(name),
        }
    });
    cluster.wait_until_all_active();
    cluster.wait_for_cycles(3);
    assert_eq!(list(&cluster.coordinator, EVENTS), events, "events came, went or changed");
    assert_eq!(list(&cluster.coordinator, IDENTITIES), identities);
    assert_eq!(Placements::of(&cluster), placements);

    let joined = Server::start(cluster.worker_spec("joined"));
    cluster.announce_with(&[joined.address]);
    wait_for_state(&cluster.coordinator, joined.address, "active");
    cluster.wait_for_cycles(2);
    let now = list(&cluster.coordinator, EVENTS);
    assert_eq!(now[..events.len()], events);
    let added = &now[events.len()..];
    let is_about_it = |event: &String| event.contains(&joined.address.to_string());
    assert!(!added.is_empty() && added.iter().all(is_about_it), "{added:?}");
    assert_eq!(list(&cluster.coordinator, IDENTITIES)[..2], identities);

    let writer = Writer::start(&cluster.coordinator, last);
    writer.wait_for_more();
    let last = writer.finish();
    for server in cluster.workers.iter().chain([&cluster.coordinator, &joined]) {
        assert_exact(server, last);
    }
    // And it goes on following.
    let new = IpAddr::from(cluster.subnet.address());
    cluster.workers[0].stop(Shutdown::Fast);
    cluster.workers[0].move_to(new);
    cluster.workers[0].begin();
    cluster.announce_with(&[joined.address]);
    wait_until_followed(&cluster, &nodeids[0], new);
    assert_exact(&cluster.coordinator, last);
}
