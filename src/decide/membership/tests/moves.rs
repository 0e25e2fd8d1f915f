//! Owns the cases of registered workers whose server is somewhere else: followed, or left alone.
//! Worker 2 is in group 12, its server is number 2 with the system identifier 7002.

use super::build::*;
use crate::configuration::policy::OnAbsent;
use crate::login::LoginFailureKind;
use crate::membership::change::Change;
use crate::membership::coordinator::Identity;
use crate::membership::lineage::Lsn;
use crate::membership::observation::Hold;
use crate::membership::plan::Plan;
use crate::membership::server::{Membership, Server};
use crate::membership::state::{Action, State};
use std::time::Duration;

fn moves(plan: &Plan) -> Vec<(i32, String)> {
    let moves = plan.changes.iter().filter_map(|change| match change {
        Change::UpdateAddress { nodeid, nodename, .. } => Some((*nodeid, nodename.clone())),
        _ => None,
    });
    moves.collect()
}

/// Worker 2, known by its identity, whose own address refuses connections.
fn lost() -> Fleet {
    fleet().row(row(2, "10.0.0.2"), &["10.0.0.2"]).known_as(2, 7002).down("10.0.0.2")
}

#[test]
fn a_worker_that_moved_is_followed_with_its_nodeid() {
    let plan = lost().server("10.0.0.9", member(2, 12)).plan();
    assert_eq!(moves(&plan), [(2, "10.0.0.9".to_owned())]);
    assert_eq!(plan.changes.len(), 1);
    let worker = plan.at("10.0.0.2");
    worker.is(State::Unreachable, &["10.0.0.9"]);
    assert_eq!(worker.action, Action::UpdateAddress);
    assert_eq!(plan.workers.len(), 1, "its new address is not another worker");
}

/// What a name leads to may change in a minute, and Citus looks it up itself.
#[test]
fn a_row_is_not_given_a_name_that_was_looked_up_long_ago() {
    let named = |age: u64| {
        let mut it = lost().server("10.0.0.9", member(2, 12));
        it = it.naming("10.0.0.9", "w9", &["10.0.0.9"]);
        let endpoint = it.endpoints.get_mut(&at("10.0.0.9")).unwrap();
        endpoint.named_at = Some(Duration::from_secs(NOW - age));
        it.plan()
    };
    assert_eq!(moves(&named(10)), [(2, "w9".to_owned())]);
    let plan = named(11);
    assert_eq!(moves(&plan), []);
    plan.at("10.0.0.2").is(State::Unreachable, &["10.0.0.9"]);
    assert_eq!(plan.recheck, [at("10.0.0.9")]);
}

/// Its host was renamed, or moved under another name.
#[test]
fn a_worker_whose_name_is_gone_is_followed_to_another_name() {
    let named = |address: &str, server| {
        let row = row(2, "w2");
        let gone = fleet().row(row, &["10.0.0.2"]).known_as(2, 7002).lost(2);
        gone.answer("10.0.0.2", member(2, 12)).server(address, server)
    };
    assert_eq!(moves(&named("10.0.0.2", member(2, 12)).plan()), [(2, "10.0.0.2".to_owned())]);
    assert_eq!(moves(&named("10.0.0.9", member(2, 12)).plan()), [(2, "10.0.0.9".to_owned())]);
    // Its own server still runs where the name last led.
    let copy = Server { started_us: 99, ..member(2, 12) };
    let plan = named("10.0.0.9", copy).plan();
    assert_eq!(plan.changes, []);
    plan.at("w2").is(State::Conflict, &["10.0.0.2", "10.0.0.9"]);
}

#[test]
fn a_promoted_standby_is_followed_also_while_the_old_primary_runs_as_standby() {
    let standby = Server { in_recovery: true, started_us: 99, ..member(2, 12) };
    let plan = fleet()
        .row(row(2, "10.0.0.2"), &["10.0.0.2"])
        .known_as(2, 7002)
        .answer("10.0.0.2", standby)
        .server("10.0.0.9", member(2, 12))
        .plan();
    assert_eq!(moves(&plan), [(2, "10.0.0.9".to_owned())]);
}

