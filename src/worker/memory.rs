//! Owns what the controller remembers from one cycle to the next: answers of DNS and of servers,
//! changes that failed, and since when each worker has been what it is.
//! Must not survive the process: what has to is in `fleet.events` and in Citus's own catalogs.

use crate::error::Error;
use crate::observe::network::{Answered, Names};
use crate::settings::Settings;
use decide::membership::candidate::Candidate;
use decide::membership::change::{Change, ChangeFailure, Subject};
use decide::membership::coordinator::{Coordinator, DistNode, Removed};
use decide::membership::discovery::Discovery;
use decide::membership::endpoint::{Endpoint, Probe};
use decide::membership::observation::Now;
use decide::membership::plan::Worker;
use decide::membership::schedule::{self, Pace};
use decide::membership::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A worker's state and the wall-clock time at which it entered it.
pub type Standing = (State, i64);

pub struct Memory {
    started: Instant,
    pub discovery: Discovery,
    pub candidates: Vec<Candidate>,
    pub endpoints: BTreeMap<SocketAddr, Endpoint>,
    pub node_addresses: BTreeMap<i32, Vec<IpAddr>>,
    /// Where the coordinator's own address led in this cycle.
    pub own_endpoints: Vec<SocketAddr>,
    pub unnamed_since: BTreeMap<i32, Duration>,
    pub failures: BTreeMap<Subject, ChangeFailure>,
    /// By name and port.
    pub standings: BTreeMap<(String, u16), Standing>,
    /// Counted since the controller started, by kind.
    pub dns_errors: BTreeMap<&'static str, u64>,
    pub probe_errors: BTreeMap<&'static str, u64>,
    pub changes: u64,
    pub cycles: u64,
    expired_at: Option<Duration>,
    distributed_tables: Vec<String>,
}

