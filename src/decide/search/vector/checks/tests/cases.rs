//! Owns the table of cases: which harm to a healthy cluster makes which check speak, and how bad it is.
//! Must not hold what comes close without being harm: `near_misses` does.

use super::world::{ROWS, World};
use crate::condition::Condition::{self, *};
use crate::login::LoginFailureKind;
use crate::search::vector::activity::*;
use crate::search::vector::catalogs::*;
use crate::search::vector::model::*;

pub type Harm = fn(&mut World);

pub const CASES: &[(&str, Condition, Harm)] = &[
    ("node_unreachable", Red, |w| w.silence(1, LoginFailureKind::Timeout)),
    ("node_unreachable", Red, |w| w.silence(1, LoginFailureKind::Refused)),
    // Citus's own connections may do better than ours.
    ("node_unreachable", Unknown, |w| w.silence(1, LoginFailureKind::NotPermitted)),
    ("node_unreachable", Red, |w| w.catalogs.nodes[1].isactive = false),
    ("placement_missing", Red, |w| drop(w.worker(1).relations.remove(0))),
    ("placement_missing", Red, |w| w.catalogs.placements[0].state = 3),
    ("ext_skew", Yellow, |w| version(w, "0.8.4")),
    ("ext_skew", Red, |w| drop(w.worker(1).extensions.remove("vector"))),
    ("ext_buggy", Yellow, |w| version(w, "0.8.3")),
    ("ext_buggy", Yellow, |w| version(w, "0.7")),
    ("memory_fit", Yellow, |w| set(w, "effective_cache_size", 8192)),
    ("memory_fit", Yellow, |w| memory(w, Some(NEARLY))),
    ("memory_fit", Red, |w| memory(w, Some(NEARLY / 2))),
    // The host's memory is not known: a hint alone proves nothing.
    ("memory_fit", Yellow, |w| {
        memory(w, None);
        set(w, "effective_cache_size", 8192);
    }),
    ("guc_drift", Yellow, |w| set(w, "hnsw.ef_search", 100)),
    ("guc_drift", Yellow, |w| {
        w.own.settings.get_mut("hnsw.ef_search").unwrap().session = "200".into()
    }),
    ("recall_low", Yellow, |w| w.recalls_of_items(|it| it.recall = 0.85)),
    ("recall_low", Red, |w| w.recalls_of_items(|it| it.recall = 0.6)),
    // One of them alone.
    ("recall_low", Yellow, |w| w.recall(0).recall = 0.82),
    ("recall_unknown", Unknown, |w| w.recalls.clear()),
    ("recall_unknown", Unknown, |w| drop(w.recalls.drain(..2))),
    ("recall_unknown", Unknown, |w| w.recalls_of_items(|it| it.filenode += 1)),
    ("recall_unknown", Unknown, |w| w.recalls_of_items(|it| it.nodename = "w3".into())),
    ("recall_unknown", Unknown, |w| {
        w.recalls_of_items(|it| it.settings = "hnsw.ef_search=20".into())
    }),
    ("recall_unknown", Unknown, |w| w.recalls_of_items(|it| it.queries = 7)),
    ("recall_unknown", Unknown, |w| w.recalls_of_items(|it| it.measured_at -= 200.0 * 86_400.0)),
    ("recall_unknown", Unknown, |w| w.tables(|table| table.inserted += ROWS * 19)),
    // The statistics were reset, or lost in a crash, since: also where as much was written again.
    ("recall_unknown", Unknown, |w| w.recalls_of_items(|it| it.written = 9)),
    ("recall_unknown", Unknown, |w| w.nodes(|node| node.counted_since = Some(7.0))),
    ("recall_unknown", Unknown, |w| w.recalls_of_items(|it| it.measured_at += 400.0 * 86_400.0)),
    // A node that is down has half of the placements; and many small shards have an index all the same.
    ("recall_unknown", Unknown, |w| w.silence(2, LoginFailureKind::Refused)),
    ("recall_unknown", Unknown, |w| {
        w.recalls.clear();
        w.tables(|table| (table.live, table.reltuples) = (9_000, 9_000.0));
    }),
    ("role_settings", Yellow, |w| w.nodes(|node| give_app(node, "hnsw.ef_search", "1"))),
    ("role_settings", Yellow, |w| give_app(w.worker(1), "hnsw.ef_search", "1")),
    // More than others is worth knowing.
    ("role_settings", Green, |w| w.nodes(|node| give_app(node, "hnsw.ef_search", "400"))),
    ("index_scans_off", Yellow, |w| w.nodes(|node| give_app(node, "enable_indexscan", "off"))),
    // As they are typed.
    ("index_scans_off", Yellow, |w| w.nodes(|node| give_app(node, "enable_indexscan", "False"))),
    ("role_settings", Yellow, |w| {
        w.nodes(|node| {
            let of_all = node.settings.entry("hnsw.iterative_scan".into()).or_default();
            of_all.value = "relaxed_order".into();
            give_app(node, "hnsw.iterative_scan", "OFF");
        });
    }),
    ("index_scans_off", Yellow, |w| {
        w.worker(1).settings.get_mut("enable_indexscan").unwrap().value = "off".into();
    }),
    ("ext_library", Yellow, |w| w.worker(1).library.is_replaced = true),
    ("ext_library", Yellow, |w| w.worker(1).library.installed = Some("0.8.6".into())),
    ("ext_library", Yellow, |w| w.nodes(|node| node.library.installed = Some("0.8.6".into()))),
    ("operator_unserved", Yellow, |w| search(w, "<=>", 5000)),
    ("build_shm", Yellow, |w| w.worker(1).resources.shared_memory = Some(64 << 20)),
    // The index is not there yet.
    ("build_shm", Yellow, |w| {
        w.tables(|table| table.indexes.clear());
        w.worker(1).resources.shared_memory = Some(64 << 20);
    }),
    // One use is no use, where all others read everything.
    ("index_unused", Yellow, |w| {
        w.tables(|table| table.rows_read = ROWS * 500);
    }),
    // A crash has taken what was counted.
    ("dead_tuples", Unknown, |w| {
        let shard = w.shard(0);
        (shard.live, shard.inserted, shard.last_vacuum, shard.last_analyze) = (0, 0, None, None);
    }),
    // An index that was cancelled before it was on any shard.
    ("shell_invalid", Yellow, |w| {
        w.shell().indexes[0].valid = false;
        w.shard(0).indexes.clear();
        w.shard(1).indexes.clear();
    }),
    ("index_missing", Red, |w| w.shard(0).indexes.clear()),
    ("index_missing", Yellow, |w| w.tables(|table| table.indexes.clear())),
    ("index_missing", Yellow, |w| {
        w.tables(|table| {
            table.indexes.clear();
            (table.rows_read, table.rows_fetched) = (9 * ROWS, 3 * ROWS);
        })
    }),
    // Few rows, but unlike all other shards.
    ("index_missing", Yellow, |w| {
        w.shard(0).indexes.clear();
        w.shard(0).live = 10;
    }),
    ("index_partial", Yellow, |w| {
        w.indexes(|index| (index.partial, index.reltuples) = (true, ROWS as f64 / 100.0));
    }),
    ("not_indexable", Yellow, |w| unindexed_column(w, -1)),
    ("not_indexable", Yellow, |w| unindexed_column(w, 3072)),
    ("not_indexable", Yellow, |w| unindexed_column(w, 8000)),
    ("index_invalid", Red, |w| w.index(0).valid = false),
    ("index_invalid", Yellow, |w| {
        let twin = Index { oid: 999, name: "twin".into(), ..w.index(0).clone() };
        w.index(0).valid = false;
        w.shard(0).indexes.push(twin);
    }),
    // Of another operator class it answers other searches.
    ("index_invalid", Red, |w| {
        let mut twin = Index { oid: 999, name: "twin".into(), ..w.index(0).clone() };
        twin.definition = Some("hnsw (v public.vector_cosine_ops)".into());
        w.index(0).valid = false;
        w.shard(0).indexes.push(twin);
    }),
    ("ccnew_leftover", Yellow, |w| leave(w.shard(0), "items_v_idx_100_ccnew")),
    ("ccnew_leftover", Yellow, |w| leave(w.shell(), "items_v_idx_ccnew1")),
    ("shell_invalid", Yellow, |w| w.shell().indexes[0].valid = false),
    ("def_drift", Yellow, |w| w.index(0).definition = Some("hnsw (v public.vector_ip_ops)".into())),
    ("def_drift", Yellow, |w| {
        w.index(0).options = vec!["m=8".into()];
        w.index(0).definition = Some("hnsw (v public.vector_l2_ops) WITH (m='8')".into());
    }),
    ("def_drift", Yellow, |w| {
        let extra = Index { oid: 999, name: "mine".into(), ..w.index(0).clone() };
        w.shard(0).indexes.push(extra);
    }),
    ("option_not_applied", Yellow, |w| w.indexes(|index| index.options = vec!["m=32".into()])),
    ("option_not_applied", Yellow, |w| {
        w.ivfflat(50, 700, 700);
        w.index(0).options = vec!["lists=60".into()];
    }),
    ("empty_graph", Red, |w| empty(w, Some(0.5))),
    // All are NULL, which they may be.
    ("empty_graph", Green, |w| empty(w, Some(1.0))),
    ("empty_graph", Yellow, |w| empty(w, None)),
    // Zero vectors, by the cosine.
    ("empty_graph", Yellow, |w| {
        empty(w, Some(0.0));
        w.index(0).definition = Some("hnsw (v public.vector_cosine_ops)".into());
    }),
    ("index_unused", Yellow, |w| {
        w.indexes(|index| index.scans = 0);
        w.shard(0).rows_read = 120 * ROWS;
    }),
    ("build_running", Yellow, |w| build(w, None)),
    ("build_stalled", Red, |w| build(w, Some(700.0))),
    ("build_spill", Yellow, |w| set(w, "maintenance_work_mem", 64 << 20 >> 2)),
    ("build_oom", Red, |w| {
        set(w, "maintenance_work_mem", 100 << 30);
        set(w, "max_parallel_maintenance_workers", 0);
        count(w.shard(0), 40_000_000);
    }),
    // A parallel build takes all of maintenance_work_mem, however few the rows are.
    ("build_oom", Red, |w| set(w, "maintenance_work_mem", 100 << 30)),
    ("ivf_build_mem", Yellow, |w| {
        w.ivfflat(50, 700, 700);
        set(w, "maintenance_work_mem", 1 << 20);
    }),
    ("ivf_build_mem", Yellow, |w| {
        w.ivfflat(50, 700, 700);
        version(w, "0.8.0");
        set(w, "maintenance_work_mem", 2 << 20);
        w.tables(|table| (table.live, table.reltuples, table.pages) = (1000, -1.0, Some(20)));
    }),
    ("disk_for_rebuild", Red, |w| w.worker(1).resources.disk_free = Some(1 << 20)),
    ("disk_for_rebuild", Red, |w| {
        w.ivfflat(50, 10_000, 10_000);
        w.worker(1).resources.disk_free = Some(25_000 * PAGE);
    }),
    ("bloat", Yellow, |w| {
        let pages = w.index(0).pages.unwrap();
        w.index(0).pages = Some(pages * 2);
    }),
    // Rows without a vector need no page.
    ("bloat", Yellow, |w| w.shard(0).columns[0].null_fraction = Some(0.6)),
    ("dead_tuples", Yellow, |w| w.shard(0).dead = ROWS / 7),
    ("dead_tuples", Red, |w| w.shard(0).dead = ROWS / 2),
    ("vacuum_stuck", Yellow, |w| vacuum(w, "vacuuming indexes", 700.0)),
    ("unindexed_rows", Green, |w| w.shard(0).columns[0].null_fraction = Some(0.005)),
    ("unindexed_rows", Yellow, |w| w.shard(0).columns[0].null_fraction = Some(0.2)),
    ("unindexed_rows", Green, |w| w.tables(|table| table.columns[0].null_fraction = Some(0.7))),
    ("stats_stale", Yellow, |w| w.shard(0).modified = ROWS),
    ("stats_stale", Yellow, |w| {
        w.shard(0).modified = 2000;
        w.shard(0).reltuples = -1.0;
    }),
    ("ivf_training", Red, |w| w.ivfflat(50, 50, 700)),
    ("ivf_training", Yellow, |w| w.ivfflat(50, 200, 700)),
    ("ivf_lists", Yellow, |w| w.ivfflat(1000, 2000, 2000)),
    ("ivf_lists", Yellow, |w| w.ivfflat(5, 700, 700)),
    ("skew", Yellow, |w| {
        count(w.shard(0), 10 * ROWS);
        tenant(w.shard(0), 0.9);
    }),
    // Several tenants that share a shard.
    ("skew", Green, |w| {
        count(w.shard(0), 10 * ROWS);
        tenant(w.shard(0), 0.51);
    }),
    ("skew", Yellow, two_shards_on_one_node),
    ("replica_divergence", Yellow, |w| w.worker(1).relations[1].live = ROWS / 2),
    ("move_in_flight", Yellow, |w| {
        let copy = Relation { oid: 999, pages: Some(100), ..w.shard(0).clone() };
        w.worker(2).relations.push(copy);
    }),
    ("move_in_flight", Yellow, |w| {
        w.worker(1).slots.push(Slot { name: "citus_shard_move_slot_1".into(), ..Slot::default() })
    }),
    ("move_in_flight", Green, |w| {
        let copy = Relation { oid: 999, ..w.shard(0).clone() };
        w.worker(2).relations.push(copy);
        let object = "public.items_100".to_owned();
        w.catalogs.cleanups.push(Cleanup { groupid: 2, object, policy: 2 });
    }),
    ("job_failed", Yellow, |w| w.catalogs.job.as_mut().unwrap().state = "failed".into()),
];