#[test]
fn the_standbys_of_a_worker_are_watched_while_it_has_no_primary() {
    let standby = || Server { in_recovery: true, started_us: 99, ..member(2, 12) };
    let with_standby =
        |fleet: Fleet| fleet.server("10.0.0.9", standby()).server("10.0.0.3", server(3));
    assert_eq!(with_standby(lost()).plan().sought, [at("10.0.0.9")]);
    let well = fleet().worker(2, "10.0.0.2").known_as(2, 7002);
    assert_eq!(with_standby(well).plan().sought, []);
    // In the middle of a switch-over both of them are in recovery.
    let demoted = fleet().row(row(2, "10.0.0.2"), &["10.0.0.2"]).known_as(2, 7002);
    let plan = with_standby(demoted.answer("10.0.0.2", standby())).plan();
    assert_eq!(plan.sought, [at("10.0.0.9")]);
}

#[test]
fn a_primary_that_a_promotion_left_behind_is_never_followed() {
    let successor = promoted(member(2, 12), 100);
    let at_2 = |mut fleet: Fleet| {
        let record = &mut fleet.coordinator.identities.get_mut(&2).unwrap().record;
        (record.timeline, record.history) = (2, promoted(server(2), 100).history);
        fleet
    };
    assert_eq!(moves(&lost().server("10.0.0.9", successor).plan()).len(), 1);
    let plan = at_2(lost()).server("10.0.0.9", member(2, 12)).plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.9").is(State::Conflict, &["timeline 1", "timeline 2"]);
    // Nor does it pass for the worker at the worker's own address.
    let plan = at_2(fleet().worker(2, "10.0.0.2").known_as(2, 7002)).plan();
    plan.at("w2").is(State::Conflict, &["left behind"]);
}

#[test]
fn nothing_else_is_followed() {
    let cases: [(&str, Server); 4] = [
        ("a standby", Server { in_recovery: true, ..member(2, 12) }),
        ("another identity", member(3, 12)),
        ("another group", member(2, 13)),
        ("a server that lost its metadata", server(2)),
    ];
    for (what, other) in cases {
        let plan = lost().server("10.0.0.9", other).plan();
        assert_eq!(moves(&plan), [], "{what}");
    }
    let unknown = fleet()
        .row(row(2, "10.0.0.2"), &["10.0.0.2"])
        .down("10.0.0.2")
        .server("10.0.0.9", member(2, 12));
    assert_eq!(moves(&unknown.plan()), [], "a worker whose identity was never recorded");
    let barred = lost().server("8.8.8.8", member(2, 12));
    assert_eq!(moves(&barred.plan()), [], "an address outside the allowed networks");
}

#[test]
fn while_old_and_new_both_answer_nothing_changes() {
    let twin = Server { started_us: 99, ..member(2, 12) };
    let both = fleet().worker(2, "10.0.0.2").known_as(2, 7002).server("10.0.0.9", twin);
    let plan = both.plan();
    assert_eq!(plan.changes, []);
    plan.at("w2").is(State::Conflict, &["10.0.0.2", "10.0.0.9"]);

    // The same server at a second address is not a conflict.
    let plan =
        fleet().worker(2, "10.0.0.2").known_as(2, 7002).server("10.0.0.9", member(2, 12)).plan();
    assert_eq!((plan.at("w2").state, plan.changes.len()), (State::Active, 0));
}

#[test]
fn a_restart_of_the_old_primary_is_not_taken_for_its_end() {
    let copy = || promoted(member(2, 12), 100);
    let silent_for = |seconds: u64| {
        let since = NOW - seconds;
        let fleet = lost().server("10.0.0.9", copy());
        let fleet = fleet.failing_since("10.0.0.2", LoginFailureKind::Refused, since);
        moves(&fleet.plan()).len()
    };
    assert_eq!((silent_for(4), silent_for(5)), (0, 1));
    for kind in [LoginFailureKind::StartingUp, LoginFailureKind::TooManyConnections] {
        let home = fleet().row(row(2, "10.0.0.2"), &["10.0.0.2"]).known_as(2, 7002);
        let plan = home.failing("10.0.0.2", kind).server("10.0.0.9", copy()).plan();
        assert_eq!(moves(&plan), [], "{kind:?}: it is there");
        assert_eq!(plan.workers.len(), 1);
    }
}

