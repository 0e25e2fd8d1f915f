//! Owns one cycle: observe, decide, apply, and show what came of it.
//! Must not remember anything itself; `memory` does.

use super::events;
use super::memory::Memory;
use super::snapshot::{Snapshot, report};
use crate::apply::nodes::{self as apply, Outcome};
use crate::apply::{identities, leftovers};
use crate::backend::transaction::transaction;
use crate::board::{self, Request};
use crate::error::Error;
use crate::observe::coordinator as catalogs;
use crate::observe::network::Network;
use crate::observe::probe::{Prober, Visit};
use crate::settings::Settings;
use decide::membership::model::{
    Change, Coordinator, DistNode, Hold, Lineage, Observation, Plan, State,
};
use decide::membership::own_address::own_address;
use decide::membership::plan::{barred, plan};
use futures_util::future::join_all;
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
    let rebalance_on_join = settings.policy.rebalance_on_join;
    let (coordinator, credentials) = transaction(|| catalogs::read(rebalance_on_join))?;
    let database = credentials.database.clone();
    let prober = Rc::new(Prober::new(credentials, &coordinator, &settings));

    if !observe(network, memory, request, &settings, &coordinator, &prober) {
        return Ok(None);
    }
    let wanted = decide(memory, request, &settings, &coordinator);
    let is_rehearsal = request.is_some_and(|request| request.dry_run);
    let outcomes =
        if is_rehearsal { Vec::new() } else { carry_out(network, &prober, &wanted.changes) };
    let (coordinator, plan) = review(memory, request, &settings, coordinator, &wanted, &outcomes)?;

    memory.cycles += 1;
    let mut errors = Vec::new();
    if let Err(error) = record(memory, &coordinator, &plan, &settings) {
        errors.push(format!("fleet.events could not be written: {error}"));
    }
    errors.extend(outcomes.iter().filter_map(describe_failure));
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
    let is_due = |memory: &Memory, row: &DistNode| {
        let endpoints = memory.endpoints(row);
        request.is_some()
            || endpoints.is_empty()
            || endpoints.iter().any(|e| memory.is_due(*e, interval))
    };
    let due: Vec<&DistNode> = coordinator.worker_rows().filter(|row| is_due(memory, row)).collect();
    let own = own_address(coordinator, &settings.policy);
    let Some(names) = network.resolve(&settings.policy, &prober.resolvers, &due, own) else {
        return false;
    };
    memory.learn_names(names, coordinator, settings);

    for row in coordinator.worker_rows() {
        for endpoint in memory.endpoints(row) {
            if request.is_some() || memory.is_due(endpoint, interval) {
                let visit =
                    Visit { endpoint, name: row.nodename.clone(), nodeid: Some(row.nodeid) };
                network.start(prober, visit, None);
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
            let origins = memory
                .naming_is_due(endpoint)
                .then(|| settings.policy.node_names.origins(candidate));
            network.start(prober, Visit { endpoint, name, nodeid: None }, origins);
        }
    }
    // After the candidates, of which they may be some: only those are asked for their names, and an endpoint
    // has one probe at a time. Whoever answers at the address of a removed server may be somebody new.
    let removed = coordinator
        .removed
        .iter()
        .filter_map(|removed| Some((removed.endpoint_to_clean()?, removed.nodename.as_str())));
    let own = own.iter().flat_map(|(name, _)| memory.own_endpoints.iter().map(|at| (*at, *name)));
    for (endpoint, name) in removed.chain(own) {
        if request.is_some() || memory.is_due(endpoint, interval) {
            let visit = Visit { endpoint, name: name.to_owned(), nodeid: None };
            network.start(prober, visit, None);
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
        own_endpoints: &memory.own_endpoints,
        probes: &memory.probes,
        unnamed_since: &memory.unnamed_since,
        // Whoever asks for a pass wants another attempt now.
        failures: if request.is_some() { &nothing } else { &memory.failures },
        hold,
    };
    plan(&observation, &settings.policy)
}

/// Makes the changes: first those of Citus's metadata, in transactions; then those of other servers,
/// outside, all at the same time.
fn carry_out(network: &Network, prober: &Prober, changes: &[Change]) -> Vec<Outcome> {
    let (clean, changes): (Vec<Change>, Vec<Change>) =
        changes.iter().cloned().partition(|change| matches!(change, Change::Clean { .. }));
    let mut outcomes = apply::apply(&changes);
    let dropping =
        clean.iter().map(|change| leftovers::drop_relations(&prober.credentials, change));
    let Some(results) = network.perform(join_all(dropping)) else {
        return outcomes;
    };
    for (change, result) in clean.into_iter().zip(results) {
        let result = result
            .and_then(|system_identifier| transaction(|| leftovers::set_clean(system_identifier)))
            .map(|()| None);
        outcomes.push(Outcome { change, result });
    }
    outcomes
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
    for Outcome { change, result } in outcomes {
        match result {
            Ok(_) => log!("citus_fleet: done: {change}"),
            Err(error) => log!("citus_fleet: failed, to be repeated: {change}: {error}"),
        }
        memory.learn_outcome(change, result);
    }
    let (coordinator, plan) = if outcomes.is_empty() && request.is_none() {
        (coordinator, wanted.clone())
    } else {
        let rebalance_on_join = settings.policy.rebalance_on_join;
        let (coordinator, _) = transaction(|| catalogs::read(rebalance_on_join))?;
        let plan = decide(memory, None, settings, &coordinator);
        (coordinator, plan)
    };
    memory.recheck(&plan.recheck);
    memory.seek(&plan.sought);
    memory.learn_absences(&plan.workers, !settings.policy.sources.is_empty());
    Ok((coordinator, plan))
}

/// Writes what has changed to `fleet.events` and `fleet.identities`, and nothing when nothing has.
fn record(
    memory: &mut Memory,
    coordinator: &Coordinator,
    plan: &Plan,
    settings: &Settings,
) -> Result<(), Error> {
    let entered = events::changed(&plan.workers, &memory.standings);
    let newcomers = newcomers(memory, coordinator, plan);
    let gone: Vec<i32> = coordinator
        .identities
        .keys()
        .filter(|nodeid| !coordinator.nodes().iter().any(|row| row.nodeid == **nodeid))
        .copied()
        .collect();
    // Whoever has activated a worker has taken it over: its next disabling is not the fleet's.
    let taken_over: Vec<i32> = coordinator
        .worker_rows()
        .filter(|row| row.isactive)
        .filter(|row| coordinator.identities.get(&row.nodeid).is_some_and(|i| i.disabled_by_fleet))
        .map(|row| row.nodeid)
        .collect();
    if !(entered.is_empty() && newcomers.is_empty() && gone.is_empty() && taken_over.is_empty()) {
        transaction(|| {
            newcomers.iter().try_for_each(|(nodeid, known)| identities::record(*nodeid, *known))?;
            gone.iter().try_for_each(|nodeid| identities::forget(*nodeid))?;
            taken_over.iter().try_for_each(|nodeid| identities::set_disabled(*nodeid, false))?;
            events::write(&entered)
        })?;
        let now = memory.now().wall_us;
        for change in entered {
            let key = (change.worker.nodename.clone(), change.worker.nodeport);
            memory.standings.insert(key, (change.worker.state, now));
        }
    }
    memory.keep_standings(&plan.workers);
    if memory.expiry_is_due() {
        transaction(|| events::expire(settings.event_retention))?;
    }
    Ok(())
}

/// Workers in order whose identity is not recorded as it is: somebody else has registered them, or
/// they have been promoted.
fn newcomers(memory: &Memory, coordinator: &Coordinator, plan: &Plan) -> Vec<(i32, Lineage)> {
    plan.workers
        .iter()
        .filter(|worker| matches!(worker.state, State::Active | State::Removing))
        .filter_map(|worker| {
            let nodeid = worker.nodeid?;
            let probe = memory.probes.get(&worker.endpoint?)?;
            let lineage = probe.result.as_ref().ok()?.lineage();
            let known = coordinator.identities.get(&nodeid);
            known.is_none_or(|known| known.timeline < lineage.timeline).then_some((nodeid, lineage))
        })
        .collect()
}

fn describe_failure(outcome: &Outcome) -> Option<String> {
    let error = outcome.result.as_ref().err()?;
    Some(format!("failed, to be repeated: {}: {error}", outcome.change))
}