/// So many rows, known by the statistics alone.
pub fn count(relation: &mut Relation, rows: u64) {
    (relation.live, relation.reltuples) = (rows, -1.0);
}

/// Lets one tenant have this share of a shard's rows.
pub fn tenant(shard: &mut Relation, share: f64) {
    shard.dominant.insert("tenant".into(), share);
}

pub fn two_shards_on_one_node(world: &mut World) {
    let shard = world.worker(2).relations.remove(0);
    world.worker(1).relations.push(shard);
    world.catalogs.placements[1].groupid = 1;
}

pub fn set(world: &mut World, name: &str, value: u64) {
    world.worker(1).settings.get_mut(name).unwrap().value = value.to_string();
}

/// Somewhat more than the indexes of the first worker take.
pub const NEARLY: u64 = 60 << 20;

pub fn memory(world: &mut World, bytes: Option<u64>) {
    world.worker(1).resources.memory = bytes;
}

pub fn version(world: &mut World, version: &str) {
    world.worker(1).extensions.insert("vector".into(), version.into());
    world.worker(1).library.installed = Some(version.into());
}

pub fn unindexed_column(world: &mut World, dimensions: i32) {
    world.tables(|table| {
        table.indexes.clear();
        table.columns[0].dimensions = dimensions;
    });
}

