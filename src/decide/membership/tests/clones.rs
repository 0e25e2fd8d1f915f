//! Owns the cases of clones, which have the system identifier of their source: neither is the other.

use super::build::*;
use crate::membership::coordinator::{DistNode, Removed};
use crate::membership::server::Server;
use crate::membership::state::State;

/// Worker 2, and a clone of it at 10.0.0.9, which answers in this way.
fn with_clone(answer: Server) -> Fleet {
    let clone = DistNode { clone_of: Some(2), is_primary: false, ..row(5, "10.0.0.9") };
    let fleet = fleet().worker(2, "10.0.0.2").known_as(2, 7002).row(clone, &[]);
    fleet.server("10.0.0.9", answer)
}

fn promoted() -> Server {
    Server { started_us: 9, timeline: 2, ..member(2, 12) }
}

#[test]
fn a_clone_is_no_conflict_before_and_in_its_promotion() {
    for answer in [Server { in_recovery: true, ..promoted() }, promoted()] {
        let plan = with_clone(answer).plan();
        assert_eq!(plan.changes, []);
        assert_eq!(plan.at("10.0.0.9").code, "clone");
        plan.at("10.0.0.9").is(State::Standby, &["node 5", "clone of node 2"]);
        plan.at("w2").is(State::Active, &[]);
    }
}

#[test]
fn a_worker_that_dies_does_not_become_its_clone() {
    let plan = with_clone(promoted()).down("10.0.0.2").plan();
    assert_eq!(plan.changes, []);
    plan.at("w2").is(State::Unreachable, &[]);
}

#[test]
fn a_removed_source_stays_out_and_its_clone_in() {
    let row = row(5, "w5");
    let clone = Server { started_us: 9, timeline: 2, ..member(2, row.groupid) };
    let mut fleet = fleet().row(row, &["10.0.0.9"]).known_as(5, 7002).server("10.0.0.9", clone);
    fleet.coordinator.identities.get_mut(&5).unwrap().record.timeline = 2;
    fleet.coordinator.removed.push(Removed {
        system_identifier: 7002,
        nodename: "w2".into(),
        nodeport: 5432,
        address: Some(ip("10.0.0.2")),
        relations: Vec::new(),
        is_clean: true,
        mark: None,
    });
    let plan = fleet.server("10.0.0.2", server(2)).plan();
    assert_eq!(plan.changes, []);
    plan.at("w5").is(State::Active, &[]);
    assert_eq!(plan.at("10.0.0.2").code, "removed");
}

#[test]
fn a_clone_that_no_source_names_is_listed() {
    let mut unnamed = with_clone(promoted());
    unnamed.candidates.clear();
    let plan = unnamed.plan();
    assert_eq!((plan.workers.len(), plan.at("10.0.0.9").code), (2, "clone"));
}
