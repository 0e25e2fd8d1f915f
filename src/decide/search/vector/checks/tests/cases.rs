//! Owns the table of cases: which harm to a healthy cluster makes which check speak, how bad it is,
//! and what comes close without being harm.

use super::world::{ROWS, World};
use crate::condition::Condition::{self, *};
use crate::login::LoginFailureKind;
use crate::search::vector::catalogs::*;
use crate::search::vector::model::*;

type Harm = fn(&mut World);

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
    // The statistics were reset since.
    ("recall_unknown", Unknown, |w| {
        w.recalls_of_items(|it| (it.written, it.rows) = (9, ROWS / 20))
    }),
    ("role_settings", Yellow, |w| w.nodes(|node| give_app(node, "hnsw.ef_search", "1"))),
    ("role_settings", Yellow, |w| give_app(w.worker(1), "hnsw.ef_search", "1")),
    // More than others is worth knowing.
    ("role_settings", Green, |w| w.nodes(|node| give_app(node, "hnsw.ef_search", "400"))),
    ("index_scans_off", Yellow, |w| w.nodes(|node| give_app(node, "enable_indexscan", "off"))),
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

pub const NEAR_MISSES: &[(&str, Harm)] = &[
    ("index_missing", |w| {
        w.tables(|table| {
            table.indexes.clear();
            table.live = 9_999;
        })
    }),
    // Searches go by the tenant, and read few rows.
    ("index_missing", |w| {
        w.tables(|table| {
            table.indexes.clear();
            (table.rows_read, table.rows_fetched) = (2 * ROWS, 3 * ROWS);
        })
    }),
    // The node does not answer: that is said once, and not taken for a missing table.
    ("placement_missing", |w| w.silence(1, LoginFailureKind::Timeout)),
    ("guc_drift", |w| {
        w.own.settings.get_mut("hnsw.ef_search").unwrap().session = "200".into();
        w.own.settings.get_mut("citus.propagate_set_commands").unwrap().session = "local".into();
    }),
    ("role_settings", |w| w.nodes(|node| give_app(node, "hnsw.ef_search", "40"))),
    ("index_scans_off", |w| w.nodes(|node| give_app(node, "enable_indexscan", "on"))),
    ("operator_unserved", |w| search(w, "<->", 5000)),
    ("operator_unserved", |w| search(w, "<=>", 50)),
    // A serial build needs none; too small a table is built serially.
    ("build_shm", |w| {
        let worker = w.worker(1);
        worker.resources.shared_memory = Some(64 << 20);
        worker.settings.get_mut("max_parallel_maintenance_workers").unwrap().value = "0".into();
    }),
    ("build_shm", |w| {
        w.tables(|table| table.pages = Some(500));
        w.worker(1).relations[1].pages = Some(500);
        w.worker(1).resources.shared_memory = Some(64 << 20);
    }),
    // It may well reach the target.
    ("recall_low", |w| w.recalls_of_items(|it| (it.recall, it.deviation) = (0.885, 0.15))),
    // Measured before a rebuild, by other settings, on another node.
    ("recall_low", |w| w.recalls_of_items(|it| (it.recall, it.filenode) = (0.5, 9))),
    ("recall_low", |w| {
        w.recalls_of_items(|it| (it.recall, it.settings) = (0.5, "hnsw.ef_search=20".into()))
    }),
    ("recall_low", |w| w.recalls_of_items(|it| (it.recall, it.nodename) = (0.5, "w3".into()))),
    // Half of the rows are enough, and so are updates that write nothing to the index.
    ("recall_unknown", |w| drop(w.recalls.remove(0))),
    ("recall_unknown", |w| {
        w.tables(|table| (table.updated, table.hot_updated) = (ROWS * 9, ROWS * 9))
    }),
    ("recall_unknown", |w| w.recalls_of_items(|it| it.written = 9)),
    // Nobody needs an index there.
    ("recall_unknown", |w| {
        w.recalls.drain(..2);
        w.tables(|table| (table.live, table.reltuples) = (100, 100.0));
    }),
    ("index_invalid", |w| {
        w.index(0).valid = false;
        build(w, None);
    }),
    // It holds nearly all, or there is another that does.
    ("index_partial", |w| {
        w.indexes(|index| (index.partial, index.reltuples) = (true, ROWS as f64 * 0.9));
    }),
    // It holds every row that has a vector.
    ("index_partial", |w| {
        w.tables(|table| table.columns[0].null_fraction = Some(0.8));
        w.indexes(|index| (index.partial, index.reltuples) = (true, ROWS as f64 * 0.2));
    }),
    ("index_partial", |w| {
        w.tables(|table| {
            let whole = table.indexes[0].clone();
            let part =
                Index { oid: 999, name: "part".into(), partial: true, reltuples: 9.0, ..whole };
            table.indexes.push(part);
        });
    }),
    ("ccnew_leftover", |w| {
        leave(w.shard(0), "items_v_idx_100_ccnew");
        w.worker(1).builds.push(Build { relation: 300, index: 999, ..Build::default() });
    }),
    ("ext_buggy", |w| {
        version(w, "0.8.3");
        w.ivfflat(50, 700, 700);
        w.worker(1).relations[1].indexes.clear();
    }),
    // The order of options is no difference.
    ("def_drift", |w| {
        w.indexes(|index| {
            index.options = vec!["m=8".into(), "ef_construction=32".into()];
            index.definition =
                Some("hnsw (v public.vector_l2_ops) WITH (m='8', ef_construction='32')".into());
        });
        w.index(0).options.reverse();
        w.index(0).definition =
            Some("hnsw (v public.vector_l2_ops) WITH (ef_construction='32', m='8')".into());
    }),
    // While the table is locked the definition is not known.
    ("def_drift", |w| w.index(0).definition = None),
    ("build_stalled", |w| build(w, Some(100.0))),
    ("build_oom", |w| {
        set(w, "maintenance_work_mem", 100 << 30);
        set(w, "max_parallel_maintenance_workers", 0);
    }),
    // From pgvector 0.8.5 on, a training has no more room than the table has rows.
    ("ivf_build_mem", |w| {
        w.ivfflat(50, 700, 700);
        set(w, "maintenance_work_mem", 2 << 20);
        w.tables(|table| (table.live, table.reltuples, table.pages) = (1000, -1.0, Some(20)));
    }),
    ("disk_for_rebuild", |w| {
        w.index(0).pages = Some(10_000);
        w.worker(1).resources.disk_free = Some(25_000 * PAGE);
    }),
    ("bloat", |w| w.index(0).pages = None),
    // A list has a page before it has a row.
    ("bloat", |w| {
        w.ivfflat(1000, 1000, 1000);
        w.tables(|table| count(table, 4000));
    }),
    // Counted when the column was full, and empty by now.
    ("empty_graph", |w| {
        empty(w, Some(0.0));
        w.shard(0).modified = ROWS;
        w.shard(0).autovacuum = Some(Autovacuum::default());
    }),
    ("dead_tuples", |w| {
        w.shard(0).live = 100;
        w.shard(0).dead = 800;
    }),
    // Autovacuum's own threshold is a fifth; and HOT updates leave nothing in the indexes.
    ("dead_tuples", |w| {
        w.shard(0).dead = ROWS / 6;
        w.shard(0).autovacuum = Some(Autovacuum { vacuum_at: ROWS as f64 / 5.0, analyze_at: 1.0 });
    }),
    ("dead_tuples", |w| {
        let shard = w.shard(0);
        (shard.dead, shard.updated, shard.hot_updated) = (ROWS / 2, ROWS, ROWS * 19 / 20);
    }),
    ("stats_stale", |w| {
        w.shard(0).modified = ROWS;
        w.shard(0).autovacuum = Some(Autovacuum { vacuum_at: 1.0, analyze_at: 1.0 });
    }),
    ("vacuum_stuck", |w| vacuum(w, "scanning heap", 700.0)),
    ("vacuum_stuck", |w| vacuum(w, "vacuuming indexes", 100.0)),
    // One search of a table reads all of its shards: that is one read of each.
    ("index_unused", |w| {
        w.indexes(|index| index.scans = 0);
        w.shard(0).rows_read = 60 * ROWS;
        w.shard(1).rows_read = 60 * ROWS;
    }),
    ("ivf_training", |w| w.ivfflat(50, 700, 1300)),
    ("ivf_training", |w| w.ivfflat(1, 1, 700)),
    // Half as many again as when it was built, if the last of the three lists had a third of the pages.
    ("ivf_training", |w| w.ivfflat(3, 201, 450)),
    // One of the shards has all tenants.
    ("ivf_lists", |w| {
        w.ivfflat(150, 700, 700);
        count(w.shard(1), 0);
    }),
    // The hint is well below what there is, and still more than the indexes take.
    ("memory_fit", |w| set(w, "effective_cache_size", 2 * NEARLY)),
    ("memory_fit", |w| {
        memory(w, Some(2 * NEARLY));
        set(w, "effective_cache_size", 2 * NEARLY);
    }),
    // A shard of one tenant cannot be divided, nor is anything won by it where the others have no rows.
    ("skew", |w| {
        count(w.shard(0), 10 * ROWS);
        tenant(w.shard(0), 0.9);
        w.catalogs.shards[0].maximum = w.catalogs.shards[0].minimum;
    }),
    ("skew", |w| {
        count(w.shard(0), 10 * ROWS);
        tenant(w.shard(0), 1.0);
    }),
    // All indexes are those of one shard: it would be as large on the other node.
    ("skew", |w| {
        let pages = w.index(0).pages.unwrap();
        w.index(0).pages = Some(pages * 10);
    }),
    ("skew", |w| {
        two_shards_on_one_node(w);
        w.index(0).pages = Some(2);
    }),
    // A node that does not answer may be the largest.
    ("skew", |w| {
        count(w.shard(0), 10 * ROWS);
        tenant(w.shard(0), 0.9);
        w.silence(2, LoginFailureKind::Timeout);
    }),
    // Pages without rows: the statistics were lost.
    ("replica_divergence", |w| {
        let relation = &mut w.worker(1).relations[1];
        (relation.live, relation.reltuples) = (0, -1.0);
        (relation.last_vacuum, relation.last_analyze) = (None, None);
    }),
    // Written to since the last ANALYZE, or not analyzed yet: that is no count.
    ("replica_divergence", |w| {
        let relation = &mut w.worker(1).relations[1];
        (relation.live, relation.modified) = (ROWS / 2, ROWS / 4);
    }),
    ("replica_divergence", |w| {
        let relation = &mut w.worker(1).relations[1];
        (relation.live, relation.last_analyze) = (ROWS / 2, None);
    }),
    ("job_failed", |w| w.catalogs.job = None),
];

