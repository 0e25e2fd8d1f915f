//! Owns the plan: what every candidate and every registered worker is, and what is to be changed.
//! Must not act, and must not plan anything that a later observation could not plan again.

use super::follow::Followed;
use super::model::{
    Action, Candidate, Change, Coordinator, Hold, Observation, Plan, Probe, Server, State, Subject,
    Worker,
};
use super::preflight::preflight;
use super::registered::{Registered, is_same, left_behind, quoted};
use super::verdict::Verdict;
use super::whereabouts::{FRESH, SIMULTANEOUS};
use super::{own_address, removal};
use crate::configuration::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What everything observed means, and what is to be done about it.
pub fn plan(seen: &Observation<'_>, policy: &Policy) -> Plan {
    let registered: Vec<Registered> =
        seen.coordinator.worker_rows().map(|row| Registered::judge(row, seen, policy)).collect();
    let mut sightings: BTreeMap<i64, Vec<&Candidate>> = BTreeMap::new();
    for candidate in seen.candidates {
        if let Some(server) =
            seen.probes.get(&candidate.endpoint).and_then(|p| p.result.as_ref().ok())
            && barred(candidate, seen.coordinator, policy).is_none()
        {
            sightings.entry(server.system_identifier).or_default().push(candidate);
        }
    }
    let mut planner = Planner {
        seen,
        policy,
        registered: &registered,
        named: seen.candidates.iter().map(|candidate| (candidate.endpoint, candidate)).collect(),
        sightings,
        obstacle: obstacle(seen.coordinator, policy, &registered),
        taken: BTreeSet::new(),
        plan: Plan { coordinator_host: own_address::doubt(seen, policy), ..Plan::default() },
    };
    planner.coordinator_host();
    planner.registered_workers();
    for candidate in seen.candidates {
        planner.candidate(candidate);
    }
    planner.removed_servers();
    planner.rebalance();
    planner.plan
}

/// Why an endpoint may not even be connected to.
pub fn barred(
    candidate: &Candidate,
    coordinator: &Coordinator,
    policy: &Policy,
) -> Option<Verdict> {
    if let Some(name) = candidate.given.as_ref().filter(|name| !policy.names.allows(name)) {
        return Some(Verdict::refused(
            format!("the name {name} is outside citus_fleet.allowed_names"),
            "Add the suffix to citus_fleet.allowed_names, or take the source out.",
        ));
    }
    let reason =
        policy.networks.refusal(candidate.endpoint.ip(), is_on_loopback(coordinator, policy))?;
    Some(Verdict::refused(
        reason,
        "Correct the source, or add the network to citus_fleet.allowed_networks.",
    ))
}

fn is_on_loopback(coordinator: &Coordinator, policy: &Policy) -> bool {
    let is_loopback = |name: &str| {
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match (&policy.coordinator_host, coordinator.own_row()) {
        (Some((host, _)), _) => is_loopback(host),
        (None, Some(row)) => is_loopback(&row.nodename),
        (None, None) => false,
    }
}

/// What keeps Citus from adding any node at the moment.
fn obstacle(
    coordinator: &Coordinator,
    policy: &Policy,
    registered: &[Registered<'_>],
) -> Option<Verdict> {
    if coordinator.citus.is_none() {
        return Some(Verdict::ready(
            "Citus is not installed on this coordinator",
            "Run CREATE EXTENSION citus; citus belongs into shared_preload_libraries before citus_fleet.",
        ));
    }
    let is_localhost = coordinator.own_row().is_some_and(|row| row.nodename == "localhost");
    if is_localhost && policy.coordinator_host.is_none() {
        return Some(Verdict::ready(
            "the coordinator is registered as localhost, where workers cannot reach it",
            "SELECT citus_set_coordinator_host('<name of this host>'); or set citus_fleet.coordinator_host.",
        ));
    }
    let culprit = registered.iter().find_map(Registered::blocks_adding)?;
    Some(Verdict::ready(
        format!("Citus can add no node while {culprit}"),
        "Bring that worker back, or disable it with citus_disable_node; this one follows by itself.",
    ))
}

pub(super) struct Planner<'a> {
    pub(super) seen: &'a Observation<'a>,
    pub(super) policy: &'a Policy,
    pub(super) registered: &'a [Registered<'a>],
    pub(super) named: BTreeMap<SocketAddr, &'a Candidate>,
    /// Candidates that have answered and may be connected to, by system identifier.
    pub(super) sightings: BTreeMap<i64, Vec<&'a Candidate>>,
    pub(super) obstacle: Option<Verdict>,
    /// Endpoints that are another one's server, or its own already.
    pub(super) taken: BTreeSet<SocketAddr>,
    pub(super) plan: Plan,
}

