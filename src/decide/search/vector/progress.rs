//! Owns how far something is: builds, vacuums and shards on their way to another node.
//! Must not judge whether that is too slow.

use super::activity::{Build, Vacuum};
use super::finding::Concern;
use super::fleet::{Arrival, Fleet};
use super::nodes::FleetNode;
use serde::Serialize;

/// A row of `fleet.vector_progress`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    pub nodename: String,
    pub nodeport: u16,
    pub table_name: Option<String>,
    pub shardid: Option<i64>,
    pub index_name: Option<String>,
    /// `build`, `vacuum` or `move`.
    pub activity: &'static str,
    pub phase: Option<String>,
    /// Done of the phase, between 0 and 1; `None` where PostgreSQL does not say.
    pub ratio: Option<f64>,
    pub elapsed_seconds: Option<f64>,
    /// As long again as it has taken so far, by the share that is left.
    pub remaining_seconds: Option<f64>,
}

/// Everything that is under way.
pub fn rows(fleet: &Fleet<'_>) -> Vec<Progress> {
    let mut rows = Vec::new();
    for (number, node) in fleet.nodes.iter().enumerate() {
        let Ok(evidence) = node.answer else { continue };
        for build in &evidence.builds {
            let subject = subject(fleet, number, build.relation, build.index);
            let (ratio, taken) = (of_build(build), evidence.observed_at - build.started);
            rows.push(row(node, subject, "build", Some(&build.phase), ratio, Some(taken)));
        }
        for vacuum in &evidence.vacuums {
            let subject = subject(fleet, number, vacuum.relation, 0);
            let (ratio, taken) = (of_vacuum(vacuum), evidence.observed_at - vacuum.started);
            rows.push(row(node, subject, "vacuum", Some(&vacuum.phase), ratio, Some(taken)));
        }
    }
    rows.extend(fleet.arrivals.iter().filter(|arrival| !arrival.leaves).map(|arrival| {
        let subject = Concern {
            table: Some(arrival.table.to_owned()),
            shardid: Some(arrival.shardid),
            ..Concern::default()
        };
        row(&fleet.nodes[arrival.node], subject, "move", None, of_arrival(arrival), None)
    }));
    rows
}

fn row(
    node: &FleetNode<'_>,
    subject: Concern,
    activity: &'static str,
    phase: Option<&String>,
    ratio: Option<f64>,
    taken: Option<f64>,
) -> Progress {
    let left = |ratio: f64, taken: f64| taken * (1.0 - ratio) / ratio;
    let remaining = ratio.filter(|&ratio| ratio > 0.0).zip(taken).map(|(r, t)| left(r, t));
    Progress {
        nodename: node.name.clone(),
        nodeport: node.port,
        table_name: subject.table,
        shardid: subject.shardid,
        index_name: subject.index,
        activity,
        phase: phase.cloned(),
        ratio,
        elapsed_seconds: taken,
        remaining_seconds: remaining,
    }
}

fn share(done: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| (done as f64 / total as f64).clamp(0.0, 1.0))
}

/// Done of the phase: hnsw counts blocks of the table, ivfflat counts tuples while it loads them.
pub fn of_build(build: &Build) -> Option<f64> {
    share(build.tuples_done, build.tuples_total)
        .or_else(|| share(build.blocks_done, build.blocks_total))
}

/// A table is read once and written once; how far the indexes are in between nobody counts.
pub fn of_vacuum(vacuum: &Vacuum) -> Option<f64> {
    share(vacuum.blocks_scanned + vacuum.blocks_vacuumed, 2 * vacuum.blocks_total)
}

/// The copy's size against the shard that it is made from.
pub fn of_arrival(arrival: &Arrival<'_>) -> Option<f64> {
    share(arrival.relation.pages?, arrival.source_pages?)
}

/// What a relation and an index of a node are called by an operator.
pub fn subject(fleet: &Fleet<'_>, node: usize, relation: u32, index: u32) -> Concern {
    let placed = fleet
        .placements()
        .find(|(_, placement, found)| placement.node == node && found.oid == relation);
    if let Some((table, placement, _)) = placed {
        let shell =
            placement.indexes.iter().find(|placed| placed.index.is_some_and(|i| i.oid == index));
        let extra = placement.extras.iter().find(|extra| extra.oid == index);
        let name = shell.map(|placed| &placed.shell.quoted).or(extra.map(|extra| &extra.quoted));
        return Concern { index: name.cloned(), ..fleet.subject(table, placement) };
    }
    let arrival = fleet.arrivals.iter().find(|a| a.node == node && a.relation.oid == relation);
    let evidence = fleet.nodes[node].answer.ok();
    let unplaced = || {
        let relations = evidence.map(|evidence| evidence.relations.as_slice()).unwrap_or_default();
        relations.iter().find(|found| found.oid == relation).map(|found| found.quoted.clone())
    };
    Concern {
        table: arrival.map(|arrival| arrival.table.to_owned()).or_else(unplaced),
        shardid: arrival.map(|arrival| arrival.shardid),
        ..fleet.nodes[node].subject()
    }
}
