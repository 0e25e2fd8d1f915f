//! Owns the cases of `fleet.remove_worker`: a worker that is being emptied, and a server that was
//! removed. Worker 2 is in group 12; server number 9 has the system identifier 7009.

use super::build::*;
use crate::login::LoginFailureKind;
use crate::membership::change::Change;
use crate::membership::coordinator::{DistNode, Removed};
use crate::membership::observation::Hold;
use crate::membership::server::{Membership, Server};
use crate::membership::state::State;

/// Worker 2 as it should be, but for what its row says of its shards.
fn emptying(is_being_removed: bool, placements: Option<u64>) -> Fleet {
    let it = DistNode {
        is_being_removed,
        placements,
        shouldhaveshards: placements.is_none(),
        ..row(2, "w2")
    };
    fleet().row(it, &["10.0.0.2"]).answer("10.0.0.2", member(2, 12))
}

fn removed(is_clean: bool) -> Removed {
    Removed {
        system_identifier: 7009,
        nodename: "it's".into(),
        nodeport: 5432,
        address: Some(ip("10.0.0.9")),
        relations: vec!["public.r_102014".into()],
        is_clean,
        mark: None,
    }
}

/// Server 9, which an operator has removed, at an address that a source yields.
fn out(is_clean: bool, server: Server) -> Fleet {
    let mut fleet = fleet().server("10.0.0.9", server);
    fleet.coordinator.removed.push(removed(is_clean));
    fleet
}

#[test]
fn a_worker_that_is_being_removed_says_how_far_it_is() {
    emptying(true, None).gives(State::Removing, &["not begun"]);
    emptying(true, Some(7)).gives(State::Removing, &["7 shards are left"]);
    emptying(true, Some(1)).gives(State::Removing, &["1 shard is left"]);
}

#[test]
fn a_removal_that_was_interrupted_has_both_ways_out() {
    let worker = emptying(false, Some(7)).gives(State::Active, &["no new shards", "7 shards"]);
    let remedy = worker.remedy.unwrap();
    assert!(remedy.contains("citus_set_node_property('w2', 5432, 'shouldhaveshards', true)"));
    assert!(remedy.contains("fleet.remove_worker('w2', 5432)"));
}

#[test]
fn what_is_wrong_with_a_worker_shows_also_while_it_is_being_removed() {
    let mut dead = emptying(true, Some(7)).failing("10.0.0.2", LoginFailureKind::Refused);
    dead.policy.on_absent = crate::configuration::policy::OnAbsent::Disable;
    dead.gives(State::Unreachable, &["refused"]);
}

#[test]
fn a_removed_server_is_cleaned_and_never_registered() {
    let plan = out(false, server(9)).plan();
    let clean = Change::Clean {
        // Its address has no certificate; the name that it was registered under may have one.
        nodename: "it's".into(),
        endpoint: at("10.0.0.9"),
        system_identifier: 7009,
        relations: vec!["public.r_102014".into()],
    };
    assert_eq!(plan.changes, [clean]);
    plan.at("10.0.0.9").is(State::Removed, &["1 relations", "being dropped"]);
    assert_eq!(plan.at("10.0.0.9").source.as_deref(), Some("source of 10.0.0.9"));
    let worker = out(true, server(9)).gives(State::Removed, &["fleet.remove_worker"]);
    assert!(worker.remedy.unwrap().contains("fleet.enroll_worker('it''s', 5432)"));
}

#[test]
fn nothing_is_dropped_from_a_member_a_standby_or_against_the_operators_will() {
    out(true, member(9, 14)).gives(State::Removed, &["still takes itself for a worker"]);
    out(false, member(9, 14)).gives(State::Removed, &["still takes itself for a worker"]);
    let coordinator = Membership { nodes: 3, distributed_tables: 0, ..Membership::default() };
    let other = Server { membership: Some(coordinator), ..server(9) };
    out(false, other).gives(State::Removed, &["still takes itself for a worker"]);
    let standby = Server { in_recovery: true, ..server(9) };
    out(false, standby).gives(State::Removed, &["standby"]);
    out(false, server(9)).hold(Hold::Paused).gives(State::Removed, &["paused"]);
}

#[test]
fn a_worker_that_was_probed_in_the_moment_of_its_removal_is_not_blank() {
    let mut fleet = emptying(true, Some(0));
    fleet = fleet.answer("10.0.0.2", server(2));
    fleet.gives(State::Removing, &["just now"]);
}

#[test]
fn a_removed_server_is_cleaned_also_when_no_source_names_it_and_nobody_else_is_touched() {
    let unnamed = |server: Server| {
        let mut fleet = fleet().answer("10.0.0.9", server);
        fleet.coordinator.removed.push(removed(false));
        fleet.plan()
    };
    let plan = unnamed(server(9));
    assert_eq!(plan.changes.len(), 1);
    let worker = plan.at("10.0.0.9");
    worker.is(State::Removed, &["being dropped"]);
    assert_eq!(worker.source, None);
    let other = unnamed(server(8));
    assert_eq!((other.changes.len(), other.workers.len()), (0, 0));
    let mut silent = fleet().down("10.0.0.9");
    silent.coordinator.removed.push(removed(false));
    assert_eq!(silent.plan().workers, []);
}

#[test]
fn nobody_at_the_address_of_a_removed_server_is_that_server() {
    let failing = |is_clean, kind| out(is_clean, server(9)).failing("10.0.0.9", kind);
    let clean = failing(true, LoginFailureKind::Refused);
    assert_eq!(clean.gives(State::Removed, &["remove_worker; ", "refused"]).remedy, None);
    failing(false, LoginFailureKind::Timeout).gives(State::Removed, &["to be cleaned"]);
    // Somebody answers there, and might be somebody new.
    failing(true, LoginFailureKind::WrongPassword).gives(State::Unreachable, &["authentication"]);
    let mut elsewhere = fleet().candidate("10.0.0.8").down("10.0.0.8");
    elsewhere.coordinator.removed.push(removed(true));
    elsewhere.gives(State::Unreachable, &["refused"]);
}

#[test]
fn another_server_at_its_address_is_nobody_that_was_removed() {
    out(false, server(8)).plan().registers_only(&["10.0.0.9"]);
}

/// pg_upgrade gives it another identity, and keeps the mark.
#[test]
fn a_removed_server_that_is_upgraded_stays_out() {
    let mut upgraded = out(true, Server { marks: server(9).marks, ..server(8) });
    upgraded.coordinator.removed[0].mark = server(9).marks.and_then(|marks| marks.first().cloned());
    upgraded.gives(State::Removed, &[]);
}

#[test]
fn a_removed_server_that_somebody_has_added_by_hand_is_a_worker() {
    let mut fleet = fleet().worker(9, "10.0.0.9").candidate("10.0.0.9");
    fleet.coordinator.removed.push(removed(false));
    fleet.gives(State::Active, &[]);
}
