//! Owns the situations of endpoints that a source yields: whether they may become workers.
//! `citus_add_node` checks little of this itself and destroys data where it does not
//! (docs/architecture.md, "Preflight"). Must not look at the whole fleet: the evidence says what is needed.

use super::logins::of_login;
use super::row::WayOut::{Do, Tell, Wait};
use super::row::When::{Candidate, Compared};
use super::row::{Facts, ROW, Row, given};
use crate::membership::coordinator::{DistNode, Removed};
use crate::membership::evidence::{Bar, Newcomer, Twin};
use crate::membership::schedule::sync_time;
use crate::membership::server::{ExtensionState, MOST_RELATIONS, Membership, Server};
use crate::membership::state::Action;
use crate::membership::state::State::{
    Active, Conflict, Discovered, Ready, Refused, Removed as Out, Standby,
};
use crate::membership::verdict::Verdict;
use crate::node::literal;

/// Citus has registered it beside its source.
pub const CLONE: &str = "clone";
/// The plan registers it.
pub const REGISTERING: &str = "registering";
/// The plan registers it, and that takes a while.
pub const SYNCING: &str = "syncing";
/// As many tables as are worth a word.
const MANY_TABLES: u64 = 500;
/// The plan drops what Citus has left on it.
pub const CLEANING: &str = "removed_cleaning";

/// What Citus would destroy, or could not add.
const REFUSED: Row = Row { state: Refused, action: Action::Refuse, next: Some(Ready), ..ROW };
/// What an operator has removed.
const OUT: Row = Row { state: Out, ..REFUSED };
/// What is not known well enough yet.
const SEEN: Row = Row { state: Discovered, next: Some(Ready), ..ROW };
/// What has passed preflight.
const FIT: Row = Row { state: Ready, action: Action::Register, next: Some(Ready), ..ROW };

