//! Workers and a coordinator that Patroni runs: whoever leads after a failure or a switch-over has the
//! row, while a client goes on writing. One standby confirms every commit (`synchronous_mode`), and
//! Patroni promotes no other; so a row that a client was promised is there whatever dies.

use crate::lifecycle::{
    FIRST, Placements, distribute_items, moves, node_id, stays_at, wait_until_followed,
};
use crate::lifecycle_faults::{EVENTS, IDENTITIES};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::{Plan, WORKER};
use citus_fleet_tests::fleet::{SOON, wait_for_state};
use citus_fleet_tests::patroni::{Member, PATIENCE};
use citus_fleet_tests::run::port;
use citus_fleet_tests::writer::{ITEMS, assert_exact, fill};
use citus_fleet_tests::{
    Cluster, Dns, Etcd, Need, Patroni, Server, Shutdown, Spec, Subnet, Writer, until,
};
use std::net::IpAddr;

pub fn suite() -> Vec<Test> {
    suite!("patroni", &[Need::Fleet, Need::Citus, Need::Vector, Need::Patroni];
        a_worker_behind_the_name_of_its_leader_fails_over_and_switches_over,
        a_worker_of_two_named_servers_switches_over_and_restarts_after_a_crash,
        a_coordinator_fails_over_and_switches_over,
    )
}

/// What the source of the worker that Patroni runs is called.
const PAIR: &str = "pair";

/// An ordinary worker, and beside it one of two servers that Patroni runs.
struct World {
    cluster: Cluster,
    patroni: Patroni,
    // Outlives the members, which would be demoted without it.
    _etcd: Etcd,
}

impl World {
    #[track_caller]
    fn start() -> World {
        let sources = format!("{WORKER}:{0}, {PAIR}:{0}", port());
        let cluster = Plan::workers(1).set("citus_fleet.workers", &sources).start();
        let etcd = Etcd::start(&cluster.subnet);
        let spec = |name: &str| cluster.worker_spec(name);
        let patroni =
            Patroni::start(&etcd, &cluster.subnet, vec![spec("pair-1"), spec("pair-2")], None);
        World { cluster, patroni, _etcd: etcd }
    }

    fn members(&self) -> [&Member; 2] {
        [&self.patroni.members[0], &self.patroni.members[1]]
    }

    /// Waits for both workers, and distributes the table over them.
    #[track_caller]
    fn settle(&self) -> String {
        let first = &self.patroni.members[0].server;
        self.cluster.wait_until_all_active();
        self.cluster.wait_for_state(first.address, "active");
        distribute_items(&self.cluster);
        node_id(&self.cluster, first)
    }
}

fn a_worker_behind_the_name_of_its_leader_fails_over_and_switches_over() {
    let world = World::start();
    let (cluster, patroni, [first, second]) = (&world.cluster, &world.patroni, world.members());
    patroni.name_leader(&cluster.dns, PAIR);
    let nodeid = world.settle();
    let placements = Placements::of(cluster);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();

    first.kill();
    patroni.wait_for_leader(second);
    wait_until_followed(cluster, &nodeid, second.server.address);
    writer.wait_for_more();

    // The old primary becomes a standby, and stays out.
    first.begin();
    patroni.wait_for_standby(first);
    patroni.wait_for_synchronous_standby();
    assert_eq!(first.server.value("SELECT pg_catalog.pg_is_in_recovery()"), "t");
    stays_at(cluster, &nodeid, second.server.address);

    patroni.switch_over(first);
    wait_until_followed(cluster, &nodeid, first.server.address);
    writer.wait_for_more();
    let last = writer.finish();

    assert_exact(&cluster.coordinator, last);
    assert_exact(&cluster.workers[0], last);
    assert_exact(&first.server, last);
    assert_eq!(Placements::of(cluster), placements);
    assert_eq!(moves(cluster), 2);
}

