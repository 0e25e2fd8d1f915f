//! Owns what the controller remembers from one cycle to the next: answers of DNS and of servers,
//! changes that failed, and since when each worker has been what it is.
//! Must not survive the process: what has to is in `fleet.events` and in Citus's own catalogs.

use super::positions::Positions;
use crate::apply::nodes::Failure;
use crate::observe::network::{Answered, Names};
use crate::settings::Settings;
use decide::membership::candidate::Candidate;
use decide::membership::cause::Cause;
use decide::membership::change::{Change, ChangeFailure, Subject};
use decide::membership::coordinator::{Coordinator, DistNode, OwnAddress, Removed};
use decide::membership::discovery::Discovery;
use decide::membership::endpoint::{Endpoint, Probe};
use decide::membership::evidence::bar;
use decide::membership::lineage::Mark;
use decide::membership::observation::Now;
use decide::membership::own_address;
use decide::membership::plan::Worker;
use decide::membership::schedule::{self, Pace};
use decide::membership::server::{MOST_RELATIONS, Relation, Server};
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
    /// Where the names of registered workers lead, or last led.
    pub node_addresses: BTreeMap<i32, Vec<IpAddr>>,
    /// Those whose names lead nowhere now.
    pub lost_names: BTreeSet<i32>,
    /// Where the coordinator's own addresses led in this cycle.
    pub own: Vec<OwnAddress>,
    /// Whether this server was the last that answered there since it started.
    pub is_proved: bool,
    pub unnamed_since: BTreeMap<i32, Duration>,
    pub failures: BTreeMap<Subject, ChangeFailure>,
    /// When each server was started that answered last at an address.
    started_us: BTreeMap<SocketAddr, i64>,
    /// By name and port.
    pub standings: BTreeMap<(String, i32), Standing>,
    /// Counted since the controller started, by kind.
    pub dns_errors: BTreeMap<&'static str, u64>,
    pub probe_errors: BTreeMap<&'static str, u64>,
    pub changes: u64,
    pub cycles: u64,
    expired_at: Option<Duration>,
    /// The coordinator's own row, and since when it is so.
    own_row: (Option<(String, i32)>, Duration),
    /// What the rows of `pg_dist_node` say, since when, and when they were read last.
    rows: (BTreeMap<i32, String>, Duration),
    rows_read_at: Duration,
    pub positions: Positions,
    /// When each worker was recorded, which `fleet.accept_server` does anew.
    recorded_us: BTreeMap<i32, i64>,
}

impl Memory {
    pub fn new(standings: BTreeMap<(String, i32), Standing>) -> Self {
        Self {
            started: Instant::now(),
            discovery: Discovery::default(),
            candidates: Vec::new(),
            endpoints: BTreeMap::new(),
            node_addresses: BTreeMap::new(),
            lost_names: BTreeSet::new(),
            own: Vec::new(),
            is_proved: false,
            own_row: (None, Duration::ZERO),
            rows: (BTreeMap::new(), Duration::ZERO),
            rows_read_at: Duration::ZERO,
            positions: Positions::default(),
            recorded_us: BTreeMap::new(),
            unnamed_since: BTreeMap::new(),
            failures: BTreeMap::new(),
            started_us: BTreeMap::new(),
            standings,
            dns_errors: BTreeMap::new(),
            probe_errors: BTreeMap::new(),
            changes: 0,
            cycles: 0,
            expired_at: None,
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
            self.lost_names.remove(&nodeid);
            self.forget(|endpoint| addresses.contains(&endpoint.ip()));
        }
        self.learn_rows_anew(coordinator);
        self.learn_records(coordinator);
        self.unnamed_since.retain(|nodeid, _| rows.contains(nodeid));
        self.positions.keep(&rows);
    }

