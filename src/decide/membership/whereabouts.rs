//! Owns finding the server of a registered worker: where it is now, if not where its row says.
//! Must not take a server for another: without a recorded identity nothing is ever found.

use super::candidate::Candidate;
use super::coordinator::{Coordinator, Identity};
use super::endpoint::Phase;
use super::lineage::{Descent, Lineage, Lsn};
use super::observation::{Observation, Sighting};
use super::server::Server;
use std::net::SocketAddr;

/// Where the server with a worker's identity is.
#[derive(Clone, Debug)]
pub enum Whereabouts<'a> {
    /// Nowhere that any source names.
    Unknown,
    /// At this address, but its own has not been silent for long enough to be sure.
    Waiting(SocketAddr),
    /// At this candidate, and its old address does not answer as it any more.
    Moved(Move<'a>),
    /// The answers are too old, or from different times: these are to be asked again.
    Unsure(Vec<SocketAddr>),
    /// Two servers run with the identity, at these addresses.
    Twice(SocketAddr, SocketAddr),
}

/// A server that goes on from what was recorded, at another address.
#[derive(Clone, Debug)]
pub struct Move<'a> {
    pub to: &'a Candidate,
    pub lineage: Lineage,
    /// Where it was promoted, if it was.
    pub switch: Option<Lsn>,
    /// Bytes of WAL that were seen and are not on it.
    pub lacks: u64,
}

/// What is looked for: a row's recorded identity, its group, and where the row leads.
pub struct Missing<'a> {
    pub identity: &'a Identity,
    pub groupid: i32,
    pub endpoints: &'a [SocketAddr],
    /// The row leads there no more: its name is gone from DNS, and led there last.
    pub is_name_lost: bool,
}

impl Missing<'_> {
    /// Whether a server with another system identifier is the worker all the same, as pg_upgrade leaves it:
    /// it carries the coordinator's mark, or takes itself for that node of this cluster.
    fn is_under_another_identity(&self, server: &Server, coordinator: &Coordinator) -> bool {
        let own = coordinator.own_row().map(ToString::to_string);
        let record = &self.identity.record;
        let is_marked = || record.mark.as_ref().is_some_and(|mark| server.carries(&mark.id));
        let is_member = || {
            server.membership.as_ref().is_some_and(|it| {
                it.group_id == self.groupid && own.is_some() && it.coordinator == own
            })
        };
        let is_other = server.system_identifier != record.system_identifier;
        is_other && !server.in_recovery && (is_marked() || is_member())
    }
}

/// Looks for a primary with the identity among the candidates that may be connected to.
///
/// A standby shares the system identifier with its primary, so one that is in recovery is never
/// meant; whoever does not know its group is another server with a copied identity; and whoever does not
/// descend from what was recorded lacks rows that clients have had answers for.
pub fn whereabouts<'a>(
    missing: &Missing<'_>,
    seen: &Observation<'a>,
    candidates: &[&'a Candidate],
) -> Whereabouts<'a> {
    let descends = |server: &Server| match missing.identity.record.descent(&server.lineage()) {
        Descent::Descends { from, lacks } => Some((from, lacks)),
        _ => None,
    };
    let is_it = |server: &Server| {
        server.system_identifier == missing.identity.record.system_identifier
            && !server.in_recovery
            && server.membership.as_ref().is_some_and(|m| m.group_id == missing.groupid)
            && descends(server).is_some()
    };
    let is_home = |at: &SocketAddr| !missing.is_name_lost && missing.endpoints.contains(at);
    let sightings: Vec<(&'a Candidate, Sighting<'a>)> = candidates
        .iter()
        .filter(|candidate| !is_home(&candidate.endpoint))
        .filter_map(|candidate| Some((*candidate, seen.sighting(candidate.endpoint)?)))
        .filter(|(_, sighting)| is_it(sighting.server))
        .collect();
    let Some((candidate, there)) = sightings.first().copied() else { return Whereabouts::Unknown };
    let others = sightings[1..].iter().map(|(_, sighting)| *sighting);
    let at_home: Vec<Sighting<'a>> =
        missing.endpoints.iter().filter_map(|at| seen.sighting(*at)).collect();
    let mut upgraded = at_home
        .iter()
        .filter(|sighting| missing.is_under_another_identity(sighting.server, seen.coordinator));
    if let Some(upgraded) = upgraded.next() {
        return Whereabouts::Twice(upgraded.at, there.at);
    }
    for other in others.chain(at_home.into_iter().filter(|it| is_it(it.server))) {
        if there.server.is_same(other.server) {
            // One server under two addresses: as long as the old one leads to it, it has not moved.
            if is_home(&other.at) {
                return Whereabouts::Unknown;
            }
            continue;
        }
        return match there.ran_beside(&other) {
            true => Whereabouts::Twice(other.at, there.at),
            false => Whereabouts::Unsure(vec![there.at, other.at]),
        };
    }
    // Silence is known only of an address that has been asked.
    let answer = |at: &SocketAddr| seen.endpoints.get(at)?.probe.as_ref();
    let unasked: Vec<SocketAddr> =
        missing.endpoints.iter().filter(|at| answer(at).is_none()).copied().collect();
    if !unasked.is_empty() {
        return Whereabouts::Unsure(unasked);
    }
    let is_failing = |at: &SocketAddr| {
        seen.endpoints.get(at).is_some_and(|endpoint| endpoint.phase() == Phase::Failing)
    };
    // Unless an operator has decided who the worker is.
    if missing.endpoints.iter().any(is_failing) && !missing.identity.to_be_synced {
        return Whereabouts::Waiting(there.at);
    }
    let is_stale = |at: &SocketAddr| answer(at).is_some_and(|probe| seen.is_stale(probe.at));
    let stale: Vec<SocketAddr> =
        missing.endpoints.iter().chain([&there.at]).filter(|at| is_stale(at)).copied().collect();
    match descends(there.server).filter(|_| stale.is_empty()) {
        Some((switch, lacks)) => {
            let lineage = there.server.lineage();
            Whereabouts::Moved(Move { to: candidate, lineage, switch, lacks })
        }
        None => Whereabouts::Unsure(stale),
    }
}
