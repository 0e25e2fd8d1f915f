//! Owns whether the address that workers get for the coordinator leads to this server: every worker
//! that joins takes whoever is there for its coordinator, and Citus checks nothing.
//! Must not look at workers.

use super::coordinator::{Coordinator, OwnAddress};
use super::endpoint::Endpoint;
use super::evidence::Hindrance;
use super::observation::Observation;
use super::server::Server;
use crate::configuration::policy::Policy;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What workers know the coordinator by, or are to: the setting, and its row of `pg_dist_node`, which a
/// copy of the coordinator brings along whatever its configuration says. The first is what workers get.
/// None without Citus; Citus's own placeholder is none.
pub fn own_names<'a>(coordinator: &'a Coordinator, policy: &'a Policy) -> Vec<(&'a str, i32)> {
    if coordinator.citus.is_none() {
        return Vec::new();
    }
    let set =
        policy.coordinator_host.as_ref().map(|(name, port)| (name.as_str(), i32::from(*port)));
    let row = coordinator.own_row().filter(|row| row.nodename != "localhost");
    let row = row.map(|row| (row.nodename.as_str(), row.nodeport)).filter(|row| Some(*row) != set);
    set.into_iter().chain(row).collect()
}

/// Why workers cannot be given the coordinator's address: somebody else answers there, or nobody, or
/// this server is no coordinator at all.
///
/// This server has to answer, not only one with its system identifier, which its standbys and a copy
/// of it that was restored elsewhere have too. Through a proxy or a Service it does: whoever asks is
/// the primary.
pub fn doubt(seen: &Observation<'_>) -> Option<Hindrance> {
    seen.coordinator.citus.as_ref()?;
    let Some(given) = seen.own.first() else {
        return seen.coordinator.own_row().is_none().then_some(Hindrance::NoOwnAddress);
    };
    // Whoever runs at either of them may be the coordinator, and this server a copy of it.
    let elsewhere = seen.own.iter().find_map(|own| {
        own.endpoints.iter().find_map(|at| {
            let server = seen.sighting(*at)?.server;
            (!is_this(server, seen.coordinator)).then(|| Hindrance::OwnElsewhere {
                own: own.to_string(),
                at: *at,
                system_identifier: server.system_identifier,
                is_twin: server.system_identifier == seen.coordinator.system_identifier,
            })
        })
    });
    if elsewhere.is_some() {
        return elsewhere;
    }
    let is_asked = |at: &SocketAddr| seen.endpoints.get(at).is_some_and(|it| it.probe.is_some());
    if !seen.own.iter().flat_map(|own| &own.endpoints).all(is_asked) {
        return Some(Hindrance::OwnUnchecked);
    }
    let is_proved = seen.is_proved;
    if given.endpoints.is_empty() {
        return Some(Hindrance::OwnUnresolved { own: given.to_string(), is_proved });
    }
    let is_here = given.endpoints.iter().any(|at| seen.sighting(*at).is_some());
    let mut failures = given.endpoints.iter().filter_map(|at| seen.endpoints.get(at)?.failure());
    let failure = failures.next().filter(|_| !is_here)?.clone();
    Some(Hindrance::OwnUnreachable { own: given.to_string(), failure, is_proved })
}

/// Whether this server, or another one, has answered at any of the coordinator's addresses; none where
/// nobody has. A copy that cannot see the coordinator must not take itself for it.
pub fn proof(
    own: &[OwnAddress],
    coordinator: &Coordinator,
    endpoints: &BTreeMap<SocketAddr, Endpoint>,
) -> Option<bool> {
    let addresses = own.iter().flat_map(|own| &own.endpoints);
    let answers = addresses.filter_map(|at| endpoints.get(at)?.server());
    answers.map(|server| is_this(server, coordinator)).reduce(|one, other| one && other)
}

/// Where an old answer has to be asked for again: what a name leads to may have changed.
pub fn stale(seen: &Observation<'_>) -> Vec<SocketAddr> {
    let is_old = |at: &&SocketAddr| {
        let probe = seen.endpoints.get(*at).and_then(|endpoint| endpoint.probe.as_ref());
        probe.is_some_and(|probe| seen.is_stale(probe.at))
    };
    seen.own.iter().flat_map(|own| &own.endpoints).filter(is_old).copied().collect()
}

fn is_this(server: &Server, coordinator: &Coordinator) -> bool {
    server.system_identifier == coordinator.system_identifier
        && server.started_us == coordinator.started_us
}
