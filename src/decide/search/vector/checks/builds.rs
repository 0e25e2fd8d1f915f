//! Owns the checks of index builds: those under way, and whether the next one will go well.
//! Must not hold pgvector's formulas: `sizes` does.

use super::columns::{is_indexable, is_large};
use super::each::{Spot, each_index};
use super::extensions::{numbers, version_that_runs};
use super::nodes::rounded;
use crate::condition::Condition;
use crate::node::literal;
use crate::search::vector::activity::Build;
use crate::search::vector::finding::{Concern, Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Placement, Table};
use crate::search::vector::model::{Index, Relation};
use crate::search::vector::nodes::FleetNode;
use crate::search::vector::progress;
use crate::search::vector::sizes::{
    GraphMemory, build_bytes, graph_bytes, human, megabytes, shared_bytes, training_bytes,
};

const MEMORY: &str = "maintenance_work_mem";
const WORKERS: &str = "max_parallel_maintenance_workers";
/// Builds of one node at the same time, where Citus does not say.
const POOL: usize = 16;
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

fn graph(node: &FleetNode<'_>, relation: &Relation, index: &Index) -> Option<f64> {
    let rows = relation.indexed_rows(index);
    let memory = GraphMemory::of(&node.allowance()?, relation.table_pages());
    (index.method == "hnsw").then(|| graph_bytes(index, rows, memory))?
}

/// From this version of pgvector on a training makes no room for more rows than the table can have.
const SPARING: [u32; 3] = [0, 8, 5];

fn training(node: &FleetNode<'_>, relation: &Relation, index: &Index) -> Option<f64> {
    let version = node.answer.ok().and_then(version_that_runs).and_then(|version| numbers(version));
    let pages = (version >= Some(SPARING)).then(|| relation.table_pages());
    let rows = relation.indexed_rows(index);
    (index.method == "ivfflat").then(|| training_bytes(index, rows, pages))?
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
        let node = fleet.node(placement);
        let wanted = graph(node, relation, index).or_else(|| training(node, relation, index));
        let wanted = wanted.unwrap_or(0.0);
        most[placement.node] = wanted.max(most[placement.node]);
    }
    most
}

