//! Owns the whole picture: which table has which placements on which nodes, and what each node says
//! of them. Must not judge it: the checks do.

use super::catalogs::{CatalogShard, CatalogTable, Catalogs, Cleanup, Job};
use super::finding::{Concern, Remedy};
use super::model::{Index, NodeEvidence, RecallResult, Relation, Silence};
use super::nodes::{FleetNode, nodes};
use super::sources::Sources;
use std::collections::{BTreeSet, HashMap};

/// What operators may want otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// A placement with fewer rows needs no index: reading all of it is as fast.
    pub index_min_rows: f64,
    /// Seconds without visible progress after which something counts as stuck.
    pub stalled_after: f64,
    /// What every index should find, from 0 to 1.
    pub recall_target: f64,
    /// Seconds for which a measured recall counts.
    pub recall_lasts: f64,
}

#[derive(Debug)]
pub struct Fleet<'a> {
    pub thresholds: Thresholds,
    /// When the coordinator looked, in seconds since 1970.
    pub observed_at: f64,
    pub nodes: Vec<FleetNode<'a>>,
    pub tables: Vec<Table<'a>>,
    pub arrivals: Vec<Arrival<'a>>,
    pub job: Option<&'a Job>,
    pub recalls: &'a [RecallResult],
    pub silences: &'a [Silence],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Distributed,
    Reference,
    /// A table of one shard: schema-based, or distributed without a column.
    Schema,
    /// A table of this server alone.
    Local,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Distributed => "distributed",
            Self::Reference => "reference",
            Self::Schema => "schema",
            Self::Local => "local",
        }
    }
}

/// A table with vectors that has rows: a partitioned one is there as its partitions.
#[derive(Debug)]
pub struct Table<'a> {
    /// With its schema, ready for a statement.
    pub name: &'a str,
    pub kind: Kind,
    /// The table on the coordinator, which for a Citus table is only a shell.
    pub shell: &'a Relation,
    /// Whether the shell stands for shards.
    pub sharded: bool,
    pub distribution_column: Option<&'a str>,
    pub placements: Vec<Placement<'a>>,
}

/// A shard on a node; or a table of this server alone, which has no shard.
#[derive(Debug)]
pub struct Placement<'a> {
    pub shard: Option<&'a CatalogShard>,
    /// Position in `Fleet::nodes`.
    pub node: usize,
    /// Whether Citus reads it.
    pub healthy: bool,
    /// `None` where it is not there, or its node did not answer.
    pub relation: Option<&'a Relation>,
    /// Its counterpart of each index of the shell, in the same order.
    pub indexes: Vec<ShardIndex<'a>>,
    /// Indexes that the shell knows nothing of.
    pub extras: Vec<&'a Index>,
}

#[derive(Debug)]
pub struct ShardIndex<'a> {
    pub shell: &'a Index,
    /// What it is, or would be, called on its node.
    pub name: &'a str,
    pub index: Option<&'a Index>,
}

/// A shard that is on a node but not (yet, or any more) a placement: on its way there, or left over.
#[derive(Debug)]
pub struct Arrival<'a> {
    pub table: &'a str,
    pub shardid: i64,
    pub node: usize,
    pub relation: &'a Relation,
    /// Pages of the placement that it is made from.
    pub source_pages: Option<u64>,
    /// Whether it awaits removal because it has moved away, or because its move has failed.
    pub leaves: bool,
}

impl<'a> Fleet<'a> {
    pub fn new(sources: Sources<'a>, thresholds: Thresholds) -> Self {
        let nodes = nodes(&sources);
        let lookup = Relations::new(&nodes);
        let mut fleet = Self {
            thresholds,
            observed_at: sources.own.observed_at,
            tables: Vec::new(),
            arrivals: Vec::new(),
            recalls: sources.recalls,
            silences: sources.silences,
            job: sources.catalogs.and_then(|catalogs| catalogs.job.as_ref()),
            nodes,
        };
        match sources.catalogs {
            Some(catalogs) => fleet.add_citus(sources.own, catalogs, &lookup),
            None => fleet.tables.extend(sources.own.relations.iter().map(|r| local(r, 0))),
        }
        fleet.tables.retain(|table| !table.shell.partitioned);
        fleet.tables.sort_by_key(|table| table.name);
        fleet
    }

