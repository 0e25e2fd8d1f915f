//! Owns when Citus's background rebalancer is started for workers that have joined
//! (`citus_fleet.rebalance_on_join`), and what is shown of it until it is done.
//! Must not start it twice for one worker, nor beside anything that moves or builds.

use super::change::{Change, Subject};
use super::coordinator::DistNode;
use super::plan::{Plan, Worker};
use super::registered::Registered;
use super::situations::{self, CLONE, HOLDS_NO_SHARDS, Row, SHARDS_ARE_MOVED};
use super::state::State;
use super::view::View;

/// How long no worker may have joined: the next one of a group that is starting is not far.
const SETTLED_SECONDS: u64 = 10;

/// What Citus refuses most of all is to move a table whose changes it cannot replicate.
const REFUSED: &str = "Give every distributed table a primary key or a replica identity; or move the shards once by hand: SELECT citus_rebalance_start(shard_transfer_mode => 'block_writes');";

pub fn rebalance(view: &View<'_>, registered: &[Registered<'_>], plan: &mut Plan) {
    for known in registered {
        if let Some(tasks) = known.row.tasks {
            let facts = vec![("done", tasks.done.to_string()), ("total", tasks.total.to_string())];
            tell(plan, known.row, &SHARDS_ARE_MOVED, &facts);
        }
    }
    let waiting: Vec<&DistNode> =
        registered.iter().map(|known| known.row).filter(|row| row.waits_for_shards).collect();
    if waiting.is_empty() || !view.policy.rebalance_on_join {
        return;
    }
    match not_now(view, registered, plan, &waiting) {
        Some((why, way)) => {
            let facts = vec![("why", why), ("way", way.unwrap_or_default())];
            for row in waiting {
                tell(plan, row, &HOLDS_NO_SHARDS, &facts);
            }
        }
        None => plan.changes.push(Change::Rebalance),
    }
}

/// Why moving shards has to wait, and what ends that.
fn not_now(
    view: &View<'_>,
    registered: &[Registered<'_>],
    plan: &Plan,
    waiting: &[&DistNode],
) -> Option<(String, Option<String>)> {
    let coordinator = view.seen.coordinator;
    let builds_at = |known: &Registered<'_>| {
        known.sighting.is_some_and(|sighting| sighting.server.index_builds > 0)
    };
    let sick = |worker: &&Worker| {
        worker.nodeid.is_some() && worker.state != State::Active && worker.code != CLONE
    };
    let just = |why: String| Some((why, None));
    if let Some(withheld) = view.withheld(Subject::Shards) {
        let why = situations::of_hindrance(&withheld);
        let way = why.remedy.unwrap_or_else(|| REFUSED.to_owned());
        return Some((why.reason.unwrap_or_default(), Some(way)));
    }
    if let Some(worker) = plan.workers.iter().find(sick) {
        return just(format!("{}:{} is {}", worker.nodename, worker.nodeport, worker.state));
    }
    if let Some(known) =
        registered.iter().find(|known| known.row.hasmetadata && !known.row.metadatasynced)
    {
        return just(format!("the metadata of {} is out of sync", known.row.nodename));
    }
    if coordinator.citus.as_ref().is_some_and(|citus| citus.is_job_running) {
        return just("another background job of Citus is running".into());
    }
    if coordinator.index_builds > 0 || registered.iter().any(builds_at) {
        return just("an index is being built".into());
    }
    let is_joining = plan.changes.iter().any(|change| matches!(change, Change::Register { .. }));
    let is_new = |row: &&DistNode| {
        let identity = coordinator.identities.get(&row.nodeid);
        identity.is_none_or(|identity| identity.recorded_for < SETTLED_SECONDS)
    };
    (is_joining || waiting.iter().any(is_new)).then(|| ("workers have just joined".into(), None))
}

/// Says something of a worker that is in order otherwise.
fn tell(plan: &mut Plan, row: &DistNode, what: &Row, facts: &situations::Facts) {
    let worker = plan.workers.iter_mut().find(|worker| worker.nodeid == Some(row.nodeid));
    let is_free = |worker: &&mut Worker| worker.state == State::Active && worker.reason.is_none();
    if let Some(worker) = worker.filter(is_free) {
        worker.is_now(what.verdict(facts));
    }
}
