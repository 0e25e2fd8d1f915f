//! Owns the cases of servers that hang while they join: whose turn it is, and who goes before them.

use super::build::*;
use crate::membership::cause::{Cause, Hang};
use crate::membership::change::{Change, Subject};
use crate::membership::state::State;
use std::time::Duration;

/// So many seconds after they have hung for fifteen, servers 10.0.0.9, 10.0.0.8, … are due again.
fn hung(ago: u64, count: usize, is_known: bool) -> Fleet {
    let mut fleet = fleet();
    for n in (10 - count..10).rev() {
        let address = format!("10.0.0.{n}");
        let due = Duration::from_secs(NOW) - Duration::from_micros(n as u64);
        fleet = fleet.server(&address, server(n as i64)).refused_by_citus(&address, due);
    }
    let took = Duration::from_secs(15);
    fleet = fleet.because(Cause::Hung(Hang { took, is_known }));
    for failure in fleet.failures.values_mut() {
        failure.failed_at = Duration::from_secs(NOW).saturating_sub(Duration::from_secs(ago));
    }
    fleet
}

/// How long fifteen seconds of waiting forbid the next.
const RESTED: u64 = 1500;

fn later(fleet: Fleet) -> Fleet {
    // The clock of the tests stands still: what has happened, happened at its beginning, and was shorter.
    let mut fleet = fleet;
    for failure in fleet.failures.values_mut() {
        failure.failed_at = Duration::ZERO;
        if let Cause::Hung(hang) = &mut failure.cause {
            hang.took = Duration::from_secs(NOW * 15 / RESTED - 1);
        }
    }
    fleet
}

#[test]
fn one_at_a_time_has_its_turn_and_the_longest_waiting_first() {
    later(hung(0, 3, true)).plan().registers_only(&["10.0.0.9"]);
    let plan = hung(20, 3, true).plan();
    assert_eq!(plan.changes, [], "all of them together cost no more than one");
    plan.at("10.0.0.8").is(State::Ready, &["waiting for 15 s", "attempt 3"]);
}

#[test]
fn whoever_asks_for_it_gets_an_attempt_of_one_at_once() {
    let mut asked = hung(1, 2, true);
    for failure in asked.failures.values_mut() {
        *failure = failure.clone().forgiven();
    }
    let plan = asked.plan();
    assert_eq!(plan.changes.len(), 1);
    let held = plan.workers.iter().find(|worker| worker.code == "hangs_joining").unwrap();
    held.is(State::Ready, &["waiting for 15 s"]);
}

/// Whoever has just joined is marked in the same cycle.
#[test]
fn a_mark_that_is_due_does_not_take_the_turn() {
    let mut asked = hung(1, 1, true).worker(2, "10.0.0.2").known_as(2, 7002);
    asked.coordinator.identities.get_mut(&2).unwrap().record.mark = None;
    for failure in asked.failures.values_mut() {
        *failure = failure.clone().forgiven();
    }
    let plan = asked.plan();
    assert!(
        matches!(plan.changes[..], [Change::Mark { .. }, Change::Register { .. }]),
        "{:?}",
        plan.changes
    );
}

/// Of those of one transaction nobody knows which it was: each shows it alone.
#[test]
fn those_that_may_have_been_in_bad_company_are_tried_alone_and_soon() {
    hung(1, 3, false).plan().registers_only(&["10.0.0.9"]);
}

#[test]
fn everybody_else_goes_before_one_that_hangs() {
    let newcomer = later(hung(0, 1, true)).server("10.0.0.3", server(3));
    newcomer.plan().registers_only(&["10.0.0.3"]);
    // A worker without metadata keeps nobody from being added; it is followed all the same.
    let mut row = row(2, "w2");
    row.hasmetadata = false;
    let moved = later(hung(0, 1, true))
        .row(row, &["10.0.0.2"])
        .known_as(2, 7002)
        .down("10.0.0.2")
        .server("10.0.0.4", member(2, 12));
    let plan = moved.plan();
    assert!(matches!(plan.changes[..], [Change::UpdateAddress { nodeid: 2, .. }]), "{plan:#?}");
    plan.at("10.0.0.9").is(State::Ready, &["kept the cluster waiting"]);
    // And while it is about to be, or cannot be yet.
    let waiting = moved.failed(Subject::Node(2), Duration::from_secs(NOW + 9));
    assert_eq!(waiting.plan().changes, []);
}

#[test]
fn one_that_hangs_does_not_slow_the_others_and_many_do() {
    hung(1, 1, true).server("10.0.0.3", server(3)).plan().registers_only(&["10.0.0.3"]);
    let plan = hung(1, 4, true).server("10.0.0.3", server(3)).plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.3").is(State::Ready, &["4 servers have hung"]);
    hung(106, 4, true).server("10.0.0.3", server(3)).plan().registers_only(&["10.0.0.3"]);
}