    /// Takes in who the workers are. What a server said before an operator had it accepted, it said
    /// without the mark that it has got then.
    fn learn_records(&mut self, coordinator: &Coordinator) {
        let records: BTreeMap<i32, i64> =
            coordinator.identities.iter().map(|(id, known)| (*id, known.recorded_us)).collect();
        let before = std::mem::replace(&mut self.recorded_us, records);
        let now = self.now().monotonic;
        for (nodeid, known) in &coordinator.identities {
            if before.get(nodeid).is_some_and(|before| *before != known.recorded_us) {
                let accepted = known.record.system_identifier;
                let is_it = |server: &Server| server.system_identifier == accepted;
                let its = self.endpoints.values_mut().filter(|it| it.server().is_some_and(is_it));
                its.for_each(|endpoint| endpoint.forget(now));
            }
        }
    }

    /// Takes in what the coordinator's own row is, and the others. What workers have said by now, they said
    /// of the rows before.
    pub fn learn_rows_anew(&mut self, coordinator: &Coordinator) {
        let now = self.now().monotonic;
        let own = coordinator.own_row().map(|own| (own.nodename.clone(), own.nodeport));
        if self.own_row.0 != own {
            self.own_row = (own, now);
        }
        let rows = coordinator.rows();
        if self.rows.0 != rows {
            self.rows = (rows, now);
        }
        self.rows_read_at = now;
    }

    pub fn rows(&self) -> &BTreeMap<i32, String> {
        &self.rows.0
    }

    pub fn rows_since(&self) -> Duration {
        self.rows.1
    }

    pub fn rows_read_at(&self) -> Duration {
        self.rows_read_at
    }

    /// Since when the coordinator's own row is what it is: workers knew another one before.
    pub fn own_row_since(&self) -> Duration {
        self.own_row.1
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
        self.own = names.own;
        for row in coordinator.worker_rows() {
            let Some(addresses) = names.nodes.get(&row.nodeid) else {
                continue;
            };
            if addresses.is_empty() {
                self.lost_names.insert(row.nodeid);
                self.node_addresses.entry(row.nodeid).or_default();
                continue;
            }
            self.lost_names.remove(&row.nodeid);
            if let Some(port) = row.port() {
                self.lead(row.nodeid, port, addresses.clone());
            }
        }
        // What may not be connected to is not asked, and so is nothing to hurry for.
        let is_allowed = |it: &&Candidate| bar(it, coordinator, &settings.policy).is_none();
        let known: BTreeSet<SocketAddr> = self
            .candidates
            .iter()
            .filter(is_allowed)
            .map(|candidate| candidate.endpoint)
            .chain(coordinator.worker_rows().flat_map(|row| self.endpoints_of(row)))
            .chain(coordinator.removed.iter().filter_map(Removed::endpoint_to_clean))
            .chain(self.own.iter().flat_map(|own| own.endpoints.iter().copied()))
            .collect();
        self.endpoints.retain(|endpoint, _| known.contains(endpoint));
        self.started_us.retain(|endpoint, _| known.contains(endpoint));
        self.failures.retain(|subject, _| match subject {
            Subject::Coordinator | Subject::Shards => true,
            Subject::Endpoint(endpoint) => known.contains(endpoint),
            Subject::Node(nodeid) => coordinator.worker_rows().any(|row| row.nodeid == *nodeid),
        });
    }

    /// A row leads there now. Who answers where it begins or ceases to lead was asked other things, as a
    /// member or as a stranger, and is asked anew.
    fn lead(&mut self, nodeid: i32, nodeport: u16, addresses: Vec<IpAddr>) {
        let before = self.node_addresses.insert(nodeid, addresses.clone()).unwrap_or_default();
        let is_other = |ip: &IpAddr| before.contains(ip) != addresses.contains(ip);
        self.forget(|at| at.port() == nodeport && is_other(&at.ip()));
    }

    /// Where a registered worker's name leads, as far as that is known.
    pub fn endpoints_of(&self, row: &DistNode) -> Vec<SocketAddr> {
        let addresses = self.node_addresses.get(&row.nodeid).into_iter().flatten();
        addresses.filter_map(|address| Some(SocketAddr::new(*address, row.port()?))).collect()
    }

