//! Owns the rows of the views: each placement, index, table and node with what is known of it, and
//! the worst of what was found about it. Must not find anything itself.

use super::checks::Found;
use super::checks::nodes::{index_bytes, rounded, silence};
use super::checks::upkeep::pages_ratio;
use super::finding::Concern;
use super::fleet::{Fleet, Placement, ShardIndex, Table};
use super::model::{Index, Metapage, RecallResult, Relation};
use super::nodes::FleetNode;
use super::recalls::{Recall, recalls};
use super::sizes::{GraphMemory, graph_bytes, page_bytes};
use crate::condition::Condition;
use crate::search::options::is_of_search;
use crate::search::recall::summary::TAIL;
use serde::Serialize;
use std::collections::BTreeMap;

/// A row of `fleet.vector_shards`.
#[derive(Debug, Serialize)]
pub struct ShardRow {
    table_name: String,
    shardid: Option<i64>,
    kind: &'static str,
    nodename: String,
    nodeport: u16,
    status: Condition,
    findings: Vec<&'static str>,
    reason: Option<String>,
    rows: Option<f64>,
    dead_rows: Option<u64>,
    table_bytes: Option<f64>,
    index_bytes: Option<u64>,
    indexes: Option<usize>,
    valid_indexes: Option<usize>,
    last_vacuum: Option<f64>,
    last_analyze: Option<f64>,
}

/// A row of `fleet.vector_indexes`.
#[derive(Debug, Serialize)]
pub struct IndexRow {
    table_name: String,
    shardid: Option<i64>,
    nodename: String,
    nodeport: u16,
    index_name: String,
    shard_index_name: Option<String>,
    method: String,
    columns: Vec<String>,
    status: Condition,
    findings: Vec<&'static str>,
    valid: Option<bool>,
    definition: Option<String>,
    built_with: Option<Metapage>,
    index_bytes: Option<u64>,
    pages_ratio: Option<f64>,
    build_bytes: Option<f64>,
    scans: Option<u64>,
    hit_ratio: Option<f64>,
}

/// A row of `fleet.vector_tables`.
#[derive(Debug, Serialize)]
pub struct TableRow {
    table_name: String,
    partition_of: Option<String>,
    kind: &'static str,
    status: Condition,
    findings: Vec<&'static str>,
    shards: usize,
    placements: usize,
    unknown_placements: usize,
    rows: f64,
    dead_rows: u64,
    table_bytes: f64,
    index_bytes: u64,
    columns: Vec<String>,
}

/// A row of `fleet.vector_recalls`: what is known of one vector index of a table, on all placements.
#[derive(Debug, Serialize)]
pub struct RecallRow {
    table_name: String,
    index_name: String,
    status: Condition,
    reason: Option<String>,
    k: Option<u32>,
    recall: Option<f64>,
    ci_low: Option<f64>,
    ci_high: Option<f64>,
    returned_ratio: Option<f64>,
    queries: u64,
    placements: usize,
    measured_placements: usize,
    settings: Option<String>,
    measured_at: Option<f64>,
}

/// A row of `fleet.vector_nodes`.
#[derive(Debug, Serialize)]
pub struct NodeRow {
    nodename: String,
    nodeport: u16,
    nodeid: Option<i32>,
    status: Condition,
    findings: Vec<&'static str>,
    reason: Option<String>,
    placements: usize,
    rows: Option<f64>,
    index_bytes: Option<u64>,
    effective_cache_size: Option<u64>,
    maintenance_work_mem: Option<u64>,
    memory_bytes: Option<u64>,
    disk_free_bytes: Option<u64>,
    vector_version: Option<String>,
    settings: BTreeMap<String, String>,
    observed_at: Option<f64>,
}

/// The findings by what they are about, so that a thousand rows do not each go through all of them.
pub struct Judged<'f, 'a> {
    fleet: &'f Fleet<'a>,
    by_table: BTreeMap<&'f str, Vec<&'f Found<'a>>>,
    by_node: BTreeMap<&'f str, Vec<&'f Found<'a>>>,
    /// Of all placements of a table at once.
    by_whole_table: BTreeMap<&'f str, Vec<&'f Found<'a>>>,
    by_placement: BTreeMap<RowKey<'f>, Vec<&'f Found<'a>>>,
}

