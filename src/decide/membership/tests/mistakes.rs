//! Owns a case for each mistake that was found in the planner, failed first, and was mended.
//! Must not be thinned out: each of these has happened once.

use super::build::*;
use crate::membership::state::State;
use std::time::Duration;

/// DNS that gives one address of many at a time (fault 8) lets one name be found for two servers.
/// The second `citus_add_node` of a name returns the first's node id and is taken for a success.
#[test]
fn two_servers_are_not_registered_under_one_name() {
    let plan = fleet()
        .server("10.0.0.1", server(1))
        .naming("10.0.0.1", "worker", &["10.0.0.1"])
        .server("10.0.0.2", server(2))
        .naming("10.0.0.2", "worker", &["10.0.0.2"])
        .plan();
    let registers = plan.registers();
    assert!(registers.len() < 2 || registers[0].0 != registers[1].0, "{registers:?}");
}

/// The coordinator leaves loopback in the very plan that registers a worker on loopback.
#[test]
fn a_coordinator_that_leaves_loopback_takes_no_workers_there() {
    let plan = fleet()
        .registered_as("localhost")
        .coordinator_host("coord")
        .server("127.0.0.2", server(1))
        .plan();
    assert_eq!(plan.registers(), []);
}

/// The copy is compared with the answer of fd00::2, but the worker's first address is named and
/// asked again, so the stale answer stays.
#[test]
fn a_comparison_is_with_the_address_that_answered() {
    let plan = fleet()
        .row(row(2, "w2"), &["10.0.0.2", "fd00::2"])
        .down("10.0.0.2")
        .answer("fd00::2", member(2, 12))
        .aged("fd00::2", 3.0)
        .server("10.0.0.3", clone_of(2))
        .plan();
    plan.at("10.0.0.3").is(State::Discovered, &["fd00::2"]);
    assert!(plan.recheck.contains(&at("fd00::2")));
}

/// One server whose addresses were asked before and after a restart: the candidates' comparison
/// asks again, the row's is a conflict at once and holds every other registration back.
#[test]
fn a_worker_that_restarted_between_two_answers_is_asked_again() {
    let mut restarted = member(2, 12);
    restarted.started_us += 1;
    let plan = fleet()
        .row(row(2, "w2"), &["10.0.0.2", "fd00::2"])
        .answer("10.0.0.2", member(2, 12))
        .aged("10.0.0.2", 4.0)
        .answer("fd00::2", restarted)
        .plan();
    assert_ne!(plan.at("w2").state, State::Conflict);
}

/// Citus is there and the membership is not known: nothing says that the server is in no cluster.
#[test]
fn a_server_of_unknown_membership_is_not_registered() {
    let mut unknown = server(1);
    unknown.membership = None;
    let plan = fleet().server("10.0.0.1", unknown).plan();
    assert_eq!(plan.registers(), []);
}

/// Our own worker at a new address: "Remove it from that cluster first" would lose its shards.
#[test]
fn a_worker_that_moved_is_not_told_to_leave_its_cluster() {
    let plan = fleet()
        .row(row(2, "w2"), &["10.0.0.2"])
        .down("10.0.0.2")
        .server("10.0.0.3", member(2, 12))
        .plan();
    let remedy = plan.at("10.0.0.3").remedy.clone().unwrap_or_default();
    assert!(remedy.contains("citus_update_node"), "{remedy}");
}

/// A name is looked up by Citus itself when it adds the node: that it leads to one server alone has to
/// be true then, not when the server was first seen.
#[test]
fn a_name_is_asked_for_again_before_it_is_registered() {
    let named = |seconds: u64| {
        let mut fleet =
            fleet().server("10.0.0.1", server(1)).naming("10.0.0.1", "w", &["10.0.0.1"]);
        let named_at = Duration::from_secs(NOW - seconds);
        fleet.endpoints.get_mut(&at("10.0.0.1")).unwrap().named_at = Some(named_at);
        fleet.plan()
    };
    assert_eq!(named(10).registers(), [("w".to_owned(), "10.0.0.1".to_owned())]);
    let old = named(11);
    assert_eq!((old.registers(), old.recheck), (vec![], vec![at("10.0.0.1")]));
}

/// A source gives one name for two servers now: neither is registered under it.
#[test]
fn a_name_that_is_shared_by_now_is_not_used() {
    let plan = fleet()
        .server("10.0.0.1", server(1))
        .given("10.0.0.1", "w")
        .naming("10.0.0.1", "w", &["10.0.0.1"])
        .server("10.0.0.2", member(5, 15))
        .given("10.0.0.2", "w")
        .plan();
    plan.registers_only(&["10.0.0.1"]);
}

/// `inactive` is no reason to offer the activation of a server that has lost its data.
#[test]
fn a_blank_server_is_not_offered_for_activation() {
    let mut row = row(2, "w2");
    row.isactive = false;
    let plan = fleet().row(row, &["10.0.0.2"]).answer("10.0.0.2", server(2)).plan();
    let worker = plan.at("w2");
    worker.is(State::Inactive, &["come back empty"]);
    assert!(!worker.remedy.as_ref().unwrap().contains("citus_activate_node"));
}
