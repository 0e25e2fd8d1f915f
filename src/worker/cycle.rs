//! Owns one cycle: observe, decide, apply, and show what came of it.
//! Must not remember anything itself; `memory` does.

use super::board::{self, Request};
use super::containment::transaction;
use super::events;
use super::memory::Memory;
use super::status::{Report, Snapshot};
use crate::apply::citus_nodes::{self as apply, Outcome};
use crate::decide::membership::{barred, plan};
use crate::decide::model::{Coordinator, Hold, NodeRow, Observation, Plan};
use crate::decide::schedule;
use crate::error::Error;
use crate::observe::citus_nodes as catalogs;
use crate::observe::network::Network;
use crate::observe::probe::{Questions, Target};
use crate::settings::Settings;
use pgrx::log;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long an ordinary cycle waits for the slowest probe before it goes on without it.
const PATIENCE: Duration = Duration::from_millis(400);

/// Runs one cycle and says how long the next may wait; nothing when a signal cut it short.
pub fn run(
    network: &mut Network,
    memory: &mut Memory,
    request: Option<Request>,
) -> Result<Option<Duration>, Error> {
    let started = Instant::now();
    let settings = Settings::current().map_err(Error::Internal)?;
    let (coordinator, credentials) = transaction(catalogs::read)?;
    let database = credentials.database.clone();
    let questions = Rc::new(Questions::new(credentials, &coordinator, settings.probe_timeout));

    if !observe(network, memory, request, &settings, &coordinator, &questions) {
        return Ok(None);
    }
    let wanted = decide(memory, request, &settings, &coordinator);
    let is_rehearsal = request.is_some_and(|request| request.dry_run);
    let outcome = if is_rehearsal { Outcome::default() } else { apply::apply(&wanted.changes) };
    let (coordinator, plan) = review(memory, request, &settings, coordinator, &wanted, &outcome)?;

    memory.cycles += 1;
    let mut errors = Vec::new();
    if let Err(error) = record(memory, &plan, &settings) {
        errors.push(format!("fleet.events could not be written: {error}"));
    }
    errors.extend(failures(&outcome));
    let took = started.elapsed();
    let snapshot =
        Snapshot::of_cycle(memory, &coordinator, &settings, database, &plan, took, errors);
    board::publish(&serde_json::to_string(&snapshot)?)?;
    if let Some(request) = request {
        board::answer(request, &serde_json::to_string(&Report::new(request, &wanted, &outcome))?)?;
    }
    Ok(Some(memory.next_cycle(settings.policy.interval)))
}

/// Asks DNS and whichever servers are due; all of them, and patiently, on request.
fn observe(
    network: &mut Network,
    memory: &mut Memory,
    request: Option<Request>,
    settings: &Settings,
    coordinator: &Coordinator,
    questions: &Rc<Questions>,
) -> bool {
    let interval = settings.policy.interval;
    memory.learn_rows(coordinator);
    let is_due = |memory: &Memory, row: &NodeRow| {
        let endpoints = memory.endpoints(row);
        request.is_some()
            || endpoints.is_empty()
            || endpoints.iter().any(|e| memory.is_due(*e, interval))
    };
    let due: Vec<&NodeRow> = coordinator.worker_rows().filter(|row| is_due(memory, row)).collect();
    let Some(names) = network.resolve(settings, &due) else {
        return false;
    };
    memory.learn_names(names, coordinator, settings);

    for row in coordinator.worker_rows() {
        for endpoint in memory.endpoints(row) {
            if request.is_some() || memory.is_due(endpoint, interval) {
                let target =
                    Target { endpoint, name: row.nodename.clone(), nodeid: Some(row.nodeid) };
                network.start(questions, settings.nameserver, target, None);
            }
        }
    }
    for candidate in &memory.candidates {
        let endpoint = candidate.endpoint;
        let is_wanted = request.is_some() || memory.is_due(endpoint, interval);
        if is_wanted && barred(candidate, coordinator, &settings.policy).is_none() {
            // As Citus will: by the name it is to be registered under, if it has one.
            let known = memory.probes.get(&endpoint).and_then(|probe| probe.naming.as_ref());
            let name = known.map_or_else(|| endpoint.ip().to_string(), |n| n.name.to_string());
            let naming =
                schedule::naming_is_due(memory.probes.get(&endpoint), memory.now().monotonic);
            let origins = naming.then(|| settings.policy.node_names.origins(candidate));
            network.start(
                questions,
                settings.nameserver,
                Target { endpoint, name, nodeid: None },
                origins,
            );
        }
    }
    // A request waits for everybody: a name and a login have one deadline each.
    let patience = if request.is_some() { settings.probe_timeout * 2 + PATIENCE } else { PATIENCE };
    let Some(answers) = network.collect(patience) else {
        return false;
    };
    memory.learn_answers(answers);
    true
}

