//! Registered workers that are gone: `citus_fleet.on_absent = disable` takes them out where no row is
//! lost by it and lets them in again, and what an operator does with a worker is left alone.

use crate::lifecycle::{
    FIRST, distribute_items, node_id, wait_for_node_state, wait_until_followed, with_items, worker,
};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::wait::throughout;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, Writer, until};
use std::net::IpAddr;
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("lifecycle_absence", &[Need::Fleet, Need::Citus, Need::Vector];
        an_absent_worker_is_disabled_and_reactivated,
        a_disabled_worker_that_comes_back_elsewhere_is_reactivated_there,
        a_worker_that_an_operator_disabled_stays_disabled,
        a_worker_that_an_operator_took_over_stays_the_operators,
        a_worker_with_the_only_placement_is_not_disabled,
    )
}

/// Two workers, the second of which holds the rows of a reference table and no shard.
#[track_caller]
fn with_spare() -> Cluster {
    let plan = Plan::workers(2)
        .set("citus_fleet.absent_after", "1s")
        .set("citus_fleet.on_absent", "disable");
    let cluster = plan.start();
    cluster.wait_until_all_active();
    let spare = &cluster.workers[1];
    cluster.coordinator.run(&format!(
        "SELECT citus_set_node_property('{}', {}, 'shouldhaveshards', false)",
        spare.address, spare.port
    ));
    distribute_items(&cluster);
    cluster.coordinator.run(
        "CREATE TABLE labels (id int PRIMARY KEY, v vector(3));
         SELECT create_reference_table('labels');
         INSERT INTO labels SELECT n, format('[%s,1,0]', n)::vector FROM generate_series(1, 20) n",
    );
    cluster
}

const LABELS: &str = "SELECT count(*) || ' ' || sum(v) FROM labels";

/// Whether a node is active for Citus, and whether the fleet says that it has disabled it.
fn standing(cluster: &Cluster, nodeid: &str) -> (String, String) {
    let rows = cluster.coordinator.session().rows(&format!(
        "SELECT isactive, disabled_by_fleet FROM pg_dist_node JOIN fleet.identities USING (nodeid)
         WHERE nodeid = {nodeid}"
    ));
    assert_eq!(rows.len(), 1, "{rows:?}");
    (rows[0]["isactive"].to_string(), rows[0]["disabled_by_fleet"].to_string())
}

fn flags(isactive: &str, by_fleet: &str) -> (String, String) {
    (isactive.to_string(), by_fleet.to_string())
}

fn an_absent_worker_is_disabled_and_reactivated() {
    let cluster = with_spare();
    let [stays, spare] = &cluster.workers[..] else { unreachable!() };
    let nodeid = node_id(&cluster, spare);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    // Nobody names it, but it answers: it is not absent.
    cluster.announce(&[stays.address]);
    throughout("it answers and stays active", Duration::from_secs(3), || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        if &row["state"] == "active" { Ok(()) } else { Err(format!("{row:?}")) }
    });
    spare.stop(Shutdown::Immediate);
    let row = wait_for_node_state(&cluster, &nodeid, "inactive");
    assert!(!row["reason"].is_empty(), "{row:?}");
    assert_eq!(standing(&cluster, &nodeid), flags("f", "t"));
    // Without it, the reference table can be written to.
    cluster.coordinator.session().run(
        "INSERT INTO labels SELECT n, format('[%s,1,0]', n)::vector FROM generate_series(21, 30) n",
    );
    writer.wait_for_more();

    cluster.announce_all();
    spare.begin();
    wait_until_followed(&cluster, &nodeid, spare.address);
    assert_eq!(standing(&cluster, &nodeid), flags("t", "f"));
    let last = writer.finish();
    assert_exact(&cluster.coordinator, last);
    assert_exact(spare, last);
    for server in [&cluster.coordinator, stays, spare] {
        assert_eq!(server.session().value(LABELS), "30 [465,30,0]", "{}", server.name);
    }
    cluster.coordinator.session().run("UPDATE labels SET v = v + '[0,0,1]'");
    assert_eq!(spare.session().value(LABELS), "30 [465,30,30]");
    let log = cluster.coordinator.log();
    assert_eq!(log.matches("citus_fleet: done: disable node").count(), 1);
    assert_eq!(log.matches("citus_fleet: done: reactivate node").count(), 1);
}