#[test]
fn old_answers_are_asked_for_again_before_anything_changes() {
    let twin = Server { started_us: 99, ..member(2, 12) };
    let restarted = fleet().worker(2, "10.0.0.2").known_as(2, 7002).server("10.0.0.9", twin);
    let plan = restarted.aged("10.0.0.2", 4.0).plan();
    assert_eq!(plan.changes, []);
    assert_eq!(plan.at("w2").state, State::Active);
    assert!(plan.recheck.contains(&at("10.0.0.2")));

    for stale in ["10.0.0.2", "10.0.0.9"] {
        let plan = lost().server("10.0.0.9", member(2, 12)).aged(stale, 11.0).plan();
        assert_eq!(plan.changes, []);
        assert_eq!(plan.recheck, [at(stale)]);
    }
    let unasked = fleet().row(row(2, "10.0.0.2"), &["10.0.0.2"]).known_as(2, 7002);
    let plan = unasked.server("10.0.0.9", member(2, 12)).plan();
    assert_eq!((plan.changes.len(), plan.recheck), (0, vec![at("10.0.0.2")]));
}

#[test]
fn a_failed_lookup_of_a_workers_name_moves_nothing() {
    let mut unlocated = lost().server("10.0.0.9", member(2, 12));
    unlocated.node_addresses.clear();
    assert_eq!(moves(&unlocated.plan()), []);
}

#[test]
fn two_workers_that_exchange_addresses_move_in_one_plan() {
    let plan = fleet()
        .row(row(2, "10.0.0.2"), &["10.0.0.2"])
        .row(row(3, "10.0.0.3"), &["10.0.0.3"])
        .known_as(2, 7002)
        .known_as(3, 7003)
        .server("10.0.0.2", member(3, 13))
        .server("10.0.0.3", member(2, 12))
        .plan();
    assert_eq!(moves(&plan), [(2, "10.0.0.3".to_owned()), (3, "10.0.0.2".to_owned())]);
    plan.at("10.0.0.2");
}

#[test]
fn an_address_that_another_row_keeps_is_not_taken_from_it() {
    let plan = fleet()
        .row(row(2, "10.0.0.2"), &["10.0.0.2"])
        .row(row(3, "10.0.0.3"), &["10.0.0.3"])
        .known_as(2, 7002)
        .known_as(3, 7003)
        .down("10.0.0.2")
        .server("10.0.0.3", member(2, 12))
        .plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.2").is(State::Conflict, &["10.0.0.3:5432", "node 3"]);
    plan.at("10.0.0.3").is(State::Conflict, &["7002", "7003"]);
}

#[test]
fn a_hold_or_a_failure_is_said_and_waited_for() {
    let moved = || lost().server("10.0.0.9", member(2, 12));
    for (hold, fact) in [(Hold::Paused, "paused"), (Hold::Disabled, "enabled")] {
        let plan = moved().hold(hold).plan();
        assert_eq!(plan.changes, []);
        plan.at("10.0.0.2").is(State::Unreachable, &["10.0.0.9", fact]);
    }
}

#[test]
fn an_ip_that_a_stranger_has_taken_is_a_conflict_and_an_empty_one_is_blank() {
    let at_its_address = |server| {
        let fleet = fleet().row(row(2, "w2"), &["10.0.0.2"]).known_as(2, 7002);
        fleet.answer("10.0.0.2", server).plan()
    };
    at_its_address(member(5, 15)).at("w2").is(State::Conflict, &["7005", "7002"]);
    at_its_address(server(5)).at("w2").is(State::Blank, &[]);
    assert_eq!(at_its_address(server(5)).changes, []);
}

#[test]
fn an_absent_worker_is_disabled_only_where_that_is_wanted() {
    let absent = || lost().unnamed(2, 100);
    assert_eq!(absent().plan().changes, []);
    let mut disabling = absent();
    disabling.policy.on_absent = OnAbsent::Disable;
    let plan = disabling.plan();
    assert!(matches!(plan.changes[..], [Change::Disable { nodeid: 2, .. }]), "{:?}", plan.changes);
    disabling.policy.absent_after = Duration::from_secs(1000);
    assert_eq!(disabling.plan().changes, [], "it is not absent yet");
}

/// The identity of worker 2, which the fleet or somebody else has disabled.
fn disabled(disabled_by_fleet: bool) -> Identity {
    Identity { disabled_by_fleet, ..identity(7002) }
}

#[test]
fn a_worker_that_the_fleet_disabled_is_followed_too() {
    let mut row = row(2, "10.0.0.2");
    row.isactive = false;
    let mut fleet =
        fleet().row(row, &["10.0.0.2"]).down("10.0.0.2").server("10.0.0.9", member(2, 12));
    let mut disabled_by = |disabled_by_fleet| {
        fleet.coordinator.identities.insert(2, disabled(disabled_by_fleet));
        moves(&fleet.plan()).len()
    };
    assert_eq!((disabled_by(true), disabled_by(false)), (1, 0));
}

