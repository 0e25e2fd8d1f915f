//! Owns what the controller shows of itself and of a cycle: what `fleet.workers`, `fleet.status()` and
//! `citus_autoregister()` say. `sql/views.sql` reads these names.
//! Must not hold anything secret: everybody in pg_monitor may read it.

use super::memory::Memory;
use crate::apply::nodes::Outcome;
use crate::board::Request;
use crate::board::report::{Complaint, OutcomeWord, Report, ReportRow};
use crate::settings::Settings;
use decide::membership::change::{Change, Subject};
use decide::membership::coordinator::{Coordinator, Identity};
use decide::membership::endpoint::Endpoint;
use decide::membership::plan::{Plan, Worker};
use decide::membership::state::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the controller does on this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It registers workers.
    Coordinator,
    /// It changes nothing: `citus_fleet.enabled` is off, the fleet is paused, or Citus is absent.
    Observing,
    /// This node is a worker: there is nothing to do.
    Worker,
    /// The extension does not exist in the database yet.
    Waiting,
}

#[derive(Debug, Serialize)]
pub struct Snapshot {
    pub status: ControllerStatus,
    pub workers: Vec<WorkerRow>,
}

#[derive(Debug, Serialize)]
pub struct ControllerStatus {
    pub role: Role,
    pub paused: bool,
    pub enabled: bool,
    pub database: String,
    /// Seconds since 1970.
    pub last_cycle: Option<f64>,
    pub cycle_ms: Option<f64>,
    pub cycles: u64,
    pub changes: u64,
    pub dns_errors: u64,
    pub dns_errors_by_kind: BTreeMap<&'static str, u64>,
    pub probe_errors: u64,
    pub probe_errors_by_kind: BTreeMap<&'static str, u64>,
    /// What DNS complains of, which is among the errors too.
    pub dns_complaints: Vec<String>,
    /// What is wrong now, in words.
    pub errors: Vec<String>,
    /// Why workers cannot be told where the coordinator is.
    pub coordinator_host: Option<Complaint>,
    /// Another server runs at the coordinator's address: there may be two coordinators.
    pub disputed: bool,
    /// It is not known to be at the coordinator's address, and may change nothing.
    pub unproved: bool,
    /// Sources that yield nothing at the moment.
    pub empty_sources: Vec<String>,
    pub workers: BTreeMap<&'static str, usize>,
}

/// A row of `fleet.workers`.
#[derive(Debug, Serialize)]
pub struct WorkerRow {
    nodename: String,
    nodeport: i32,
    address: Option<std::net::IpAddr>,
    elsewhere: Vec<std::net::SocketAddr>,
    lost_wal: Option<u64>,
    nodeid: Option<i32>,
    groupid: Option<i32>,
    state: &'static str,
    code: &'static str,
    since: Option<f64>,
    reason: Option<String>,
    remedy: Option<String>,
    source: Option<String>,
    system_identifier: Option<i64>,
    server_version: Option<String>,
    citus_version: Option<String>,
    vector_version: Option<String>,
    round_trip_ms: Option<f64>,
    last_seen: Option<f64>,
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl WorkerRow {
    fn new(worker: &Worker, memory: &Memory, identities: &BTreeMap<i32, Identity>) -> Self {
        let endpoint = worker.endpoint.and_then(|at| memory.endpoints.get(&at));
        let server = endpoint.and_then(Endpoint::server);
        let probe = endpoint.and_then(|endpoint| endpoint.probe.as_ref());
        let standing = memory.standings.get(&(worker.nodename.clone(), worker.nodeport));
        Self {
            nodename: worker.nodename.clone(),
            nodeport: worker.nodeport,
            address: worker.endpoint.map(|endpoint| endpoint.ip()),
            elsewhere: worker.elsewhere.clone(),
            lost_wal: worker
                .nodeid
                .and_then(|nodeid| identities.get(&nodeid))
                .map(|known| known.lost_wal),
            nodeid: worker.nodeid,
            groupid: worker.groupid,
            state: worker.state.as_str(),
            code: worker.code,
            since: standing.map(|(_, since)| seconds(*since)),
            reason: worker.reason.clone(),
            remedy: worker.remedy.clone(),
            source: worker.source.clone(),
            system_identifier: server.map(|server| server.system_identifier),
            server_version: server
                .map(|s| format!("{}.{}", s.version_num / 10_000, s.version_num % 10_000)),
            citus_version: server.and_then(|server| server.citus.installed.clone()),
            vector_version: server.and_then(|server| server.vector.installed.clone()),
            round_trip_ms: probe.filter(|_| server.is_some()).map(|probe| millis(probe.round_trip)),
            last_seen: endpoint.and_then(|endpoint| endpoint.last_seen_us).map(seconds),
        }
    }
}

impl Snapshot {
    /// Before there is anything to show but the controller itself.
    pub fn idle(role: Role, database: String) -> Self {
        Self {
            status: ControllerStatus {
                role,
                paused: false,
                enabled: true,
                database,
                last_cycle: None,
                cycle_ms: None,
                cycles: 0,
                changes: 0,
                dns_errors: 0,
                dns_errors_by_kind: BTreeMap::new(),
                probe_errors: 0,
                probe_errors_by_kind: BTreeMap::new(),
                dns_complaints: Vec::new(),
                errors: Vec::new(),
                coordinator_host: None,
                disputed: false,
                unproved: false,
                empty_sources: Vec::new(),
                workers: BTreeMap::new(),
            },
            workers: Vec::new(),
        }
    }

