//! Owns the cases of candidates: what a server that no row of `pg_dist_node` leads to becomes.

use super::build::*;
use crate::configuration::networks::NameSuffixes;
use crate::login::LoginFailureKind;
use crate::membership::server::{ExtensionState, Server};
use crate::membership::state::{Action, State};

#[test]
fn a_fit_server_is_registered() {
    let plan = fleet().server("10.0.0.1", server(1)).plan();
    plan.registers_only(&["10.0.0.1"]);
    plan.at("10.0.0.1").is(State::Ready, &["being registered"]);
    assert_eq!(plan.at("10.0.0.1").source.as_deref(), Some("source of 10.0.0.1"));
    assert_eq!(plan.recheck, []);
}

/// Each spoils one fact of a fit server; the reason names the fact, and there is a remedy.
#[test]
fn preflight_refuses_and_names_the_fact() {
    let not_there = || ExtensionState::default();
    let can_be_created = || ExtensionState { installed: None, available: true };
    let older = |version: &str| ExtensionState { installed: Some(version.into()), available: true };
    type Spoil<'a> = &'a dyn Fn(&mut Server);
    let refusals: [(Spoil, &[&str]); 16] = [
        (&|s| s.version_num = 160_010, &["PostgreSQL 16", "PostgreSQL 17"]),
        (&|s| s.version_num = 180_001, &["PostgreSQL 18"]),
        (&|s| s.citus = not_there(), &["citus is not installed"]),
        (&|s| s.citus = can_be_created(), &["citus is not installed"]),
        (&|s| s.citus = older("13.1-1"), &["citus 13.1-1", "13.2-1"]),
        (&|s| s.vector = not_there(), &["vector 0.8.1", "cannot be created"]),
        (&|s| s.vector = older("0.7.4"), &["vector 0.7.4", "0.8.1"]),
        (&|s| s.fleet = not_there(), &["citus_fleet 0.1.0", "cannot be created"]),
        (&|s| s.fleet = older("0.0.9"), &["citus_fleet 0.0.9", "0.1.0"]),
        (
            &|s| s.membership.as_mut().unwrap().group_id = 4,
            &["worker of a Citus cluster", "group 4"],
        ),
        (&|s| s.membership.as_mut().unwrap().nodes = 2, &["coordinator of another", "2 nodes"]),
        (&|s| s.membership.as_mut().unwrap().distributed_tables = 9, &["9 distributed tables"]),
        (&|s| s.relations = vec![relation("public", "docs")], &["public.docs", "dropped"]),
        (&|s| s.wants_password = true, &["take away the password"]),
        (&|s| s.max_prepared_transactions = 0, &["max_prepared_transactions is 0"]),
        (&|s| s.system_identifier = COORDINATOR_ID, &["coordinator itself", "system identifier 1"]),
    ];
    for (spoil, facts) in refusals {
        let mut spoilt = server(1);
        spoil(&mut spoilt);
        let worker = fleet().server("10.0.0.1", spoilt).gives(State::Refused, facts);
        assert_eq!(worker.action, Action::Refuse, "{facts:?}");
        assert!(worker.remedy.is_some(), "{facts:?}");
    }
}

#[test]
fn preflight_lets_pass_what_citus_makes_right_itself() {
    let can_be_created = || ExtensionState { installed: None, available: true };
    type Vary<'a> = &'a dyn Fn(&mut Server);
    let variations: [Vary; 5] = [
        &|s| s.version_num = 170_001,
        &|s| s.vector = can_be_created(),
        &|s| s.fleet = can_be_created(),
        &|s| s.relations = vec![relation("public", "not_distributed")],
        &|s| s.max_prepared_transactions = 1,
    ];
    for (n, vary) in variations.iter().enumerate() {
        let mut varied = server(1);
        vary(&mut varied);
        let plan = fleet().server("10.0.0.1", varied).plan();
        assert_eq!(plan.registers().len(), 1, "variation {n}: {plan:#?}");
    }
    let mut without_vector = fleet();
    without_vector.coordinator.vector_version = None;
    let mut other_vector = server(1);
    other_vector.vector = ExtensionState::default();
    let plan = without_vector.server("10.0.0.1", other_vector).plan();
    plan.registers_only(&["10.0.0.1"]);
}