impl<'a> Planner<'a> {
    pub(super) fn coordinator_host(&mut self) {
        let (Some((name, port)), Some(_)) =
            (&self.policy.coordinator_host, &self.seen.coordinator.citus)
        else {
            return;
        };
        let own = self.seen.coordinator.own_row();
        let is_right = own.is_some_and(|row| row.nodename == *name && row.nodeport == *port);
        if is_right {
            return;
        }
        match self.withheld(Subject::Coordinator).or_else(|| self.own_address()) {
            None => self
                .plan
                .changes
                .push(Change::SetCoordinatorHost { nodename: name.clone(), nodeport: *port }),
            // Whoever is added gets what is in the row.
            Some(why) => {
                self.obstacle.get_or_insert(why);
            }
        }
    }

    pub(super) fn registered_workers(&mut self) {
        let followed: Vec<Followed> =
            self.registered.iter().map(|known| self.follow(known)).collect();
        let followed = self.without_collisions(followed);
        for (known, mut followed) in self.registered.iter().zip(followed) {
            followed.verdict = removal::seen_on(known.row, followed.verdict);
            self.taken.extend(&known.endpoints);
            self.taken.extend(&followed.sightings);
            let source = self.source_of(known, &followed.sightings);
            self.plan.recheck.extend(followed.recheck);
            self.plan.recheck.extend(&known.recheck);
            self.plan.sought.extend(followed.sought);
            self.plan.changes.extend(followed.change);
            self.plan.workers.push(Worker {
                nodename: known.row.nodename.clone(),
                nodeport: known.row.nodeport,
                endpoint: known.server.map(|(at, ..)| at).or(known.endpoints.first().copied()),
                nodeid: Some(known.row.nodeid),
                groupid: Some(known.row.groupid),
                source,
                state: followed.verdict.state,
                action: followed.action,
                reason: followed.verdict.reason,
                remedy: followed.verdict.remedy,
            });
        }
    }

    /// The source that names a worker: by its address, or by another one of the same server.
    pub(super) fn source_of(
        &self,
        known: &Registered<'_>,
        sightings: &[SocketAddr],
    ) -> Option<String> {
        let by_address = known.endpoints.iter().chain(sightings).find_map(|at| self.named.get(at));
        let by_server = || {
            let (_, ours, _) = known.server?;
            self.seen_as(ours.system_identifier)
                .find_map(|(candidate, theirs, _)| is_same(ours, theirs).then_some(candidate))
        };
        by_address.copied().or_else(by_server).map(|candidate| candidate.source.clone())
    }

    /// The candidates that have answered with a system identifier, and how.
    pub(super) fn seen_as(
        &self,
        system_identifier: i64,
    ) -> impl Iterator<Item = (&'a Candidate, &'a Server, &'a Probe)> {
        let candidates = self.sightings.get(&system_identifier).map_or(&[][..], Vec::as_slice);
        candidates.iter().filter_map(|candidate| {
            let (server, probe) = self.server(candidate.endpoint)?;
            Some((*candidate, server, probe))
        })
    }