    fn add_citus(&mut self, own: &'a NodeEvidence, catalogs: &'a Catalogs, lookup: &Relations<'a>) {
        let mut shards: HashMap<u32, Vec<&CatalogShard>> = HashMap::new();
        for shard in &catalogs.shards {
            shards.entry(shard.relation).or_default().push(shard);
        }
        let mut places: HashMap<i64, Vec<(usize, bool)>> = HashMap::new();
        let numbers: HashMap<i32, usize> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(number, node)| (node.groupid, number))
            .rev()
            .collect();
        for placement in &catalogs.placements {
            let Some(&node) = numbers.get(&placement.groupid) else { continue };
            places.entry(placement.shardid).or_default().push((node, placement.state == 1));
        }
        let known: HashMap<u32, &CatalogTable> =
            catalogs.tables.iter().map(|table| (table.relation, table)).collect();
        let (coordinator, _) = self.coordinator();
        let mut ours: Shards<'a> = HashMap::new();
        for shell in &own.relations {
            let Some(table) = known.get(&shell.oid) else { continue };
            let own_shards = shards.get(&shell.oid).map(Vec::as_slice).unwrap_or_default();
            for &shard in own_shards {
                ours.insert((&shell.schema, &shard.name), (&shell.quoted, shard));
            }
            self.tables.push(sharded(shell, table, own_shards, &places, lookup));
        }
        self.find_arrivals(&ours, &places, &catalogs.cleanups, lookup);
        let is_shard = |r: &Relation| ours.contains_key(&(r.schema.as_str(), r.name.as_str()));
        let locals = own.relations.iter().filter(|r| !known.contains_key(&r.oid) && !is_shard(r));
        self.tables.extend(locals.map(|relation| local(relation, coordinator)));
    }

    fn find_arrivals(
        &mut self,
        ours: &Shards<'a>,
        places: &HashMap<i64, Vec<(usize, bool)>>,
        cleanups: &[Cleanup],
        lookup: &Relations<'a>,
    ) {
        const AFTER_SUCCESS: i32 = 2;
        let deferred = cleanups.iter().filter(|cleanup| cleanup.policy == AFTER_SUCCESS);
        let leaving: BTreeSet<(i32, i64)> = deferred
            .filter_map(|cleanup| Some((cleanup.groupid, shardid_of(&cleanup.object)?)))
            .collect();
        for (number, node) in self.nodes.iter().enumerate() {
            let relations = node.answer.map(|evidence| evidence.relations.as_slice());
            for relation in relations.unwrap_or_default().iter().filter(|r| !r.partitioned) {
                let key = (relation.schema.as_str(), relation.name.as_str());
                let Some(&(table, shard)) = ours.get(&key) else { continue };
                let placed = places.get(&shard.shardid).map(Vec::as_slice).unwrap_or_default();
                if placed.iter().any(|(at, _)| *at == number) {
                    continue;
                }
                let source = |&(at, _): &(usize, bool)| lookup.relation(at, key.0, key.1)?.pages;
                self.arrivals.push(Arrival {
                    table,
                    shardid: shard.shardid,
                    node: number,
                    relation,
                    source_pages: placed.iter().find_map(source),
                    leaves: leaving.contains(&(node.groupid, shard.shardid)),
                });
            }
        }
        self.arrivals.sort_by_key(|arrival| (arrival.table, arrival.shardid, arrival.node));
    }

    /// The coordinator, which is always there, and its number.
    pub fn coordinator(&self) -> (usize, &FleetNode<'a>) {
        let number = self.nodes.iter().position(FleetNode::is_coordinator).unwrap_or(0);
        (number, &self.nodes[number])
    }

    pub fn node(&self, placement: &Placement<'_>) -> &FleetNode<'a> {
        &self.nodes[placement.node]
    }

    /// What silences this check, of a table or of the whole cluster.
    pub fn silence(&self, check: &str, table: Option<&str>) -> Option<&'a Silence> {
        let is_meant = |silence: &&Silence| {
            let of_table =
                table.is_some_and(|table| silence.relations.iter().any(|it| it == table));
            silence.check == check && (silence.table_name.is_none() || of_table)
        };
        self.silences.iter().find(is_meant)
    }

    /// Every placement whose node has told of it, with its table.
    pub fn placements(&self) -> impl Iterator<Item = (&Table<'a>, &Placement<'a>, &'a Relation)> {
        self.tables.iter().flat_map(|table| {
            table.placements.iter().filter_map(move |p| Some((table, p, p.relation?)))
        })
    }

    /// Every index of a placement that is there: its table, placement, relation, and both sides.
    pub fn indexes(
        &self,
    ) -> impl Iterator<Item = (&Table<'a>, &Placement<'a>, &'a Relation, &ShardIndex<'a>, &'a Index)>
    {
        self.placements().flat_map(|(table, placement, relation)| {
            placement
                .indexes
                .iter()
                .filter_map(move |placed| Some((table, placement, relation, placed, placed.index?)))
        })
    }

    pub fn subject(&self, table: &Table<'_>, placement: &Placement<'_>) -> Concern {
        Concern {
            node: Some(self.node(placement).address.clone()),
            table: Some(table.name.to_owned()),
            shardid: placement.shard.map(|shard| shard.shardid),
            index: None,
        }
    }

    pub fn subject_of(
        &self,
        table: &Table<'_>,
        placement: &Placement<'_>,
        index: &Index,
    ) -> Concern {
        Concern { index: Some(index.quoted.clone()), ..self.subject(table, placement) }
    }

    /// Statements on the node of a placement.
    pub fn on_node_of(&self, placement: &Placement<'_>, sql: impl Into<String>) -> Remedy {
        self.nodes[placement.node].remedy(sql)
    }
}