pub fn leave(relation: &mut Relation, name: &str) {
    let leftover =
        Index { oid: 999, name: name.into(), valid: false, ..relation.indexes[0].clone() };
    relation.indexes.push(leftover);
}

pub fn empty(world: &mut World, null_fraction: Option<f64>) {
    if let Some(Metapage::Hnsw { has_entry, .. }) = &mut world.index(0).meta {
        *has_entry = false;
    }
    world.shard(0).columns[0].null_fraction = null_fraction;
}

pub fn build(world: &mut World, waiting: Option<f64>) {
    let now = world.own.observed_at;
    world.worker(1).builds.push(Build {
        relation: 300,
        index: 301,
        phase: "building index".into(),
        started: now - 1000.0,
        waiting_since: waiting.map(|seconds| now - seconds),
        ..Build::default()
    });
}

pub fn vacuum(world: &mut World, phase: &str, taken: f64) {
    let now = world.own.observed_at;
    world.worker(1).vacuums.push(Vacuum {
        relation: 300,
        phase: phase.into(),
        started: now - taken,
        ..Vacuum::default()
    });
}

pub fn give_app(node: &mut NodeEvidence, name: &str, value: &str) {
    let setting = RoleSetting {
        role: "app".into(),
        in_database: false,
        name: name.into(),
        value: value.into(),
    };
    node.role_settings.push(setting);
}

/// Searches of both shards of `items`.
pub fn search(w: &mut World, operator: &str, calls: u64) {
    for (worker, relation) in [(1, 300), (2, 400)] {
        let search = Search { relation, operator: operator.into(), calls };
        let node = w.worker(worker);
        node.searches.push(search);
        node.relations[0].rows_read = ROWS * calls;
    }
}