    pub(super) fn candidate(&mut self, candidate: &Candidate) {
        if self.taken.contains(&candidate.endpoint) {
            return;
        }
        let (verdict, action) = match self.judge(candidate) {
            Judgement::Alias => return,
            Judgement::Verdict(verdict) => (verdict, Action::Refuse),
            Judgement::Undecided(verdict) => (verdict, Action::None),
            Judgement::Fit(server, probe) => {
                (self.register(candidate, server, probe), Action::Register)
            }
        };
        self.plan.workers.push(Worker {
            nodename: self.nodename(candidate),
            nodeport: candidate.endpoint.port(),
            endpoint: Some(candidate.endpoint),
            nodeid: None,
            groupid: None,
            source: Some(candidate.source.clone()),
            state: verdict.state,
            action,
            reason: verdict.reason,
            remedy: verdict.remedy,
        });
    }

    pub(super) fn judge(&mut self, candidate: &Candidate) -> Judgement<'a> {
        if let Some(verdict) = barred(candidate, self.seen.coordinator, self.policy) {
            return Judgement::Verdict(verdict);
        }
        let Some(probe) = self.seen.probes.get(&candidate.endpoint) else {
            return Judgement::Undecided(Verdict::without_remedy(
                State::Discovered,
                "it has not answered yet",
            ));
        };
        let server = match &probe.result {
            Ok(server) => server,
            Err(failure) => return Judgement::Undecided(self.silent(candidate.endpoint, failure)),
        };
        let mut identities = self.seen.coordinator.identities.values();
        if let Some(known) = identities.find(|known| known.has_left_behind(server)) {
            return Judgement::Verdict(left_behind(server, known));
        }
        let is_ours = server.system_identifier == self.seen.coordinator.system_identifier;
        if !is_ours
            && !server.in_recovery
            && let Some(judgement) = self.same_identity(candidate, server, probe)
        {
            return judgement;
        }
        if let Some(removed) = self.removed(server) {
            return Judgement::Verdict(self.keep_out(
                self.nodename(candidate),
                candidate.endpoint,
                server,
                removed,
            ));
        }
        match preflight(server, self.seen.coordinator) {
            Some(verdict) => Judgement::Verdict(verdict),
            None => Judgement::Fit(server, probe),
        }
    }

    /// Compares a candidate with every worker and every other candidate of the same system identifier.
    pub(super) fn same_identity(
        &mut self,
        candidate: &Candidate,
        server: &'a Server,
        probe: &'a Probe,
    ) -> Option<Judgement<'a>> {
        let workers = self.registered.iter().filter_map(|known| known.server);
        let others = self
            .seen_as(server.system_identifier)
            .map(|(other, server, probe)| (other.endpoint, server, probe));
        let namesakes: Vec<_> = workers
            .chain(others)
            .filter(|(endpoint, other, _)| {
                *endpoint != candidate.endpoint
                    && other.system_identifier == server.system_identifier
                    && !other.in_recovery
            })
            .collect();
        if let Some((endpoint, _, other)) =
            namesakes.iter().find(|(_, other, _)| !is_same(server, other))
        {
            // One of the two answers may be from before a restart of the same server.
            if probe.at.abs_diff(other.at) > SIMULTANEOUS {
                self.plan.recheck.extend([candidate.endpoint, *endpoint]);
                return Some(Judgement::Undecided(Verdict::without_remedy(
                    State::Discovered,
                    format!("it is compared with {endpoint}, which has the same system identifier"),
                )));
            }
            return Some(Judgement::Verdict(Verdict::new(
                State::Conflict,
                format!(
                    "{endpoint} is another running server with the same system identifier ({}): one is a copy of the other",
                    server.system_identifier
                ),
                "Stop the copy, or give it a data directory of its own with initdb.",
            )));
        }
        let is_registered = namesakes.iter().any(|(endpoint, ..)| self.taken.contains(endpoint));
        self.taken.extend(namesakes.iter().map(|(endpoint, ..)| *endpoint));
        is_registered.then_some(Judgement::Alias)
    }

    pub(super) fn server(&self, endpoint: SocketAddr) -> Option<(&'a Server, &'a Probe)> {
        let probe = self.seen.probes.get(&endpoint)?;
        Some((probe.result.as_ref().ok()?, probe))
    }

    /// A server that passed preflight: registers it unless something else stands in the way.
    pub(super) fn register(
        &mut self,
        candidate: &Candidate,
        server: &Server,
        probe: &Probe,
    ) -> Verdict {
        let endpoint = candidate.endpoint;
        let (nodename, nodeport) = (self.nodename(candidate), endpoint.port());
        if let Some(row) = self
            .seen
            .coordinator
            .nodes()
            .iter()
            .find(|row| row.nodename == nodename && row.nodeport == nodeport)
        {
            return Verdict::new(
                State::Conflict,
                format!(
                    "pg_dist_node has {nodename}:{nodeport} already, as node {} with another server",
                    row.nodeid
                ),
                format!(
                    "SELECT * FROM pg_dist_node WHERE nodename = {} AND nodeport = {nodeport};",
                    quoted(&nodename)
                ),
            );
        }
        if let Some(obstacle) = &self.obstacle {
            return obstacle.clone();
        }
        if let Some(withheld) =
            self.withheld(Subject::Endpoint(endpoint)).or_else(|| self.own_address())
        {
            return withheld;
        }
        // Citus will look the name up itself: that it leads here alone has to be true now.
        let is_named = nodename != endpoint.ip().to_string();
        let is_stale = |at| self.is_stale(at);
        if is_stale(probe.at) || (is_named && probe.named_at.is_none_or(is_stale)) {
            self.plan.recheck.push(endpoint);
            return Verdict::without_remedy(State::Ready, "it is checked once more");
        }
        self.plan.changes.push(Change::Register {
            nodename,
            nodeport,
            endpoint,
            lineage: server.lineage(),
        });
        Verdict::without_remedy(State::Ready, "it is being registered")
    }

    /// Whether an answer of that time is too old to act on.
    pub(super) fn is_stale(&self, at: Duration) -> bool {
        self.seen.now.monotonic.saturating_sub(at) > FRESH
    }

    /// Why a change waits: the fleet may not change anything, or the last attempt failed just now.
    pub(super) fn withheld(&self, subject: Subject) -> Option<Verdict> {
        match self.seen.hold {
            Some(Hold::Paused) => {
                return Some(Verdict::ready("the fleet is paused", "SELECT fleet.resume();"));
            }
            Some(Hold::Disabled) => {
                return Some(Verdict::ready(
                    "citus_fleet.enabled is off",
                    "SELECT citus_autoregister(); or set citus_fleet.enabled to on.",
                ));
            }
            None => {}
        }
        let failure = self.seen.failures.get(&subject)?;
        (failure.retry_at > self.seen.now.monotonic).then(|| {
            Verdict::without_remedy(
                State::Ready,
                format!("attempt {} failed and is repeated: {}", failure.attempts, failure.reason),
            )
        })
    }

    /// What Citus is to know a candidate by: its name, unless this plan gives it to another server
    /// already, whatever DNS said at one moment; else its address. A name that a row has is kept, and
    /// is a conflict: the row may lead to this server too.
    pub(super) fn nodename(&self, candidate: &Candidate) -> String {
        let is_taken = |name: &str| {
            self.plan.changes.iter().any(|change| match change {
                Change::Register { nodename, nodeport, .. } => {
                    nodename == name && *nodeport == candidate.endpoint.port()
                }
                _ => false,
            })
        };
        self.name(candidate)
            .filter(|name| !is_taken(name))
            .unwrap_or_else(|| candidate.endpoint.ip().to_string())
    }

    /// A name that leads to this server and to no other, for the resolver that Citus uses.
    pub(super) fn name(&self, candidate: &Candidate) -> Option<String> {
        let endpoint = candidate.endpoint;
        let here = self.server(endpoint);
        let leads_here = |address: &IpAddr| {
            *address == endpoint.ip()
                || match (here, self.server(SocketAddr::new(*address, endpoint.port()))) {
                    (Some((here, _)), Some((there, _))) => is_same(here, there),
                    _ => false,
                }
        };
        let naming = self.seen.probes.get(&endpoint)?.naming.as_ref()?;
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

pub(super) enum Judgement<'a> {
    /// It is a server that is listed already.
    Alias,
    /// It may not become a worker.
    Verdict(Verdict),
    /// Not enough is known.
    Undecided(Verdict),
    Fit(&'a Server, &'a Probe),
}
