//! Owns the situations of registered workers: first what their row, their whereabouts and the operator
//! make of them, then what answers at the address that the row has.
//! Must not take a server that is not known by its recorded identity for the worker.

use super::logins::of_login;
use super::row::WayOut::{Do, Nothing, Tell, Wait};
use super::row::When::{AtHome, Compared, Worker};
use super::row::{Facts, ROW, Row, given};
use crate::membership::coordinator::DistNode;
use crate::membership::evidence::Member;
use crate::membership::server::Membership;
use crate::membership::state::Action;
use crate::membership::state::State::{
    Absent, Active, Blank, Conflict, Discovered, Inactive, Removed, Removing, Standby, Unreachable,
};
use crate::membership::whereabouts::Whereabouts::{Moved, Twice, Unknown, Unsure, Waiting};
use crate::node::literal;

pub(super) const TABLE: &[Row] = &[
    // --- What is made of it ---
    // Nobody can be asked, nor told anything, by it.
    Row {
        code: "row_not_understood",
        state: Unreachable,
        when: &[Worker(|it| {
            let why =
                it.row.misfit().filter(|_| !matches!(it.whereabouts, Moved(..) | Twice(..)))?;
            let facts = [("why", why), ("nodeid", it.row.nodeid.to_string())];
            Some(node(it.row).into_iter().chain(facts).collect())
        })],
        reason: "its row in pg_dist_node cannot be understood: {why}",
        cause: "Citus takes any text as a name and any number as a port, and nobody can connect by this one.",
        way_out: Do(
            "SELECT citus_update_node({nodeid}, '<name>', <port>); or, where it is nobody's, SELECT citus_remove_node({node});",
        ),
        ..ROW
    },
    // Activating a node whose server is not in order would hide what it has lost.
    Row {
        code: "disabled_not_in_order",
        state: Inactive,
        when: &[Worker(|it| {
            given(is_disabled(it) && it.at_home.state != Active)?;
            let remedy = it.at_home.remedy.clone().unwrap_or_default();
            Some(vec![("reason", it.at_home.reason.clone()?), ("remedy", remedy)])
        })],
        reason: "it is disabled in pg_dist_node (isactive = false); {reason}",
        cause: "It was disabled, and what answers at its address is not in order either, or nobody answers there.",
        way_out: Do("{remedy}"),
        ..ROW
    },
    // Only what the fleet has disabled itself is reactivated by it.
    Row {
        code: "back",
        state: Inactive,
        action: Action::Reactivate,
        when: &[Worker(|it| {
            let is_out = !it.row.isactive || !it.row.hasmetadata;
            let is_sure = it.identity.is_some_and(|known| known.rival.is_none());
            given(is_out && it.disabled_by_fleet() && it.is_well && is_sure)
        })],
        reason: "it was absent and is back",
        cause: "citus_fleet.on_absent had it disabled, or another worker was removed while it did not answer; its server answers again.",
        way_out: Wait("Citus has activated it"),
        ..ROW
    },
    // A restored server knows shards and nodes as they were, and Citus routes by them there.
    Row {
        code: "accepted",
        state: Inactive,
        action: Action::Reactivate,
        when: &[Worker(|it| {
            let is_due = it.identity.is_some_and(|known| known.to_be_synced);
            given(it.row.isactive && it.is_well && is_due)
        })],
        reason: "its server was accepted, and its metadata are written anew",
        cause: "fleet.accept_server() was called for it: what the server knew of the cluster may be outdated.",
        way_out: Wait("Citus has activated it"),
        ..ROW
    },
    Row {
        code: "disabled",
        state: Inactive,
        when: &[Worker(|it| is_disabled(it).then(|| node(it.row)))],
        reason: "it is disabled in pg_dist_node (isactive = false)",
        cause: "An operator, or citus_fleet.on_absent, has called citus_disable_node.",
        way_out: Do("SELECT citus_activate_node({node});"),
        ..ROW
    },
    Row {
        code: "two_servers",
        state: Conflict,
        when: &[Worker(|it| match it.whereabouts {
            Twice(one, other) => Some(vec![
                ("one", one.to_string()),
                ("other", other.to_string()),
                ("node", name(it.row)),
            ]),
            _ => None,
        })],
        reason: "two running servers claim to be this worker: {one} and {other}",
        cause: "A standby was promoted, or a copy started, while the worker runs.",
        way_out: Do(
            "Stop the one that is not the primary of this group; nothing is changed until then.",
        ),
        ..ROW
    },
    // Until the row has followed, Citus talks to whoever is at its address.
    Row {
        code: "moved_and_replaced",
        state: Conflict,
        action: Action::UpdateAddress,
        when: &[Worker(|it| {
            let there = moved(it).filter(|_| it.at_home.state == Conflict)?;
            let reason = it.at_home.reason.clone().unwrap_or_default();
            Some(there.into_iter().chain([("reason", reason)]).collect())
        })],
        reason: "{reason}; its server answers at {at} now",
        cause: "Its server has another address, and another server has its old one.",
        way_out: Wait("its row has followed"),
        ..ROW
    },
    Row {
        code: "moved_while_disabled",
        state: Inactive,
        action: Action::UpdateAddress,
        when: &[Worker(|it| moved(it).filter(|_| !it.row.isactive))],
        reason: "it is disabled in pg_dist_node (isactive = false); its server answers at {at} now",
        cause: "The fleet has disabled it because it was absent, and it is back at another address.",
        way_out: Wait("its row has followed; then it is reactivated"),
        ..ROW
    },
    Row {
        code: "moved",
        state: Unreachable,
        action: Action::UpdateAddress,
        when: &[Worker(moved)],
        reason: "its server answers at {at} now",
        cause: "Its server has another address, or a standby of it was promoted, and its old address does not answer as it.",
        way_out: Wait("its row has followed"),
        ..ROW
    },
    // Whoever reads of it is not to start what runs already.
    Row {
        code: "seen_elsewhere",
        state: Unreachable,
        when: &[Worker(|it| {
            let at: Vec<String> = match &it.whereabouts {
                Waiting(at) => vec![at.to_string()],
                Unsure(at) => at.iter().map(ToString::to_string).collect(),
                _ => return None,
            };
            let reason = it.at_home.reason.clone().filter(|_| is_silent(it))?;
            Some(vec![("at", at.join(", ")), ("reason", reason)])
        })],
        reason: "{reason}; its server was seen elsewhere, and both are asked once more: {at}",
        cause: "Its server answers at another address, and its own has not been silent for long enough, or the answers are too old.",
        way_out: Wait("both have answered, or have been silent, at the same time"),
        ..ROW
    },
    // It may write what nobody is let in to see; an operator knows whether it does.
    Row {
        code: "held_by_its_address",
        state: Unreachable,
        when: &[Worker(|it| {
            let Waiting(at) = &it.whereabouts else { return None };
            let reason = it.at_home.reason.clone().filter(|_| !is_silent(it))?;
            Some(vec![("at", at.to_string()), ("reason", reason), ("node", name(it.row))])
        })],
        reason: "{reason}; its server was seen at {at}, and the row does not follow while somebody runs at its own address",
        cause: "Another server has its data, such as a promoted standby, and whoever is at its own address does not let the controller in: it may be the old primary, and go on writing.",
        way_out: Do(
            "Make sure that no server of it runs at its own address: then the row follows. To have it follow as it is: SELECT fleet.accept_server({node});",
        ),
        ..ROW
    },
    Row {
        code: "to_be_disabled",
        state: Absent,
        action: Action::Disable,
        when: &[Worker(|it| {
            let is_gone = matches!(it.whereabouts, Unknown) && it.at_home.state == Absent;
            given(is_gone && it.is_disabled_when_absent && it.identity.is_some())?;
            let remedy = it.at_home.remedy.clone().unwrap_or_default();
            Some(vec![("reason", it.at_home.reason.clone()?), ("remedy", remedy)])
        })],
        reason: "{reason}",
        cause: "It is absent, and citus_fleet.on_absent is disable.",
        way_out: Do("{remedy}"),
        next: Some(Inactive),
    },
    // Whoever was probed in the moment of its removal is empty already.
    Row {
        code: "removed_just_now",
        state: Removing,
        when: &[Worker(|it| given(it.row.is_being_removed && it.at_home.state == Blank))],
        reason: "it has been removed just now",
        cause: "fleet.remove_worker is about to commit.",
        way_out: Wait("the removal is committed"),
        next: Some(Removed),
        ..ROW
    },
    Row {
        code: "removing",
        state: Removing,
        when: &[Worker(|it| (it.is_quiet() && it.row.is_being_removed).then(|| shards(it)))],
        reason: "{left}",
        cause: "A session is in fleet.remove_worker for it, and moves its shards away.",
        way_out: Wait("its shards are moved and it is removed"),
        next: Some(Removed),
        ..ROW
    },
    Row {
        code: "takes_no_shards",
        when: &[Worker(|it| (it.is_quiet() && !it.row.shouldhaveshards).then(|| shards(it)))],
        reason: "it takes no new shards (shouldhaveshards = false); {left}",
        cause: "Its removal was interrupted, or an operator has set the property.",
        way_out: Do(
            "SELECT citus_set_node_property({node}, 'shouldhaveshards', true); -- or, to go on removing it: SELECT fleet.remove_worker({node});",
        ),
        ..ROW
    },
    ADDRESS_TAKEN,
    SHARDS_ARE_MOVED,
    HOLDS_NO_SHARDS,
    // --- What answers where its row leads ---
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

/// Citus lets no two rows have one address.
pub const ADDRESS_TAKEN: Row = Row {
    code: "address_taken",
    state: Conflict,
    when: &[Compared],
    reason: "{reason}; {name}:{port} is registered as node {node} still",
    cause: "Its server has moved to an address that the row of another node has, or was that node, a secondary of its own group, before it was promoted.",
    way_out: Do("{way} This row follows then."),
    ..ROW
};

pub const SHARDS_ARE_MOVED: Row = Row {
    code: "shards_are_moved",
    when: &[Compared],
    reason: "shards are being moved: {done} of {total} moves to or from it are done",
    cause: "A background job of Citus, such as its rebalancer, is running.",
    way_out: Wait("the job has ended"),
    ..ROW
};

/// Citus's rebalancer was not started for it yet.
pub const HOLDS_NO_SHARDS: Row = Row {
    code: "holds_no_shards",
    when: &[Compared],
    reason: "it holds no shards yet; the rebalancer waits: {why}",
    cause: "It has joined, citus_fleet.rebalance_on_join is on, and something else has to happen first.",
    way_out: Do("{way}"),
    ..ROW
};

/// Nobody answers at its address.
fn is_silent(it: &Member<'_>) -> bool {
    ["no_route", "connection_refused", "no_answer", "name_unresolved"].contains(&it.at_home.code)
}

fn moved(it: &Member<'_>) -> Option<Facts> {
    match &it.whereabouts {
        Moved(there) => Some(vec![("at", there.to.endpoint.to_string())]),
        _ => None,
    }
}

/// It is disabled, and stays so: its row follows nobody.
fn is_disabled(it: &Member<'_>) -> bool {
    !it.row.isactive && !matches!(it.whereabouts, Moved(..) | Twice(..))
}

fn node(row: &DistNode) -> Facts {
    vec![("node", name(row))]
}

/// What functions of Citus and of the fleet take for a node.
pub(super) fn name(row: &DistNode) -> String {
    format!("{}, {}", literal(&row.nodename), row.nodeport)
}

fn shards(it: &Member<'_>) -> Facts {
    let left = match it.row.placements {
        Some(1) => "1 shard is left on it".to_owned(),
        Some(count) => format!("{count} shards are left on it"),
        None => "its shards have not begun to move".to_owned(),
    };
    node(it.row).into_iter().chain([("left", left)]).collect()
}
