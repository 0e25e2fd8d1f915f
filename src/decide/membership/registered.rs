//! Owns what answers where a row of `pg_dist_node` leads, and whether that keeps Citus from adding others.
//! Must not look at candidates; `follow` brings the two together.

use super::coordinator::{DistNode, Identity};
use super::endpoint::{Endpoint, Phase};
use super::evidence::AtHome;
use super::observation::{Observation, Sighting};
use super::situations;
use super::state::State;
use super::verdict::Verdict;
use crate::configuration::policy::Policy;
use crate::login::{LoginFailure, LoginFailureKind};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A row of `pg_dist_node` with what is known of the server there.
#[derive(Debug)]
pub struct Registered<'a> {
    pub row: &'a DistNode,
    pub identity: Option<&'a Identity>,
    /// Where its name leads, or last led.
    pub endpoints: Vec<SocketAddr>,
    pub is_name_lost: bool,
    /// The address that answered last, and what it said.
    pub sighting: Option<Sighting<'a>>,
    pub at_home: Verdict,
    /// How the nodes in its metadata differ from the coordinator's, if only at this moment.
    pub difference: Option<String>,
    /// Addresses whose answer is from before the last one, and may be outdated.
    pub recheck: Vec<SocketAddr>,
}

impl<'a> Registered<'a> {
    pub fn judge(row: &'a DistNode, seen: &Observation<'a>, policy: &Policy) -> Self {
        let addresses = seen.node_addresses.get(&row.nodeid);
        let endpoints: Vec<SocketAddr> = addresses
            .into_iter()
            .flatten()
            .filter_map(|address| Some(SocketAddr::new(*address, row.port()?)))
            .collect();
        let identity = seen.coordinator.identities.get(&row.nodeid);
        let is_name_lost = seen.lost_names.contains(&row.nodeid);
        // Where a lost name led once, whoever else is there now has nothing to do with the row.
        let counts = |sighting: &Sighting| {
            let theirs = sighting.server.system_identifier;
            !is_name_lost || identity.is_some_and(|known| known.record.system_identifier == theirs)
        };
        let mut sightings: Vec<Sighting> =
            endpoints.iter().filter_map(|at| seen.sighting(*at)).filter(counts).collect();
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
            if !is_name_lost {
                return failed.cloned();
            }
            let silence = failed.and_then(|failure| situations::of_login(failure).reason);
            let there = endpoints.first().zip(silence);
            let there = there.map(|(at, silence)| format!("; where it last led, {at}: {silence}"));
            let message = format!("{}{}", row.nodename, there.unwrap_or_default());
            Some(LoginFailure { kind: LoginFailureKind::Unresolvable, message })
        };
        // DNS alone is never absence, nor is a restart.
        let is_silent = |at: &SocketAddr| {
            let phase = seen.endpoints.get(at).map(Endpoint::phase);
            let is_another = || seen.sighting(*at).is_some_and(|sighting| !counts(&sighting));
            phase == Some(Phase::Silent) || is_another()
        };
        let is_silent = !endpoints.is_empty() && endpoints.iter().all(is_silent);
        let gone_for = seen
            .unnamed_since
            .get(&row.nodeid)
            .map(|since| seen.now.monotonic.saturating_sub(*since))
            .filter(|unnamed| is_silent && *unnamed >= policy.absent_after);
        // Those of an accepted server are written anew; one that may be an older state has older ones.
        let is_excused = identity.is_some_and(|known| known.to_be_synced || known.rival.is_some());
        let told = newest.filter(|_| !is_excused);
        let difference = told.and_then(|sighting| difference(row, seen, &sighting));
        let has_lasted = |sighting: &Sighting| {
            let endpoint = seen.endpoints.get(&sighting.at);
            endpoint.is_some_and(|endpoint| endpoint.nodes_since() < seen.rows_read_at)
        };
        let at_home = situations::at_home(&AtHome {
            row,
            identity,
            endpoints: &endpoints,
            is_name_lost,
            is_shared,
            turns_at: endpoints.iter().copied().find(|at| {
                let endpoint = seen.endpoints.get(at);
                endpoint.is_some_and(|endpoint| endpoint.is_shared(seen.now.monotonic))
            }),
            server: newest.map(|sighting| sighting.server),
            failure: if newest.is_none() { failure() } else { None },
            gone_for,
            coordinator: seen
                .coordinator
                .own_row()
                .filter(|_| newest.is_some_and(|it| it.asked_at > seen.own_row_since))
                .map(ToString::to_string),
            difference: difference.clone().filter(|_| newest.as_ref().is_some_and(has_lasted)),
            max_lost_wal: policy.max_lost_wal,
        });
        let recheck = outdated.iter().map(|sighting| sighting.at).collect();
        let sighting = newest;
        Self { row, identity, endpoints, is_name_lost, sighting, at_home, difference, recheck }
    }

    /// The addresses that are the row's: where a lost name led once, others may be by now.
    pub fn places(&self) -> &[SocketAddr] {
        match (self.is_name_lost, &self.sighting) {
            (false, _) => &self.endpoints,
            (true, Some(sighting)) => std::slice::from_ref(&sighting.at),
            (true, None) => &[],
        }
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
        let name = self.row;
        if !self.row.metadatasynced {
            return Some(format!("the metadata of {name} is out of sync"));
        }
        let state = self.at_home.state;
        match state {
            State::Active if self.difference.is_some() => Some(format!("{name} has other rows")),
            State::Active => {
                let is_next = self.identity.is_some_and(|known| known.to_be_synced);
                is_next.then(|| format!("the metadata of {name} are to be written anew"))
            }
            _ => Some(format!("{name} is {state}")),
        }
    }

    /// Whether what Citus writes to all nodes would reach a server that is not this cluster's, or that knows
    /// more of it than the coordinator.
    pub fn may_not_be_written_to(&self) -> bool {
        let is_strange = matches!(self.at_home.state, State::Blank | State::Conflict);
        self.row.isactive && self.row.hasmetadata && (is_strange || self.difference.is_some())
    }
}

/// How the rows of `pg_dist_node` differ on a worker with all metadata: Citus changes them everywhere in
/// one transaction, so somebody has lost a change.
fn difference(row: &DistNode, seen: &Observation<'_>, sighting: &Sighting<'_>) -> Option<String> {
    let theirs = &sighting.server.membership.as_ref()?.rows;
    let is_told = row.isactive && row.hasmetadata && row.metadatasynced;
    if !is_told || sighting.asked_at <= seen.rows_since || theirs == seen.rows || theirs.is_empty()
    {
        return None;
    }
    let list = |all: &BTreeMap<i32, String>, others: &BTreeMap<i32, String>| {
        let only = all.iter().filter(|(id, row)| others.get(id) != Some(row));
        only.map(|(id, row)| format!("node {id} at {row}")).collect::<Vec<_>>().join(", ")
    };
    let (more, fewer) = (list(theirs, seen.rows), list(seen.rows, theirs));
    Some(match (more.as_str(), fewer.as_str()) {
        (more, "") => format!("it has {more} besides"),
        ("", fewer) => format!("it lacks {fewer}"),
        (more, fewer) => format!("it has {more}, the coordinator {fewer}"),
    })
}
