//! Owns a healthy cluster in memory: a coordinator, two workers, a table of two shards with an hnsw
//! and a reference table, which tests then harm. Must not check anything.

use crate::login::{LoginFailure, LoginFailureKind};
use crate::search::vector::catalogs::*;
use crate::search::vector::fleet::{Fleet, Thresholds};
use crate::search::vector::model::*;
use crate::search::vector::sizes::{graph_pages, value_bytes};
use crate::search::vector::sources::Sources;
use std::collections::BTreeMap;

pub const ROWS: u64 = 50_000;
const DIMENSIONS: i32 = 64;
const NOW: f64 = 1_000_000.0;

pub struct World {
    pub own: NodeEvidence,
    pub catalogs: Catalogs,
    pub answers: BTreeMap<i32, NodeAnswer>,
    pub recalls: Vec<RecallResult>,
    pub silences: Vec<Silence>,
}

impl World {
    pub fn new() -> Self {
        let shells = vec![
            relation(10, "items", vec![index(11, "items_v_idx", 0)], 0),
            relation(20, "tags", vec![index(21, "tags_v_idx", 0)], 0),
        ];
        let tags =
            |oid| relation(oid, "tags_200", vec![index(oid + 1, "tags_v_idx_200", ROWS)], ROWS);
        let items = |oid, shard: i64| {
            let built = index(oid + 1, &format!("items_v_idx_{shard}"), ROWS);
            relation(oid, &format!("items_{shard}"), vec![built], ROWS)
        };
        let mut world = Self {
            own: node([shells, vec![tags(100)]].concat()),
            catalogs: Catalogs {
                nodes: [(1, 0, "c"), (2, 1, "w1"), (3, 2, "w2")].map(catalog_node).to_vec(),
                tables: vec![
                    table(10, "distributed", Some("tenant")),
                    table(20, "reference", None),
                ],
                shards: vec![
                    shard(10, 100, "items", Some((-2_147_483_648, -1)), 11),
                    shard(10, 101, "items", Some((0, 2_147_483_647)), 11),
                    shard(20, 200, "tags", None, 21),
                ],
                placements: [(100, 1), (101, 2), (200, 0), (200, 1), (200, 2)]
                    .map(placement)
                    .to_vec(),
                job: None,
                cleanups: Vec::new(),
            },
            recalls: Vec::new(),
            silences: Vec::new(),
            answers: BTreeMap::from([
                (2, Ok(node(vec![items(300, 100), tags(310)]))),
                (3, Ok(node(vec![items(400, 101), tags(410)]))),
            ]),
        };
        world.catalogs.job = Some(Job { id: 1, state: "finished".into(), ..Job::default() });
        for (node, name) in [("w1", "items_100"), ("w2", "items_101"), ("c", "tags_200")] {
            world.recalls.push(measured(node, name));
        }
        world.recalls.extend(["w1", "w2"].map(|node| measured(node, "tags_200")));
        world
    }

    pub fn fleet(&self) -> Fleet<'_> {
        let sources = Sources {
            own_port: 5432,
            own: &self.own,
            catalogs: Some(&self.catalogs),
            answers: &self.answers,
            recalls: &self.recalls,
            silences: &self.silences,
        };
        let thresholds = Thresholds {
            index_min_rows: 10_000.0,
            stalled_after: 600.0,
            recall_target: 0.9,
            recall_lasts: 30.0 * 86_400.0,
        };
        Fleet::new(sources, thresholds)
    }

    /// What was measured of the first or the second shard of `items`.
    pub fn recall(&mut self, number: usize) -> &mut RecallResult {
        &mut self.recalls[number]
    }

    /// What was measured of both shards of `items`.
    pub fn recalls_of_items(&mut self, change: impl Fn(&mut RecallResult)) {
        self.recalls[..2].iter_mut().for_each(change);
    }

    /// One more shard of `items` on the first worker.
    pub fn add_shard(&mut self, shardid: i64) {
        let oid = u32::try_from(shardid * 10).unwrap();
        let built = index(oid + 1, &format!("items_v_idx_{shardid}"), ROWS);
        let there = relation(oid, &format!("items_{shardid}"), vec![built], ROWS);
        self.worker(1).relations.push(there);
        self.catalogs.shards.push(shard(10, shardid, "items", None, 11));
        self.catalogs.placements.push(placement((shardid, 1)));
    }

    /// Changes what every node says of itself.
    pub fn nodes(&mut self, change: impl Fn(&mut NodeEvidence)) {
        change(&mut self.own);
        change(self.worker(1));
        change(self.worker(2));
    }

    /// Worker 1 or 2.
    pub fn worker(&mut self, number: i32) -> &mut NodeEvidence {
        self.answers.get_mut(&(number + 1)).unwrap().as_mut().unwrap()
    }

    pub fn silence(&mut self, number: i32, kind: LoginFailureKind) {
        let failure = LoginFailure { kind, message: "no".into() };
        self.answers.insert(number + 1, Err(failure));
    }

    /// The first or the second shard of `items`.
    pub fn shard(&mut self, number: i32) -> &mut Relation {
        &mut self.worker(number + 1).relations[0]
    }

    pub fn index(&mut self, number: i32) -> &mut Index {
        &mut self.shard(number).indexes[0]
    }

    pub fn shell(&mut self) -> &mut Relation {
        &mut self.own.relations[0]
    }

    /// Changes the index of `items` everywhere: on the shell and on both shards.
    pub fn indexes(&mut self, change: impl Fn(&mut Index)) {
        change(&mut self.shell().indexes[0]);
        change(self.index(0));
        change(self.index(1));
    }

    /// Changes `items` everywhere.
    pub fn tables(&mut self, change: impl Fn(&mut Relation)) {
        change(self.shell());
        change(self.shard(0));
        change(self.shard(1));
    }

    /// Makes the index of `items` an ivfflat of so many lists, with so many pages from its build.
    pub fn ivfflat(&mut self, lists: u32, built_pages: u64, pages: u64) {
        self.indexes(|index| {
            index.method = "ivfflat".into();
            index.definition =
                Some(format!("ivfflat (v public.vector_l2_ops) WITH (lists='{lists}')"));
            index.options = vec![format!("lists={lists}")];
            index.pages = Some(pages + 5);
            index.meta = Some(Metapage::Ivfflat {
                version: 1,
                dimensions: 64,
                lists,
                built_pages: Some(built_pages),
                head_pages: Some(5),
            });
        });
    }
}