#[test]
fn standbys_are_no_workers() {
    let standby = |id| Server { system_identifier: id, in_recovery: true, ..server(1) };
    let of_the_coordinator = fleet().server("10.0.0.1", standby(COORDINATOR_ID));
    of_the_coordinator.gives(State::Standby, &["standby of the coordinator"]);
    let of_another = fleet().server("10.0.0.1", standby(7001));
    of_another.gives(State::Standby, &["in recovery"]);
}

#[test]
fn a_standby_is_no_copy_of_its_primary() {
    let standby = Server { in_recovery: true, ..clone_of(1) };
    let plan = fleet().server("10.0.0.1", server(1)).server("10.0.0.2", standby).plan();
    plan.registers_only(&["10.0.0.1"]);
    plan.at("10.0.0.2").is(State::Standby, &[]);
}

#[test]
fn what_has_not_answered_is_told_from_what_does_not() {
    let worker = fleet().candidate("10.0.0.1").gives(State::Discovered, &["not answered yet"]);
    assert_eq!(worker.action, Action::None);
    use LoginFailureKind as Kind;
    let failures = [
        (Kind::NoRoute, "no route"),
        (Kind::Refused, "connection refused"),
        (Kind::Timeout, "no answer in time"),
        (Kind::Tls, "TLS"),
        (Kind::WrongPassword, "authentication failed"),
        (Kind::NotPermitted, "does not let the coordinator in"),
        (Kind::DatabaseMissing, "database does not exist"),
        (Kind::StartingUp, "starting up"),
        (Kind::TooManyConnections, "no connection slot"),
        (Kind::Protocol, "not a working PostgreSQL"),
        (Kind::Other, "login failed"),
    ];
    for (kind, fact) in failures {
        let worker = fleet()
            .candidate("10.0.0.1")
            .failing("10.0.0.1", kind)
            .gives(State::Unreachable, &[fact, "in its own words"]);
        assert_eq!(worker.action, Action::None, "{kind:?}");
        assert!(worker.remedy.is_some(), "{kind:?}");
    }
}

#[test]
fn one_unreachable_candidate_costs_the_others_nothing() {
    let plan = fleet().candidate("10.0.0.1").down("10.0.0.1").server("10.0.0.2", server(2)).plan();
    plan.registers_only(&["10.0.0.2"]);
    plan.at("10.0.0.1").is(State::Unreachable, &[]);
}

