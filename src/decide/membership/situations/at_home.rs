//! Owns the situations of what answers at the address that a row of `pg_dist_node` has.
//! Must not take a server that is not known by its recorded identity for the worker.

use super::logins::of_login;
use super::row::WayOut::{Do, Nothing, Tell, Wait};
use super::row::When::AtHome;
use super::row::{ROW, Row, given};
use super::workers::{name, node};
use crate::membership::server::Membership;
use crate::membership::state::State::{Absent, Blank, Conflict, Discovered, Standby, Unreachable};
use crate::node::literal;

pub(super) const TABLE: &[Row] = &[
    Row {
        code: "name_is_shared",
        state: Conflict,
        when: &[AtHome(|it| {
            let list: Vec<String> = it.endpoints.iter().map(ToString::to_string).collect();
            it.is_shared.then(|| {
                vec![
                    ("count", list.len().to_string()),
                    ("endpoints", list.join(", ")),
                    ("nodeid", it.row.nodeid.to_string()),
                    ("port", it.row.nodeport.to_string()),
                ]
            })
        })],
        reason: "its name leads to {count} servers: {endpoints}",
        cause: "DNS gives several addresses for the name of its row, and different servers answer there.",
        way_out: Do(
            "Give the worker a name or an address of its own: SELECT citus_update_node({nodeid}, '<name>', {port});",
        ),
        ..ROW
    },
    // What Citus writes there gets to one of them.
    Row {
        code: "address_is_shared",
        state: Conflict,
        when: &[AtHome(|it| {
            let at = it.turns_at?.to_string();
            let facts =
                [("nodeid", it.row.nodeid.to_string()), ("port", it.row.nodeport.to_string())];
            Some(facts.into_iter().chain([("at", at)]).collect())
        })],
        reason: "two running servers answer by turns at {at}",
        cause: "A balancer, a virtual address or a Service leads to more than one server.",
        way_out: Do(
            "Give the worker a name or an address of its own: SELECT citus_update_node({nodeid}, '<name>', {port});",
        ),
        ..ROW
    },
    // Re-syncing metadata to it would hide the loss.
    Row {
        code: "citus_gone",
        state: Blank,
        when: &[AtHome(|it| {
            (it.server.is_some() && it.membership().is_none()).then(|| node(it.row))
        })],
        reason: "the extension citus is gone from the server there",
        cause: "The database was replaced or dropped, or another server has the address.",
        way_out: Do(RESTORE),
        ..ROW
    },
    Row {
        code: "upgrade_not_finished",
        state: Conflict,
        when: &[AtHome(|it| given(it.membership()?.group_id == Membership::NO_GROUP))],
        reason: "Citus there does not know which group it is (pg_dist_local_group is empty)",
        cause: "After pg_upgrade, citus_finish_pg_upgrade() was not run there yet.",
        way_out: Do("On that server: SELECT citus_finish_pg_upgrade();"),
        ..ROW
    },
    Row {
        code: "another_server",
        state: Conflict,
        when: &[AtHome(|it| {
            let (server, known) = it.stranger()?;
            let theirs = it.membership()?;
            let has_data = theirs.group_id != 0 || theirs.nodes != 0 || server.in_recovery;
            let identifiers = vec![
                ("system_identifier", server.system_identifier.to_string()),
                ("expected", known.record.system_identifier.to_string()),
                ("node", name(it.row)),
            ];
            has_data.then_some(identifiers)
        })],
        reason: "another server answers at its address (system identifier {system_identifier}, expected {expected})",
        cause: "The worker has another address now, and somebody else has its old one; or it was upgraded with pg_upgrade, or set up anew.",
        way_out: Do(
            "Bring the worker back under a name that a source yields: its row follows by itself. If the server there is to be it, as after pg_upgrade or a restore: SELECT fleet.accept_server({node});",
        ),
        ..ROW
    },
    Row {
        code: "leads_to_standby",
        state: Standby,
        when: &[AtHome(|it| given(it.server?.in_recovery))],
        reason: "its address leads to a server in recovery",
        cause: "The primary has become a standby, or the name leads to one.",
        way_out: Do("Promote it, or make the name lead to the primary again."),
        ..ROW
    },
    Row {
        code: "came_back_empty",
        state: Blank,
        when: &[AtHome(|it| {
            let is_empty = |m: &Membership| m.group_id == 0 && m.nodes == 0;
            it.membership().is_some_and(is_empty).then(|| node(it.row))
        })],
        reason: "the server there holds no data of this cluster: it has come back empty",
        cause: "Its volume was lost or replaced.",
        way_out: Do(RESTORE),
        ..ROW
    },
    Row {
        code: "other_group",
        state: Conflict,
        when: &[AtHome(|it| {
            let theirs = it.membership()?.group_id;
            let groups =
                vec![("theirs", theirs.to_string()), ("group", it.row.groupid.to_string())];
            (theirs != it.row.groupid).then_some(groups)
        })],
        reason: "the server there is of group {theirs}, the row says group {group}",
        cause: "The address of its row leads to another worker, of this cluster or of another.",
        way_out: Do("Find the worker of this group and make the name lead to it."),
        ..ROW
    },
    // Citus would go on sending it rows of this cluster.
    Row {
        code: "taken_over",
        when: &[AtHome(|it| Some(vec![("usurper", it.usurper()?), ("node", name(it.row))]))],
        reason: "the metadata of the server there belong to another coordinator: {usurper}",
        cause: "Another cluster has added it, or a copy of this coordinator has written to it.",
        way_out: Do(
            "Find the other coordinator and keep it from this server. Then have its metadata written anew: SELECT citus_activate_node({node});",
        ),
        state: Conflict,
        ..ROW
    },
    NODES_DIFFER,
    // Citus connects by the name: to it the worker is out of reach, whoever still knows where it is.
    Row {
        code: "name_lost",
        state: Unreachable,
        when: &[AtHome(|it| {
            let _ = it.server.filter(|_| it.is_name_lost)?;
            let at = it.endpoints.first()?;
            Some(vec![
                ("name", it.row.nodename.clone()),
                ("at", at.to_string()),
                ("nodeid", it.row.nodeid.to_string()),
                ("address", literal(&at.ip().to_string())),
                ("port", it.row.nodeport.to_string()),
            ])
        })],
        reason: "its name {name} does not resolve any more; its server still answers at {at}",
        cause: "DNS says that the name of its row does not exist. It is asked where the name last led, and is not absent while it answers there.",
        way_out: Do(
            "Bring the name back into DNS, or lead the row there without it: SELECT citus_update_node({nodeid}, {address}, {port});",
        ),
        ..ROW
    },
    Row {
        code: "out_of_sync",
        when: &[AtHome(|it| given(it.server.is_some() && it.is_unsynced()))],
        reason: "its metadata is out of sync; Citus's maintenance daemon tries again by itself",
        cause: "A change of metadata did not reach it.",
        way_out: Tell(
            "It ends by itself. Where it does not, somebody holds pg_dist_node there: on that server, SELECT * FROM pg_prepared_xacts; and pg_locks say who. ROLLBACK PREPARED ends a transaction that was forgotten.",
        ),
        ..ROW
    },
    // DNS alone is never absence, and nothing is removed because of it.
    Row {
        code: "absent",
        state: Absent,
        when: &[AtHome(|it| {
            let (unnamed, failure) = (it.gone_for?, it.failure.as_ref()?);
            let silence = of_login(failure).reason.unwrap_or_default();
            let seconds = unnamed.as_secs().to_string();
            Some(vec![("seconds", seconds), ("silence", silence), ("node", name(it.row))])
        })],
        reason: "no source has named it for {seconds} s and it does not answer ({silence})",
        cause: "It is gone from DNS for longer than citus_fleet.absent_after, and silent at its last known addresses too.",
        way_out: Do(
            "Bring it back. To remove it for good, once it holds no shards: SELECT fleet.remove_worker({node}, drain => false);",
        ),
        ..ROW
    },
    Row {
        code: "active",
        when: &[AtHome(|it| given(it.server.is_some()))],
        reason: "",
        cause: "It is registered, and the server there is the one that it should be.",
        way_out: Nothing,
        ..ROW
    },
    // It is being asked, and says so or fails within the deadline of a probe.
    Row {
        code: "active_unasked",
        when: &[AtHome(|it| given(it.failure.is_none() && !it.endpoints.is_empty()))],
        reason: "",
        cause: "Its row, or where its name leads, has just changed, and it is being asked.",
        way_out: Wait("it has answered"),
        ..ROW
    },
    Row {
        code: "not_located",
        state: Discovered,
        when: &[AtHome(|it| given(it.failure.is_none()))],
        reason: "DNS has not said where its name leads since the controller started, so nobody has asked it",
        cause: "Lookups of the name of its row fail. Whether its server runs is not known.",
        way_out: Do(
            "Check that the name servers of this host answer for the name in pg_dist_node.",
        ),
        ..ROW
    },
];

const RESTORE: &str = "Restore its data directory from a backup or bring its volume back, and where that lacks rows: SELECT fleet.accept_server({node}); Do not activate it: that would hide the loss.";

/// What comes next would get numbers that are in use.
pub const NODES_DIFFER: Row = Row {
    code: "nodes_differ",
    state: Conflict,
    when: &[AtHome(|it| Some(vec![("difference", it.difference.clone()?)]))],
    reason: "its rows of pg_dist_node are not the coordinator's: {difference}",
    cause: "This coordinator was restored, or a standby of it promoted, without its newest changes: nodes and shards that have come since are known to workers only, and the next ones would get their numbers. Or the rows were changed on one node by hand, or a change has just not reached the worker yet.",
    way_out: Do(
        "Nothing is changed until then. If another coordinator has the newest changes, bring it back. If this one is to go on as it is: SELECT start_metadata_sync_to_all_nodes(); and look on the workers for shards that it does not know.",
    ),
    ..ROW
};