fn node(relations: Vec<Relation>) -> NodeEvidence {
    let settings = [
        ("maintenance_work_mem", "1073741824"),
        ("max_parallel_maintenance_workers", "2"),
        ("min_parallel_table_scan_size", "8388608"),
        ("enable_indexscan", "on"),
        ("effective_cache_size", "17179869184"),
        ("hnsw.ef_search", "40"),
        ("citus.max_adaptive_executor_pool_size", "16"),
        ("citus.propagate_set_commands", "none"),
    ];
    let setting = |(name, value): (&str, &str)| {
        let source = "default".into();
        (name.to_owned(), Setting { value: value.into(), session: value.into(), source })
    };
    let versions = [("citus", "13.2-1"), ("vector", "0.8.5"), ("citus_fleet", "0.1.0")];
    NodeEvidence {
        observed_at: NOW,
        version_num: 170_011,
        extensions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        settings: settings.map(setting).into(),
        database: "postgres".into(),
        library: Library { installed: Some("0.8.5".into()), is_replaced: false },
        resources: Resources {
            memory: Some(32 << 30),
            disk_free: Some(100 << 30),
            shared_memory: Some(16 << 30),
        },
        vector_schema: Some("public".into()),
        relations,
        ..NodeEvidence::default()
    }
}

/// An index as it is now, by a hundred queries, an hour ago.
fn measured(node: &str, relation: &str) -> RecallResult {
    let (table, shard) = relation.rsplit_once('_').unwrap();
    RecallResult {
        nodename: node.into(),
        nodeport: 5432,
        placement: format!("public.{relation}"),
        index: format!("{table}_v_idx_{shard}"),
        settings: "hnsw.ef_search=40 hnsw.iterative_scan=off".into(),
        k: 10,
        queries: 100,
        recall: 0.97,
        deviation: 0.05,
        returned_ratio: 1.0,
        rows: ROWS,
        measured_at: NOW - 3600.0,
        ..RecallResult::default()
    }
}

fn relation(oid: u32, name: &str, indexes: Vec<Index>, rows: u64) -> Relation {
    Relation {
        oid,
        schema: "public".into(),
        name: name.into(),
        quoted: format!("public.{name}"),
        quoted_schema: "public".into(),
        reltuples: rows as f64,
        relpages: rows / 20,
        pages: Some(rows / 20),
        live: rows,
        last_vacuum: Some(NOW - 60.0),
        last_analyze: Some(NOW - 60.0),
        columns: vec![Column {
            name: "v".into(),
            quoted: "v".into(),
            kind: "vector".into(),
            dimensions: DIMENSIONS,
            null_fraction: Some(0.0),
            ..Column::default()
        }],
        indexes,
        ..Relation::default()
    }
}

fn index(oid: u32, name: &str, rows: u64) -> Index {
    let value = value_bytes("vector", DIMENSIONS).unwrap();
    let pages = graph_pages(value, 16, rows as f64) as u64;
    Index {
        oid,
        name: name.into(),
        quoted: name.into(),
        method: "hnsw".into(),
        valid: true,
        ready: true,
        definition: Some("hnsw (v public.vector_l2_ops)".into()),
        columns: vec!["v".into()],
        kind: "vector".into(),
        dimensions: DIMENSIONS,
        reltuples: rows as f64,
        relpages: pages,
        pages: Some(pages),
        scans: 1,
        meta: Some(Metapage::Hnsw {
            version: 1,
            dimensions: 64,
            m: 16,
            ef_construction: 64,
            has_entry: rows > 0,
        }),
        ..Index::default()
    }
}

fn catalog_node((nodeid, groupid, name): (i32, i32, &str)) -> CatalogNode {
    CatalogNode {
        nodeid,
        groupid,
        nodename: name.into(),
        nodeport: 5432,
        isactive: true,
        shouldhaveshards: groupid != 0,
    }
}

fn table(relation: u32, kind: &str, column: Option<&str>) -> CatalogTable {
    CatalogTable { relation, kind: kind.into(), distribution_column: column.map(str::to_owned) }
}

fn shard(
    relation: u32,
    shardid: i64,
    name: &str,
    range: Option<(i64, i64)>,
    index: u32,
) -> CatalogShard {
    CatalogShard {
        shardid,
        relation,
        minimum: range.map(|(minimum, _)| minimum),
        maximum: range.map(|(_, maximum)| maximum),
        name: format!("{name}_{shardid}"),
        indexes: BTreeMap::from([(index, format!("{name}_v_idx_{shardid}"))]),
    }
}

fn placement((shardid, groupid): (i64, i32)) -> CatalogPlacement {
    CatalogPlacement { shardid, groupid, state: 1 }
}