    /// What the servers that no row leads to have of their own.
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        let servers = self.endpoints.values().filter_map(Endpoint::server);
        // Whoever has too many is refused for that.
        let few = servers.filter(|server| server.relations.len() <= MOST_RELATIONS);
        few.flat_map(|server| &server.relations)
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
            // Nobody listened while Citus was called: it may have answered in time.
            let is_unheard = answer.is_unheard();
            let Some(endpoint) = self.endpoints.get_mut(&answer.at) else {
                continue;
            };
            // Whoever has been started anew may have left behind what it hung on.
            let is_new = match (&probe.result, self.started_us.get(&answer.at)) {
                (Ok(server), Some(started_us)) => server.started_us != *started_us,
                _ => false,
            };
            if let Ok(server) = &probe.result {
                self.started_us.insert(answer.at, server.started_us);
            }
            if is_new {
                let subject = Subject::Endpoint(answer.at);
                self.failures.retain(|it, failure| *it != subject || !failure.has_hung());
            }
            if let Some(naming) = answer.naming {
                (endpoint.naming, endpoint.named_at) = (naming, Some(probe.at));
            }
            let started_us = probe.result.as_ref().ok().map(|server| server.started_us);
            if is_unheard {
                endpoint.excuse();
            } else if endpoint.learn(probe, wall_us) {
                self.positions.doubt(started_us);
            }
        }
    }

    /// Takes in who has answered at the coordinator's addresses.
    pub fn learn_proof(&mut self, coordinator: &Coordinator) {
        let proof = own_address::proof(&self.own, coordinator, &self.endpoints);
        self.is_proved = proof.unwrap_or(self.is_proved);
    }

    /// Whether a registered worker is being asked for the first time.
    pub fn awaits_a_first_answer(&self) -> bool {
        let addresses = self.node_addresses.values().flatten().collect::<BTreeSet<_>>();
        let mut asked = self.endpoints.iter().filter(|(_, endpoint)| endpoint.is_asked());
        asked.any(|(at, endpoint)| endpoint.probe.is_none() && addresses.contains(&at.ip()))
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
    pub fn learn_outcome(&mut self, change: &Change, result: &Result<Option<i32>, Failure>) {
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
                if let Some(nodeid) = nodeid {
                    self.lead(*nodeid, endpoint.port(), vec![endpoint.ip()]);
                    self.lost_names.remove(nodeid);
                }
                self.recheck(&[*endpoint]);
            }
            Err(failure) => {
                let subject = change.subject();
                let what = change.to_string();
                let (reason, cause) = (failure.error.to_string(), failure.cause.clone());
                let before = self.failures.get(&subject);
                let before = before.filter(|before| before.has_hung() == cause.is_hang());
                let attempts = before.map_or(0, |before| before.attempts) + 1;
                let wait = match &cause {
                    // Of those that were added together each is tried alone, and soon.
                    Cause::Hung(hang) if hang.is_known => schedule::hang_retry(attempts, hang.took),
                    _ => schedule::change_retry(attempts),
                };
                let retry_at = now + wait;
                let failure =
                    ChangeFailure { what, reason, cause, attempts, failed_at: now, retry_at };
                self.failures.insert(subject, failure);
            }
        }
    }

    /// What has failed, for somebody who wants another attempt now: what hung is still tried alone.
    pub fn failures_on_request(&self) -> BTreeMap<Subject, ChangeFailure> {
        let hung = self.failures.iter().filter(|(_, failure)| failure.has_hung());
        hung.map(|(subject, failure)| (*subject, failure.clone().forgiven())).collect()
    }

    /// A server has a mark now, also by what it said before it got it.
    pub fn learn_mark(&mut self, change: &Change, mark: Option<&Mark>) {
        let (Change::UpdateAddress { endpoint, .. } | Change::Mark { endpoint, .. }) = change
        else {
            return;
        };
        let probe = self.endpoints.get_mut(endpoint).and_then(|endpoint| endpoint.probe.as_mut());
        if let (Some(mark), Some(Probe { result: Ok(server), .. })) = (mark, probe) {
            server.marks.get_or_insert_default().push(mark.id.clone());
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
        Pace::new(interval, self.endpoints.values())
    }

    /// Forgets where workers stood that are not listed any more.
    pub fn keep_standings(&mut self, workers: &[Worker]) {
        let listed: BTreeSet<(String, i32)> =
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
