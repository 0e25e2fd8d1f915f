//! Owns the checks of index builds: those under way, and whether the next one will go well.
//! Must not hold pgvector's formulas: `sizes` does.

use super::columns::filled_rows;
use super::each::{Spot, each_index};
use super::nodes::rounded;
use crate::condition::Condition;
use crate::search::vector::finding::{Concern, Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, FleetNode, Placement, Table};
use crate::search::vector::model::{Build, Index, Relation};
use crate::search::vector::progress;
use crate::search::vector::sizes::{
    LISTS, graph_bytes, human, kmeans_bytes, megabytes, value_bytes,
};

const MEMORY: &str = "maintenance_work_mem";
/// Builds of one node at the same time, where Citus does not say.
const POOL: usize = 16;
/// A build writes the new index before the old one is dropped, and sorts or logs on the side.
const ROOM: f64 = 2.0;
/// More than this of a host's memory is no value for one build.
const MOST_MEMORY: f64 = 0.5;

/// Every build with the table that it belongs to, where that is known.
fn builds<'f>(
    fleet: &'f Fleet<'_>,
) -> impl Iterator<Item = (&'f FleetNode<'f>, Concern, &'f Build)> {
    fleet.nodes.iter().enumerate().flat_map(move |(number, node)| {
        let builds = node.answer.map(|evidence| evidence.builds.as_slice()).unwrap_or_default();
        builds.iter().map(move |build| {
            (node, progress::subject(fleet, number, build.relation, build.index), build)
        })
    })
}

fn stalled_for(fleet: &Fleet<'_>, node: &FleetNode<'_>, build: &Build) -> Option<f64> {
    let waited = node.answer.ok()?.observed_at - build.waiting_since?;
    (waited >= fleet.thresholds.stalled_after).then_some(waited)
}

pub fn running(fleet: &Fleet<'_>) -> Vec<Finding> {
    builds(fleet)
        .filter(|(node, _, build)| stalled_for(fleet, node, build).is_none())
        .map(|(node, subject, build)| Finding {
            status: Condition::Yellow,
            symptom: format!("an index is being built on {}: {}", node.address, build.phase),
            subject,
            evidence: Evidence::exact("done", progress::of_build(build), 1.0),
            remedy: None,
        })
        .collect()
}

pub fn stalled(fleet: &Fleet<'_>) -> Vec<Finding> {
    builds(fleet)
        .filter_map(|(node, subject, build)| {
            let waited = stalled_for(fleet, node, build)?;
            Some(Finding {
                status: Condition::Red,
                symptom: format!(
                    "an index build on {} waits for a lock since {} s: {}",
                    node.address,
                    waited.round(),
                    build.phase
                ),
                subject,
                evidence: Evidence::exact(
                    "seconds of waiting",
                    waited.round(),
                    fleet.thresholds.stalled_after,
                ),
                remedy: Some(
                    node.remedy(format!("SELECT pg_catalog.pg_cancel_backend({})", build.pid)),
                ),
            })
        })
        .collect()
}

/// Rows that an index holds, or would.
fn indexed_rows(relation: &Relation, index: &Index) -> f64 {
    // How many rows a predicate takes was counted when the index was built.
    if index.partial { index.reltuples.max(0.0) } else { filled_rows(relation, index) }
}

fn graph(relation: &Relation, index: &Index) -> Option<f64> {
    let is_graph = index.method == "hnsw";
    is_graph.then(|| graph_bytes(index, indexed_rows(relation, index)))?
}

fn training(relation: &Relation, index: &Index) -> Option<f64> {
    let value = value_bytes(&index.kind, index.dimensions).filter(|_| index.method == "ivfflat")?;
    let lists = index.option("lists", LISTS);
    let rows = indexed_rows(relation, index);
    Some(kmeans_bytes(value, f64::from(index.dimensions), f64::from(lists), rows))
}

/// Raises `maintenance_work_mem` of a node so far that its most demanding build fits.
fn raise(node: &FleetNode<'_>, wanted: f64) -> Option<Remedy> {
    // Room for the rows of the next days.
    let wanted = wanted * 1.2;
    let memory = node.answer.ok()?.resources.memory.map_or(f64::INFINITY, |bytes| bytes as f64);
    (wanted <= memory * MOST_MEMORY).then(|| {
        node.remedy(format!("ALTER SYSTEM SET {MEMORY} = '{}MB'", megabytes(wanted)))
            .then("SELECT pg_catalog.pg_reload_conf()")
    })
}

/// What the most demanding build of each node wants, by the node's position.
fn most_wanted(fleet: &Fleet<'_>) -> Vec<f64> {
    let mut most = vec![0.0; fleet.nodes.len()];
    for (_, placement, relation, _, index) in fleet.indexes() {
        let wanted = graph(relation, index).or_else(|| training(relation, index)).unwrap_or(0.0);
        most[placement.node] = wanted.max(most[placement.node]);
    }
    most
}

