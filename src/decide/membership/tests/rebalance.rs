//! Owns the cases of `citus_fleet.rebalance_on_join`: when the rebalancer is started, and what keeps it.

use super::build::*;
use crate::login::LoginFailureKind;
use crate::membership::change::{Change, Subject};
use crate::membership::coordinator::{DistNode, Tasks};
use crate::membership::observation::Hold;
use crate::membership::server::Server;
use crate::membership::state::State;

/// Worker 2 with shards, and worker 3, which has joined a while ago and has none.
fn joined() -> Fleet {
    let third = DistNode { waits_for_shards: true, ..row(3, "w3") };
    let mut fleet = fleet()
        .worker(2, "10.0.0.2")
        .row(third, &["10.0.0.3"])
        .answer("10.0.0.3", member(3, 13))
        .known_as(3, 7003);
    fleet.policy.rebalance_on_join = true;
    fleet
}

/// Asserts that nothing is started, and that worker 3 says why.
#[track_caller]
fn waits(fleet: &Fleet, why: &str) {
    let plan = fleet.plan();
    assert!(!plan.changes.contains(&Change::Rebalance), "expected to wait: {why}");
    plan.at("w3").is(State::Active, &["holds no shards yet", why]);
}

#[test]
fn shards_are_moved_once_a_worker_has_joined() {
    assert_eq!(joined().plan().changes, [Change::Rebalance]);
    let mut nobody = joined();
    nobody.nodes()[2].waits_for_shards = false;
    assert_eq!(nobody.plan().changes, []);
    let mut off = joined();
    off.policy.rebalance_on_join = false;
    assert_eq!(off.plan().changes, []);
}

#[test]
fn it_waits_until_joins_have_settled() {
    let mut fresh = joined();
    fresh.coordinator.identities.get_mut(&3).unwrap().recorded_for = 9;
    waits(&fresh, "just joined");
    let next = joined().server("10.0.0.4", server(4));
    waits(&next, "just joined");
}

#[test]
fn it_waits_for_jobs_index_builds_and_sick_workers() {
    let mut job = joined();
    job.coordinator.citus.as_mut().unwrap().is_job_running = true;
    waits(&job, "another background job");

    let mut build = joined();
    build.coordinator.index_builds = 1;
    waits(&build, "index");
    let builds = Server { index_builds: 1, ..member(2, 12) };
    waits(&joined().answer("10.0.0.2", builds), "index");

    waits(&joined().failing("10.0.0.2", LoginFailureKind::Refused), "w2:5432 is unreachable");
    let mut unsynced = joined();
    unsynced.nodes()[1].metadatasynced = false;
    waits(&unsynced, "w2 is out of sync");
    let mut leaving = joined();
    leaving.nodes()[1].is_being_removed = true;
    waits(&leaving, "w2:5432 is removing");
}

#[test]
fn it_waits_for_the_operator_and_after_a_failure() {
    waits(&joined().hold(Hold::Paused), "paused");
    let mut failed = joined().refused_by_citus("10.0.0.3", std::time::Duration::from_secs(NOW + 5));
    let failure = failed.failures.values().next().cloned().unwrap();
    failed.failures.insert(Subject::Shards, failure);
    waits(&failed, "lock timeout");
    let remedy = failed.plan().at("w3").remedy.clone().unwrap();
    assert!(remedy.contains("replica identity") && remedy.contains("block_writes"), "{remedy}");
}

#[test]
fn a_running_job_shows_its_progress() {
    let mut moving = joined();
    moving.nodes()[2].waits_for_shards = false;
    moving.nodes()[2].tasks = Some(Tasks { done: 3, total: 12 });
    let plan = moving.plan();
    plan.at("w3").is(State::Active, &["3 of 12"]);
    assert_eq!(plan.at("w2").reason, None);
}
