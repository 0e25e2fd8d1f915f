//! Owns the cases of registered workers: what their rows and the servers behind them come to, and
//! what they mean for candidates at the same servers.

use super::build::*;
use crate::login::LoginFailureKind;
use crate::membership::coordinator::DistNode;
use crate::membership::server::{Membership, Server};
use crate::membership::state::{Action, State};
use std::time::Duration;

/// Row 2, `w2`, whose name leads to one address.
fn w2(server: Server) -> Fleet {
    fleet().row(row(2, "w2"), &["10.0.0.2"]).answer("10.0.0.2", server)
}

#[test]
fn a_worker_that_answers_for_its_group_is_active() {
    let worker = fleet().worker(2, "10.0.0.2").gives(State::Active, &[]);
    assert_eq!((worker.reason, worker.remedy), (None, None));
    assert_eq!((worker.nodeid, worker.groupid), (Some(2), Some(12)));
    assert_eq!((worker.endpoint, worker.action), (Some(at("10.0.0.2")), Action::None));
    assert_eq!(worker.source, None);
}

#[test]
fn only_primaries_of_other_groups_are_workers() {
    let mut rows = fleet().worker(2, "10.0.0.2");
    rows.nodes().push(DistNode { is_primary: false, ..row(3, "secondary") });
    rows.gives(State::Active, &[]);
}

#[test]
fn a_disabled_worker_is_inactive_and_has_the_statement_to_run() {
    let disabled = DistNode { isactive: false, ..row(2, "w2") };
    let worker = fleet()
        .row(disabled, &["10.0.0.2"])
        .answer("10.0.0.2", member(2, 12))
        .gives(State::Inactive, &["isactive = false"]);
    let statement = "SELECT citus_activate_node('w2', 5432);";
    assert_eq!(worker.remedy.as_deref(), Some(statement));
}

#[test]
fn an_unsynced_worker_is_active_with_a_reason() {
    let unsynced = DistNode { metadatasynced: false, ..row(2, "w2") };
    fleet()
        .row(unsynced, &["10.0.0.2"])
        .answer("10.0.0.2", member(2, 12))
        .gives(State::Active, &["out of sync"]);
}

#[test]
fn a_worker_whose_server_lost_its_data_is_blank() {
    w2(server(2)).gives(State::Blank, &["come back empty"]);
    let without_citus = Server { membership: None, ..member(2, 12) };
    let worker = w2(without_citus).gives(State::Blank, &["extension citus is gone"]);
    assert!(worker.remedy.unwrap().contains("Do not activate"));
}

#[test]
fn a_worker_whose_server_is_of_another_group_is_a_conflict() {
    w2(member(2, 13)).gives(State::Conflict, &["of group 13", "says group 12"]);
    // A coordinator is of group 0, and not blank.
    let coordinator = Server {
        membership: Some(Membership { group_id: 0, nodes: 4, ..member(2, 0).membership.unwrap() }),
        ..server(2)
    };
    w2(coordinator).gives(State::Conflict, &["of group 0"]);
}

#[test]
fn a_worker_whose_name_leads_to_a_standby_is_a_standby() {
    let standby = Server { in_recovery: true, ..member(2, 12) };
    w2(standby).gives(State::Standby, &["in recovery"]);
}

#[test]
fn a_worker_whose_name_leads_to_two_servers_is_a_conflict() {
    let two = |second: Server| {
        fleet()
            .row(row(2, "w2"), &["10.0.0.2", "10.0.0.3"])
            .answer("10.0.0.2", member(2, 12))
            .answer("10.0.0.3", second)
    };
    let facts = ["2 servers", "10.0.0.2:5432", "10.0.0.3:5432"];
    let worker = two(member(3, 12)).gives(State::Conflict, &facts);
    assert!(worker.remedy.unwrap().contains("citus_update_node(2,"));
    let copy = Server { started_us: 1, ..member(2, 12) };
    two(copy).gives(State::Conflict, &facts);
    two(member(2, 12)).gives(State::Active, &[]);
}

#[test]
fn one_dead_address_of_two_leaves_a_worker_active() {
    for (up, down) in [("10.0.0.2", "fd00::2"), ("fd00::2", "10.0.0.2")] {
        fleet()
            .row(row(2, "w2"), &["10.0.0.2", "fd00::2"])
            .answer(up, member(2, 12))
            .down(down)
            .gives(State::Active, &[]);
    }
}

/// Missing from DNS, silent, and how long: only all of it is absence.
#[test]
fn absence_takes_both_a_missing_name_and_silence() {
    let silent = || fleet().row(row(2, "w2"), &["10.0.0.2"]).down("10.0.0.2");
    silent().gives(State::Unreachable, &["connection refused"]);
    silent().unnamed(2, 59).gives(State::Unreachable, &["connection refused"]);
    silent().unnamed(2, 60).gives(State::Absent, &["60 s", "connection refused"]);
    silent().unnamed(3, 999).gives(State::Unreachable, &[]);
    fleet().worker(2, "10.0.0.2").unnamed(2, 999).gives(State::Active, &[]);
    let mut patient = silent().unnamed(2, 999);
    patient.policy.absent_after = Duration::from_secs(1000);
    patient.gives(State::Unreachable, &[]);
}

