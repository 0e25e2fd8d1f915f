//! Owns what a cycle writes down: events, and in `fleet.identities` who the workers are and how far they
//! have come. Must not write anything where nothing has changed.

use super::events::{self, Follow};
use super::memory::Memory;
use crate::apply::identities;
use crate::apply::nodes::Outcome;
use crate::backend::transaction::transaction;
use crate::error::Error;
use decide::membership::change::Change;
use decide::membership::coordinator::Coordinator;
use decide::membership::lineage::{Descent, Lineage, Lsn};
use decide::membership::plan::{Plan, Worker};
use decide::membership::state::State;
use std::collections::BTreeMap;
use std::time::Duration;

/// A worker in order whose server is not recorded as it is: somebody else has registered it, or it has
/// been promoted in place.
struct News {
    nodeid: i32,
    lineage: Lineage,
    lacks: u64,
    follow: Option<Follow>,
}

/// Writes what has changed. `recorded` is how far each worker had come by `fleet.identities`.
pub fn record(
    memory: &mut Memory,
    coordinator: &Coordinator,
    recorded: &BTreeMap<i32, Option<Lsn>>,
    plan: &Plan,
    outcomes: &[Outcome],
    event_retention: Duration,
) -> Result<(), Error> {
    memory.positions.learn(&plan.workers, &memory.endpoints, coordinator);
    let entered = events::changed(&plan.workers, &memory.standings);
    let news = news(memory, coordinator, plan);
    let advanced = memory.positions.advanced(coordinator, recorded);
    let follows: Vec<Follow> = outcomes.iter().filter_map(follow).collect();
    let is_remembered =
        |nodeid: &i32| coordinator.identities.get(nodeid).is_none_or(|known| known.rival.is_some());
    let rivals: Vec<_> = plan.rivals.iter().filter(|(node, _)| !is_remembered(node)).collect();
    let is_gone = |nodeid: &&i32| !coordinator.nodes().iter().any(|row| row.nodeid == **nodeid);
    let gone: Vec<i32> = coordinator.identities.keys().filter(is_gone).copied().collect();
    // Whoever has activated a worker has taken it over: its next disabling is not the fleet's.
    let taken_over: Vec<i32> = coordinator
        .worker_rows()
        .filter(|row| row.isactive && row.hasmetadata)
        .filter(|row| coordinator.identities.get(&row.nodeid).is_some_and(|i| i.disabled_by_fleet))
        .map(|row| row.nodeid)
        .collect();
    let is_quiet = entered.is_empty()
        && news.is_empty()
        && advanced.is_empty()
        && follows.is_empty()
        && rivals.is_empty()
        && gone.is_empty()
        && taken_over.is_empty();
    if !is_quiet {
        transaction(|| {
            for it in &news {
                identities::record(it.nodeid, &it.lineage, None, it.lacks)?;
                it.follow.as_ref().map_or(Ok(()), events::write_follow)?;
            }
            advanced
                .iter()
                .try_for_each(|(node, of, at)| identities::set_position(*node, *of, *at))?;
            for (nodeid, rival) in &rivals {
                if let Some(known) = coordinator.identities.get(nodeid) {
                    identities::set_rival(*nodeid, known.recorded_us, rival)?;
                }
            }
            gone.iter().try_for_each(|nodeid| identities::forget(*nodeid))?;
            taken_over.iter().try_for_each(|nodeid| identities::set_disabled(*nodeid, false))?;
            follows.iter().try_for_each(events::write_follow)?;
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
        transaction(|| events::expire(event_retention))?;
    }
    Ok(())
}

fn news(memory: &Memory, coordinator: &Coordinator, plan: &Plan) -> Vec<News> {
    let in_order = |worker: &&Worker| matches!(worker.state, State::Active | State::Removing);
    let news = plan.workers.iter().filter(in_order).filter_map(|worker| {
        let nodeid = worker.nodeid?;
        let lineage = memory.endpoints.get(&worker.endpoint?)?.server()?.lineage();
        let Some(known) = coordinator.identities.get(&nodeid) else {
            return Some(News { nodeid, lineage, lacks: 0, follow: None });
        };
        if known.record.timeline >= lineage.timeline {
            return None;
        }
        let (switch_point, lacks) = match known.record.descent(&lineage) {
            Descent::Descends { from, lacks } => (from, lacks),
            _ => return None,
        };
        let follow = Follow {
            nodename: worker.nodename.clone(),
            nodeport: worker.nodeport,
            nodeid,
            from: format!("timeline {}", known.record.timeline),
            timeline: lineage.timeline,
            switch_point,
            last_seen: known.record.position,
            lost_bytes: lacks,
        };
        Some(News { nodeid, lineage, lacks, follow: Some(follow) })
    });
    news.collect()
}

/// A row that was led to another server.
fn follow(outcome: &Outcome) -> Option<Follow> {
    let (
        Change::UpdateAddress {
            nodeid,
            from,
            nodename,
            nodeport,
            lineage,
            lacks,
            switch,
            last_seen,
            ..
        },
        Ok(_),
    ) = (&outcome.change, &outcome.result)
    else {
        return None;
    };
    Some(Follow {
        nodename: nodename.clone(),
        nodeport: i32::from(*nodeport),
        nodeid: *nodeid,
        from: format!("{}:{}", from.0, from.1),
        timeline: lineage.timeline,
        switch_point: *switch,
        last_seen: *last_seen,
        lost_bytes: *lacks,
    })
}