/// So many rows, known by the statistics alone.
fn count(relation: &mut Relation, rows: u64) {
    (relation.live, relation.reltuples) = (rows, -1.0);
}

/// Lets one tenant have this share of a shard's rows.
fn tenant(shard: &mut Relation, share: f64) {
    shard.dominant.insert("tenant".into(), share);
}

fn two_shards_on_one_node(world: &mut World) {
    let shard = world.worker(2).relations.remove(0);
    world.worker(1).relations.push(shard);
    world.catalogs.placements[1].groupid = 1;
}

pub fn set(world: &mut World, name: &str, value: u64) {
    world.worker(1).settings.get_mut(name).unwrap().value = value.to_string();
}

/// Somewhat more than the indexes of the first worker take.
const NEARLY: u64 = 60 << 20;

fn memory(world: &mut World, bytes: Option<u64>) {
    world.worker(1).resources.memory = bytes;
}

fn version(world: &mut World, version: &str) {
    world.worker(1).extensions.insert("vector".into(), version.into());
    world.worker(1).library.installed = Some(version.into());
}

fn unindexed_column(world: &mut World, dimensions: i32) {
    world.tables(|table| {
        table.indexes.clear();
        table.columns[0].dimensions = dimensions;
    });
}

fn leave(relation: &mut Relation, name: &str) {
    let leftover =
        Index { oid: 999, name: name.into(), valid: false, ..relation.indexes[0].clone() };
    relation.indexes.push(leftover);
}

fn empty(world: &mut World, null_fraction: Option<f64>) {
    if let Some(Metapage::Hnsw { has_entry, .. }) = &mut world.index(0).meta {
        *has_entry = false;
    }
    world.shard(0).columns[0].null_fraction = null_fraction;
}

fn build(world: &mut World, waiting: Option<f64>) {
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

fn vacuum(world: &mut World, phase: &str, taken: f64) {
    let now = world.own.observed_at;
    world.worker(1).vacuums.push(Vacuum {
        relation: 300,
        phase: phase.into(),
        started: now - taken,
        ..Vacuum::default()
    });
}

fn give_app(node: &mut NodeEvidence, name: &str, value: &str) {
    let setting = RoleSetting {
        role: "app".into(),
        in_database: false,
        name: name.into(),
        value: value.into(),
    };
    node.role_settings.push(setting);
}

/// Searches of both shards of `items`.
fn search(w: &mut World, operator: &str, calls: u64) {
    for (worker, relation) in [(1, 300), (2, 400)] {
        let search = Search { relation, operator: operator.into(), calls };
        w.worker(worker).searches.push(search);
    }
}