    pub fn of_cycle(
        memory: &Memory,
        coordinator: &Coordinator,
        settings: &Settings,
        database: String,
        plan: &Plan,
        took: Duration,
        errors: Vec<String>,
    ) -> Self {
        let mut workers = BTreeMap::new();
        for worker in &plan.workers {
            *workers.entry(worker.state.as_str()).or_default() += 1;
        }
        let acts = settings.enabled && !coordinator.paused && coordinator.citus.is_some();
        let complaints: Vec<String> = memory
            .discovery
            .complaints
            .iter()
            .map(|c| format!("source {}: {}: {}", c.source, c.failure, c.message))
            .collect();
        Self {
            status: ControllerStatus {
                role: if acts { Role::Coordinator } else { Role::Observing },
                paused: coordinator.paused,
                enabled: settings.enabled,
                database,
                last_cycle: Some(seconds(memory.now().wall_us)),
                cycle_ms: Some(millis(took)),
                cycles: memory.cycles,
                changes: memory.changes,
                dns_errors: memory.dns_errors.values().sum(),
                dns_errors_by_kind: memory.dns_errors.clone(),
                probe_errors: memory.probe_errors.values().sum(),
                probe_errors_by_kind: memory.probe_errors.clone(),
                errors: complaints.iter().cloned().chain(errors).collect(),
                dns_complaints: complaints,
                coordinator_host: plan
                    .coordinator_host
                    .clone()
                    .map(|verdict| Complaint { reason: verdict.reason, remedy: verdict.remedy }),
                disputed: plan.is_disputed,
                unproved: plan.is_unproved,
                empty_sources: memory.discovery.empty.clone(),
                workers,
            },
            workers: plan
                .workers
                .iter()
                .map(|worker| WorkerRow::new(worker, memory, &coordinator.identities))
                .collect(),
        }
    }
}

/// What a request is told: `plan` is what was wanted, `outcomes` what became of it.
pub fn report(request: Request, plan: &Plan, outcomes: &[Outcome]) -> Report {
    let rows =
        plan.workers.iter().map(|worker| report_row(request, plan, outcomes, worker)).collect();
    let error = outcomes.iter().find_map(|outcome| match (&outcome.change, &outcome.result) {
        (change @ Change::SetCoordinatorHost { .. }, Err(error)) => {
            Some(format!("could not {change}: {error}"))
        }
        _ => None,
    });
    Report { error, rows }
}

fn report_row(request: Request, plan: &Plan, outcomes: &[Outcome], worker: &Worker) -> ReportRow {
    let subject = worker.nodeid.map(Subject::Node).or(worker.endpoint.map(Subject::Endpoint));
    let is_planned = plan.changes.iter().any(|change| Some(change.subject()) == subject);
    let result = outcomes
        .iter()
        .find(|outcome| Some(outcome.change.subject()) == subject)
        .map(|outcome| &outcome.result);
    let (word, nodeid, reason) = match result {
        Some(Ok(nodeid)) => (OutcomeWord::Done, *nodeid, None),
        Some(Err(error)) => (OutcomeWord::Failed, worker.nodeid, Some(error.to_string())),
        None if is_planned && request.dry_run => {
            (OutcomeWord::Planned, worker.nodeid, worker.reason.clone())
        }
        None if worker.state == State::Active => {
            (OutcomeWord::Done, worker.nodeid, worker.reason.clone())
        }
        None => (OutcomeWord::Skipped, worker.nodeid, worker.reason.clone()),
    };
    ReportRow {
        nodename: worker.nodename.clone(),
        nodeport: worker.nodeport,
        nodeid,
        action: worker.action,
        outcome: word,
        reason,
    }
}
