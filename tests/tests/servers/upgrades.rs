//! Upgrades of PostgreSQL and dumps: pg_upgrade finds nothing of the extension in its way, and nothing that
//! an operator has decided is lost.

use crate::lifecycle::{FIRST, Placements, with_items};
use crate::lifecycle_faults::IDENTITIES;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::{controller, wait_for_state};
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("upgrades", &[Need::Fleet];
        a_dump_keeps_a_pause_and_who_was_removed,
        a_dump_of_a_fleet_that_goes_on_pauses_nothing,
    );
    tests.extend(suite!("upgrades", &[Need::Fleet, Need::Citus, Need::Vector];
        pg_upgrade_of_the_coordinator,
        pg_upgrade_of_a_worker,
        a_restored_coordinator_is_paused_and_lets_nobody_removed_in,
    ));
    tests
}

fn list(server: &Server, sql: &str) -> Vec<String> {
    server.rows(sql).iter().map(|row| format!("{row:?}")).collect()
}

#[track_caller]
fn upgrade(server: &Server) {
    server.run("SELECT citus_prepare_pg_upgrade()");
    server.upgrade();
    server.run("SELECT citus_finish_pg_upgrade()");
}

const DECIDED: &str = "SELECT paused, changed_at, changed_by FROM fleet.control";
const REMOVED: &str = "SELECT * FROM fleet.removed";

#[track_caller]
fn remove(cluster: &Cluster, leaving: &Server) {
    let (name, port) = (leaving.address, leaving.port);
    cluster.coordinator.session().run(&format!("SELECT fleet.remove_worker('{name}', {port})"));
    cluster.wait_for_state(leaving.address, "removed");
}

fn pg_upgrade_of_the_coordinator() {
    let plan = Plan::workers(3).set("citus_fleet.http_listen", "{address}:9187");
    let cluster = with_items(plan);
    remove(&cluster, &cluster.workers[2]);
    cluster.coordinator.run("SELECT fleet.pause()");
    let all = |sql: &str| list(&cluster.coordinator, sql);
    let before = [all(DECIDED), all(REMOVED), all(IDENTITIES)];
    let placements = Placements::of(&cluster);
    upgrade(&cluster.coordinator);
    controller(&cluster.coordinator);
    assert_eq!([all(DECIDED), all(REMOVED), all(IDENTITIES)], before);
    assert_eq!(Placements::of(&cluster), placements);
    cluster.coordinator.run("SELECT fleet.resume()");
    for worker in &cluster.workers[..2] {
        cluster.wait_for_state(worker.address, "active");
    }
    let leaving = &cluster.workers[2];
    cluster.wait_for_state(leaving.address, "removed");
    // It has another identity then, and is the same server.
    upgrade(leaving);
    cluster.wait_for_cycles(5);
    cluster.wait_for_state(leaving.address, "removed");
    assert_exact(&cluster.coordinator, FIRST);
}

fn pg_upgrade_of_a_worker() {
    // Every node may one day be the coordinator, and has its settings.
    let cluster = with_items(Plan::workers(2).worker_set("citus_fleet.workers", "10.0.0.1"));
    let worker = &cluster.workers[1];
    controller(worker);
    upgrade(worker);
    controller(worker);
    assert_exact(worker, FIRST);
    assert_exact(&cluster.coordinator, FIRST);
    cluster.wait_for_state(cluster.workers[0].address, "active");
}

fn a_dump_keeps_a_pause_and_who_was_removed() {
    let cluster = Plan::workers(0).without_citus().start();
    let own = &cluster.coordinator;
    own.run(
        "SELECT fleet.pause();
         INSERT INTO fleet.removed (system_identifier, nodename, nodeport, address, relations)
         VALUES (-7, 'it''s gone', 5432, '10.0.0.7', '{public.r_1,public.r_2}')",
    );
    own.run("CREATE DATABASE restored");
    own.dump_into(own, "restored");
    let mut restored = own.session_as("postgres", "restored");
    for sql in [DECIDED, REMOVED] {
        let there: Vec<String> = restored.rows(sql).iter().map(|row| format!("{row:?}")).collect();
        assert_eq!(there, list(own, sql));
    }
    assert_eq!(restored.value("SELECT paused FROM fleet.control"), "t");
    // It is not for good.
    restored.run("UPDATE fleet.control SET paused = false");
    assert_eq!(restored.value("SELECT paused FROM fleet.control"), "f");
}

fn a_dump_of_a_fleet_that_goes_on_pauses_nothing() {
    let cluster = Plan::workers(0).without_citus().start();
    let own = &cluster.coordinator;
    own.run("CREATE DATABASE restored");
    own.dump_into(own, "restored");
    let mut restored = own.session_as("postgres", "restored");
    assert_eq!(restored.value("SELECT paused FROM fleet.control"), "f");
    assert_eq!(restored.value("SELECT count(*) FROM fleet.removed"), "0");
}

fn a_restored_coordinator_is_paused_and_lets_nobody_removed_in() {
    let plan = Plan::workers(2);
    let cluster = plan.clone().start();
    cluster.wait_until_all_active();
    let [stays, leaving] = &cluster.workers[..] else { unreachable!() };
    remove(&cluster, leaving);
    cluster.coordinator.run("SELECT fleet.pause()");
    let spec = plan.coordinator_spec("restored", &cluster.subnet, &cluster.dns);
    let restored = Server::start(spec);
    cluster.coordinator.dump_into(&restored, "postgres");
    restored.run(&format!(
        "SELECT citus_set_coordinator_host('{}', {})",
        restored.address, restored.port
    ));
    controller(&restored);
    wait_for_state(&restored, leaving.address, "removed");
    assert_eq!(restored.value("SELECT fleet.status()->>'paused'"), "true");
    // That one is the other coordinator's, as before.
    assert_eq!(stays.value("SELECT count(*) FROM pg_dist_node"), "2");
    assert_eq!(restored.value("SELECT count(*) FROM pg_dist_node WHERE groupid <> 0"), "0");
}
