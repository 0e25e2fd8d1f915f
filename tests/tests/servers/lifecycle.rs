//! Registered workers that move and swap: the row follows its server, once, and no row of
//! a table is lost, doubled, or written anywhere else.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::Row;
use citus_fleet_tests::wait::throughout;
use citus_fleet_tests::writer::{ITEMS, assert_exact, fill};
use citus_fleet_tests::{Cluster, Need, Relay, Server, Shutdown, Writer, run, until};
use std::net::IpAddr;
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("lifecycle", &[Need::Fleet, Need::Citus, Need::Vector];
        a_worker_gets_a_new_address_during_inserts,
        two_workers_swap_addresses,
        three_workers_change_address_at_once,
        three_workers_pass_their_addresses_on,
        a_stranger_at_the_old_address_is_never_written_to,
        an_update_gives_way_to_an_open_transaction,
        a_pass_on_request_moves_a_worker,
    );
    tests.extend(suite!("lifecycle", &[Need::Fleet, Need::Citus, Need::Vector, Need::Ipv6];
        a_worker_moves_from_ipv4_to_ipv6,
    ));
    tests
}

/// The rows that every test starts with.
pub const FIRST: u64 = 100;

/// A cluster whose workers are all active and hold the shards of `items`.
#[track_caller]
pub fn with_items(plan: Plan) -> Cluster {
    let cluster = plan.start();
    cluster.wait_until_all_active();
    distribute_items(&cluster);
    cluster
}

#[track_caller]
pub fn distribute_items(cluster: &Cluster) {
    cluster.coordinator.run(ITEMS);
    cluster.coordinator.run("SELECT create_distributed_table('items', 'id', shard_count := 6)");
    fill(&cluster.coordinator, FIRST);
}

/// Which row of `pg_dist_node` is whose, and which shard is where.
#[derive(Debug, PartialEq, Eq)]
pub struct Placements {
    nodes: Vec<String>,
    shards: Vec<String>,
}

impl Placements {
    #[track_caller]
    pub fn of(cluster: &Cluster) -> Placements {
        let mut session = cluster.coordinator.session();
        let mut list = |sql: &str| session.rows(sql).iter().map(|r| format!("{r:?}")).collect();
        Placements {
            nodes: list("SELECT nodeid, groupid, noderole FROM pg_dist_node ORDER BY nodeid"),
            shards: list(
                "SELECT placementid, shardid, groupid FROM pg_dist_placement ORDER BY placementid",
            ),
        }
    }
}

/// The files of a worker's shards: they change when somebody copies or writes the shards anew.
#[track_caller]
fn shard_files(worker: &Server) -> Vec<String> {
    let rows = worker.session().rows(
        "SET citus.override_table_visibility = off;
         SELECT c.relname, c.oid, c.relfilenode FROM pg_class c
         WHERE c.relname ~ '^items_[0-9]+$' ORDER BY 1",
    );
    assert!(!rows.is_empty(), "{} has no shard", worker.name);
    rows.iter().map(|row| format!("{row:?}")).collect()
}

/// The node id that a worker is registered with at its address.
#[track_caller]
pub fn node_id(cluster: &Cluster, worker: &Server) -> String {
    cluster.coordinator.session().value(&format!(
        "SELECT nodeid FROM pg_dist_node WHERE nodename = '{}' AND nodeport = {}",
        worker.address, worker.port
    ))
}

/// The node that is registered under a name.
#[track_caller]
pub fn node_id_of(cluster: &Cluster, name: &str) -> String {
    let sql = format!("SELECT nodeid FROM pg_dist_node WHERE nodename = '{name}'");
    cluster.coordinator.session().value(&sql)
}

/// The name that a node is registered under.
#[track_caller]
pub fn name_of(cluster: &Cluster, nodeid: &str) -> String {
    let sql = format!("SELECT nodename FROM pg_dist_node WHERE nodeid = {nodeid}");
    cluster.coordinator.session().value(&sql)
}

/// Waits until a node is active at an address, for the coordinator and the fleet.
#[track_caller]
pub fn wait_until_active_at(cluster: &Cluster, nodeid: &str, address: IpAddr) {
    until(&format!("node {nodeid} is active at {address}"), SOON, || {
        let row = worker(&cluster.coordinator, nodeid)?;
        let is_there = row["nodename"] == address.to_string() && &row["state"] == "active";
        if is_there { Ok(()) } else { Err(format!("{row:?}")) }
    });
}

