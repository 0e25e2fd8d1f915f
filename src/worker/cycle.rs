//! Owns one cycle: observe, decide, apply, and show what came of it.
//! Must not remember anything itself; `memory` does.

use super::carry_out::carry_out;
use super::memory::Memory;
use super::record::record;
use super::snapshot::{Snapshot, report};
use crate::apply::nodes::{self, Outcome};
use crate::backend::transaction::transaction;
use crate::board::{self, Request};
use crate::error::Error;
use crate::observe::coordinator as catalogs;
use crate::observe::network::Network;
use crate::observe::probe::{Prober, Visit};
use crate::settings::Settings;
use decide::configuration::policy::NameOrigin;
use decide::membership::coordinator::{Coordinator, DistNode};
use decide::membership::evidence::bar;
use decide::membership::lineage::Lsn;
use decide::membership::observation::{Hold, Observation};
use decide::membership::own_address::own_names;
use decide::membership::plan::Plan;
use decide::membership::planner::plan;
use decide::membership::situations::SYNCING;
use pgrx::log;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
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
    let rebalance_on_join = settings.policy.rebalance_on_join;
    let (mut coordinator, credentials) = transaction(|| catalogs::read(rebalance_on_join))?;
    let recorded = recorded(&coordinator);
    memory.positions.recollect(&mut coordinator);
    let database = credentials.database.clone();
    let prober = Rc::new(Prober::new(credentials, &coordinator, &settings));

    if !observe(network, memory, request, &settings, &coordinator, &prober) {
        return Ok(None);
    }
    compare(memory, &mut coordinator)?;
    let mut wanted = decide(memory, request, &settings, &coordinator);
    if wanted.changes.iter().any(nodes::activates) {
        let tables = transaction(nodes::count_tables)?;
        coordinator.citus.iter_mut().for_each(|citus| citus.tables = tables);
        wanted = decide(memory, request, &settings, &coordinator);
    }
    let is_rehearsal = request.is_some_and(|request| request.dry_run);
    if !is_rehearsal && wanted.workers.iter().any(|worker| worker.code == SYNCING) {
        // What follows takes long, and people want to know what they wait for.
        let took = started.elapsed();
        let snapshot = Snapshot::of_cycle(
            memory,
            &coordinator,
            &settings,
            database.clone(),
            &wanted,
            took,
            Vec::new(),
        );
        board::publish(&serde_json::to_string(&snapshot)?)?;
    }
    let tables = coordinator.citus.as_ref().map_or(0, |citus| citus.tables);
    let outcomes = if is_rehearsal {
        Vec::new()
    } else {
        carry_out(network, &prober, &wanted.changes, tables, |answers| {
            memory.learn_answers(answers);
            compare(memory, &mut coordinator)?;
            Ok(decide(memory, request, &settings, &coordinator).changes)
        })
    };
    let (coordinator, plan) = review(memory, request, &settings, coordinator, &wanted, &outcomes)?;

    memory.cycles += 1;
    let mut errors = Vec::new();
    let retention = settings.event_retention;
    if let Err(error) = record(memory, &coordinator, &recorded, &plan, &outcomes, retention) {
        errors.push(format!("fleet.events could not be written: {error}"));
    }
    errors.extend(memory.failures.values().map(ToString::to_string));
    let took = started.elapsed();
    let snapshot =
        Snapshot::of_cycle(memory, &coordinator, &settings, database, &plan, took, errors);
    board::publish(&serde_json::to_string(&snapshot)?)?;
    if let Some(request) = request {
        board::answer(request, &serde_json::to_string(&report(request, &wanted, &outcomes))?)?;
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
    prober: &Rc<Prober>,
) -> bool {
    let interval = settings.policy.interval;
    memory.learn_rows(coordinator);
    // What has come since, so that nobody counts as asked who has answered.
    let Some(answers) = network.collect(Duration::ZERO) else {
        return false;
    };
    memory.learn_answers(answers);
    let is_due = |memory: &Memory, row: &DistNode| {
        let endpoints = memory.endpoints_of(row);
        request.is_some()
            || endpoints.is_empty()
            || endpoints.iter().any(|at| memory.is_due(*at, interval))
    };
    let due: Vec<&DistNode> = coordinator.worker_rows().filter(|row| is_due(memory, row)).collect();
    let own = own_names(coordinator, &settings.policy);
    let Some(names) = network.resolve(&settings.policy, &prober.resolvers, &due, &own) else {
        return false;
    };
    memory.learn_names(names, coordinator, settings);

    for (visit, origins) in visits(memory, request, settings, coordinator) {
        memory.ask(visit.at);
        network.start(prober, visit, origins);
    }
    // A request waits for everybody: a name and a login have one deadline each.
    let patience = if request.is_some() { settings.probe_timeout * 2 + PATIENCE } else { PATIENCE };
    let end = Instant::now() + settings.probe_timeout + PATIENCE;
    loop {
        let Some(answers) = network.collect(patience) else {
            return false;
        };
        memory.learn_answers(answers);
        memory.learn_proof(coordinator);
        // Nothing is said of a worker, nor written, before it has been heard since the start.
        let waits = memory.cycles == 0 && memory.awaits_a_first_answer();
        if !waits || Instant::now() >= end {
            return true;
        }
    }
}