/// Findings for every index whose build wants more memory than its node gives it.
fn short_of_memory(
    fleet: &Fleet<'_>,
    wants: fn(&FleetNode<'_>, &Relation, &Index) -> Option<f64>,
    what: &'static str,
    then: &str,
) -> Vec<Finding> {
    let most = most_wanted(fleet);
    let look = |spot: Spot<'_, '_>| {
        let node = fleet.node(spot.place.placement);
        let wanted = wants(node, spot.place.relation, spot.index)?;
        let given = node.bytes(MEMORY)? as f64;
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

/// How many shards of a node Citus builds at the same time.
fn pool(fleet: &Fleet<'_>) -> usize {
    let settings = fleet.coordinator().1.answer.map(|evidence| &evidence.settings);
    let size = settings.ok().and_then(|it| it.get("citus.max_adaptive_executor_pool_size"));
    size.and_then(|size| size.value.parse().ok()).unwrap_or(POOL)
}

/// Builds of one table on one node, as many at once as Citus starts, that take more of /dev/shm than there is.
pub fn shared_memory(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        let at_once = if table.sharded { pool(fleet) } else { 1 };
        for (number, node) in fleet.nodes.iter().enumerate() {
            findings.extend(crowded_shared(fleet, table, number, node, at_once));
        }
    }
    findings
}

fn crowded_shared(
    fleet: &Fleet<'_>,
    table: &Table<'_>,
    number: usize,
    node: &FleetNode<'_>,
    at_once: usize,
) -> Option<Finding> {
    let room = node.answer.ok()?.resources.shared_memory? as f64;
    let allowance = node.allowance()?;
    let here = table.placements.iter().filter(|placement| placement.node == number);
    let wants = |placement: &Placement<'_>| {
        let relation = placement.relation?;
        let of = |index: &Index| shared_bytes(index, &allowance, relation.table_pages());
        relation.indexes.iter().map(of).reduce(f64::max).or_else(|| {
            // What is not there yet would be hnsw, as the remedies create it.
            let is_wanted = table.shell.columns.iter().any(|column| is_indexable(table, column))
                && is_large(fleet, relation);
            is_wanted.then(|| of(&Index { method: "hnsw".into(), ..Index::default() }))
        })
    };
    let mut wanted: Vec<f64> = here.filter_map(wants).filter(|bytes| *bytes > 0.0).collect();
    wanted.sort_by(|a, b| b.total_cmp(a));
    wanted.truncate(at_once);
    let bytes = wanted.iter().sum::<f64>();
    (bytes > room).then(|| Finding {
        status: Condition::Yellow,
        subject: Concern { table: Some(table.name.to_owned()), ..node.subject() },
        symptom: format!(
            "{} builds at once of {} on {} take {} of /dev/shm, which has {}",
            wanted.len(),
            table.name,
            node.address,
            human(bytes),
            human(room)
        ),
        evidence: Evidence::estimated("bytes of shared memory", bytes.round(), room),
        remedy: Some(Remedy::on_coordinator(format!(
            "SELECT fleet.set_search_option({}, '0')",
            literal(WORKERS)
        ))),
    })
}

pub fn out_of_memory(fleet: &Fleet<'_>) -> Vec<Finding> {
    let pool = pool(fleet);
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
    let allowance = node.allowance()?;
    let memory = node.answer.ok()?.resources.memory? as f64;
    let here = |placement: &&Placement<'_>| placement.node == number;
    let mut wanted: Vec<f64> = table
        .placements
        .iter()
        .filter(here)
        .filter_map(|p| Some((p.relation?, p.counterpart(shell)?)))
        .filter(|(_, index)| index.method == "hnsw")
        .filter_map(|(relation, index)| {
            let rows = relation.indexed_rows(index);
            build_bytes(index, rows, &allowance, relation.table_pages())
        })
        .collect();
    wanted.sort_by(|a, b| b.total_cmp(a));
    let at_once = wanted.iter().take(pool).sum::<f64>();
    if at_once <= memory {
        return None;
    }
    let largest = wanted.first().copied().unwrap_or(allowance.memory);
    let setting = if largest > memory {
        // One build alone is too many.
        node.remedy(format!("ALTER SYSTEM SET {MEMORY} = '{}MB'", megabytes(memory * MOST_MEMORY)))
    } else {
        let fits = (memory * MOST_MEMORY / largest).floor().max(1.0);
        Remedy::on_coordinator(format!(
            "ALTER SYSTEM SET citus.max_adaptive_executor_pool_size = {fits}"
        ))
    };
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
        remedy: Some(setting.then("SELECT pg_catalog.pg_reload_conf()")),
    })
}

/// How many times an index's own size its build writes before the old one is dropped: itself, nearly as
/// much WAL, and for ivfflat the rows, sorted in temporary files. 1.9 and 2.9 times were measured.
fn room(index: &Index) -> f64 {
    if index.method == "ivfflat" { 3.0 } else { 2.0 }
}

pub fn disk(fleet: &Fleet<'_>) -> Vec<Finding> {
    fleet
        .nodes
        .iter()
        .filter_map(|node| {
            let evidence = node.answer.ok()?;
            let free = evidence.resources.disk_free? as f64;
            let indexes = evidence.relations.iter().flat_map(|relation| &relation.indexes);
            let wanted = |index: &Index| index.bytes() as f64 * room(index);
            let most = indexes.max_by(|a, b| wanted(a).total_cmp(&wanted(b)))?;
            (free < wanted(most)).then(|| Finding {
                status: Condition::Red,
                subject: node.subject(),
                symptom: format!(
                    "{} has {} of disk left; a rebuild of {} takes {}",
                    node.address,
                    human(free),
                    most.quoted,
                    human(wanted(most))
                ),
                evidence: Evidence::exact(
                    "free bytes per byte of the index",
                    rounded(free / most.bytes() as f64),
                    room(most),
                ),
                remedy: None,
            })
        })
        .collect()
}
