//! Owns the situations of registered workers that their row, their whereabouts and the operator make.
//! Must not take a server that is not known by its recorded identity for the worker.

use super::row::WayOut::{Do, Wait};
use super::row::When::{Compared, Worker};
use super::row::{Facts, ROW, Row, given};
use crate::membership::coordinator::DistNode;
use crate::membership::evidence::Member;
use crate::membership::state::Action;
use crate::membership::state::State::{
    Absent, Active, Blank, Conflict, Inactive, Removed, Removing, Unreachable,
};
use crate::membership::whereabouts::Whereabouts::{Moved, Twice, Unknown, Unsure, Waiting};
use crate::node::literal;

pub(super) const TABLE: &[Row] = &[
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
];

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

pub(super) fn node(row: &DistNode) -> Facts {
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