fn decide(
    memory: &Memory,
    request: Option<Request>,
    settings: &Settings,
    coordinator: &Coordinator,
) -> Plan {
    let nothing = Default::default();
    let hold = if coordinator.paused {
        Some(Hold::Paused)
    } else if !settings.enabled && request.is_none() {
        Some(Hold::Disabled)
    } else {
        None
    };
    let observation = Observation {
        now: memory.now(),
        coordinator,
        candidates: &memory.candidates,
        node_addresses: &memory.node_addresses,
        probes: &memory.probes,
        unnamed_since: &memory.unnamed_since,
        // Whoever asks for a pass wants another attempt now.
        failures: if request.is_some() { &nothing } else { &memory.failures },
        hold,
    };
    plan(&observation, &settings.policy)
}

/// Takes in what became of the changes, and judges anew where there were any.
fn review(
    memory: &mut Memory,
    request: Option<Request>,
    settings: &Settings,
    coordinator: Coordinator,
    wanted: &Plan,
    outcome: &Outcome,
) -> Result<(Coordinator, Plan), Error> {
    for registration in &outcome.registrations {
        match &registration.result {
            Ok(nodeid) => {
                log!("citus_fleet: registered {} as node {nodeid}", registration.endpoint);
                memory.changes += 1;
                memory.failures.remove(&registration.endpoint);
                memory.node_addresses.insert(*nodeid, vec![registration.endpoint.ip()]);
                memory.joined(registration.endpoint);
            }
            Err(error) => {
                log!("citus_fleet: could not register {}: {error}", registration.endpoint);
                memory.learn_failure(registration.endpoint, error.to_string());
            }
        }
    }
    let tried = !outcome.registrations.is_empty() || outcome.coordinator_host.is_some();
    let (coordinator, plan) = if tried {
        let (coordinator, _) = transaction(catalogs::read)?;
        let plan = decide(memory, None, settings, &coordinator);
        (coordinator, plan)
    } else if request.is_some() {
        let plan = decide(memory, None, settings, &coordinator);
        (coordinator, plan)
    } else {
        (coordinator, wanted.clone())
    };
    memory.recheck(&plan.recheck);
    memory.learn_absences(&plan.workers, !settings.policy.sources.is_empty());
    Ok((coordinator, plan))
}

/// Writes what has changed to `fleet.events`, and remembers since when.
fn record(memory: &mut Memory, plan: &Plan, settings: &Settings) -> Result<(), Error> {
    let entered = events::changed(&plan.workers, &memory.standings);
    if !entered.is_empty() {
        transaction(|| events::write(&entered))?;
        let now = memory.now().wall_us;
        for change in entered {
            let key = (change.worker.nodename.clone(), change.worker.nodeport);
            memory.standings.insert(key, (change.worker.state, now));
        }
    }
    if memory.expiry_is_due() {
        transaction(|| events::expire(settings.event_retention))?;
    }
    Ok(())
}

fn failures(outcome: &Outcome) -> Vec<String> {
    let host = outcome.coordinator_host.as_ref().and_then(|result| result.as_ref().err());
    let host = host.map(|error| format!("citus_set_coordinator_host failed: {error}"));
    let registrations = outcome.registrations.iter().filter_map(|registration| {
        let error = registration.result.as_ref().err()?;
        Some(format!("{} could not be registered: {error}", registration.endpoint))
    });
    host.into_iter().chain(registrations).collect()
}
