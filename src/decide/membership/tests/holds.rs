//! Owns the cases of servers that could be registered and are not, because of something else: the
//! coordinator, another worker, an operator, a failed attempt.

use super::build::*;
use crate::login::LoginFailureKind;
use crate::membership::cause::{Cause, Holder};
use crate::membership::change::{Change, Subject};
use crate::membership::coordinator::DistNode;
use crate::membership::observation::Hold;
use crate::membership::server::Server;
use crate::membership::state::{Action, State};
use std::time::Duration;

/// A fleet with one server that wants to join.
fn joining() -> Fleet {
    fleet().server("10.0.0.9", server(9))
}

fn set_host(host: &str) -> Change {
    Change::SetCoordinatorHost { nodename: host.into(), nodeport: 5432 }
}

#[test]
fn without_citus_a_fit_server_is_ready() {
    let mut without = joining().coordinator_host("coord");
    without.coordinator.citus = None;
    let worker = without.gives(State::Ready, &["Citus is not installed"]);
    assert!(worker.remedy.unwrap().contains("CREATE EXTENSION citus"));
}

#[test]
fn a_coordinator_at_localhost_gets_the_statement_to_run() {
    let worker = joining().registered_as("localhost").gives(State::Ready, &["localhost"]);
    assert!(worker.remedy.unwrap().contains("citus_set_coordinator_host"));
}

#[test]
fn the_coordinators_host_is_set_before_anything_is_registered() {
    for own in ["localhost", "elsewhere"] {
        let plan = joining().registered_as(own).coordinator_host("coord").plan();
        assert_eq!(plan.changes[0], set_host("coord"));
        plan.registers_only(&["10.0.0.9"]);
    }
    let mut without_a_row = joining().coordinator_host("coord");
    without_a_row.nodes().clear();
    assert_eq!(without_a_row.plan().changes[0], set_host("coord"));
    let mut at_another_port = joining().coordinator_host("coord");
    at_another_port.nodes()[0].nodeport = 5433;
    assert_eq!(at_another_port.plan().changes[0], set_host("coord"));
    let right_already = joining().coordinator_host("coord").plan();
    assert_eq!(right_already.changes.len(), 1);
    right_already.registers_only(&["10.0.0.9"]);
}

#[test]
fn nobody_joins_while_the_coordinators_host_cannot_be_set() {
    let later = Duration::from_secs(NOW + 1);
    let failed = |own: &str| {
        let led = joining().registered_as(own).coordinator_host("coord");
        led.failed(Subject::Coordinator, later)
    };
    failed("elsewhere").gives(State::Ready, &["lock timeout"]);
    failed("coord").plan().registers_only(&["10.0.0.9"]);
}

#[test]
fn nobody_else_is_given_out_as_the_coordinator() {
    let standby = Server { in_recovery: true, started_us: 7, ..coordinator() };
    let copy = Server { started_us: 7, ..coordinator() };
    for (stranger, fact) in [(server(3), "7003"), (standby, OWN), (copy, OWN)] {
        for own in ["coord", "elsewhere"] {
            let led = || joining().registered_as(own).coordinator_host("coord");
            let there = led().answer(OWN, stranger.clone());
            let worker = there.gives(State::Ready, &["coord:5432", fact]);
            // Nobody is told to take the workers from a server that may be the coordinator.
            let takes = worker.remedy.unwrap().contains("citus_set_coordinator_host");
            assert_eq!(takes, stranger.system_identifier != coordinator().system_identifier);
            // One address of several is enough: nobody knows which of them a worker takes.
            let mut one_of_two = led().answer("10.1.0.2", stranger.clone());
            one_of_two.own[0].endpoints.push(at("10.1.0.2"));
            one_of_two.gives(State::Ready, &["10.1.0.2"]);
        }
        joining().answer(OWN, stranger).gives(State::Ready, &["coord:5432"]);
    }
}

#[test]
fn an_address_of_the_coordinator_where_nobody_answers_waits() {
    let led = || joining().registered_as("elsewhere").coordinator_host("coord");
    led().down(OWN).gives(State::Ready, &["coord:5432 cannot be reached", "refused"]);
    let mut unknown = led();
    unknown.own[0].endpoints.clear();
    unknown.gives(State::Ready, &["coord:5432 does not resolve"]);
    let mut unasked = led();
    unasked.own[0].endpoints.push(at("10.1.0.2"));
    unasked.gives(State::Ready, &["is checked"]);
    // IPv6 of a server that listens on IPv4 only, as localhost has it.
    let mut one_of_two = joining().down("fd00::9:1");
    one_of_two.own[0].endpoints.push(at("fd00::9:1"));
    one_of_two.plan().registers_only(&["10.0.0.9"]);
}

#[test]
fn an_old_answer_of_the_coordinators_address_is_asked_for_again() {
    let old = joining().registered_as("elsewhere").coordinator_host("coord").aged(OWN, 10.5);
    old.gives(State::Ready, &["once more"]);
    assert!(old.plan().recheck.contains(&at(OWN)));
    let nothing_to_do = fleet().aged(OWN, 10.5).plan();
    assert_eq!(nothing_to_do.recheck, []);
}