/// Looks whether candidates have relations of the names of distributed tables; most have none at all.
fn compare(memory: &Memory, coordinator: &mut Coordinator) -> Result<(), Error> {
    if let Some(citus) = &mut coordinator.citus
        && memory.relations().next().is_some()
    {
        citus.clashes = transaction(|| catalogs::clashes(memory.relations()))?;
    }
    Ok(())
}

/// Who is to be asked in this cycle, and by which names candidates may be known; on request, everybody.
fn visits(
    memory: &Memory,
    request: Option<Request>,
    settings: &Settings,
    coordinator: &Coordinator,
) -> Vec<(Visit, Option<Vec<NameOrigin>>)> {
    let policy = &settings.policy;
    // Where a lost name led once, a candidate may be by now, and is asked as one.
    let named: BTreeSet<SocketAddr> = memory.candidates.iter().map(|it| it.endpoint).collect();
    let is_a_candidates = |row: &DistNode, at: &SocketAddr| {
        memory.lost_names.contains(&row.nodeid) && named.contains(at)
    };
    let rows = coordinator.worker_rows().flat_map(|row| {
        let visit = |at| Visit {
            at,
            name: row.nodename.clone(),
            nodeid: Some(row.nodeid),
            is_candidate: false,
        };
        let places = memory.endpoints_of(row).into_iter();
        places.filter(|at| !is_a_candidates(row, at)).map(move |at| (visit(at), None))
    });
    let allowed = memory.candidates.iter().filter(|it| bar(it, coordinator, policy).is_none());
    let candidates = allowed.map(|candidate| {
        let at = candidate.endpoint;
        // As Citus will: by the name it is to be registered under, if it has one.
        let known = memory.endpoints.get(&at).and_then(|endpoint| endpoint.naming.as_ref());
        let name = known.map_or_else(|| at.ip().to_string(), |naming| naming.name.to_string());
        let origins = || policy.node_names.origins(candidate.given.as_ref(), &candidate.source);
        let is_due = request.is_some() || memory.naming_is_due(at);
        (Visit { at, name, nodeid: None, is_candidate: true }, is_due.then(origins))
    });
    // After the candidates, of which they may be some: only those are asked for their names, and an endpoint
    // has one probe at a time. Whoever answers at the address of a removed server may be somebody new.
    let removed = coordinator
        .removed
        .iter()
        .filter_map(|removed| Some((removed.endpoint_to_clean()?, removed.nodename.as_str())));
    let own = memory.own.iter();
    let own = own.flat_map(|own| own.endpoints.iter().map(|at| (*at, own.nodename.as_str())));
    let others = removed.chain(own).map(|(at, name)| {
        (Visit { at, name: name.into(), nodeid: None, is_candidate: false }, None)
    });
    let is_wanted = |at| request.is_some() || memory.is_due(at, policy.interval);
    rows.chain(candidates).chain(others).filter(|(visit, _)| is_wanted(visit.at)).collect()
}

fn decide(
    memory: &Memory,
    request: Option<Request>,
    settings: &Settings,
    coordinator: &Coordinator,
) -> Plan {
    let on_request = request.map(|_| memory.failures_on_request());
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
        lost_names: &memory.lost_names,
        own: &memory.own,
        is_proved: memory.is_proved,
        own_row_since: memory.own_row_since(),
        rows: memory.rows(),
        rows_since: memory.rows_since(),
        rows_read_at: memory.rows_read_at(),
        endpoints: &memory.endpoints,
        unnamed_since: &memory.unnamed_since,
        failures: on_request.as_ref().unwrap_or(&memory.failures),
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
    outcomes: &[Outcome],
) -> Result<(Coordinator, Plan), Error> {
    for Outcome { change, result, mark } in outcomes {
        match result {
            Ok(_) => log!("citus_fleet: done: {change}"),
            Err(error) => log!("citus_fleet: failed, to be repeated: {change}: {error}"),
        }
        memory.learn_outcome(change, result);
        memory.learn_mark(change, mark.as_ref());
    }
    let (coordinator, plan) = if outcomes.is_empty() && request.is_none() {
        (coordinator, wanted.clone())
    } else {
        let rebalance_on_join = settings.policy.rebalance_on_join;
        let (mut coordinator, _) = transaction(|| catalogs::read(rebalance_on_join))?;
        memory.learn_rows_anew(&coordinator);
        memory.positions.recollect(&mut coordinator);
        compare(memory, &mut coordinator)?;
        let plan = decide(memory, None, settings, &coordinator);
        (coordinator, plan)
    };
    memory.recheck(&plan.recheck);
    memory.seek(&plan.sought);
    memory.learn_absences(&plan.workers, !settings.policy.sources.is_empty());
    Ok((coordinator, plan))
}

/// How far each worker had come by what is recorded of it.
fn recorded(coordinator: &Coordinator) -> BTreeMap<i32, Option<Lsn>> {
    coordinator.identities.iter().map(|(nodeid, known)| (*nodeid, known.record.position)).collect()
}