/// Waits until a node is active at an address, and every worker's copy of the row says so.
#[track_caller]
pub fn wait_until_followed(cluster: &Cluster, nodeid: &str, to: IpAddr) {
    wait_until_active_at(cluster, nodeid, to);
    let sql = format!(
        "SELECT nodename, metadatasynced FROM pg_dist_node WHERE nodeid = {nodeid} AND isactive"
    );
    for server in cluster.workers.iter().chain([&cluster.coordinator]) {
        until(&format!("{} has node {nodeid} at {to}", server.name), SOON, || {
            let rows = server.try_rows(&sql).map_err(|error| error.to_string())?;
            let is_there =
                |row: &Row| row["nodename"] == to.to_string() && &row["metadatasynced"] == "t";
            if rows.len() == 1 && is_there(&rows[0]) { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }
}

/// The row of `fleet.workers` for a node.
pub fn worker(coordinator: &Server, nodeid: &str) -> Result<Row, String> {
    let sql = format!("SELECT * FROM fleet.workers WHERE nodeid = {nodeid}");
    let mut rows = coordinator.try_rows(&sql).map_err(|error| error.to_string())?;
    rows.pop().ok_or_else(|| format!("node {nodeid} is not in fleet.workers"))
}

#[track_caller]
pub fn wait_for_node_state(cluster: &Cluster, nodeid: &str, state: &str) -> Row {
    until(&format!("node {nodeid} is {state}"), SOON, || {
        let row = worker(&cluster.coordinator, nodeid)?;
        if &row["state"] == state { Ok(row) } else { Err(format!("{row:?}")) }
    })
}

/// How many moves the controller has made, going by its log.
pub fn moves(cluster: &Cluster) -> usize {
    cluster.coordinator.log().matches("citus_fleet: done: move node").count()
}

/// Watches through whole cycles that a node is registered where it is.
#[track_caller]
pub fn stays_at(cluster: &Cluster, nodeid: &str, address: IpAddr) {
    cluster.wait_for_cycles(3);
    throughout("the row stays as it is", Duration::from_secs(1), || {
        let row = worker(&cluster.coordinator, nodeid)?;
        if row["nodename"] == address.to_string() { Ok(()) } else { Err(format!("{row:?}")) }
    });
    assert_eq!(name_of(cluster, nodeid), address.to_string());
}

/// Moves workers to these addresses while a client inserts: all down, DNS changed, all up again.
#[track_caller]
fn relocate(mut cluster: Cluster, destination: impl Fn(&Cluster) -> Vec<IpAddr>) {
    let nodeids: Vec<String> = cluster.workers.iter().map(|w| node_id(&cluster, w)).collect();
    let files: Vec<_> = cluster.workers.iter().map(shard_files).collect();
    let placements = Placements::of(&cluster);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();

    let before: Vec<IpAddr> = cluster.workers.iter().map(|worker| worker.address).collect();
    let after = destination(&cluster);
    let mut moved = 0;
    for (worker, address) in cluster.workers.iter_mut().zip(&after) {
        if worker.address != *address {
            worker.stop(Shutdown::Immediate);
            worker.move_to(*address);
            moved += 1;
        }
    }
    cluster.announce_all();
    for (worker, address) in cluster.workers.iter().zip(&before) {
        if worker.address != *address {
            worker.begin();
        }
    }
    for (worker, nodeid) in cluster.workers.iter().zip(&nodeids) {
        wait_until_followed(&cluster, nodeid, worker.address);
    }
    writer.wait_for_more();
    let last = writer.finish();

    assert_exact(&cluster.coordinator, last);
    assert_eq!(Placements::of(&cluster), placements, "nodes or shards have changed");
    assert_eq!(cluster.workers.iter().map(shard_files).collect::<Vec<_>>(), files);
    cluster.wait_for_cycles(3);
    assert_eq!(moves(&cluster), moved, "moves in the log");
    // Every worker plans with the new addresses too.
    for worker in &cluster.workers {
        assert_exact(worker, last);
    }
}

fn a_worker_gets_a_new_address_during_inserts() {
    relocate(with_items(Plan::workers(2)), |cluster| {
        vec![cluster.workers[0].address, cluster.subnet.address().into()]
    });
}

fn two_workers_swap_addresses() {
    relocate(with_items(Plan::workers(2)), |cluster| {
        vec![cluster.workers[1].address, cluster.workers[0].address]
    });
}

fn three_workers_change_address_at_once() {
    relocate(with_items(Plan::workers(3)), |cluster| {
        (0..3).map(|_| cluster.subnet.address().into()).collect()
    });
}

fn three_workers_pass_their_addresses_on() {
    relocate(with_items(Plan::workers(3)), |cluster| {
        let old: Vec<IpAddr> = cluster.workers.iter().map(|worker| worker.address).collect();
        vec![old[1], old[2], old[0]]
    });
}

fn a_worker_moves_from_ipv4_to_ipv6() {
    let (six, _alone) = run::ipv6();
    relocate(with_items(Plan::workers(2)), |cluster| vec![cluster.workers[0].address, six]);
}

/// The worst of strangers: the worker of another cluster, of the same group, with shards of the same
/// names. What Citus sends there while the row leads there, it would take.
fn a_stranger_at_the_old_address_is_never_written_to() {
    let mut cluster = with_items(Plan::workers(2));
    let mut other = Plan::workers(2).without_fleet().start();
    for worker in &other.workers {
        other.add_by_hand(worker);
    }
    other.coordinator.run(ITEMS);
    other.coordinator.run("SELECT create_distributed_table('items', 'id', shard_count := 6)");
    other.coordinator.run(
        "INSERT INTO items SELECT n, format('[0,%s,0]', n)::vector FROM generate_series(1, 50) n",
    );
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let (old, new) = (cluster.workers[0].address, IpAddr::from(cluster.subnet.address()));
    let stranger = &mut other.workers[0];
    assert_eq!(
        shard_files(stranger).len(),
        shard_files(&cluster.workers[0]).len(),
        "the stranger has the same number of shards"
    );
    let holdings = |stranger: &Server| -> Vec<String> {
        let tables = stranger.session().rows(
            "SET citus.override_table_visibility = off;
             SELECT relname FROM pg_class WHERE relname ~ '^items_[0-9]+$' AND relkind = 'r'
             UNION ALL VALUES ('pg_dist_node'), ('pg_dist_local_group'), ('pg_dist_placement'),
             ('pg_dist_shard'), ('pg_dist_partition')",
        );
        let contents = |table: &Row| {
            let sql = format!("SELECT t::text FROM {} t ORDER BY 1", table.first());
            format!("{}: {:?}", table.first(), stranger.session().rows(&sql))
        };
        tables.iter().map(contents).collect()
    };
    let before = holdings(stranger);

    cluster.workers[0].stop(Shutdown::Immediate);
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    stranger.stop(Shutdown::Fast);
    stranger.move_to(old);
    stranger.begin();
    wait_for_node_state(&cluster, &nodeid, "conflict");
    stays_at(&cluster, &nodeid, old);
    cluster.workers[0].move_to(new);
    cluster.workers[0].begin();
    // DNS names both: the stranger is somebody else's, and is refused.
    cluster.announce_with(&[old]);
    wait_until_followed(&cluster, &nodeid, new);
    cluster.wait_for_state(old, "refused");

    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();
    let last = writer.finish();
    assert_exact(&cluster.coordinator, last);
    assert_eq!(holdings(stranger), before, "the stranger was written to");
    assert_eq!(moves(&cluster), 1);
}

/// The old address is a load balancer's: closing it leaves open transactions alone.
fn an_update_gives_way_to_an_open_transaction() {
    let cluster = Plan::workers(1).unannounced().start();
    let server = &cluster.workers[0];
    let relay = Relay::start(cluster.subnet.address(), server.port, server.address);
    cluster.announce(&[relay.address.ip()]);
    cluster.wait_for_state(relay.address.ip(), "active");
    distribute_items(&cluster);
    let nodeid = cluster.nodes()[0]["nodeid"].to_string();

    let mut writer = cluster.coordinator.session();
    writer.run(&format!(
        "BEGIN; INSERT INTO items SELECT n, format('[%s,0,1]', n)::vector
         FROM generate_series({}, {}) n",
        FIRST + 1,
        FIRST + 50
    ));
    relay.close();
    cluster.announce_all();
    until("the update gives way", SOON, || {
        match cluster.coordinator.log().matches("failed, to be repeated: move node").count() {
            0 => Err("no attempt has failed yet"),
            _ => Ok(()),
        }
    });
    let row = until("the reason tells of the lock", SOON, || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        if row["reason"].contains("lock") { Ok(row) } else { Err(format!("{row:?}")) }
    });
    assert_eq!(row["nodename"], relay.address.ip().to_string());
    writer.run("COMMIT");
    wait_until_followed(&cluster, &nodeid, server.address);
    assert_exact(&cluster.coordinator, FIRST + 50);
    assert_eq!(moves(&cluster), 1);
}

fn a_pass_on_request_moves_a_worker() {
    let mut cluster = with_items(Plan::workers(2));
    cluster.coordinator.set("citus_fleet.enabled", "off");
    let (old, new) = (cluster.workers[1].address, IpAddr::from(cluster.subnet.address()));
    let nodeid = node_id(&cluster, &cluster.workers[1]);
    cluster.workers[1].stop(Shutdown::Fast);
    cluster.workers[1].move_to(new);
    cluster.workers[1].begin();
    cluster.announce_all();
    until("the reason tells what is withheld", SOON, || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        let is_told = row["reason"].contains(&new.to_string()) && row["reason"].contains("enabled");
        if is_told { Ok(()) } else { Err(format!("{row:?}")) }
    });
    stays_at(&cluster, &nodeid, old);
    let pass = |arguments: &str| {
        let sql = format!("SELECT * FROM citus_autoregister({arguments}) WHERE nodeid = {nodeid}");
        let rows = cluster.coordinator.rows(&sql);
        assert_eq!(rows.len(), 1, "{rows:?}");
        (rows[0]["action"].to_string(), rows[0]["outcome"].to_string())
    };
    assert_eq!(pass("dry_run => true"), ("update_address".to_string(), "planned".to_string()));
    assert_eq!(name_of(&cluster, &nodeid), old.to_string());
    assert_eq!(pass(""), ("update_address".to_string(), "done".to_string()));
    assert_eq!(name_of(&cluster, &nodeid), new.to_string());
    assert_exact(&cluster.coordinator, FIRST);
    assert_eq!(pass(""), ("none".to_string(), "done".to_string()));
}