/// As a container does that is made anew: it has its volume, and another address.
fn a_disabled_worker_that_comes_back_elsewhere_is_reactivated_there() {
    let mut cluster = with_spare();
    let nodeid = node_id(&cluster, &cluster.workers[1]);
    cluster.announce(&[cluster.workers[0].address]);
    cluster.workers[1].stop(Shutdown::Immediate);
    wait_for_node_state(&cluster, &nodeid, "inactive");
    cluster.coordinator.session().run(
        "INSERT INTO labels SELECT n, format('[%s,1,0]', n)::vector FROM generate_series(21, 30) n",
    );
    let new = IpAddr::from(cluster.subnet.address());
    cluster.workers[1].move_to(new);
    cluster.workers[1].begin();
    cluster.announce_all();
    wait_until_followed(&cluster, &nodeid, new);
    assert_eq!(standing(&cluster, &nodeid), flags("t", "f"));
    assert_exact(&cluster.workers[1], FIRST);
    assert_eq!(cluster.workers[1].session().value(LABELS), "30 [465,30,0]");
}

#[track_caller]
fn disable_by_hand(cluster: &Cluster, worker: &Server) {
    cluster.coordinator.session().run(&format!(
        "SELECT citus_disable_node('{}', {}, synchronous := true)",
        worker.address, worker.port
    ));
}

/// Watches through whole cycles that a node which is healthy is left disabled.
#[track_caller]
fn stays_disabled(cluster: &Cluster, nodeid: &str) {
    wait_for_node_state(cluster, nodeid, "inactive");
    cluster.wait_for_cycles(3);
    cluster.coordinator.run("SELECT * FROM citus_autoregister()");
    wait_for_node_state(cluster, nodeid, "inactive");
    assert_eq!(standing(cluster, nodeid).0, "f");
}

fn a_worker_that_an_operator_disabled_stays_disabled() {
    let cluster = with_spare();
    let spare = &cluster.workers[1];
    let nodeid = node_id(&cluster, spare);
    disable_by_hand(&cluster, spare);
    stays_disabled(&cluster, &nodeid);
    // Nor when it goes and comes back.
    cluster.announce(&[cluster.workers[0].address]);
    spare.stop(Shutdown::Fast);
    cluster.wait_for_cycles(3);
    spare.begin();
    cluster.announce_all();
    stays_disabled(&cluster, &nodeid);
    assert_eq!(standing(&cluster, &nodeid), flags("f", "f"));
    assert_exact(&cluster.coordinator, FIRST);
}

/// The fleet disabled it, an operator activated it, and an operator disabled it: the last word counts.
fn a_worker_that_an_operator_took_over_stays_the_operators() {
    let cluster = with_spare();
    let spare = &cluster.workers[1];
    let nodeid = node_id(&cluster, spare);
    cluster.announce(&[cluster.workers[0].address]);
    spare.stop(Shutdown::Fast);
    wait_for_node_state(&cluster, &nodeid, "inactive");
    assert_eq!(standing(&cluster, &nodeid), flags("f", "t"));
    // So that it is the operator who is first.
    cluster.coordinator.set("citus_fleet.enabled", "off");
    spare.begin();
    cluster.announce_all();
    cluster
        .coordinator
        .session()
        .run(&format!("SELECT citus_activate_node('{}', {})", spare.address, spare.port));
    wait_for_node_state(&cluster, &nodeid, "active");
    cluster.coordinator.set("citus_fleet.enabled", "on");
    cluster.wait_for_cycles(2);
    disable_by_hand(&cluster, spare);
    stays_disabled(&cluster, &nodeid);
}

fn a_worker_with_the_only_placement_is_not_disabled() {
    let plan = Plan::workers(2)
        .set("citus_fleet.absent_after", "1s")
        .set("citus_fleet.on_absent", "disable");
    let cluster = with_items(plan);
    let [stays, gone] = &cluster.workers[..] else { unreachable!() };
    let nodeid = node_id(&cluster, gone);
    cluster.announce(&[stays.address]);
    gone.stop(Shutdown::Immediate);
    let row = until("the reason tells of the placement", SOON, || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        let is_told = &row["state"] == "absent" && row["reason"].contains("placement");
        if is_told { Ok(row) } else { Err(format!("{row:?}")) }
    });
    assert!(!row["remedy"].is_empty(), "{row:?}");
    let pass = cluster
        .coordinator
        .rows(&format!("SELECT * FROM citus_autoregister() WHERE nodeid = {nodeid}"));
    assert_eq!((&pass[0]["action"], &pass[0]["outcome"]), ("disable", "failed"), "{pass:?}");
    assert!(pass[0]["reason"].contains("placement"), "{pass:?}");
    assert_eq!(standing(&cluster, &nodeid), flags("t", "f"));
    gone.begin();
    cluster.announce_all();
    wait_until_followed(&cluster, &nodeid, gone.address);
    assert_exact(&cluster.coordinator, FIRST);
}
