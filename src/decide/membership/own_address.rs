//! Owns whether the address that workers get for the coordinator leads to this server: every worker
//! that joins takes whoever is there for its coordinator, and Citus checks nothing.
//! Must not look at workers.

use super::coordinator::Coordinator;
use super::evidence::Hindrance;
use super::observation::Observation;
use super::server::Server;
use crate::configuration::policy::Policy;
use std::net::SocketAddr;

/// What workers know the coordinator by, or are to: the setting, or else its row of `pg_dist_node`.
/// None without Citus, and where the row is Citus's own placeholder.
pub fn own_address<'a>(coordinator: &'a Coordinator, policy: &'a Policy) -> Option<(&'a str, u16)> {
    coordinator.citus.as_ref()?;
    let set = policy.coordinator_host.as_ref().map(|(name, port)| (name.as_str(), *port));
    let row = coordinator.own_row().filter(|row| row.nodename != "localhost");
    set.or_else(|| row.map(|row| (row.nodename.as_str(), row.nodeport)))
}

/// Why workers cannot be given the coordinator's address: somebody else answers there, or nobody.
///
/// This server has to answer, not only one with its system identifier, which its standbys and a copy
/// of it that was restored elsewhere have too. Through a proxy or a Service it does: whoever asks is
/// the primary.
pub fn doubt(seen: &Observation<'_>, policy: &Policy) -> Option<Hindrance> {
    let (name, port) = own_address(seen.coordinator, policy)?;
    let own = format!("{name}:{port}");
    if seen.own_endpoints.is_empty() {
        return Some(Hindrance::OwnUnresolved(own));
    }
    let (mut is_here, mut failure) = (false, None);
    for at in seen.own_endpoints {
        match seen.endpoints.get(at).and_then(|endpoint| endpoint.probe.as_ref()) {
            None => return Some(Hindrance::OwnUnchecked),
            Some(probe) => match &probe.result {
                Ok(server) if is_this(server, seen.coordinator) => is_here = true,
                Ok(server) => {
                    let system_identifier = server.system_identifier;
                    return Some(Hindrance::OwnElsewhere { own, at: *at, system_identifier });
                }
                Err(why) => failure = Some(why.clone()),
            },
        }
    }
    failure.filter(|_| !is_here).map(|failure| Hindrance::OwnUnreachable { own, failure })
}

/// Where an old answer has to be asked for again: what a name leads to may have changed.
pub fn stale(seen: &Observation<'_>) -> Vec<SocketAddr> {
    let is_old = |at: &&SocketAddr| {
        let probe = seen.endpoints.get(*at).and_then(|endpoint| endpoint.probe.as_ref());
        probe.is_some_and(|probe| seen.is_stale(probe.at))
    };
    seen.own_endpoints.iter().filter(is_old).copied().collect()
}

fn is_this(server: &Server, coordinator: &Coordinator) -> bool {
    server.system_identifier == coordinator.system_identifier
        && server.started_us == coordinator.started_us
}
