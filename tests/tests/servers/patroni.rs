//! Workers and a coordinator that Patroni runs: whoever leads after a failure or a switch-over has the
//! row, while a client goes on writing. One standby confirms every commit (`synchronous_mode`), and
//! Patroni promotes no other; so a row that a client was promised is there whatever dies.

use crate::lifecycle::{
    FIRST, Placements, distribute_items, moves, node_id, stays_at, wait_until_followed,
};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::{Plan, WORKER};
use citus_fleet_tests::patroni::{Member, PATIENCE};
use citus_fleet_tests::run::port;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Etcd, Need, Patroni, Writer, until};

pub fn suite() -> Vec<Test> {
    suite!("patroni", &[Need::Fleet, Need::Citus, Need::Vector, Need::Patroni];
        a_worker_behind_the_name_of_its_leader_fails_over_and_switches_over,
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
    until("the old primary is a standby that confirms", PATIENCE, || {
        let standby = patroni.wait_for_synchronous_standby();
        if standby.server.name == first.server.name { Ok(()) } else { Err(&standby.server.name) }
    });
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