#[test]
fn a_server_under_two_addresses_is_registered_once() {
    let plan = fleet()
        .server("10.0.0.1", server(1))
        .server("fd00::1", server(1))
        .server("10.0.0.2", server(2))
        .plan();
    plan.registers_only(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(plan.workers.len(), 2);
}

#[test]
fn a_server_that_is_refused_is_listed_once_too() {
    let refused = || member(1, 4);
    fleet()
        .server("10.0.0.1", refused())
        .server("fd00::1", refused())
        .gives(State::Refused, &["group 4"]);
}

#[test]
fn a_copy_and_its_original_are_both_left_alone() {
    let plan = fleet()
        .server("10.0.0.1", server(1))
        .server("10.0.0.2", clone_of(1))
        .server("10.0.0.3", server(3))
        .plan();
    plan.registers_only(&["10.0.0.3"]);
    plan.at("10.0.0.1").is(State::Conflict, &["10.0.0.2:5432", "7001", "copy"]);
    plan.at("10.0.0.2").is(State::Conflict, &["10.0.0.1:5432", "7001", "copy"]);
    assert_eq!(plan.recheck, []);
}

/// Two answers of one address family each, one from before a restart of the same server.
#[test]
fn a_copy_is_believed_only_of_answers_from_one_moment() {
    let compared = |age| {
        fleet()
            .server("10.0.0.1", server(1))
            .server("fd00::1", clone_of(1))
            .aged("fd00::1", age)
            .plan()
    };
    let plan = compared(3.0);
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.1").is(State::Discovered, &["[fd00::1]:5432", "same system identifier"]);
    plan.at("fd00::1").is(State::Discovered, &["10.0.0.1:5432"]);
    for address in ["10.0.0.1", "fd00::1"] {
        assert!(plan.recheck.contains(&at(address)), "{address}");
    }
    let plan = compared(1.0);
    plan.at("10.0.0.1").is(State::Conflict, &[]);
    assert_eq!(plan.recheck, []);
}

#[test]
fn a_copy_at_a_barred_address_costs_the_original_nothing() {
    let plan = fleet().server("8.8.8.8", clone_of(1)).server("10.0.0.1", server(1)).plan();
    plan.registers_only(&["10.0.0.1"]);
    plan.at("8.8.8.8").is(State::Refused, &["allowed_networks"]);
}

#[test]
fn barred_addresses_are_never_planned() {
    let barred = [
        ("8.8.8.8", "allowed_networks"),
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("224.0.0.1", "multicast"),
        ("::ffff:10.0.0.1", "IPv4-mapped"),
    ];
    for (address, fact) in barred {
        let worker = fleet().server(address, server(1)).gives(State::Refused, &[address, fact]);
        assert_eq!(worker.action, Action::Refuse);
    }
}

#[test]
fn loopback_is_for_a_coordinator_on_loopback() {
    for own in ["127.0.0.1", "::1"] {
        let plan = fleet().registered_as(own).server("127.0.0.2", server(1)).plan();
        plan.registers_only(&["127.0.0.2"]);
    }
    let plan = fleet().coordinator_host("127.0.0.1").server("127.0.0.2", server(1)).plan();
    plan.registers_only(&["127.0.0.2"]);
}

#[test]
fn barred_names_are_never_planned() {
    let mut within = fleet()
        .server("10.0.0.1", server(1))
        .given("10.0.0.1", "w1.example")
        .server("10.0.0.2", server(2))
        .given("10.0.0.2", "w2.example.evil");
    within.policy.names = NameSuffixes::parse("example").unwrap();
    let plan = within.plan();
    plan.registers_only(&["10.0.0.1"]);
    plan.at("10.0.0.2").is(State::Refused, &["w2.example.evil", "allowed_names"]);
}

#[test]
fn a_name_is_used_only_if_it_leads_to_this_server_alone() {
    let one = || fleet().server("10.0.0.1", server(1));
    let registered = |fleet: Fleet| fleet.plan().registers()[0].0.clone();
    let cases: [(&str, Fleet); 6] = [
        ("w1", one().naming("10.0.0.1", "w1", &["10.0.0.1"])),
        // A second address of the same server, which has answered.
        (
            "w1",
            one().server("fd00::1", server(1)).naming("10.0.0.1", "w1", &["10.0.0.1", "fd00::1"]),
        ),
        // A second address of another server.
        (
            "10.0.0.1",
            one().server("fd00::2", server(2)).naming("10.0.0.1", "w1", &["10.0.0.1", "fd00::2"]),
        ),
        // A second address of a copy: the system identifier alone is not enough.
        (
            "10.0.0.1",
            one().answer("fd00::2", clone_of(1)).naming("10.0.0.1", "w1", &["10.0.0.1", "fd00::2"]),
        ),
        // A second address that nobody has asked, or that does not answer.
        ("10.0.0.1", one().naming("10.0.0.1", "w1", &["10.0.0.1", "fd00::2"])),
        ("10.0.0.1", one().down("fd00::2").naming("10.0.0.1", "w1", &["10.0.0.1", "fd00::2"])),
    ];
    for (n, (expected, fleet)) in cases.into_iter().enumerate() {
        assert_eq!(registered(fleet), expected, "case {n}");
    }
}

#[test]
fn a_name_outside_the_allowed_suffixes_is_not_used() {
    let mut pointer =
        fleet().server("10.0.0.1", server(1)).naming("10.0.0.1", "w1.evil", &["10.0.0.1"]);
    pointer.policy.names = NameSuffixes::parse("example").unwrap();
    pointer.plan().registers_only(&["10.0.0.1"]);
}

#[test]
fn a_stale_answer_is_asked_for_again_before_it_is_acted_upon() {
    let stale = fleet().server("10.0.0.1", server(1)).aged("10.0.0.1", 10.001);
    stale.gives(State::Ready, &["checked once more"]);
    assert_eq!(stale.plan().recheck, [at("10.0.0.1")]);
    let plan = fleet().server("10.0.0.1", server(1)).aged("10.0.0.1", 10.0).plan();
    plan.registers_only(&["10.0.0.1"]);
    assert_eq!(plan.recheck, []);
}
