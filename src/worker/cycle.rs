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
use decide::configuration::policy::NameOrigin;
use decide::membership::change::Change;
use decide::membership::coordinator::{Coordinator, DistNode};
use decide::membership::evidence::bar;
use decide::membership::observation::{Hold, Observation};
use decide::membership::own_address::own_address;
use decide::membership::plan::Plan;
use decide::membership::planner::plan;
use decide::membership::server::Lineage;
use decide::membership::state::State;
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
        let endpoints = memory.endpoints_of(row);
        request.is_some()
            || endpoints.is_empty()
            || endpoints.iter().any(|at| memory.is_due(*at, interval))
    };
    let due: Vec<&DistNode> = coordinator.worker_rows().filter(|row| is_due(memory, row)).collect();
    let own = own_address(coordinator, &settings.policy);
    let Some(names) = network.resolve(&settings.policy, &prober.resolvers, &due, own) else {
        return false;
    };
    memory.learn_names(names, coordinator, settings);

    for (visit, origins) in visits(memory, request, settings, coordinator) {
        memory.ask(visit.at);
        network.start(prober, visit, origins);
    }
    // A request waits for everybody: a name and a login have one deadline each.
    let patience = if request.is_some() { settings.probe_timeout * 2 + PATIENCE } else { PATIENCE };
    let Some(answers) = network.collect(patience) else {
        return false;
    };
    memory.learn_answers(answers);
    true
}

/// Who is to be asked in this cycle, and by which names candidates may be known; on request, everybody.
fn visits(
    memory: &Memory,
    request: Option<Request>,
    settings: &Settings,
    coordinator: &Coordinator,
) -> Vec<(Visit, Option<Vec<NameOrigin>>)> {
    let policy = &settings.policy;
    let rows = coordinator.worker_rows().flat_map(|row| {
        let visit = |at| Visit { at, name: row.nodename.clone(), nodeid: Some(row.nodeid) };
        memory.endpoints_of(row).into_iter().map(move |at| (visit(at), None))
    });
    let allowed = memory.candidates.iter().filter(|it| bar(it, coordinator, policy).is_none());
    let candidates = allowed.map(|candidate| {
        let at = candidate.endpoint;
        // As Citus will: by the name it is to be registered under, if it has one.
        let known = memory.endpoints.get(&at).and_then(|endpoint| endpoint.naming.as_ref());
        let name = known.map_or_else(|| at.ip().to_string(), |naming| naming.name.to_string());
        let origins = || policy.node_names.origins(candidate.given.as_ref(), &candidate.source);
        (Visit { at, name, nodeid: None }, memory.naming_is_due(at).then(origins))
    });
    // After the candidates, of which they may be some: only those are asked for their names, and an endpoint
    // has one probe at a time. Whoever answers at the address of a removed server may be somebody new.
    let removed = coordinator
        .removed
        .iter()
        .filter_map(|removed| Some((removed.endpoint_to_clean()?, removed.nodename.as_str())));
    let own = own_address(coordinator, policy).into_iter();
    let own = own.flat_map(|(name, _)| memory.own_endpoints.iter().map(move |at| (*at, name)));
    let others =
        removed.chain(own).map(|(at, name)| (Visit { at, name: name.into(), nodeid: None }, None));
    let is_wanted = |at| request.is_some() || memory.is_due(at, policy.interval);
    rows.chain(candidates).chain(others).filter(|(visit, _)| is_wanted(visit.at)).collect()
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
        endpoints: &memory.endpoints,
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
            let lineage = memory.endpoints.get(&worker.endpoint?)?.server()?.lineage();
            let known = coordinator.identities.get(&nodeid);
            known.is_none_or(|known| known.timeline < lineage.timeline).then_some((nodeid, lineage))
        })
        .collect()
}

fn describe_failure(outcome: &Outcome) -> Option<String> {
    let error = outcome.result.as_ref().err()?;
    Some(format!("failed, to be repeated: {}: {error}", outcome.change))
}
