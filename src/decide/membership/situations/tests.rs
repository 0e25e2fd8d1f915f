//! Owns what holds of the table as a whole. Every row has a case here, in which it is the one that counts.

use super::super::cause::{Block, Cause, Hang, Holder};
use super::super::coordinator::{DistNode, Removed, Tasks};
use super::super::endpoint::Probe;
use super::super::observation::Hold;
use super::super::server::{ExtensionState, Membership, Server};
use super::super::tests::build::*;
use super::row::{WayOut, fill};
use super::*;
use crate::configuration::networks::NameSuffixes;
use crate::configuration::policy::OnAbsent;
use crate::login::LoginFailureKind;
use crate::membership::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A fleet in which something is in that situation, and the address or name it is listed with.
type Case = (&'static str, &'static str, fn() -> Fleet);

/// A fit server that wants to join.
fn joining() -> Fleet {
    fleet().server("10.0.0.9", server(9))
}

fn spoilt(spoil: fn(&mut Server)) -> Fleet {
    let mut it = server(9);
    spoil(&mut it);
    fleet().server("10.0.0.9", it)
}

fn later() -> Duration {
    Duration::from_secs(NOW + 1)
}

fn removed(is_clean: bool, server: Server) -> Fleet {
    let mut fleet = fleet().server("10.0.0.9", server);
    fleet.coordinator.removed.push(Removed {
        system_identifier: 7009,
        nodename: "w9".into(),
        nodeport: 5432,
        address: Some(ip("10.0.0.9")),
        relations: vec!["public.r_102014".into()],
        is_clean,
        mark: None,
    });
    fleet
}

/// Row 2, known by the identity of server 2, whose name leads to a server.
fn w2(server: Server) -> Fleet {
    fleet().row(row(2, "w2"), &["10.0.0.2"]).known_as(2, 7002).answer("10.0.0.2", server)
}

/// The worker knows a node that the coordinator does not.
fn rolled_back() -> Fleet {
    let mut it = member(2, 12);
    let mut fleet = w2(it.clone());
    let rows =
        fleet.nodes().iter().map(|row| (row.nodeid, format!("{row} of group {}", row.groupid)));
    let theirs = &mut it.membership.as_mut().unwrap().rows;
    *theirs = rows.chain([(4, "w4:5432 of group 14".to_owned())]).collect();
    fleet.answer("10.0.0.2", it)
}

fn w2_with(vary: fn(&mut DistNode)) -> Fleet {
    let mut it = row(2, "w2");
    vary(&mut it);
    fleet().row(it, &["10.0.0.2"]).known_as(2, 7002).answer("10.0.0.2", member(2, 12))
}

/// The same, disabled by the fleet.
fn disabled() -> Fleet {
    let mut fleet = w2_with(|row| row.isactive = false);
    let known = fleet.coordinator.identities.get_mut(&2).unwrap();
    known.disabled_by_fleet = true;
    fleet
}

fn failing(kind: LoginFailureKind) -> Fleet {
    fleet().candidate("10.0.0.9").failing("10.0.0.9", kind)
}

fn led() -> Fleet {
    joining().registered_as("elsewhere").coordinator_host("coord")
}

fn waiting() -> Fleet {
    joining().refused_by_citus("10.0.0.9", later())
}

fn hung(seconds: u64) -> Cause {
    Cause::Hung(Hang { took: Duration::from_secs(seconds), is_known: true })
}

fn session() -> Holder {
    let text = |text: &str| text.to_owned();
    let (application, role, since) = (text("psql"), text("dba"), text("noon"));
    Holder { pid: Some(4711), gid: None, application, role, since }
}