/// Findings for every index whose build wants more memory than its node gives it.
fn short_of_memory(
    fleet: &Fleet<'_>,
    wants: fn(&Relation, &Index) -> Option<f64>,
    what: &'static str,
    then: &str,
) -> Vec<Finding> {
    let most = most_wanted(fleet);
    let look = |spot: Spot<'_, '_>| {
        let wanted = wants(spot.place.relation, spot.index)?;
        let given = fleet.node(spot.place.placement).bytes(MEMORY)? as f64;
        (wanted > given).then_some((wanted, given))
    };
    each_index(fleet, look, |spot, (wanted, given), _| {
        let number = spot.place.placement.node;
        Finding {
            status: Condition::Yellow,
            subject: spot.subject(fleet),
            symptom: format!(
                "a build of {} on {} wants {}, and {MEMORY} is {} there: it {then}",
                spot.index.quoted,
                spot.node(fleet),
                human(wanted),
                human(given)
            ),
            evidence: Evidence::estimated(what, wanted.round(), given),
            remedy: raise(&fleet.nodes[number], most[number]),
        }
    })
}

pub fn spill(fleet: &Fleet<'_>) -> Vec<Finding> {
    short_of_memory(fleet, graph, "bytes of the graph", "spills to disk")
}

pub fn training_memory(fleet: &Fleet<'_>) -> Vec<Finding> {
    short_of_memory(fleet, training, "bytes of the training", "fails")
}

pub fn out_of_memory(fleet: &Fleet<'_>) -> Vec<Finding> {
    let pool = fleet
        .nodes
        .iter()
        .filter(|node| node.is_coordinator())
        .find_map(|node| {
            let settings = &node.answer.ok()?.settings;
            settings.get("citus.max_adaptive_executor_pool_size")?.value.parse().ok()
        })
        .unwrap_or(POOL);
    let mut findings = Vec::new();
    for table in fleet.tables.iter().filter(|table| table.sharded) {
        for shell in &table.shell.indexes {
            for (number, node) in fleet.nodes.iter().enumerate() {
                findings.extend(crowded(table, shell, number, node, pool));
            }
        }
    }
    findings
}

/// The builds of one index on all of a node's shards, as many at once as Citus starts.
fn crowded(
    table: &Table<'_>,
    shell: &Index,
    number: usize,
    node: &FleetNode<'_>,
    pool: usize,
) -> Option<Finding> {
    let given = node.bytes(MEMORY)? as f64;
    let memory = node.answer.ok()?.resources.memory? as f64;
    let here = |placement: &&Placement<'_>| placement.node == number;
    let mut wanted: Vec<f64> = table
        .placements
        .iter()
        .filter(here)
        .filter_map(|p| graph(p.relation?, p.counterpart(shell)?))
        .map(|bytes| bytes.min(given))
        .collect();
    wanted.sort_by(|a, b| b.total_cmp(a));
    let at_once = wanted.iter().take(pool).sum::<f64>();
    if at_once <= memory {
        return None;
    }
    let largest = wanted.first().copied().unwrap_or(given);
    let fits = (memory * MOST_MEMORY / largest).floor().max(1.0);
    Some(Finding {
        status: Condition::Red,
        subject: Concern {
            table: Some(table.name.to_owned()),
            index: Some(shell.quoted.clone()),
            ..node.subject()
        },
        symptom: format!(
            "{} builds of {} at once on {} take {}, and the host has {}",
            wanted.len().min(pool),
            shell.quoted,
            node.address,
            human(at_once),
            human(memory)
        ),
        evidence: Evidence::estimated("bytes of all builds at once", at_once.round(), memory),
        remedy: Some(
            Remedy::on_coordinator(format!(
                "ALTER SYSTEM SET citus.max_adaptive_executor_pool_size = {fits}"
            ))
            .then("SELECT pg_catalog.pg_reload_conf()"),
        ),
    })
}

pub fn disk(fleet: &Fleet<'_>) -> Vec<Finding> {
    fleet
        .nodes
        .iter()
        .filter_map(|node| {
            let evidence = node.answer.ok()?;
            let free = evidence.resources.disk_free? as f64;
            let indexes = evidence.relations.iter().flat_map(|relation| &relation.indexes);
            let largest = indexes.max_by_key(|index| index.bytes())?;
            let wanted = largest.bytes() as f64 * ROOM;
            (free < wanted).then(|| Finding {
                status: Condition::Red,
                subject: node.subject(),
                symptom: format!(
                    "{} has {} of disk left; its largest vector index, {}, has {}",
                    node.address,
                    human(free),
                    largest.quoted,
                    human(wanted / ROOM)
                ),
                evidence: Evidence::exact(
                    "free bytes per byte of the largest index",
                    rounded(free / (wanted / ROOM)),
                    ROOM,
                ),
                remedy: None,
            })
        })
        .collect()
}