impl Memory {
    pub fn new(standings: BTreeMap<(String, u16), Standing>) -> Self {
        Self {
            started: Instant::now(),
            discovery: Discovery::default(),
            candidates: Vec::new(),
            endpoints: BTreeMap::new(),
            node_addresses: BTreeMap::new(),
            own_endpoints: Vec::new(),
            unnamed_since: BTreeMap::new(),
            failures: BTreeMap::new(),
            standings,
            dns_errors: BTreeMap::new(),
            probe_errors: BTreeMap::new(),
            changes: 0,
            cycles: 0,
            expired_at: None,
            distributed_tables: Vec::new(),
        }
    }

    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: self.started.elapsed(),
            wall_us: i64::try_from(wall.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// Takes in the rows of `pg_dist_node`. What was known of a server before its row came or went
    /// is from before it joined or left a cluster, and is forgotten.
    pub fn learn_rows(&mut self, coordinator: &Coordinator) {
        let rows: BTreeSet<i32> = coordinator.worker_rows().map(|row| row.nodeid).collect();
        let gone: Vec<i32> =
            self.node_addresses.keys().filter(|id| !rows.contains(id)).copied().collect();
        for nodeid in gone {
            let addresses = self.node_addresses.remove(&nodeid).unwrap_or_default();
            self.forget(|endpoint| addresses.contains(&endpoint.ip()));
        }
        // Candidates were asked for relations of the names that were known then.
        let tables = coordinator.citus.as_ref().map_or(&[][..], |citus| &citus.distributed_tables);
        if self.distributed_tables != tables {
            self.distributed_tables = tables.to_vec();
            let registered: BTreeSet<SocketAddr> =
                coordinator.worker_rows().flat_map(|row| self.endpoints_of(row)).collect();
            self.forget(|endpoint| !registered.contains(endpoint));
        }
        self.unnamed_since.retain(|nodeid, _| rows.contains(nodeid));
    }

    /// Forgets what endpoints have said, and what they are still about to say.
    fn forget(&mut self, which: impl Fn(&SocketAddr) -> bool) {
        let now = self.now().monotonic;
        for (_, endpoint) in self.endpoints.iter_mut().filter(|(at, _)| which(at)) {
            endpoint.forget(now);
        }
    }

    /// Takes in what DNS said, of the sources and of the registered workers' names.
    pub fn learn_names(&mut self, names: Names, coordinator: &Coordinator, settings: &Settings) {
        self.discovery.learn(names.sources, settings.policy.max_workers);
        for complaint in &self.discovery.complaints {
            *self.dns_errors.entry(complaint.failure.as_str()).or_default() += 1;
        }
        self.candidates = self.discovery.candidates();
        self.own_endpoints = names.own;
        for row in coordinator.worker_rows() {
            let Some(addresses) = names.nodes.get(&row.nodeid) else {
                continue;
            };
            let is_new = self.node_addresses.insert(row.nodeid, addresses.clone()).is_none();
            if is_new {
                self.forget(|endpoint| leads_to(row, addresses, endpoint));
            }
        }
        let known: BTreeSet<SocketAddr> = self
            .candidates
            .iter()
            .map(|candidate| candidate.endpoint)
            .chain(coordinator.worker_rows().flat_map(|row| self.endpoints_of(row)))
            .chain(coordinator.removed.iter().filter_map(Removed::endpoint_to_clean))
            .chain(self.own_endpoints.iter().copied())
            .collect();
        self.endpoints.retain(|endpoint, _| known.contains(endpoint));
        self.failures.retain(|subject, _| match subject {
            Subject::Coordinator | Subject::Shards => true,
            Subject::Endpoint(endpoint) => known.contains(endpoint),
            Subject::Node(nodeid) => coordinator.worker_rows().any(|row| row.nodeid == *nodeid),
        });
    }

    /// Where a registered worker's name leads, as far as that is known.
    pub fn endpoints_of(&self, row: &DistNode) -> Vec<SocketAddr> {
        let addresses = self.node_addresses.get(&row.nodeid).into_iter().flatten();
        addresses.map(|address| SocketAddr::new(*address, row.nodeport)).collect()
    }

    /// A question goes out to an endpoint.
    pub fn ask(&mut self, at: SocketAddr) {
        let now = self.now().monotonic;
        self.endpoints.entry(at).or_default().ask(now);
    }

    pub fn learn_answers(&mut self, answers: Vec<Answered>) {
        let wall_us = self.now().wall_us;
        for answer in answers {
            if let Err(failure) = &answer.result {
                *self.probe_errors.entry(failure.kind.as_str()).or_default() += 1;
            }
            let probe = self.probe(&answer);
            let Some(endpoint) = self.endpoints.get_mut(&answer.at) else {
                continue;
            };
            if let Some(naming) = answer.naming {
                (endpoint.naming, endpoint.named_at) = (naming, Some(probe.at));
            }
            endpoint.learn(probe, wall_us);
        }
    }

    /// Whether an answer says more than is known, and the next cycle is to come at once.
    pub fn is_news(&self, answer: &Answered) -> bool {
        let endpoint = self.endpoints.get(&answer.at);
        endpoint.is_some_and(|endpoint| endpoint.is_news(&self.probe(answer)))
    }

    fn probe(&self, answer: &Answered) -> Probe {
        Probe {
            at: answer.asked.saturating_duration_since(self.started),
            round_trip: answer.round_trip,
            result: answer.result.clone(),
        }
    }

    /// Starts and stops the clocks of workers that no source names.
    pub fn learn_absences(&mut self, workers: &[Worker], has_sources: bool) {
        let now = self.now().monotonic;
        for worker in workers {
            let Some(nodeid) = worker.nodeid else {
                continue;
            };
            if worker.source.is_some() || !has_sources {
                self.unnamed_since.remove(&nodeid);
            } else if !self.discovery.is_in_the_dark {
                self.unnamed_since.entry(nodeid).or_insert(now);
            }
        }
    }

    /// Takes in what became of a change.
    pub fn learn_outcome(&mut self, change: &Change, result: &Result<Option<i32>, Error>) {
        let now = self.now().monotonic;
        match result {
            Ok(nodeid) => {
                self.changes += 1;
                self.failures.remove(&change.subject());
                let (Change::Register { endpoint, .. } | Change::UpdateAddress { endpoint, .. }) =
                    change
                else {
                    return;
                };
                // Its row leads there now, and what it said before it was registered is outdated:
                // it was not in a cluster then.
                self.node_addresses.extend(nodeid.map(|nodeid| (nodeid, vec![endpoint.ip()])));
                if matches!(change, Change::Register { .. }) {
                    self.forget(|at| at == endpoint);
                }
                self.recheck(&[*endpoint]);
            }
            Err(error) => {
                let subject = change.subject();
                let attempts =
                    self.failures.get(&subject).map_or(0, |failure| failure.attempts) + 1;
                let retry_at = now + schedule::change_retry(attempts);
                let reason = error.to_string();
                self.failures.insert(subject, ChangeFailure { reason, attempts, retry_at });
            }
        }
    }

    /// Asks for newer answers at once.
    pub fn recheck(&mut self, endpoints: &[SocketAddr]) {
        for at in endpoints {
            self.endpoints.entry(*at).or_default().want();
        }
    }

    /// Starts and stops the hurry with those of which a worker's next primary may be one.
    pub fn seek(&mut self, sought: &[SocketAddr]) {
        let now = self.now().monotonic;
        for (at, endpoint) in &mut self.endpoints {
            endpoint.seek(sought.contains(at), now);
        }
    }

    /// Whether it is time to look for old events: at the first cycle and every hour.
    pub fn expiry_is_due(&mut self) -> bool {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = self.now().monotonic;
        let due = self.expired_at.is_none_or(|at| now.saturating_sub(at) >= HOUR);
        if due {
            self.expired_at = Some(now);
        }
        due
    }

    fn pace(&self, interval: Duration) -> Pace {
        Pace { interval, endpoints: self.endpoints.len() }
    }

    /// Forgets where workers stood that are not listed any more.
    pub fn keep_standings(&mut self, workers: &[Worker]) {
        let listed: BTreeSet<(String, u16)> =
            workers.iter().map(|worker| (worker.nodename.clone(), worker.nodeport)).collect();
        self.standings.retain(|worker, _| listed.contains(worker));
    }

    /// Whether the name of a candidate is to be asked for along with its next probe.
    pub fn naming_is_due(&self, at: SocketAddr) -> bool {
        let now = self.now().monotonic;
        let endpoint = self.endpoints.get(&at);
        endpoint.is_none_or(|endpoint| schedule::naming_is_due(endpoint, now))
    }

    /// Whether an endpoint is to be probed in this cycle.
    pub fn is_due(&self, at: SocketAddr, interval: Duration) -> bool {
        let now = self.now().monotonic;
        let endpoint = self.endpoints.get(&at);
        endpoint.is_none_or(|endpoint| self.pace(interval).is_due(endpoint, now))
    }

    /// How long the next cycle may wait.
    pub fn next_cycle(&self, interval: Duration) -> Duration {
        let now = self.now().monotonic;
        let retries = self.failures.values().map(|failure| failure.retry_at);
        self.pace(interval).next_cycle(now, self.endpoints.values(), retries)
    }
}

fn leads_to(row: &DistNode, addresses: &[IpAddr], endpoint: &SocketAddr) -> bool {
    row.nodeport == endpoint.port() && addresses.contains(&endpoint.ip())
}
