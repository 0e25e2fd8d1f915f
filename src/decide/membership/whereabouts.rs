//! Owns finding the server of a registered worker: where it is now, if not where its row says.
//! Must not take a server for another: without a recorded identity nothing is ever found.

use super::model::{Candidate, Identity, Lineage, Observation, Probe, Server};
use super::registered::is_same;
use crate::login::LoginFailureKind;
use std::net::SocketAddr;
use std::time::Duration;

/// An answer older than this is asked for again before it is acted upon.
pub const FRESH: Duration = Duration::from_secs(10);

/// How long a worker's own address has to be silent before its server elsewhere counts as moved: a
/// restart of a primary must not look like a failover to a copy of it.
const SILENCE: Duration = Duration::from_secs(5);

/// Two answers within this time of each other were given by two servers if they differ; further
/// apart, one server may have been restarted between them.
pub const SIMULTANEOUS: Duration = Duration::from_secs(2);

/// Where the server with a worker's identity is.
#[derive(Debug)]
pub enum Whereabouts<'a> {
    /// Nowhere that any source names.
    Unknown,
    /// At this address, but its own has not been silent for long enough to be sure.
    Waiting(SocketAddr),
    /// At this candidate, and its old address does not answer as it any more.
    Moved(&'a Candidate, Lineage),
    /// The answers are too old, or from different times: these are to be asked again.
    Unsure(Vec<SocketAddr>),
    /// Two servers run with the identity, at these addresses.
    Twice(SocketAddr, SocketAddr),
}

/// What is looked for: a row's recorded identity, its group, and where the row leads.
pub struct Missing<'a> {
    pub identity: &'a Identity,
    pub groupid: i32,
    pub endpoints: &'a [SocketAddr],
}

/// Looks for a primary with the identity among the candidates that may be connected to.
///
/// A standby shares the system identifier with its primary, so one that is in recovery is never
/// meant; whoever does not know its group is another server with a copied identity; and whoever is
/// at a lower timeline than was seen already is a primary that a promotion has left behind.
pub fn whereabouts<'a>(
    missing: &Missing<'_>,
    seen: &Observation<'a>,
    candidates: &[&'a Candidate],
) -> Whereabouts<'a> {
    let is_it = |server: &Server| {
        server.system_identifier == missing.identity.system_identifier
            && !server.in_recovery
            && !missing.identity.has_left_behind(server)
            && server.membership.as_ref().is_some_and(|m| m.group_id == missing.groupid)
    };
    let sightings: Vec<(&'a Candidate, &Server, &Probe)> = candidates
        .iter()
        .filter(|candidate| !missing.endpoints.contains(&candidate.endpoint))
        .filter_map(|candidate| {
            let probe = seen.probes.get(&candidate.endpoint)?;
            let server = probe.result.as_ref().ok().filter(|server| is_it(server))?;
            Some((*candidate, server, probe))
        })
        .collect();
    let Some((there, server, probe)) = sightings.first() else { return Whereabouts::Unknown };
    let here: Vec<(SocketAddr, &Probe)> =
        missing.endpoints.iter().filter_map(|at| Some((*at, seen.probes.get(at)?))).collect();
    let others = sightings[1..]
        .iter()
        .map(|(candidate, server, probe)| (candidate.endpoint, *server, *probe));
    let at_home = here.iter().filter_map(|(at, probe)| {
        Some((*at, probe.result.as_ref().ok().filter(|server| is_it(server))?, *probe))
    });
    for (endpoint, other, other_probe) in others.chain(at_home) {
        let is_home = missing.endpoints.contains(&endpoint);
        if is_same(server, other) {
            // One server under two addresses: as long as the old one leads to it, it has not moved.
            if is_home {
                return Whereabouts::Unknown;
            }
            continue;
        }
        return if probe.at.abs_diff(other_probe.at) > SIMULTANEOUS {
            Whereabouts::Unsure(vec![there.endpoint, endpoint])
        } else {
            Whereabouts::Twice(endpoint, there.endpoint)
        };
    }
    // Silence is known only of an address that has been asked.
    let unasked: Vec<SocketAddr> =
        missing.endpoints.iter().filter(|at| !seen.probes.contains_key(at)).copied().collect();
    if !unasked.is_empty() {
        return Whereabouts::Unsure(unasked);
    }
    let is_restarting = |probe: &Probe| match &probe.result {
        Ok(_) => false,
        Err(failure) => {
            matches!(
                failure.kind,
                LoginFailureKind::StartingUp | LoginFailureKind::TooManyConnections
            ) || probe.silent_since.is_none_or(|since| probe.at.saturating_sub(since) < SILENCE)
        }
    };
    if here.iter().any(|(_, probe)| is_restarting(probe)) {
        return Whereabouts::Waiting(there.endpoint);
    }
    let now = seen.now.monotonic;
    let stale: Vec<SocketAddr> = here
        .iter()
        .chain([&(there.endpoint, *probe)])
        .filter(|(_, probe)| now.saturating_sub(probe.at) > FRESH)
        .map(|(endpoint, _)| *endpoint)
        .collect();
    if stale.is_empty() {
        Whereabouts::Moved(there, server.lineage())
    } else {
        Whereabouts::Unsure(stale)
    }
}