pub(super) const TABLE: &[Row] = &[
    // --- Before anybody connects ---
    // Whoever can write to DNS chooses where the controller logs in: only as far as the operator lets them.
    Row {
        code: "name_not_allowed",
        when: &[Candidate(|it| match &it.bar {
            Some(Bar::Name(name)) => Some(vec![("name", name.to_string())]),
            _ => None,
        })],
        reason: "the name {name} is outside citus_fleet.allowed_names",
        cause: "A source gave a name that the setting does not allow. Nobody connects to it.",
        way_out: Do("Add the suffix to citus_fleet.allowed_names, or take the source out."),
        next: Some(Discovered),
        ..REFUSED
    },
    Row {
        code: "network_not_allowed",
        when: &[Candidate(|it| match &it.bar {
            Some(Bar::Network(refusal)) => {
                Some(vec![("what_is_wrong_with_the_address", refusal.clone())])
            }
            _ => None,
        })],
        reason: "{what_is_wrong_with_the_address}",
        cause: "A source gave an address outside citus_fleet.allowed_networks, or one that is another machine's idea of itself. Nobody connects to it.",
        way_out: Do("Correct the source, or add the network to citus_fleet.allowed_networks."),
        next: Some(Discovered),
        ..REFUSED
    },
    Row {
        code: "not_asked_yet",
        when: &[Candidate(|it| given(it.is_unknown()))],
        reason: "it has not answered yet",
        cause: "A source has just named it.",
        way_out: Wait("it answers, or the probe's deadline is over"),
        ..SEEN
    },
    // It has the system identifier of its source, for good: that one's fate is not its own.
    Row {
        code: CLONE,
        state: Standby,
        action: Action::None,
        when: &[Candidate(|it| it.server().and(it.clone).map(of_source))],
        reason: "it is node {node}, a clone of node {source}",
        cause: "citus_add_clone_node has registered it. It is listed without a source, too, and not probed then.",
        way_out: Do(
            "Nothing to do: SELECT citus_promote_clone_and_rebalance({node}); makes it a worker.",
        ),
        next: Some(Active),
    },
    // DNS keeps a name for a while: that is no alarm.
    Row {
        code: "removed_gone",
        action: Action::None,
        when: &[Candidate(|it| {
            let (failure, removed) = it.removed_and_gone()?;
            let left = if removed.is_clean { "" } else { ", and is to be cleaned when it is back" };
            let silence = of_login(failure).reason.unwrap_or_default();
            Some(vec![("left", left.to_owned()), ("silence", silence)])
        })],
        reason: "it was removed by fleet.remove_worker{left}; {silence}",
        cause: "A source still names the address that a removed server had, and nobody answers there.",
        way_out: Wait("no source names it any more"),
        next: None,
        ..OUT
    },
    // --- Whose server it is; one that has a worker's identity is found before, by its lineage ---
    Row {
        code: "compared",
        when: &[Candidate(|it| match it.twin {
            Some(Twin::Unsure(other)) => Some(vec![("other", other.to_string())]),
            _ => None,
        })],
        reason: "it is compared with {other}, which has the same system identifier",
        cause: "Two answers of one system identifier are from different times: two servers, or one that was restarted in between.",
        way_out: Wait("both have been asked again"),
        ..SEEN
    },
    Row {
        code: "copy",
        state: Conflict,
        when: &[Candidate(|it| {
            let (Some(Twin::Runs(other)), Some(server)) = (it.twin, it.server()) else {
                return None;
            };
            let identifier = server.system_identifier.to_string();
            Some(vec![("other", other.to_string()), ("system_identifier", identifier)])
        })],
        reason: "{other} is another running server with the same system identifier ({system_identifier}): one is a copy of the other",
        cause: "A data directory was copied, or a standby was promoted, and both servers run.",
        way_out: Do("Stop the copy, or give it a data directory of its own with initdb."),
        ..REFUSED
    },
    // --- Servers that an operator has removed ---
    Row {
        code: "removed_unaware",
        when: &[Candidate(|it| {
            let (server, _) = it.removed()?;
            given(server.membership.as_ref().is_some_and(|m| m.group_id != 0 || m.nodes != 0))
        })],
        reason: "it was removed, but still takes itself for a worker of this cluster: it could not be told",
        cause: "It did not answer when it was removed.",
        way_out: Do(
            "To use the host again, empty its data directory and run initdb: it joins as a new worker.",
        ),
        ..OUT
    },
    Row {
        code: "removed",
        when: &[Candidate(|it| it.removed().filter(|(_, removed)| removed.is_clean).map(record))],
        reason: "it was removed by fleet.remove_worker",
        cause: "An operator has removed it, and nothing of Citus is left on it.",
        way_out: Tell("SELECT fleet.enroll_worker({node}); -- lets it join again"),
        ..OUT
    },
    Row {
        code: "removed_standby",
        when: &[Candidate(|it| it.removed().filter(|(server, _)| server.in_recovery).map(record))],
        reason: "it was removed; {count} relations of Citus on it cannot be dropped while it is a standby",
        cause: "Citus leaves relations on a removed server, and this one takes no writes.",
        way_out: Do("Promote its primary, or remove the standby too."),
        next: Some(Out),
        ..OUT
    },
    Row {
        code: CLEANING,
        when: &[Candidate(|it| it.removed().map(record))],
        reason: "it was removed; {count} relations of Citus on it are being dropped",
        cause: "Citus leaves relations on a removed server, which would be in the way if it joined again.",
        way_out: Wait("they are dropped"),
        next: Some(Out),
        ..OUT
    },
    CLEANING_WAITS,
    // --- Preflight: what Citus would make of it ---
    Row {
        code: "coordinator",
        when: &[Candidate(|it| {
            let server = it.server().filter(|server| it.is_ours() && !server.in_recovery)?;
            Some(vec![("system_identifier", server.system_identifier.to_string())])
        })],
        reason: "it is the coordinator itself, or a copy of it (system identifier {system_identifier})",
        cause: "A source names the coordinator, or a copy of its data directory.",
        way_out: Do(
            "Take the coordinator out of the sources; a copied data directory needs an initdb of its own.",
        ),
        next: None,
        ..REFUSED
    },
    Row {
        code: "standby_of_coordinator",
        state: Standby,
        when: &[Candidate(|it| given(it.is_ours()))],
        reason: "it is a standby of the coordinator",
        cause: "A source names a standby of the coordinator.",
        way_out: Tell("Nothing to do: it takes over as coordinator when it is promoted."),
        next: None,
        ..REFUSED
    },
    // citus_add_node would fail after it has taken the lock on pg_dist_node.
    Row {
        code: "standby",
        state: Standby,
        when: &[Candidate(|it| given(it.server()?.in_recovery))],
        reason: "it is in recovery: a standby cannot be a worker's primary",
        cause: "A source names a standby of a worker.",
        way_out: Tell(
            "Nothing to do: it is registered in its primary's place once it is promoted.",
        ),
        next: Some(Active),
        ..REFUSED
    },
    Row {
        code: "other_postgresql",
        when: &[Candidate(|it| {
            let theirs = it.server()?.version_num / 10_000;
            let ours = it.coordinator.version_num / 10_000;
            let versions = vec![("theirs", theirs.to_string()), ("ours", ours.to_string())];
            (theirs != ours).then_some(versions)
        })],
        reason: "it runs PostgreSQL {theirs}, the coordinator PostgreSQL {ours}",
        cause: "Citus runs one major version of PostgreSQL on all nodes.",
        way_out: Do("Run PostgreSQL {ours} there."),
        ..REFUSED
    },
    Row {
        code: "citus_missing",
        when: &[Candidate(|it| {
            given(it.coordinator.citus.is_some() && it.server()?.citus.installed.is_none())
        })],
        reason: "the extension citus is not installed in its database",
        cause: "Citus does not create itself on a node that it adds.",
        way_out: Do(
            "Run CREATE EXTENSION citus there; citus belongs into shared_preload_libraries first.",
        ),
        ..REFUSED
    },
    Row {
        code: "other_citus",
        when: &[Candidate(|it| {
            let ours = it.coordinator.citus.as_ref()?.version.clone();
            let theirs = it.server()?.citus.installed.clone().filter(|theirs| *theirs != ours)?;
            Some(vec![("theirs", theirs), ("ours", ours)])
        })],
        reason: "it has citus {theirs}, the coordinator has citus {ours}",
        cause: "The packages differ, or ALTER EXTENSION has not run on one of them.",
        way_out: Do("Install the same Citus package on both and run ALTER EXTENSION citus UPDATE."),
        ..REFUSED
    },
    // Citus creates the coordinator's extensions on a node that it adds, in the coordinator's version.
    Row {
        code: "other_extension",
        when: &[Candidate(|it| extension(it, |theirs| theirs.installed.is_some()))],
        reason: "it has {extension} {theirs}, the coordinator has {extension} {ours}",
        cause: "Its database has another version of vector or citus_fleet than the coordinator's.",
        way_out: Do("Run ALTER EXTENSION {extension} UPDATE TO '{ours}' there."),
        ..REFUSED
    },
    Row {
        code: "extension_unavailable",
        when: &[Candidate(|it| extension(it, |theirs| theirs.installed.is_none()))],
        reason: "{extension} {ours}, which the coordinator has, cannot be created there",
        cause: "The package of vector or citus_fleet is missing there, or is of another version.",
        way_out: Do("Install the package with {extension} {ours} on that host."),
        ..REFUSED
    },
    // Citus gives its own idea of the role to the node, and locks everybody out.
    Row {
        code: "password_would_be_lost",
        when: &[Candidate(|it| {
            let server = with_citus(it)?;
            given(server.wants_password && !it.coordinator.role_has_password)
        })],
        reason: "Citus would take away the password it asks for: the controller's role has none on the coordinator",
        cause: "It asks the controller for a password, and Citus copies the roles of the coordinator.",
        way_out: Do(
            "Set the role's password on the coordinator to the one it has there: ALTER ROLE … PASSWORD …",
        ),
        ..REFUSED
    },
    Row {
        code: "no_prepared_transactions",
        when: &[Candidate(|it| given(with_citus(it)?.max_prepared_transactions == 0))],
        reason: "max_prepared_transactions is 0 there, so Citus cannot commit across nodes",
        cause: "The setting is not what Citus needs.",
        way_out: Do(
            "Set max_prepared_transactions to at least max_connections there and restart it.",
        ),
        ..REFUSED
    },
    Row {
        code: "membership_unreadable",
        when: &[Candidate(|it| given(with_citus(it)?.membership.is_none()))],
        reason: "what its Citus knows of a cluster could not be read",
        cause: "The extension citus is there, and its catalogs are not.",
        way_out: Do("Check that the extension citus is whole in its database."),
        ..REFUSED
    },
    // Citus would take it for the coordinator itself, each time anew.
    Row {
        code: "same_server_id",
        when: &[Candidate(|it| {
            let ours = it.coordinator.citus.as_ref()?.server_id.as_ref()?;
            given(in_citus(it)?.server_id.as_ref() == Some(ours))
        })],
        reason: "Citus has the server_id of the coordinator there (pg_dist_node_metadata), and would take it for the coordinator",
        cause: "Both were made from one image, or one dump, in which the extension citus existed already.",
        way_out: Do(
            "On that server: UPDATE pg_dist_node_metadata SET metadata = jsonb_set(metadata, ARRAY['server_id'], to_jsonb(gen_random_uuid()));",
        ),
        ..REFUSED
    },
    // citus_add_node would replace its metadata, and the coordinator that it belongs to would not notice.
    Row {
        code: "foreign_worker",
        when: &[Candidate(|it| {
            let group = in_citus(it)?.group_id;
            (group != 0).then(|| vec![("group", group.to_string())])
        })],
        reason: "it is a worker of a Citus cluster already (group {group})",
        cause: "It belongs to another cluster, or to this one under a row that leads elsewhere.",
        way_out: Do(
            "If it is a worker of this cluster that has moved, lead its row here with citus_update_node. If it is another cluster's, remove it there first and give it an empty database.",
        ),
        ..REFUSED
    },
    // citus_add_node would make its distributed tables vanish.
    Row {
        code: "foreign_coordinator",
        when: &[Candidate(|it| {
            let theirs = in_citus(it).filter(|m| m.nodes > 0 || m.distributed_tables > 0)?;
            let tables = match theirs.distributed_tables {
                Membership::MOST_COUNTED => format!("at least {}", Membership::MOST_COUNTED),
                count => count.to_string(),
            };
            Some(vec![("nodes", theirs.nodes.to_string()), ("tables", tables)])
        })],
        reason: "it is the coordinator of another Citus cluster ({nodes} nodes, {tables} distributed tables)",
        cause: "It has workers or distributed tables of its own.",
        way_out: Do(
            "Take it out of the sources; to use the host as a worker, give it an empty database with the extension citus.",
        ),
        ..REFUSED
    },
    // The metadata sync begins with DROP TABLE … CASCADE.
    Row {
        code: "table_would_be_dropped",
        when: &[Candidate(|it| {
            let citus = it.coordinator.citus.as_ref()?;
            let mut theirs = with_citus(it)?.relations.iter();
            let clash = theirs.find(|relation| citus.clashes.contains(relation))?;
            Some(vec![("relation", clash.to_string())])
        })],
        reason: "its relation {relation} would be dropped: a distributed table has that name",
        cause: "Its database has a relation of the name of a distributed table.",
        way_out: Do("Rename or drop {relation} on that server after saving its rows."),
        ..REFUSED
    },
    // Nobody looks through all of them for names that clash.
    Row {
        code: "too_many_relations",
        when: &[Candidate(|it| {
            let is_full = with_citus(it)?.relations.len() > MOST_RELATIONS;
            is_full.then(|| vec![("most", MOST_RELATIONS.to_string())])
        })],
        reason: "it has more than {most} relations of its own, and is no empty server",
        cause: "Its database is in use for something else.",
        way_out: Do(
            "Give it a database of its own with the extension citus, or drop what is not needed.",
        ),
        ..REFUSED
    },
    // --- It is fit ---
    // citus_add_node would return the id of that row without looking who is there.
    Row {
        code: "name_taken",
        state: Conflict,
        when: &[Candidate(|it| {
            let holder = it.server().and(it.holder)?;
            let (name, port) = (it.nodename.clone(), it.at.port().to_string());
            let quoted = literal(&name);
            Some(vec![
                ("name", name),
                ("port", port),
                ("node", holder.to_string()),
                ("quoted", quoted),
            ])
        })],
        reason: "pg_dist_node has {name}:{port} already, as node {node} with another server",
        cause: "A row of pg_dist_node has the name that this server would be registered under.",
        way_out: Do("SELECT * FROM pg_dist_node WHERE nodename = {quoted} AND nodeport = {port};"),
        ..FIT
    },
    // Citus will look the name up itself: that it leads here alone has to be true now.
    Row {
        code: "checked_once_more",
        when: &[Candidate(|it| given(is_free(it)? && it.is_stale))],
        reason: "it is checked once more",
        cause: "What is known of it, or of its name, is too old to act on.",
        way_out: Wait("it has answered again"),
        ..FIT
    },
    // From here on it takes seconds.
    Row {
        code: SYNCING,
        when: &[Candidate(|it| {
            let tables = it.coordinator.citus.as_ref().map_or(0, |citus| citus.tables);
            given(is_free(it)? && tables >= MANY_TABLES)?;
            let seconds = (sync_time(tables).as_secs() + 1).to_string();
            Some(vec![("tables", tables.to_string()), ("seconds", seconds)])
        })],
        reason: "it is being registered: the metadata of {tables} tables are sent to it, which may take {seconds} s; whoever changes tables waits until then",
        cause: "It has passed preflight, and there are many tables, as with a schema for each tenant.",
        way_out: Wait("Citus has added it"),
        next: Some(Active),
        ..FIT
    },
    Row {
        code: REGISTERING,
        when: &[Candidate(|it| given(is_free(it)?))],
        reason: "it is being registered",
        cause: "It has passed preflight.",
        way_out: Wait("Citus has added it"),
        next: Some(Active),
        ..FIT
    },
];