#[test]
fn only_what_the_fleet_disabled_is_reactivated_and_only_when_it_is_well() {
    let inactive = |disabled_by_fleet, server: Option<Server>| {
        let mut row = row(2, "w2");
        row.isactive = false;
        let mut fleet = fleet().row(row, &["10.0.0.2"]);
        fleet.coordinator.identities.insert(2, disabled(disabled_by_fleet));
        match server {
            Some(server) => fleet.answer("10.0.0.2", server).plan().changes,
            None => fleet.failing("10.0.0.2", LoginFailureKind::Timeout).plan().changes,
        }
    };
    let well = Some(member(2, 12));
    assert!(matches!(inactive(true, well.clone())[..], [Change::Reactivate { nodeid: 2, .. }]));
    assert_eq!(inactive(false, well), [], "an operator has disabled it");
    assert_eq!(inactive(true, None), []);
    assert_eq!(inactive(true, Some(server(2))), [], "it is blank");
    assert_eq!(inactive(true, Some(member(3, 12))), [], "it is another server");
}

#[test]
fn a_server_that_went_another_way_is_not_followed_and_says_what_it_lacks() {
    let stranger = Server { marks: Some(vec!["older".into()]), ..promoted(member(2, 12), 100) };
    let plan = lost().server("10.0.0.9", stranger).plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.9").is(State::Conflict, &["parted at 0/32", "lacks 50 bytes"]);
    assert!(
        plan.at("10.0.0.9").remedy.as_ref().unwrap().contains("fleet.accept_server('10.0.0.2'")
    );
    assert_eq!(plan.at("10.0.0.2").state, State::Unreachable);
}

#[test]
fn what_a_promoted_server_lacks_is_counted_and_may_be_too_much() {
    let lossy = |most| {
        let mut fleet = lost().server("10.0.0.9", promoted(member(2, 12), 90));
        fleet.policy.max_lost_wal = most;
        fleet.plan()
    };
    for most in [None, Some(10)] {
        let plan = lossy(most);
        let [Change::UpdateAddress { lacks, switch, last_seen, .. }] = plan.changes[..] else {
            panic!("{plan:#?}");
        };
        assert_eq!((lacks, switch.zip(last_seen).map(|(at, seen)| seen.since(at))), (10, Some(10)));
    }
    let plan = lossy(Some(9));
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.2").is(State::Conflict, &["lacks 10 bytes", "max_lost_wal is 9"]);
}

#[test]
fn two_servers_that_ran_at_one_moment_are_remembered() {
    let twin = Server { started_us: 99, ..promoted(member(2, 12), 100) };
    let both = fleet().worker(2, "10.0.0.2").known_as(2, 7002).server("10.0.0.9", twin.clone());
    assert_eq!(
        both.plan().rivals,
        [(2, "10.0.0.9:5432, timeline 2, has run beside it".to_owned())]
    );
    // One of them is gone: neither is followed, nor active.
    let mut remembered = lost().server("10.0.0.9", twin);
    remembered.coordinator.identities.get_mut(&2).unwrap().rival = Some("10.0.0.9:5432".into());
    let plan = remembered.plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.2").is(State::Conflict, &["10.0.0.9:5432"]);
}

#[test]
fn an_older_state_is_remembered_before_it_has_written_on() {
    let older = Server { position: Lsn(40), started_us: 99, ..member(2, 12) };
    // In the place of the worker, and where its next server is looked for.
    let in_its_place = fleet().worker(2, "10.0.0.2").known_as(2, 7002);
    let in_its_place = in_its_place.server("10.0.0.2", older.clone());
    let elsewhere = lost().server("10.0.0.9", older);
    for (mut fleet, at) in [(in_its_place, "10.0.0.2"), (elsewhere, "10.0.0.9")] {
        let plan = fleet.plan();
        let told = format!(
            "{at}:5432 has run with an older state, which lacked 60 bytes of WAL that were seen"
        );
        assert_eq!(plan.rivals, [(2, told)]);
        plan.at(at).is(State::Conflict, &["lacks 60 bytes"]);
        // It has written as much again.
        let identity = fleet.coordinator.identities.get_mut(&2).unwrap();
        (identity.rival, identity.record.position) = (Some(at.into()), Some(Lsn(30)));
        let plan = fleet.plan();
        assert_eq!(plan.changes, []);
        plan.at("10.0.0.2").is(State::Conflict, &["there are two", at]);
    }
}