impl<'a> Table<'a> {
    /// What stands on its placements for an index of the shell.
    pub fn counterparts(&self, shell: &Index) -> Vec<&'a Index> {
        self.placements.iter().filter_map(|placement| placement.counterpart(shell)).collect()
    }

    pub fn subject(&self) -> Concern {
        Concern { table: Some(self.name.to_owned()), ..Concern::default() }
    }

    pub fn subject_of_index(&self, shell: &Index) -> Concern {
        Concern { index: Some(shell.quoted.clone()), ..self.subject() }
    }
}

impl<'a> Placement<'a> {
    /// What stands here for an index of the shell.
    pub fn counterpart(&self, shell: &Index) -> Option<&'a Index> {
        self.indexes.iter().find(|placed| placed.shell.oid == shell.oid)?.index
    }
}

/// An identifier for a statement, quoted whether it has to be or not.
pub fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Every shard, with its table, by its schema and name.
type Shards<'a> = HashMap<(&'a str, &'a str), (&'a str, &'a CatalogShard)>;

/// The number that the name of a shard ends with, quoted or not.
fn shardid_of(name: &str) -> Option<i64> {
    name.trim_end_matches('"').rsplit('_').next()?.parse().ok()
}

/// The relations of every node by schema and name.
struct Relations<'a>(Vec<HashMap<(&'a str, &'a str), &'a Relation>>);

impl<'a> Relations<'a> {
    fn new(nodes: &[FleetNode<'a>]) -> Self {
        let by_name = |evidence: &'a NodeEvidence| {
            evidence.relations.iter().map(|r| ((r.schema.as_str(), r.name.as_str()), r)).collect()
        };
        Self(nodes.iter().map(|node| node.answer.map(by_name).unwrap_or_default()).collect())
    }

    fn relation(&self, node: usize, schema: &str, name: &str) -> Option<&'a Relation> {
        self.0[node].get(&(schema, name)).copied()
    }
}