const CASES: &[Case] = &[
    // Workers
    ("row_not_understood", "w2", || w2_with(|row| row.nodeport = 70_000)),
    ("disabled_not_in_order", "w2", || {
        w2_with(|row| row.isactive = false).answer("10.0.0.2", server(2))
    }),
    ("back", "w2", disabled),
    ("disabled", "w2", || w2_with(|row| row.isactive = false)),
    ("two_servers", "w2", || {
        w2(member(2, 12)).server("10.0.0.3", Server { started_us: 9, ..member(2, 12) })
    }),
    ("moved", "w2", || w2(member(2, 12)).down("10.0.0.2").server("10.0.0.3", member(2, 12))),
    ("moved_and_replaced", "w2", || w2(member(3, 13)).server("10.0.0.3", member(2, 12))),
    ("moved_while_disabled", "w2", || {
        disabled().down("10.0.0.2").server("10.0.0.3", member(2, 12))
    }),
    ("seen_elsewhere", "w2", || {
        let restarted = w2(member(2, 12)).server("10.0.0.3", member(2, 12));
        restarted.failing_since("10.0.0.2", LoginFailureKind::Refused, NOW - 1)
    }),
    ("held_by_its_address", "w2", || {
        let held = w2(member(2, 12)).server("10.0.0.3", promoted(member(2, 12), 100));
        held.failing("10.0.0.2", LoginFailureKind::NotPermitted)
    }),
    ("accepted", "w2", || {
        let mut fleet = w2(member(2, 12));
        fleet.coordinator.identities.get_mut(&2).unwrap().to_be_synced = true;
        fleet
    }),
    ("to_be_disabled", "w2", || {
        let mut gone = w2(member(2, 12)).down("10.0.0.2").unnamed(2, 99);
        gone.policy.on_absent = OnAbsent::Disable;
        gone
    }),
    ("removed_just_now", "w2", || {
        w2_with(|row| row.is_being_removed = true).answer("10.0.0.2", server(2))
    }),
    ("removing", "w2", || w2_with(|row| row.is_being_removed = true)),
    ("takes_no_shards", "w2", || w2_with(|row| row.shouldhaveshards = false)),
    ("address_taken", "w2", || {
        w2(member(2, 12))
            .down("10.0.0.2")
            .row(row(3, "10.0.0.3"), &["10.0.0.3"])
            .known_as(3, 7003)
            .server("10.0.0.3", member(2, 12))
    }),
    ("shards_are_moved", "w2", || w2_with(|row| row.tasks = Some(Tasks { done: 1, total: 4 }))),
    ("holds_no_shards", "w2", || {
        let mut waiting = w2_with(|row| row.waits_for_shards = true);
        waiting.policy.rebalance_on_join = true;
        waiting.coordinator.index_builds = 1;
        waiting
    }),
    ("name_is_shared", "w2", || {
        let shared = fleet().row(row(2, "w2"), &["10.0.0.2", "10.0.0.3"]);
        shared.answer("10.0.0.2", member(2, 12)).answer("10.0.0.3", member(3, 12))
    }),
    ("address_is_shared", "w2", || {
        let mut fleet = w2(member(2, 12));
        for n in [3, 2] {
            let result = Ok(member(n, 12));
            let probe = Probe { at: Duration::from_secs(NOW), round_trip: Duration::ZERO, result };
            fleet.endpoints.get_mut(&at("10.0.0.2")).unwrap().learn(probe, 0);
        }
        fleet
    }),
    ("citus_gone", "w2", || w2(Server { membership: None, ..member(2, 12) })),
    ("diverged", "w2", || {
        let mut fleet = w2(member(2, 12));
        fleet.coordinator.identities.get_mut(&2).unwrap().rival = Some("10.0.0.3:5432".into());
        fleet
    }),
    ("left_behind", "w2", || {
        let mut fleet = w2(member(2, 12));
        fleet.coordinator.identities.get_mut(&2).unwrap().record.timeline = 2;
        fleet
    }),
    ("parted", "w2", || w2(Server { marks: Some(vec!["another".into()]), ..member(2, 12) })),
    ("mark_missing", "w2", || w2(Server { marks: Some(Vec::new()), ..member(2, 12) })),
    ("history_unreadable", "w2", || w2(Server { history: None, ..promoted(member(2, 12), 100) })),
    ("heir", "10.0.0.3", || {
        let mut fleet = w2(member(2, 12)).down("10.0.0.2").server("10.0.0.3", member(2, 12));
        fleet.coordinator.identities.get_mut(&2).unwrap().rival = Some("10.0.0.3:5432".into());
        fleet
    }),
    ("lacks_too_much", "w2", || {
        let mut fleet = w2(member(2, 12)).down("10.0.0.2");
        fleet.policy.max_lost_wal = Some(9);
        fleet.server("10.0.0.3", promoted(member(2, 12), 90))
    }),
    ("followed_with_loss", "w2", || {
        let mut fleet = w2(member(2, 12));
        fleet.coordinator.identities.get_mut(&2).unwrap().lost_wal = 10;
        fleet
    }),
    ("taken_over", "w2", || {
        let mut it = member(2, 12);
        it.membership.as_mut().unwrap().coordinator = Some("other:5432".into());
        w2(it)
    }),
    ("another_server", "w2", || w2(member(3, 13))),
    ("leads_to_standby", "w2", || w2(Server { in_recovery: true, ..member(2, 12) })),
    ("came_back_empty", "w2", || w2(server(3))),
    ("upgrade_not_finished", "w2", || w2(member(2, Membership::NO_GROUP))),
    ("nodes_differ", "w2", rolled_back),
    ("other_group", "w2", || w2(member(2, 13))),
    ("name_lost", "w2", || w2(member(2, 12)).lost(2)),
    ("out_of_sync", "w2", || w2_with(|row| row.metadatasynced = false)),
    ("absent", "w2", || w2(member(2, 12)).down("10.0.0.2").unnamed(2, 99)),
    ("active", "w2", || w2(member(2, 12))),
    ("active_unasked", "w2", || fleet().row(row(2, "w2"), &["10.0.0.2"])),
    ("not_located", "w2", || {
        let mut unknown = fleet().row(row(2, "w2"), &[]);
        (unknown.node_addresses, unknown.lost_names) = Default::default();
        unknown
    }),
    // Candidates
    ("name_not_allowed", "10.0.0.9", || {
        let mut fleet = fleet().candidate("10.0.0.9").given("10.0.0.9", "w9.example");
        fleet.policy.names = NameSuffixes::parse("internal").unwrap();
        fleet
    }),
    ("network_not_allowed", "8.8.8.8", || fleet().candidate("8.8.8.8")),
    ("not_asked_yet", "10.0.0.9", || fleet().candidate("10.0.0.9")),
    ("clone", "10.0.0.9", || {
        let row = DistNode { clone_of: Some(2), is_primary: false, ..row(5, "10.0.0.9") };
        w2(member(2, 12)).row(row, &[]).server("10.0.0.9", member(2, 12))
    }),
    ("removed_gone", "10.0.0.9", || removed(true, server(9)).down("10.0.0.9")),
    ("compared", "10.0.0.9", || joining().aged("10.0.0.9", 3.0).server("10.0.0.8", clone_of(9))),
    ("copy", "10.0.0.9", || joining().server("10.0.0.8", clone_of(9))),
    ("removed_unaware", "10.0.0.9", || removed(false, member(9, 14))),
    ("removed", "10.0.0.9", || removed(true, server(9))),
    ("removed_standby", "10.0.0.9", || removed(false, Server { in_recovery: true, ..server(9) })),
    ("removed_cleaning", "10.0.0.9", || removed(false, server(9))),
    ("removed_waits", "10.0.0.9", || removed(false, server(9)).hold(Hold::Paused)),
    ("coordinator", "10.0.0.9", || spoilt(|s| s.system_identifier = COORDINATOR_ID)),
    ("standby_of_coordinator", "10.0.0.9", || {
        spoilt(|s| (s.system_identifier, s.in_recovery) = (COORDINATOR_ID, true))
    }),
    ("standby", "10.0.0.9", || spoilt(|s| s.in_recovery = true)),
    ("other_postgresql", "10.0.0.9", || spoilt(|s| s.version_num = 160_010)),
    ("citus_missing", "10.0.0.9", || spoilt(|s| s.citus = ExtensionState::default())),
    ("other_citus", "10.0.0.9", || spoilt(|s| s.citus.installed = Some("13.1-1".into()))),
    ("other_extension", "10.0.0.9", || spoilt(|s| s.vector.installed = Some("0.7.4".into()))),
    ("extension_unavailable", "10.0.0.9", || spoilt(|s| s.fleet = ExtensionState::default())),
    ("password_would_be_lost", "10.0.0.9", || spoilt(|s| s.wants_password = true)),
    ("no_prepared_transactions", "10.0.0.9", || spoilt(|s| s.max_prepared_transactions = 0)),
    ("membership_unreadable", "10.0.0.9", || spoilt(|s| s.membership = None)),
    ("same_server_id", "10.0.0.9", || {
        spoilt(|s| s.membership.as_mut().unwrap().server_id = Some("ours".into()))
    }),
    ("foreign_worker", "10.0.0.9", || spoilt(|s| s.membership.as_mut().unwrap().group_id = 4)),
    ("foreign_coordinator", "10.0.0.9", || {
        let theirs = Membership { nodes: 2, distributed_tables: 9, ..Membership::default() };
        fleet().server("10.0.0.9", Server { membership: Some(theirs), ..server(9) })
    }),
    ("table_would_be_dropped", "10.0.0.9", || {
        spoilt(|s| s.relations = vec![relation("public", "docs")])
    }),
    ("too_many_relations", "10.0.0.9", || {
        spoilt(|s| s.relations = vec![relation("public", "mine"); 1001])
    }),
    ("name_taken", "10.0.0.9", || {
        joining().registered_as("w9").naming("10.0.0.9", "w9", &["10.0.0.9"])
    }),
    ("checked_once_more", "10.0.0.9", || joining().aged("10.0.0.9", 11.0)),
    ("syncing", "10.0.0.9", || {
        let mut large = joining();
        large.coordinator.citus.as_mut().unwrap().tables = 20_000;
        large
    }),
    ("registering", "10.0.0.9", joining),
    // Logins
    ("name_unresolved", "w2", || fleet().row(row(2, "w2"), &[])),
    ("no_route", "10.0.0.9", || failing(LoginFailureKind::NoRoute)),
    ("connection_refused", "10.0.0.9", || failing(LoginFailureKind::Refused)),
    ("no_answer", "10.0.0.9", || failing(LoginFailureKind::Timeout)),
    ("tls_failed", "10.0.0.9", || failing(LoginFailureKind::Tls)),
    ("wrong_password", "10.0.0.9", || failing(LoginFailureKind::WrongPassword)),
    ("password_not_bound", "10.0.0.9", || failing(LoginFailureKind::PasswordNotBound)),
    ("not_permitted", "10.0.0.9", || failing(LoginFailureKind::NotPermitted)),
    ("database_missing", "10.0.0.9", || failing(LoginFailureKind::DatabaseMissing)),
    ("starting_up", "10.0.0.9", || failing(LoginFailureKind::StartingUp)),
    ("too_many_connections", "10.0.0.9", || failing(LoginFailureKind::TooManyConnections)),
    ("login_computing", "10.0.0.9", || failing(LoginFailureKind::Computing)),
    ("logins_crowded", "10.0.0.9", || failing(LoginFailureKind::Crowded)),
    ("not_postgresql", "10.0.0.9", || failing(LoginFailureKind::Protocol)),
    ("login_failed", "10.0.0.9", || failing(LoginFailureKind::Other)),
    // Hindrances
    ("citus_not_here", "10.0.0.9", || {
        let mut without = joining();
        without.coordinator.citus = None;
        without
    }),
    ("no_own_address", "10.0.0.9", || {
        let mut nobody = joining();
        nobody.nodes().clear();
        nobody.own.clear();
        nobody
    }),
    ("coordinator_on_localhost", "10.0.0.9", || joining().registered_as("localhost")),
    ("worker_in_the_way", "10.0.0.9", || joining().row(row(2, "w2"), &[])),
    ("fleet_paused", "10.0.0.9", || joining().hold(Hold::Paused)),
    ("fleet_disabled", "10.0.0.9", || joining().hold(Hold::Disabled)),
    ("hangs_joining", "10.0.0.9", || waiting().because(hung(15))),
    ("others_hang", "10.0.0.9", || {
        let two = joining().refused_by_citus("10.0.0.7", later());
        two.refused_by_citus("10.0.0.8", later()).because(hung(15))
    }),
    ("changes_blocked", "10.0.0.9", || {
        let (until, by) = ("noon".into(), "dba".into());
        waiting().because(Cause::Blocked(Block { until, by }))
    }),
    ("lock_held", "10.0.0.9", || waiting().because(Cause::Locked(vec![session()]))),
    ("attempt_failed", "10.0.0.9", || joining().refused_by_citus("10.0.0.9", later())),
    ("own_address_unresolved", "10.0.0.9", || {
        let mut unknown = led();
        unknown.own[0].endpoints.clear();
        unknown
    }),
    ("own_address_unchecked", "10.0.0.9", || {
        let mut unasked = led();
        unasked.own[0].endpoints.push(at("10.1.0.2"));
        unasked
    }),
    ("nodes_differ_on", "10.0.0.9", || rolled_back().server("10.0.0.9", server(9))),
    ("own_address_twin", "10.0.0.9", || {
        led().answer(OWN, Server { started_us: 1, ..coordinator() })
    }),
    ("own_address_elsewhere", "10.0.0.9", || led().answer(OWN, server(3))),
    ("own_address_unreachable", "10.0.0.9", || led().down(OWN)),
    ("own_address_checked_once_more", "10.0.0.9", || led().aged(OWN, 11.0)),
];