#[test]
fn paused_and_disabled_change_nothing_and_say_so() {
    for (hold, fact, remedy) in [
        (Hold::Paused, "paused", "fleet.resume()"),
        (Hold::Disabled, "citus_fleet.enabled", "citus_autoregister()"),
    ] {
        let held = joining().coordinator_host("elsewhere").hold(hold);
        let worker = held.gives(State::Ready, &[fact]);
        assert_eq!(worker.action, Action::Register);
        assert!(worker.remedy.unwrap().contains(remedy));
    }
}

#[test]
fn a_failed_registration_waits_for_its_next_attempt() {
    let now = Duration::from_secs(NOW);
    let waiting = joining().refused_by_citus("10.0.0.9", now + Duration::from_micros(1));
    waiting.gives(State::Ready, &["attempt 3", "lock timeout"]);
    let due = joining().refused_by_citus("10.0.0.9", now).plan();
    due.registers_only(&["10.0.0.9"]);
    let plan = joining()
        .refused_by_citus("10.0.0.9", now + Duration::from_secs(60))
        .server("10.0.0.8", server(8))
        .plan();
    plan.registers_only(&["10.0.0.8"]);
}

#[test]
fn whoever_holds_the_lock_is_named_with_the_statement_that_ends_it() {
    let holder = |pid, gid: Option<&str>| Holder {
        pid,
        gid: gid.map(Into::into),
        application: "nightly".into(),
        role: "dba".into(),
        since: "2026-11-26 12:00:00Z".into(),
    };
    let worker = |holders| {
        let waiting = joining().refused_by_citus("10.0.0.9", Duration::from_secs(NOW + 1));
        let waiting = waiting.because(Cause::Locked(holders));
        waiting.gives(State::Ready, &["attempt 3"])
    };
    for (held_by, facts, remedy) in [
        (holder(Some(7), None), ["process 7", "nightly"], "SELECT pg_terminate_backend(7);"),
        (holder(None, Some("it's")), ["\"it's\"", "dba"], "ROLLBACK PREPARED 'it''s';"),
        (holder(None, Some("citus_2_3_4_5")), ["citus_2_3_4_5", "dba"], "recover_prepared"),
    ] {
        let worker = worker(vec![held_by]);
        assert_eq!(worker.code, "lock_held");
        let reason = worker.reason.unwrap();
        assert!(facts.iter().chain(&["since 2026"]).all(|it| reason.contains(it)), "{reason}");
        assert!(worker.remedy.unwrap().contains(remedy));
    }
    assert_eq!(worker(Vec::new()).code, "attempt_failed", "it is gone by now");
}

#[test]
fn a_healthy_worker_holds_nothing_back() {
    let plan = joining().worker(2, "10.0.0.2").plan();
    plan.registers_only(&["10.0.0.9"]);
    plan.at("w2").is(State::Active, &[]);
}

/// Each holds back every registration and is named as the culprit.
#[test]
fn a_worker_that_citus_cannot_write_to_holds_back_all() {
    let unsynced = DistNode { metadatasynced: false, ..row(2, "w2") };
    let empty = server(2);
    let recovering = Server { in_recovery: true, ..member(2, 12) };
    let w2 = || joining().row(row(2, "w2"), &["10.0.0.2"]);
    let cases = [
        (w2().down("10.0.0.2"), "w2:5432 is unreachable"),
        (w2().down("10.0.0.2").unnamed(2, 999), "w2:5432 is absent"),
        (w2().failing("10.0.0.2", LoginFailureKind::WrongPassword), "w2:5432 is unreachable"),
        (joining().row(row(2, "w2"), &[]), "w2:5432 is unreachable"),
        (w2().answer("10.0.0.2", empty), "w2:5432 is blank"),
        (w2().answer("10.0.0.2", member(2, 13)), "w2:5432 is conflict"),
        (w2().answer("10.0.0.2", recovering), "w2:5432 is standby"),
        (
            joining().row(unsynced, &["10.0.0.2"]).answer("10.0.0.2", member(2, 12)),
            "the metadata of w2:5432 is out of sync",
        ),
    ];
    for (fleet, culprit) in cases {
        let plan = fleet.server("10.0.0.8", server(8)).plan();
        assert_eq!(plan.changes, [], "{culprit}");
        for address in ["10.0.0.8", "10.0.0.9"] {
            let worker = plan.at(address);
            worker.is(State::Ready, &[culprit]);
            assert!(worker.remedy.as_ref().unwrap().contains("citus_disable_node"));
        }
    }
}

#[test]
fn a_worker_that_citus_does_not_write_to_holds_back_nothing() {
    let inactive = DistNode { isactive: false, metadatasynced: false, ..row(2, "w2") };
    let without_metadata = DistNode { hasmetadata: false, metadatasynced: false, ..row(2, "w2") };
    let secondary = DistNode { is_primary: false, ..row(2, "w2") };
    for row in [inactive, without_metadata, secondary] {
        let plan = joining().row(row, &["10.0.0.2"]).down("10.0.0.2").plan();
        plan.registers_only(&["10.0.0.9"]);
    }
}

#[test]
fn a_worker_that_nobody_has_asked_yet_is_as_citus_says() {
    let plan = joining().row(row(2, "w2"), &["10.0.0.2"]).plan();
    plan.at("w2").is(State::Active, &[]);
    plan.registers_only(&["10.0.0.9"]);
}