fn local(relation: &Relation, node: usize) -> Table<'_> {
    let indexes = relation
        .indexes
        .iter()
        .filter(|index| !is_leftover(index))
        .map(|index| ShardIndex { shell: index, name: &index.name, index: Some(index) })
        .collect();
    let extras = relation.indexes.iter().filter(|index| is_leftover(index)).collect();
    Table {
        name: &relation.quoted,
        kind: Kind::Local,
        shell: relation,
        sharded: false,
        distribution_column: None,
        placements: vec![Placement {
            shard: None,
            node,
            healthy: true,
            relation: Some(relation),
            indexes,
            extras,
        }],
    }
}

fn sharded<'a>(
    shell: &'a Relation,
    table: &'a CatalogTable,
    shards: &[&'a CatalogShard],
    places: &HashMap<i64, Vec<(usize, bool)>>,
    lookup: &Relations<'a>,
) -> Table<'a> {
    let placements = shards
        .iter()
        .flat_map(|shard| {
            let placed = places.get(&shard.shardid).map(Vec::as_slice).unwrap_or_default();
            placed.iter().map(|&(node, healthy)| {
                let relation = lookup.relation(node, &shell.schema, &shard.name);
                let (indexes, extras) = matched(shell, shard, relation);
                Placement { shard: Some(shard), node, healthy, relation, indexes, extras }
            })
        })
        .collect();
    Table {
        name: &shell.quoted,
        kind: match table.kind.as_str() {
            "distributed" => Kind::Distributed,
            "reference" => Kind::Reference,
            "schema" => Kind::Schema,
            _ => Kind::Local,
        },
        shell,
        sharded: true,
        distribution_column: table.distribution_column.as_deref(),
        placements,
    }
}

/// Finds the counterparts of the shell's indexes on a shard by the names that Citus gives them.
fn matched<'a>(
    shell: &'a Relation,
    shard: &'a CatalogShard,
    relation: Option<&'a Relation>,
) -> (Vec<ShardIndex<'a>>, Vec<&'a Index>) {
    let there = relation.map(|relation| relation.indexes.as_slice()).unwrap_or_default();
    let indexes: Vec<ShardIndex<'a>> = shell
        .indexes
        .iter()
        .filter(|index| !is_leftover(index))
        .filter_map(|index| {
            let name = shard.indexes.get(&index.oid)?;
            let index_there = there.iter().find(|candidate| candidate.name == *name);
            Some(ShardIndex { shell: index, name, index: index_there })
        })
        .collect();
    let matched: BTreeSet<u32> =
        indexes.iter().filter_map(|placed| Some(placed.index?.oid)).collect();
    (indexes, there.iter().filter(|index| !matched.contains(&index.oid)).collect())
}

/// Whether it is what REINDEX CONCURRENTLY was building or about to drop: not valid, and of a name that it gives
/// to such (`_ccnew`, `_ccold`, and a number where that name was taken).
pub fn is_leftover(index: &Index) -> bool {
    let stem = index.name.trim_end_matches(|c: char| c.is_ascii_digit());
    !index.valid && (stem.ends_with("_ccnew") || stem.ends_with("_ccold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reindex_leaves_behind_is_known_by_its_name() {
        let named = |name: &str| Index { name: name.into(), ..Index::default() };
        assert!(!is_leftover(&Index { valid: true, ..named("i_ccnew") }), "somebody calls his so");
        for name in ["i_ccnew", "i_ccold", "i_102008_ccnew1"] {
            assert!(is_leftover(&named(name)), "{name}");
        }
        for name in ["i", "ccnew", "i_ccnewer", "i_ccnew_102008"] {
            assert!(!is_leftover(&named(name)), "{name}");
        }
    }

    #[test]
    fn a_shard_is_known_by_the_end_of_its_name() {
        assert_eq!(shardid_of("public.items_102008"), Some(102008));
        assert_eq!(shardid_of("\"odd one\".\"it's_1_102008\""), Some(102008));
        assert_eq!(shardid_of("public.items"), None);
    }

    #[test]
    fn an_identifier_cannot_break_out() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
    }
}
