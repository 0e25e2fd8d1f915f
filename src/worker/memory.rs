//! Owns what the controller remembers from one cycle to the next: answers of DNS and of servers,
//! changes that failed, and since when each worker has been what it is.
//! Must not survive the process: what has to is in `fleet.events` and in Citus's own catalogs.

use crate::error::Error;
use crate::observe::network::{Answered, Names};
use crate::settings::Settings;
use decide::membership::discovery::Discovery;
use decide::membership::model::{
    Candidate, Change, ChangeFailure, Coordinator, DistNode, Now, Probe, Removed, State, Subject,
    Worker,
};
use decide::membership::schedule::{self, Pace};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A worker's state and the wall-clock time at which it entered it.
pub type Standing = (State, i64);

pub struct Memory {
    started: Instant,
    pub discovery: Discovery,
    pub candidates: Vec<Candidate>,
    pub probes: BTreeMap<SocketAddr, Probe>,
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
    /// Endpoints to be probed in the next cycle, which is to come at once.
    urgent: BTreeSet<SocketAddr>,
    /// What was asked of an endpoint before this moment is outdated.
    outdated: BTreeMap<SocketAddr, Duration>,
    distributed_tables: Vec<String>,
}

impl Memory {
    pub fn new(standings: BTreeMap<(String, u16), Standing>) -> Self {
        Self {
            started: Instant::now(),
            discovery: Discovery::default(),
            candidates: Vec::new(),
            probes: BTreeMap::new(),
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
            urgent: BTreeSet::new(),
            outdated: BTreeMap::new(),
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
                coordinator.worker_rows().flat_map(|row| self.endpoints(row)).collect();
            self.forget(|endpoint| !registered.contains(endpoint));
        }
        self.unnamed_since.retain(|nodeid, _| rows.contains(nodeid));
    }

    /// Forgets what endpoints have said, and what they are still about to say.
    fn forget(&mut self, which: impl Fn(&SocketAddr) -> bool) {
        let now = self.now().monotonic;
        let forgotten = self.probes.keys().filter(|endpoint| which(endpoint));
        self.outdated.extend(forgotten.map(|endpoint| (*endpoint, now)));
        self.probes.retain(|endpoint, _| !which(endpoint));
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
            .chain(coordinator.worker_rows().flat_map(|row| self.endpoints(row)))
            .chain(coordinator.removed.iter().filter_map(Removed::endpoint_to_clean))
            .chain(self.own_endpoints.iter().copied())
            .collect();
        self.probes.retain(|endpoint, _| known.contains(endpoint));
        self.failures.retain(|subject, _| match subject {
            Subject::Coordinator | Subject::Shards => true,
            Subject::Endpoint(endpoint) => known.contains(endpoint),
            Subject::Node(nodeid) => coordinator.worker_rows().any(|row| row.nodeid == *nodeid),
        });
        self.urgent.retain(|endpoint| known.contains(endpoint));
        self.outdated.retain(|endpoint, _| known.contains(endpoint));
    }

    /// Where a registered worker's name leads, as far as that is known.
    pub fn endpoints(&self, row: &DistNode) -> Vec<SocketAddr> {
        let addresses = self.node_addresses.get(&row.nodeid).into_iter().flatten();
        addresses.map(|address| SocketAddr::new(*address, row.nodeport)).collect()
    }

    pub fn learn_answers(&mut self, answers: Vec<Answered>) {
        let now = self.now();
        for answer in answers {
            let at = answer.asked.saturating_duration_since(self.started);
            if self.outdated.get(&answer.endpoint).is_some_and(|since| at < *since) {
                continue;
            }
            self.urgent.remove(&answer.endpoint);
            let before = self.probes.remove(&answer.endpoint);
            let is_ok = answer.result.is_ok();
            // A new kind of failure is news: a host that has been down and now refuses connections
            // is starting, and patience with it begins anew.
            let failing_since = match (&answer.result, &before) {
                (Ok(_), _) => None,
                (Err(failure), Some(Probe { result: Err(last), failing_since, .. }))
                    if last.kind == failure.kind =>
                {
                    failing_since.or(Some(at))
                }
                (Err(_), _) => Some(at),
            };
            let silent_since = match (is_ok, &before) {
                (true, _) => None,
                (false, before) => {
                    before.as_ref().and_then(|probe| probe.silent_since).or(Some(at))
                }
            };
            if let Err(failure) = &answer.result {
                *self.probe_errors.entry(failure.kind.as_str()).or_default() += 1;
            }
            let sought_since = before.as_ref().and_then(|probe| probe.sought_since);
            let was_named =
                before.as_ref().and_then(|probe| Some((probe.naming.clone(), probe.named_at?)));
            let (naming, named_at) = match (answer.naming, was_named) {
                (Some(naming), _) => (naming, Some(at)),
                (None, Some((naming, at))) => (naming, Some(at)),
                (None, None) => (None, None),
            };
            let last_seen_us =
                if is_ok { Some(now.wall_us) } else { before.and_then(|probe| probe.last_seen_us) };
            self.probes.insert(
                answer.endpoint,
                Probe {
                    at,
                    round_trip: answer.round_trip,
                    result: answer.result,
                    failing_since,
                    silent_since,
                    sought_since,
                    last_seen_us,
                    naming,
                    named_at,
                },
            );
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
                    self.probes.remove(endpoint);
                    self.outdated.insert(*endpoint, self.now().monotonic);
                }
                self.urgent.insert(*endpoint);
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
        self.urgent.extend(endpoints);
    }

    /// Starts and stops the hurry with those of which a worker's next primary may be one.
    pub fn seek(&mut self, endpoints: &[SocketAddr]) {
        let now = self.now().monotonic;
        let endpoints: BTreeSet<&SocketAddr> = endpoints.iter().collect();
        for (endpoint, probe) in &mut self.probes {
            let is_sought = endpoints.contains(endpoint);
            probe.sought_since = is_sought.then(|| probe.sought_since.unwrap_or(now));
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
        Pace { interval, endpoints: self.probes.len() }
    }

    /// Forgets where workers stood that are not listed any more.
    pub fn keep_standings(&mut self, workers: &[Worker]) {
        let listed: BTreeSet<(String, u16)> =
            workers.iter().map(|worker| (worker.nodename.clone(), worker.nodeport)).collect();
        self.standings.retain(|worker, _| listed.contains(worker));
    }

    /// Whether the name of a candidate is to be asked for along with its next probe.
    pub fn naming_is_due(&self, endpoint: SocketAddr) -> bool {
        self.urgent.contains(&endpoint)
            || schedule::naming_is_due(self.probes.get(&endpoint), self.now().monotonic)
    }

    /// Whether an endpoint is to be probed in this cycle.
    pub fn is_due(&self, endpoint: SocketAddr, interval: Duration) -> bool {
        let now = self.now().monotonic;
        self.urgent.contains(&endpoint)
            || self.probes.get(&endpoint).is_none_or(|probe| self.pace(interval).is_due(probe, now))
    }

    /// How long the next cycle may wait.
    pub fn next_cycle(&self, interval: Duration) -> Duration {
        let now = self.now().monotonic;
        let retries = self.failures.values().map(|failure| failure.retry_at);
        let urgent = self.urgent.iter().map(|_| now);
        self.pace(interval).next_cycle(now, self.probes.values(), retries.chain(urgent))
    }
}

fn leads_to(row: &DistNode, addresses: &[IpAddr], endpoint: &SocketAddr) -> bool {
    row.nodeport == endpoint.port() && addresses.contains(&endpoint.ip())
}