/// Table, shard and node.
type RowKey<'f> = (&'f str, Option<i64>, &'f str);

type Rating = (Condition, Vec<&'static str>);

const UNREACHABLE: &str = "node_unreachable";

impl<'f, 'a> Judged<'f, 'a> {
    pub fn new(fleet: &'f Fleet<'a>, found: &'f [Found<'a>]) -> Self {
        let (mut by_table, mut by_node) = (BTreeMap::new(), BTreeMap::new());
        let (mut by_whole_table, mut by_placement) = (BTreeMap::new(), BTreeMap::new());
        for one in found {
            let Concern { node, table, shardid, .. } = &one.finding.subject;
            if let Some(table) = table {
                by_table.entry(table.as_str()).or_insert_with(Vec::new).push(one);
            }
            if let Some(node) = node {
                by_node.entry(node.as_str()).or_insert_with(Vec::new).push(one);
            }
            match (table, node) {
                (Some(table), Some(node)) => {
                    let place: RowKey<'_> = (table.as_str(), *shardid, node.as_str());
                    by_placement.entry(place).or_insert_with(Vec::new).push(one);
                }
                (Some(table), None) => {
                    by_whole_table.entry(table.as_str()).or_insert_with(Vec::new).push(one);
                }
                _ => {}
            }
        }
        Self { fleet, by_table, by_node, by_whole_table, by_placement }
    }

    pub fn shards(&self) -> Vec<ShardRow> {
        let tables = self.fleet.tables.iter();
        tables.flat_map(|t| t.placements.iter().map(move |p| self.shard(t, p))).collect()
    }

    fn shard(&self, table: &Table<'_>, placement: &Placement<'_>) -> ShardRow {
        let node = self.fleet.node(placement);
        let (status, findings) = self.of_placement(table, placement, None);
        let there = placement.relation;
        ShardRow {
            table_name: table.name.to_owned(),
            shardid: placement.shard.map(|shard| shard.shardid),
            kind: table.kind.as_str(),
            nodename: node.name.clone(),
            nodeport: node.port,
            status,
            findings,
            reason: node.answer.err().map(|failure| failure.message.clone()),
            rows: there.map(|relation| relation.rows().round()),
            dead_rows: there.map(|relation| relation.dead),
            table_bytes: there.map(table_bytes),
            index_bytes: there.map(|r| r.indexes.iter().map(|index| index.bytes()).sum()),
            indexes: there.map(|relation| relation.indexes.len()),
            valid_indexes: there.map(|r| r.indexes.iter().filter(|index| index.valid).count()),
            last_vacuum: there.and_then(|relation| relation.last_vacuum),
            last_analyze: there.and_then(|relation| relation.last_analyze),
        }
    }

    /// What was found about this placement itself or its whole table, or about one index of it; and the
    /// node's silence, because then nothing else can be told.
    fn of_placement(
        &self,
        table: &Table<'_>,
        placement: &Placement<'_>,
        index: Option<&str>,
    ) -> Rating {
        let node = self.fleet.node(placement);
        let shardid = placement.shard.map(|shard| shard.shardid);
        let place: RowKey<'_> = (table.name, shardid, node.address.as_str());
        let of_place = self.by_placement.get(&place).map(Vec::as_slice).unwrap_or_default();
        let of_table = self.by_whole_table.get(table.name).map(Vec::as_slice).unwrap_or_default();
        let about = of_place
            .iter()
            .chain(of_table)
            .filter(|one| index.is_none() || one.finding.subject.index.as_deref() == index);
        let (mut status, mut findings) = rating(about.copied());
        if let Some(silent) = self.silent(node) {
            status = status.max(silent);
            findings.insert(0, UNREACHABLE);
        }
        (status, findings)
    }

    /// How bad it is that a node has not answered; nothing where it has, or where that is meant to be so.
    fn silent(&self, node: &FleetNode<'_>) -> Option<Condition> {
        let failure = node.answer.err()?;
        self.fleet.silence(UNREACHABLE, None).is_none().then(|| silence(failure.kind))
    }

    pub fn indexes(&self) -> Vec<IndexRow> {
        let mut rows = Vec::new();
        for table in &self.fleet.tables {
            for placement in &table.placements {
                rows.extend(
                    placement.indexes.iter().map(|placed| self.index(table, placement, placed)),
                );
                let extra = |shell| ShardIndex { shell, name: &shell.name, index: Some(shell) };
                rows.extend(
                    placement
                        .extras
                        .iter()
                        .map(|index| self.index(table, placement, &extra(*index))),
                );
            }
        }
        rows
    }

    fn index(
        &self,
        table: &Table<'_>,
        placement: &Placement<'_>,
        placed: &ShardIndex<'_>,
    ) -> IndexRow {
        let node = self.fleet.node(placement);
        let (mut status, findings) =
            self.of_placement(table, placement, Some(&placed.shell.quoted));
        if placed.index.is_none() && node.answer.is_ok() {
            // The shard itself may be well without it; this index is not.
            status = Condition::Red;
        }
        let there = placed.index;
        IndexRow {
            table_name: table.name.to_owned(),
            shardid: placement.shard.map(|shard| shard.shardid),
            nodename: node.name.clone(),
            nodeport: node.port,
            index_name: placed.shell.quoted.clone(),
            shard_index_name: there.map(|index| index.quoted.clone()),
            method: placed.shell.method.clone(),
            columns: placed.shell.columns.clone(),
            status,
            findings,
            valid: there.map(|index| index.valid),
            definition: there.and_then(|index| index.definition.clone()),
            built_with: there.and_then(|index| index.meta.clone()),
            index_bytes: there.map(Index::bytes),
            pages_ratio: placement
                .relation
                .zip(there)
                .and_then(|(r, i)| pages_ratio(r, i))
                .map(rounded),
            build_bytes: placement.relation.zip(there).and_then(|(relation, index)| {
                let memory = GraphMemory::of(&node.allowance()?, relation.table_pages());
                (index.method == "hnsw").then(|| graph_bytes(index, relation.rows(), memory))?
            }),
            scans: there.map(|index| index.scans),
            hit_ratio: there
                .filter(|index| index.blocks_fetched > 0)
                .map(|index| rounded(index.blocks_hit as f64 / index.blocks_fetched as f64)),
        }
    }

    pub fn tables(&self) -> Vec<TableRow> {
        self.fleet.tables.iter().map(|table| self.table(table)).collect()
    }

    fn table(&self, table: &Table<'_>) -> TableRow {
        let found = self.by_table.get(table.name).map(Vec::as_slice).unwrap_or_default();
        let (mut status, mut findings) = rating(found.iter().copied());
        let silent = table.placements.iter().filter_map(|p| self.silent(self.fleet.node(p)));
        if let Some(worst) = silent.max() {
            status = status.max(worst);
            findings.insert(0, UNREACHABLE);
        }
        // A row counts once, however many replicas it has.
        let mut rows: BTreeMap<Option<i64>, f64> = BTreeMap::new();
        for placement in &table.placements {
            let shardid = placement.shard.map(|shard| shard.shardid);
            let most = rows.entry(shardid).or_default();
            *most = most.max(placement.relation.map_or(0.0, Relation::rows));
        }
        let known = || table.placements.iter().filter_map(|placement| placement.relation);
        TableRow {
            table_name: table.name.to_owned(),
            partition_of: table.shell.parent.clone(),
            kind: table.kind.as_str(),
            status,
            findings,
            shards: rows.len(),
            placements: table.placements.len(),
            unknown_placements: table.placements.len() - known().count(),
            rows: total(rows.values().copied()).round(),
            dead_rows: known().map(|relation| relation.dead).sum(),
            table_bytes: total(known().map(table_bytes)),
            index_bytes: known().flat_map(|r| &r.indexes).map(|index| index.bytes()).sum(),
            columns: table.shell.columns.iter().map(|column| column.name.clone()).collect(),
        }
    }

    pub fn recalls(&self) -> Vec<RecallRow> {
        recalls(self.fleet).iter().map(|recall| self.recall(recall)).collect()
    }

    fn recall(&self, recall: &Recall<'_, '_>) -> RecallRow {
        let (table, index) = (recall.table, &recall.shell.quoted);
        let found = self.by_table.get(table.name).map(Vec::as_slice).unwrap_or_default();
        let about = found.iter().copied().filter(|one| {
            one.check.indicator == "recall"
                && one.finding.subject.index.as_ref() == Some(index)
                && one.counts()
        });
        let worst = about.max_by_key(|one| one.finding.status);
        let doubt = recall.doubt();
        let measured: Vec<&RecallResult> = recall.measured().map(|(_, result)| result).collect();
        let together = recall.together().filter(|_| doubt.is_none());
        let interval = together.map(|sampled| sampled.interval(TAIL));
        RecallRow {
            table_name: table.name.to_owned(),
            index_name: index.clone(),
            status: match worst {
                Some(worst) => worst.finding.status,
                None if doubt.is_some() => Condition::Unknown,
                None => Condition::Green,
            },
            reason: doubt.or_else(|| worst.map(|one| one.finding.symptom.clone())),
            k: together.and_then(|_| Some(measured.first()?.k)),
            recall: together.map(|sampled| rounded(sampled.mean)),
            ci_low: interval.map(|(low, _)| rounded(low)),
            ci_high: interval.map(|(_, high)| rounded(high)),
            returned_ratio: together
                .and_then(|_| measured.iter().map(|result| result.returned_ratio).reduce(f64::min)),
            queries: recall.queries(),
            placements: recall.placements(),
            measured_placements: measured.len(),
            settings: measured.first().map(|result| result.settings.clone()),
            measured_at: recall.measured_at(),
        }
    }

    pub fn nodes(&self) -> Vec<NodeRow> {
        (0..self.fleet.nodes.len()).map(|number| self.node(number)).collect()
    }

    fn node(&self, number: usize) -> NodeRow {
        let node: &FleetNode<'_> = &self.fleet.nodes[number];
        let found = self.by_node.get(node.address.as_str()).map(Vec::as_slice).unwrap_or_default();
        let (status, findings) = rating(found.iter().copied());
        let evidence = node.answer.ok();
        let placements = self.fleet.tables.iter().flat_map(|table| &table.placements);
        let here: Vec<_> = placements.filter(|placement| placement.node == number).collect();
        NodeRow {
            nodename: node.name.clone(),
            nodeport: node.port,
            nodeid: node.nodeid,
            status,
            findings,
            reason: node.answer.err().map(|failure| failure.message.clone()),
            placements: here.len(),
            rows: evidence
                .map(|_| total(here.iter().filter_map(|p| p.relation).map(Relation::rows))),
            index_bytes: evidence.map(index_bytes),
            effective_cache_size: node.bytes("effective_cache_size"),
            maintenance_work_mem: node.bytes("maintenance_work_mem"),
            memory_bytes: evidence.and_then(|evidence| evidence.resources.memory),
            disk_free_bytes: evidence.and_then(|evidence| evidence.resources.disk_free),
            vector_version: evidence.and_then(|e| e.extensions.get("vector").cloned()),
            settings: evidence
                .iter()
                .flat_map(|evidence| &evidence.settings)
                .filter(|(name, _)| is_of_search(name))
                .map(|(name, setting)| (name.clone(), setting.value.clone()))
                .collect(),
            observed_at: evidence.map(|evidence| evidence.observed_at),
        }
    }
}

/// A sum that is 0 of nothing; that of floats is −0.
fn total(figures: impl Iterator<Item = f64>) -> f64 {
    figures.fold(0.0, |sum, figure| sum + figure)
}

fn table_bytes(relation: &Relation) -> f64 {
    page_bytes(relation.table_pages())
}

/// The worst of some findings, and their ids, each once. What is only worth knowing, or silenced, is left out.
fn rating<'f>(found: impl Iterator<Item = &'f Found<'f>>) -> Rating {
    let (mut status, mut ids) = (Condition::Green, Vec::new());
    for one in found.filter(|one| one.counts()) {
        status = status.max(one.finding.status);
        if !ids.contains(&one.check.id) {
            ids.push(one.check.id);
        }
    }
    (status, ids)
}