/// Whoever does not let the controller in may be the old primary, and go on writing.
#[test]
fn nobody_is_followed_while_somebody_runs_at_the_old_address() {
    use LoginFailureKind::{DatabaseMissing, NotPermitted, Protocol, Tls, WrongPassword};
    let promoted = promoted(member(2, 12), 100);
    for kind in [DatabaseMissing, NotPermitted, Protocol, Tls, WrongPassword] {
        let mut fleet = lost().failing("10.0.0.2", kind).server("10.0.0.9", promoted.clone());
        let plan = fleet.plan();
        assert_eq!(plan.changes, [], "{kind:?}");
        let worker = plan.at("10.0.0.2");
        worker.is(State::Unreachable, &["10.0.0.9", "does not follow"]);
        assert!(worker.remedy.as_ref().unwrap().contains("fleet.accept_server('10.0.0.2'"));
        // The operator has accepted the other one since.
        fleet.coordinator.identities.get_mut(&2).unwrap().to_be_synced = true;
        assert_eq!(moves(&fleet.plan()), [(2, "10.0.0.9".to_owned())], "{kind:?}");
    }
}

/// pg_upgrade gives a server another identity: a standby from before lacks what came since.
#[test]
fn nobody_is_followed_while_the_worker_runs_under_another_identity() {
    let before = promoted(member(2, 12), 100);
    let marked = Server { marks: member(2, 12).marks, ..member(5, Membership::NO_GROUP) };
    for upgraded in [member(5, 12), marked] {
        let at_home = lost().answer("10.0.0.2", upgraded).server("10.0.0.9", before.clone());
        let plan = at_home.plan();
        assert_eq!(plan.changes, []);
        assert_eq!(plan.rivals.len(), 1);
        plan.at("10.0.0.2").is(State::Conflict, &["two running servers"]);
    }
    // Another cluster's worker has no say.
    let mut stranger = member(5, 12);
    stranger.membership.as_mut().unwrap().coordinator = Some("other:5432".into());
    let plan = lost().answer("10.0.0.2", stranger).server("10.0.0.9", before).plan();
    assert_eq!(moves(&plan), [(2, "10.0.0.9".to_owned())]);
}

/// A coordinator that was promoted without its newest changes: the next node would get a number in use.
#[test]
fn a_coordinator_that_lacks_what_its_workers_know_changes_nothing() {
    let mut knowing = member(2, 12);
    let fleet = || lost().server("10.0.0.8", server(8));
    let rows = [(2, "10.0.0.2:5432 of group 12"), (4, "10.0.0.4:5432 of group 14")];
    knowing.membership.as_mut().unwrap().rows =
        rows.iter().map(|(id, row)| (*id, (*row).to_owned())).collect();
    let mut rolled_back = fleet().answer("10.0.0.2", knowing);
    let plan = rolled_back.plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.2").is(State::Conflict, &["it has node 4 at 10.0.0.4:5432 of group 14"]);
    assert!(plan.coordinator_host.is_some(), "the doctor tells");
    // Heard just now for the first time: a change may be on its way. Nothing is added meanwhile.
    rolled_back.rows_read_at = Duration::ZERO;
    let plan = rolled_back.plan();
    assert_eq!(plan.changes, []);
    plan.at("10.0.0.2").is(State::Active, &[]);
    plan.at("10.0.0.8").is(State::Ready, &["has other rows"]);
}

#[test]
fn a_worker_in_order_is_marked_once_and_again_after_a_promotion() {
    let marks = |mark: bool, server: Server| {
        let mut fleet = fleet().row(row(2, "w2"), &["10.0.0.2"]).known_as(2, 7002);
        if !mark {
            fleet.coordinator.identities.get_mut(&2).unwrap().record.mark = None;
        }
        fleet.answer("10.0.0.2", server).plan().changes
    };
    assert_eq!(marks(true, member(2, 12)), []);
    assert!(matches!(marks(false, member(2, 12))[..], [Change::Mark { nodeid: 2, .. }]));
    assert_eq!(marks(false, server(2)), [], "it is blank");
    // An older version of the extension has no table for it.
    assert_eq!(marks(false, Server { marks: None, ..member(2, 12) }), []);
}
