//! Owns what answers where a row of `pg_dist_node` leads, and whether that keeps Citus from adding others.
//! Must not look at candidates; `follow` brings the two together.

use super::coordinator::{DistNode, Identity};
use super::endpoint::Phase;
use super::evidence::AtHome;
use super::observation::{Observation, Sighting};
use super::situations;
use super::state::State;
use super::verdict::Verdict;
use crate::configuration::policy::Policy;
use crate::login::{LoginFailure, LoginFailureKind};
use std::net::SocketAddr;

/// A row of `pg_dist_node` with what is known of the server there.
#[derive(Debug)]
pub struct Registered<'a> {
    pub row: &'a DistNode,
    pub identity: Option<&'a Identity>,
    /// Where its name leads.
    pub endpoints: Vec<SocketAddr>,
    /// The address that answered last, and what it said.
    pub sighting: Option<Sighting<'a>>,
    pub at_home: Verdict,
    /// Addresses whose answer is from before the last one, and may be outdated.
    pub recheck: Vec<SocketAddr>,
}

impl<'a> Registered<'a> {
    pub fn judge(row: &'a DistNode, seen: &Observation<'a>, policy: &Policy) -> Self {
        let addresses = seen.node_addresses.get(&row.nodeid);
        let endpoints: Vec<SocketAddr> = addresses
            .into_iter()
            .flatten()
            .map(|address| SocketAddr::new(*address, row.nodeport))
            .collect();
        let mut sightings: Vec<Sighting> =
            endpoints.iter().filter_map(|at| seen.sighting(*at)).collect();
        sightings.sort_by_key(|sighting| std::cmp::Reverse(sighting.asked_at));
        let newest = sightings.first().copied();
        // Two answers of one server differ when it was restarted between them.
        let is_outdated = |sighting: &Sighting| {
            newest.is_some_and(|last| {
                !sighting.server.is_same(last.server) && !sighting.is_simultaneous(&last)
            })
        };
        let (outdated, sightings): (Vec<Sighting>, Vec<Sighting>) =
            sightings.into_iter().partition(is_outdated);
        let is_shared = sightings.iter().any(|it| !it.server.is_same(sightings[0].server));
        let failure = || {
            let failed = endpoints.iter().find_map(|at| seen.endpoints.get(at)?.failure());
            let unresolvable = || LoginFailure {
                kind: LoginFailureKind::Unresolvable,
                message: row.nodename.clone(),
            };
            let leads_nowhere = addresses.is_some_and(Vec::is_empty);
            failed.cloned().or_else(|| leads_nowhere.then(unresolvable))
        };
        // One that is starting, or has missed one probe, is not gone.
        let is_silent = |at: &SocketAddr| {
            seen.endpoints.get(at).is_some_and(|endpoint| endpoint.phase() == Phase::Silent)
        };
        let unnamed_for = seen
            .unnamed_since
            .get(&row.nodeid)
            .map(|since| seen.now.monotonic.saturating_sub(*since))
            .filter(|unnamed| *unnamed >= policy.absent_after && endpoints.iter().all(is_silent));
        let identity = seen.coordinator.identities.get(&row.nodeid);
        let at_home = situations::at_home(&AtHome {
            row,
            identity,
            endpoints: &endpoints,
            is_shared,
            server: newest.map(|sighting| sighting.server),
            failure: if newest.is_none() { failure() } else { None },
            unnamed_for,
            coordinator: seen
                .coordinator
                .own_row()
                .filter(|_| newest.is_some_and(|it| it.asked_at > seen.own_row_since))
                .map(|own| format!("{}:{}", own.nodename, own.nodeport)),
            max_lost_wal: policy.max_lost_wal,
        });
        let recheck = outdated.iter().map(|sighting| sighting.at).collect();
        Self { row, identity, endpoints, sighting: newest, at_home, recheck }
    }

    /// Whether the server there is the one that was recorded, and in order, whatever `isactive` says.
    pub fn is_well(&self) -> bool {
        let is_it = |sighting: &Sighting| {
            self.identity.is_some_and(|known| {
                known.record.system_identifier == sighting.server.system_identifier
            })
        };
        self.sighting.as_ref().is_some_and(is_it) && self.at_home.state == State::Active
    }

    /// Why Citus could not add a node while this one is as it is: an add sends the new row to every
    /// node that has metadata, and fails when one of them cannot take it.
    pub fn blocks_adding(&self) -> Option<String> {
        if !self.row.isactive || !self.row.hasmetadata {
            return None;
        }
        let name = format!("{}:{}", self.row.nodename, self.row.nodeport);
        if !self.row.metadatasynced {
            return Some(format!("the metadata of {name} is out of sync"));
        }
        let state = self.at_home.state;
        (state != State::Active).then(|| format!("{name} is {state}"))
    }
}
