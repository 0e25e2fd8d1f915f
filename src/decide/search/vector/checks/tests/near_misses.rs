//! Owns what comes close to a case without being harm: the check must not call it worse than green.
//! Must not hold a case.

use super::cases::{
    Harm, NEARLY, build, count, empty, give_app, leave, memory, search, set, tenant,
    two_shards_on_one_node, vacuum, version,
};
use super::world::ROWS;
use crate::login::LoginFailureKind;
use crate::search::vector::activity::*;
use crate::search::vector::model::*;

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
    ("role_settings", |w| w.nodes(|node| give_app(node, "hnsw.ef_search", " 40.0"))),
    // It sorts the few rows that another index finds.
    ("operator_unserved", |w| {
        search(w, "<=>", 5000);
        w.tables(|table| table.rows_read = ROWS);
    }),
    // Three models in one column, each with an index of its own.
    ("index_partial", |w| {
        w.tables(|table| {
            let whole = table.indexes[0].clone();
            table.indexes = (0..3)
                .map(|model| Index {
                    oid: whole.oid + 100 * model,
                    name: whole.name.replace("v_idx", &format!("v_{model}_idx")),
                    partial: true,
                    reltuples: ROWS as f64 / 3.0,
                    ..whole.clone()
                })
                .collect();
        });
        for shard in &mut w.catalogs.shards[..2] {
            let names = (0..3)
                .map(|model| (11 + 100 * model, format!("items_v_{model}_idx_{}", shard.shardid)));
            shard.indexes = names.collect();
        }
    }),
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
    // Nobody needs an index there, and a shard that has none is another matter.
    ("recall_unknown", |w| {
        w.recalls.drain(..2);
        w.tables(|table| (table.live, table.reltuples) = (100, 100.0));
        w.shard(0).indexes.clear();
    }),
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
