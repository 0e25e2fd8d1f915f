//! Owns what a server must be before Citus may be asked to add it: `citus_add_node` checks little
//! of this itself and destroys data where it does not (docs/architecture.md, "Preflight").
//! Must not look at other servers or at DNS; `membership` does.

use super::model::{Coordinator, ExtensionState, Membership, Server, State};
use super::verdict::Verdict;

/// Why `server` may not become a worker of `coordinator`'s cluster; `None` when it may.
pub fn preflight(server: &Server, coordinator: &Coordinator) -> Option<Verdict> {
    identity(server, coordinator)
        .or_else(|| versions(server, coordinator))
        .or_else(|| extensions(server, coordinator))
        .or_else(|| emptiness(server, coordinator))
}

fn identity(server: &Server, coordinator: &Coordinator) -> Option<Verdict> {
    let ours = server.system_identifier == coordinator.system_identifier;
    match (ours, server.in_recovery) {
        (true, false) => Some(Verdict::refused(
            format!(
                "it is the coordinator itself, or a copy of it (system identifier {})",
                server.system_identifier
            ),
            "Take the coordinator out of the sources; a copied data directory needs an initdb of its own.",
        )),
        (true, true) => Some(Verdict::new(
            State::Standby,
            "it is a standby of the coordinator",
            "Nothing to do: it takes over as coordinator when it is promoted.",
        )),
        (false, true) => Some(Verdict::new(
            State::Standby,
            "it is in recovery: a standby cannot be a worker's primary",
            "Nothing to do: it is registered in its primary's place once it is promoted.",
        )),
        (false, false) => None,
    }
}

fn versions(server: &Server, coordinator: &Coordinator) -> Option<Verdict> {
    let (theirs, ours) = (server.version_num / 10_000, coordinator.version_num / 10_000);
    (theirs != ours).then(|| {
        Verdict::refused(
            format!("it runs PostgreSQL {theirs}, the coordinator PostgreSQL {ours}"),
            format!("Run PostgreSQL {ours} there."),
        )
    })
}

fn extensions(server: &Server, coordinator: &Coordinator) -> Option<Verdict> {
    if let Some(citus) = &coordinator.citus {
        match server.citus.installed.as_deref() {
            None => {
                return Some(Verdict::refused(
                    "the extension citus is not installed in its database",
                    "Run CREATE EXTENSION citus there; citus belongs into shared_preload_libraries first.",
                ));
            }
            Some(theirs) if theirs != citus.version => {
                return Some(Verdict::refused(
                    format!("it has citus {theirs}, the coordinator has citus {}", citus.version),
                    "Install the same Citus package on both and run ALTER EXTENSION citus UPDATE.",
                ));
            }
            Some(_) => {}
        }
    }
    let created_by_citus = [
        ("vector", &server.vector, coordinator.vector_version.as_deref()),
        ("citus_fleet", &server.fleet, Some(coordinator.fleet_version.as_str())),
    ];
    created_by_citus.into_iter().find_map(|(name, theirs, ours)| extension(name, theirs, ours?))
}

/// Citus creates the coordinator's extensions on a node that it adds, in the coordinator's version.
fn extension(name: &str, theirs: &ExtensionState, ours: &str) -> Option<Verdict> {
    match theirs.installed.as_deref() {
        Some(installed) if installed == ours => None,
        Some(installed) => Some(Verdict::refused(
            format!("it has {name} {installed}, the coordinator has {name} {ours}"),
            format!("Run ALTER EXTENSION {name} UPDATE TO '{ours}' there."),
        )),
        None if theirs.available => None,
        None => Some(Verdict::refused(
            format!("{name} {ours}, which the coordinator has, cannot be created there"),
            format!("Install the package with {name} {ours} on that host."),
        )),
    }
}

/// Ready for Citus, with nothing of another cluster and nothing that the metadata sync would overwrite.
fn emptiness(server: &Server, coordinator: &Coordinator) -> Option<Verdict> {
    let citus = coordinator.citus.as_ref()?;
    if server.wants_password && !coordinator.role_has_password {
        return Some(Verdict::refused(
            "Citus would take away the password it asks for: the controller's role has none on the coordinator",
            "Set the role's password on the coordinator to the one it has there: ALTER ROLE … PASSWORD …",
        ));
    }
    if server.max_prepared_transactions == 0 {
        return Some(Verdict::refused(
            "max_prepared_transactions is 0 there, so Citus cannot commit across nodes",
            "Set max_prepared_transactions to at least max_connections there and restart it.",
        ));
    }
    let Some(Membership { group_id, nodes, distributed_tables, .. }) = &server.membership else {
        return Some(Verdict::refused(
            "what its Citus knows of a cluster could not be read",
            "Check that the extension citus is whole in its database.",
        ));
    };
    if *group_id != 0 {
        return Some(Verdict::refused(
            format!("it is a worker of a Citus cluster already (group {group_id})"),
            "If it is a worker of this cluster that has moved, lead its row here with citus_update_node. If it is another cluster's, remove it there first and give it an empty database.",
        ));
    }
    if *nodes > 0 || *distributed_tables > 0 {
        return Some(Verdict::refused(
            format!(
                "it is the coordinator of another Citus cluster ({nodes} nodes, {distributed_tables} distributed tables)"
            ),
            "Take it out of the sources; to use the host as a worker, give it an empty database with the extension citus.",
        ));
    }
    let clash = server
        .clashing_relations
        .iter()
        .find(|relation| citus.distributed_tables.contains(relation))?;
    Some(Verdict::refused(
        format!("its relation {clash} would be dropped: a distributed table has that name"),
        format!("Rename or drop {clash} on that server after saving its rows."),
    ))
}