/// Each code belongs to one situation, and no row stands behind another that takes all that is its own.
#[test]
fn every_row_counts_in_a_case_of_its_own() {
    let by_code: BTreeMap<&str, &Row> = rows().map(|row| (row.code, row)).collect();
    assert_eq!(by_code.len(), rows().count(), "a code stands twice in the table");
    let cases: BTreeSet<&str> = CASES.iter().map(|(code, ..)| *code).collect();
    assert_eq!(cases, by_code.keys().copied().collect(), "cases, and rows");
    for (code, place, fleet) in CASES {
        let (plan, row) = (fleet().plan(), by_code[code]);
        let it = plan.at(place);
        assert_eq!((it.code, it.state, it.action), (*code, row.state, row.action), "{it:#?}");
        let texts = [it.reason.as_deref(), it.remedy.as_deref()];
        for text in texts.into_iter().flatten() {
            assert!(!text.is_empty() && !text.contains(['{', '}']), "{code}: {text}");
        }
        assert_eq!(it.reason.is_some(), !row.reason.is_empty(), "{code}");
        let needs_hands = matches!(row.way_out, WayOut::Do(_)) && *code != "holds_no_shards";
        assert!(it.remedy.is_some() || !needs_hands, "{code} has no remedy");
    }
}

#[test]
fn every_state_is_reached_and_none_is_a_trap() {
    let reached: BTreeSet<State> = rows().map(|row| row.state).collect();
    assert_eq!(reached, State::ALL.into_iter().collect());
    for row in rows() {
        let is_in_order = matches!(row.way_out, WayOut::Nothing);
        assert_eq!(is_in_order, row.code == "active", "{} has no way out", row.code);
    }
    // Following the ways out, everything comes to be active or is listed no more.
    let mut ends = BTreeSet::from([State::Active]);
    loop {
        let more = rows().filter(|row| row.next.is_none_or(|next| ends.contains(&next)));
        let before = ends.len();
        let more: Vec<State> = more.map(|row| row.state).collect();
        ends.extend(more);
        if ends.len() == before {
            break;
        }
    }
    assert_eq!(ends, State::ALL.into_iter().collect(), "states that lead to a good end");
    for row in rows() {
        assert!(row.next.is_none_or(|next| ends.contains(&next)), "{}", row.code);
    }
}

#[test]
fn codes_and_texts_are_well_formed() {
    for row in rows() {
        let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(row.code.chars().all(is_word), "{}", row.code);
        assert!(row.cause.ends_with('.'), "{}: {}", row.code, row.cause);
        assert!(!row.reason.ends_with('.'), "{}: {}", row.code, row.reason);
        assert!(!row.when.is_empty(), "{}", row.code);
    }
}

#[test]
fn values_are_filled_in_as_they_are() {
    let facts = vec![("a", "{b}".to_owned()), ("b", "c".to_owned())];
    assert_eq!(fill("x {a} y {b}", &facts), "x {b} y c");
}

/// `cargo run -p citus_fleet_tests --bin states > docs/states.md` writes it.
#[test]
fn the_document_is_what_the_table_says() {
    let document = include_str!("../../../../docs/states.md");
    assert!(document == document::document(), "docs/states.md is not up to date");
}
