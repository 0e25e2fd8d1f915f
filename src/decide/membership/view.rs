//! Owns one observation, arranged for the questions that planning asks of it.
//! Must not judge anybody, nor change while a plan is made.

use super::candidate::Candidate;
use super::change::Subject;
use super::coordinator::Coordinator;
use super::evidence::{Hindrance, bar};
use super::observation::{Observation, Sighting};
use crate::configuration::policy::Policy;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub struct View<'a> {
    pub seen: &'a Observation<'a>,
    pub policy: &'a Policy,
    pub named: BTreeMap<SocketAddr, &'a Candidate>,
    /// Candidates that have answered and may be connected to, by system identifier.
    by_identity: BTreeMap<i64, Vec<&'a Candidate>>,
    /// Why nothing at all may be changed.
    stop: Option<Hindrance>,
}

/// A clone is promoted by Citus, for its own group, while the server that it is one of runs.
fn is_clone(candidate: &Candidate, coordinator: &Coordinator) -> bool {
    let name = candidate.given.as_ref().map(ToString::to_string).unwrap_or_default();
    coordinator.clone_at(&name, candidate.endpoint).is_some()
}

impl<'a> View<'a> {
    pub fn new(seen: &'a Observation<'a>, policy: &'a Policy, stop: Option<Hindrance>) -> Self {
        let mut by_identity: BTreeMap<i64, Vec<&Candidate>> = BTreeMap::new();
        for candidate in seen.candidates {
            if let Some(sighting) = seen.sighting(candidate.endpoint)
                && bar(candidate, seen.coordinator, policy).is_none()
                && !is_clone(candidate, seen.coordinator)
            {
                by_identity.entry(sighting.server.system_identifier).or_default().push(candidate);
            }
        }
        let named =
            seen.candidates.iter().map(|candidate| (candidate.endpoint, candidate)).collect();
        Self { seen, policy, named, by_identity, stop }
    }

    /// The candidates that have answered with a system identifier.
    pub fn candidates_of(&self, system_identifier: i64) -> &[&'a Candidate] {
        self.by_identity.get(&system_identifier).map_or(&[][..], Vec::as_slice)
    }

    /// The same, and what they have said.
    pub fn sightings_of(
        &self,
        system_identifier: i64,
    ) -> impl Iterator<Item = (&'a Candidate, Sighting<'a>)> {
        let candidates = self.candidates_of(system_identifier).iter();
        candidates
            .filter_map(|candidate| Some((*candidate, self.seen.sighting(candidate.endpoint)?)))
    }

    /// Why a change waits: this may not be the coordinator, the fleet may not change anything, or the
    /// last attempt failed just now.
    pub fn withheld(&self, subject: Subject) -> Option<Hindrance> {
        if self.stop.is_some() {
            return self.stop.clone();
        }
        if let Some(hold) = &self.seen.hold {
            return Some(Hindrance::Held(hold.clone()));
        }
        let failure = self.seen.failures.get(&subject)?;
        (failure.retry_at > self.seen.now.monotonic).then(|| Hindrance::of(failure))
    }

    /// Whether it was too long ago that a name was seen to lead to an address; an address is one for ever.
    pub fn is_name_stale(&self, nodename: &str, at: SocketAddr) -> bool {
        let named_at = self.seen.endpoints.get(&at).and_then(|endpoint| endpoint.named_at);
        nodename != at.ip().to_string() && named_at.is_none_or(|at| self.seen.is_stale(at))
    }

    /// A name that leads to this server and to no other, for the resolver that Citus uses.
    pub fn name(&self, candidate: &Candidate) -> Option<String> {
        let endpoint = candidate.endpoint;
        let here = self.seen.sighting(endpoint);
        let leads_here = |address: &IpAddr| {
            let there = || self.seen.sighting(SocketAddr::new(*address, endpoint.port()));
            *address == endpoint.ip()
                || here.is_some_and(|here| {
                    there().is_some_and(|there| here.server.is_same(there.server))
                })
        };
        let naming = self.seen.endpoints.get(&endpoint)?.naming.as_ref()?;
        // A name that a source gives for another server too is no name of this one.
        let is_shared = self.seen.candidates.iter().any(|other| {
            other.given.as_ref() == Some(&naming.name)
                && other.endpoint.port() == endpoint.port()
                && !leads_here(&other.endpoint.ip())
        });
        let is_good = !is_shared
            && self.policy.names.allows(&naming.name)
            && naming.addresses.iter().all(leads_here);
        is_good.then(|| naming.name.to_string())
    }
}