#[test]
fn a_worker_whose_name_is_gone_is_absent_only_where_it_is_silent_too() {
    let gone = || fleet().row(row(2, "w2"), &["10.0.0.2"]).known_as(2, 7002).lost(2).unnamed(2, 60);
    gone().down("10.0.0.2").gives(State::Absent, &["does not resolve: w2", "connection refused"]);
    let worker = gone()
        .answer("10.0.0.2", member(2, 12))
        .gives(State::Unreachable, &["does not resolve any more", "10.0.0.2"]);
    assert_eq!(worker.code, "name_lost");
    assert!(worker.remedy.unwrap().contains("citus_update_node(2, '10.0.0.2', 5432)"));
    // Somebody else has the address by now.
    gone().answer("10.0.0.2", member(3, 13)).gives(State::Absent, &["does not resolve: w2"]);
    // Who may join, and is nobody's copy.
    let mut reused = gone().server("10.0.0.2", server(9));
    reused.nodes()[1].isactive = false;
    reused.plan().registers_only(&["10.0.0.2"]);
    // A restart is no silence, and who was never asked is not silent.
    gone()
        .failing_since("10.0.0.2", LoginFailureKind::Refused, NOW - 4)
        .gives(State::Unreachable, &["does not resolve: w2", "connection refused"]);
    gone().gives(State::Unreachable, &["does not resolve: w2"]);
    let nowhere = fleet().row(row(2, "w2"), &[]).unnamed(2, 60);
    nowhere.gives(State::Unreachable, &["does not resolve: w2"]);
}

#[test]
fn a_worker_that_nobody_has_asked_since_the_start_is_not_active() {
    let mut unknown = fleet().row(row(2, "w2"), &["10.0.0.2"]).unnamed(2, 60);
    assert_eq!(unknown.gives(State::Active, &[]).code, "active_unasked");
    unknown.node_addresses.clear();
    assert_eq!(unknown.gives(State::Discovered, &["DNS"]).code, "not_located");
    // Nobody can be added beside it: Citus could not tell it.
    let plan = unknown.server("10.0.0.9", server(9)).plan();
    plan.at("10.0.0.9").is(State::Ready, &["w2:5432 is discovered"]);
}

#[test]
fn a_row_that_nobody_can_connect_by_is_a_state_of_its_own() {
    for (nodename, nodeport, fact) in
        [("10.0.0.2", 70_000, "70000"), ("10.0.0.2", 0, "port"), ("x' OR 1=1 --", 5432, "'\\''")]
    {
        let odd = |isactive| DistNode { nodeport, isactive, ..row(2, nodename) };
        for isactive in [true, false] {
            let worker = fleet()
                .row(odd(isactive), &["10.0.0.2"])
                .gives(State::Unreachable, &["cannot be understood", fact]);
            assert_eq!((worker.code, worker.nodeport), ("row_not_understood", nodeport));
        }
        // Its server is known, and found: the row is led there.
        let known = fleet().row(odd(true), &[]).known_as(2, 7002);
        let plan = known.server("10.0.0.9", member(2, 12)).plan();
        assert_eq!(plan.at(nodename).code, "moved", "{plan:#?}");
    }
}

#[test]
fn a_workers_own_address_is_not_a_candidate_as_well() {
    let worker = fleet().worker(2, "10.0.0.2").candidate("10.0.0.2").gives(State::Active, &[]);
    assert_eq!(worker.source.as_deref(), Some("source of 10.0.0.2"));
    // Nor while it is blank, down or in another network.
    w2(server(2)).candidate("10.0.0.2").gives(State::Blank, &[]);
    w2(server(2)).candidate("10.0.0.2").down("10.0.0.2").gives(State::Unreachable, &[]);
    fleet().worker(2, "8.8.8.8").candidate("8.8.8.8").gives(State::Active, &[]);
}

#[test]
fn a_worker_under_another_address_is_not_listed_twice() {
    let worker =
        fleet().worker(2, "10.0.0.2").server("fd00::2", member(2, 12)).gives(State::Active, &[]);
    assert_eq!(worker.source.as_deref(), Some("source of fd00::2"));
    // Nor where the other address has last answered before it was registered, or it is blank.
    fleet().worker(2, "10.0.0.2").server("fd00::2", server(2)).gives(State::Active, &[]);
    w2(server(2)).server("fd00::2", server(2)).gives(State::Blank, &[]);
}

#[test]
fn a_copy_of_a_worker_is_a_conflict_and_the_worker_is_not() {
    let plan = fleet().worker(2, "10.0.0.2").server("10.0.0.3", clone_of(2)).plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.3").is(State::Conflict, &["10.0.0.2:5432", "7002"]);
    plan.at("w2").is(State::Active, &[]);
    let plan =
        fleet().worker(2, "10.0.0.2").aged("10.0.0.2", 3.0).server("10.0.0.3", clone_of(2)).plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.3").is(State::Discovered, &["compared with 10.0.0.2:5432"]);
    assert!(plan.recheck.contains(&at("10.0.0.2")));
}

/// The rows' servers are not at the candidates' addresses, and still the names are taken.
#[test]
fn a_name_that_pg_dist_node_has_is_not_registered_again() {
    let secondary = DistNode { is_primary: false, ..row(2, "w9") };
    let elsewhere = fleet().row(row(2, "w9"), &["10.0.0.2"]).answer("10.0.0.2", member(2, 12));
    for (taken, node) in [
        (elsewhere, "node 2"),
        (fleet().row(secondary, &[]), "node 2"),
        (fleet().registered_as("w9"), "node 1"),
    ] {
        let plan =
            taken.server("10.0.0.9", server(9)).naming("10.0.0.9", "w9", &["10.0.0.9"]).plan();
        assert_eq!(plan.changes, [], "{node}");
        let worker = plan.workers.last().unwrap();
        worker.is(State::Conflict, &["w9:5432", node]);
    }
    let another_port = DistNode { nodeport: 5433, ..row(2, "w9") };
    let plan = fleet()
        .row(another_port, &["10.0.0.9"])
        .server("10.0.0.9", server(9))
        .naming("10.0.0.9", "w9", &["10.0.0.9"])
        .plan();
    assert_eq!(plan.registers(), [("w9".to_string(), "10.0.0.9".to_string())]);
}