/// Both servers are named all the time: which of them is the primary, the fleet has to see itself.
fn a_worker_of_two_named_servers_switches_over_and_restarts_after_a_crash() {
    let world = World::start();
    let (cluster, patroni, [first, second]) = (&world.cluster, &world.patroni, world.members());
    cluster.dns.addresses(PAIR, &[first.server.address, second.server.address]);
    let nodeid = world.settle();
    cluster.wait_for_state(second.server.address, "standby");
    let placements = Placements::of(cluster);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    writer.wait_for_more();

    patroni.switch_over(second);
    wait_until_followed(cluster, &nodeid, second.server.address);
    cluster.wait_for_state(first.server.address, "standby");
    writer.wait_for_more();

    // The server alone crashes: Patroni starts it again where it was, which is no move.
    let crashed = second.server.value("SELECT pg_catalog.pg_postmaster_start_time()");
    second.kill_server();
    until("the server runs again and leads", PATIENCE, || {
        let sql = "SELECT pg_catalog.pg_postmaster_start_time() WHERE NOT pg_is_in_recovery()";
        match second.server.try_value(sql)? {
            started if started == crashed => Err(started),
            _ => Ok(()),
        }
    });
    wait_until_followed(cluster, &nodeid, second.server.address);
    writer.wait_for_more();
    stays_at(cluster, &nodeid, second.server.address);
    let last = writer.finish();

    assert_exact(&cluster.coordinator, last);
    assert_exact(&cluster.workers[0], last);
    assert_exact(&second.server, last);
    assert_eq!(Placements::of(cluster), placements);
    assert_eq!(moves(cluster), 1);
}

/// Waits until the coordinator's own row is at its server, in every copy, and every worker is active.
#[track_caller]
fn wait_until_in_charge(coordinator: &Server, workers: &[Server]) {
    let own = "SELECT nodename FROM pg_dist_node WHERE groupid = 0 AND metadatasynced";
    for server in workers.iter().chain([coordinator]) {
        until(&format!("{} knows the coordinator", server.name), SOON, || {
            match server.try_value(own)? {
                name if name == coordinator.address.to_string() => Ok(()),
                name => Err(name),
            }
        });
    }
    for worker in workers {
        wait_for_state(coordinator, worker.address, "active");
    }
}

#[track_caller]
fn assert_controllers(running: &Server, none: &Server) {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'citus_fleet%'";
    assert_eq!((running.value(count), none.value(count)), ("1".to_string(), "0".to_string()));
}

fn list(server: &Server, sql: &str) -> Vec<String> {
    server.rows(sql).iter().map(|row| format!("{row:?}")).collect()
}

fn a_coordinator_fails_over_and_switches_over() {
    let subnet = Subnet::new();
    let dns = Dns::start(subnet.address());
    let etcd = Etcd::start(&subnet);
    let spec = |name: &str| {
        let spec = Plan::workers(0).coordinator_spec(name, &subnet, &dns);
        let own = format!("{}:{}", spec.addresses[0], spec.port);
        spec.set("citus_fleet.coordinator_host", &own)
    };
    let patroni =
        Patroni::start(&etcd, &subnet, vec![spec("coordinator-1"), spec("coordinator-2")], None);
    let [first, second] = &patroni.members[..] else { unreachable!() };
    let mut workers = Server::start_all(
        ["worker-1", "worker-2"].map(|name| Spec::new(name, subnet.address()).citus()).into(),
    );
    let announce = |workers: &[Server]| {
        let addresses: Vec<IpAddr> = workers.iter().map(|worker| worker.address).collect();
        dns.addresses(WORKER, &addresses);
    };
    announce(&workers);
    first.server.run(&format!(
        "SELECT citus_set_coordinator_host('{}', {}); CREATE EXTENSION citus_fleet",
        first.server.address, first.server.port
    ));
    wait_until_in_charge(&first.server, &workers);
    first.server.run(ITEMS);
    first.server.run("SELECT create_distributed_table('items', 'id', shard_count := 6)");
    fill(&first.server, FIRST);
    assert_controllers(&first.server, &second.server);
    let (events, identities) = (list(&first.server, EVENTS), list(&first.server, IDENTITIES));
    assert_eq!(identities.len(), 2, "{identities:?}");
    let writer = Writer::through(&[&first.server, &second.server], FIRST);
    writer.wait_for_more();

    first.kill();
    patroni.wait_for_leader(second);
    wait_until_in_charge(&second.server, &workers);
    writer.wait_for_more();
    assert_eq!(list(&second.server, IDENTITIES), identities);
    assert_eq!(list(&second.server, EVENTS)[..events.len()], events);

    // A worker moves while the old coordinator is on its way back.
    first.begin();
    workers[1].stop(Shutdown::Fast);
    workers[1].move_to(subnet.address());
    announce(&workers);
    workers[1].begin();
    wait_until_in_charge(&second.server, &workers);
    patroni.wait_for_standby(first);
    patroni.wait_for_synchronous_standby();
    assert_controllers(&second.server, &first.server);
    writer.wait_for_more();

    patroni.switch_over(first);
    wait_until_in_charge(&first.server, &workers);
    patroni.wait_for_standby(second);
    assert_controllers(&first.server, &second.server);
    assert_eq!(list(&first.server, IDENTITIES), identities);
    writer.wait_for_more();
    let last = writer.finish();
    for server in workers.iter().chain([&first.server]) {
        assert_exact(server, last);
    }
}