/// The fleet may not drop anything at the moment, or could not.
pub const CLEANING_WAITS: Row = Row {
    code: "removed_waits",
    when: &[Compared],
    reason: "it was removed; {count} relations of Citus on it wait; {why}",
    cause: "Citus leaves relations on a removed server, and something keeps the fleet from dropping them.",
    way_out: Do("{way}"),
    next: Some(Out),
    ..OUT
};
fn of_source(row: &DistNode) -> Facts {
    let source = row.clone_of.unwrap_or_default().to_string();
    vec![("node", row.nodeid.to_string()), ("source", source)]
}

/// A clone that nobody has probed.
pub fn of_clone(row: &DistNode) -> Verdict {
    let is_it = |it: &&Row| it.code == CLONE;
    TABLE.iter().find(is_it).unwrap_or(&ROW).verdict(&of_source(row))
}

/// Nothing hinders its registration.
fn is_free(it: &Newcomer<'_>) -> Option<bool> {
    it.server().map(|_| it.hindrance.is_none())
}

/// A server, where this coordinator has Citus to add it with.
fn with_citus<'a>(it: &Newcomer<'a>) -> Option<&'a Server> {
    it.coordinator.citus.as_ref().and(it.server())
}

fn in_citus<'a>(it: &Newcomer<'a>) -> Option<&'a Membership> {
    with_citus(it)?.membership.as_ref()
}

fn record((_, removed): (&Server, &Removed)) -> Facts {
    let node = format!("{}, {}", literal(&removed.nodename), removed.nodeport);
    vec![("node", node), ("count", removed.relations.len().to_string())]
}

/// The first extension that Citus would create there and that is not there in the coordinator's
/// version, where it is in the way in that sense.
fn extension(it: &Newcomer<'_>, is_so: fn(&ExtensionState) -> bool) -> Option<Facts> {
    let (server, coordinator) = (it.server()?, it.coordinator);
    let wanted = [
        ("vector", &server.vector, coordinator.vector_version.as_deref()),
        ("citus_fleet", &server.fleet, Some(coordinator.fleet_version.as_str())),
    ];
    let (name, theirs, ours) = wanted.into_iter().find_map(|(name, theirs, ours)| {
        let ours = ours?;
        let is_fit = match theirs.installed.as_deref() {
            Some(installed) => installed == ours,
            None => theirs.available,
        };
        (!is_fit).then_some((name, theirs, ours))
    })?;
    let installed = theirs.installed.clone().unwrap_or_default();
    let facts =
        vec![("extension", name.to_owned()), ("theirs", installed), ("ours", ours.to_owned())];
    is_so(theirs).then_some(facts)
}
