//! Findings about indexes, each provoked for real, shown, mended by its own remedy, and gone.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::{Cluster, Need, until};

pub fn suite() -> Vec<Test> {
    suite!("vector_indexes", &[Need::Fleet, Need::Citus, Need::Vector];
        columns_without_an_index,
        indexes_that_no_search_uses,
    )
}

/// A cluster in which a hundred rows need an index.
pub fn small(workers: usize) -> Cluster {
    ready(Plan::workers(workers).set("citus_fleet.index_min_rows", "100"))
}

/// A cluster in which Citus can connect to its own server, and what was written is counted at once.
pub fn ready(plan: Plan) -> Cluster {
    let cluster = plan.start();
    cluster.coordinator.set("citus.local_hostname", &cluster.coordinator.address.to_string());
    // A split reads the source through Citus's own output plugin.
    let plugins = "SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'";
    if cluster.coordinator.value(plugins) == "1" {
        for server in cluster.workers.iter().chain([&cluster.coordinator]) {
            server.run("ALTER SYSTEM SET output_plugin_libraries = pgoutput, citus");
            server.reload();
        }
    }
    // A session tells what it has written a while later, or when it ends.
    cluster.coordinator.set("citus.max_cached_conns_per_worker", "0");
    cluster.wait_until_all_active();
    cluster
}

/// Two workers, and a table of four shards with an hnsw index; a hundred rows need one.
pub fn with_items(rows: u32) -> Cluster {
    let cluster = small(2);
    cluster.coordinator.script(&format!(
        "CREATE TABLE items (id int PRIMARY KEY, v vector(3));
         SELECT create_distributed_table('items', 'id', shard_count := 4);
         INSERT INTO items SELECT n, format('[%s,%s,1]', n % 97, n % 89)::vector FROM generate_series(1, {rows}) n;
         SELECT pg_stat_force_next_flush();
         ANALYZE items;
         CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)"
    ));
    cluster
}

/// Everything but what is true of every cluster with this version of pgvector.
#[track_caller]
pub fn expect_well(cluster: &Cluster) {
    until("nothing is wrong", SOON, || {
        let ids = cluster.coordinator.try_value(
            "SELECT coalesce(string_agg(d->>'symptom', ' '), '')
             FROM jsonb_path_query(fleet.vector_health(), '$.indicators.*.diagnosis[*]') d
             WHERE d->>'id' NOT IN ('ext_buggy', 'recall_unknown')",
        )?;
        if ids.is_empty() { Ok(()) } else { Err(ids) }
    });
}

fn columns_without_an_index() {
    let cluster = with_items(1000);
    cluster.coordinator.script(
        "DROP INDEX items_idx;
         CREATE TABLE wide (id int PRIMARY KEY, v vector(3072), w vector(4500), u vector);
         SELECT create_distributed_table('wide', 'id', shard_count := 2, colocate_with := 'none');
         INSERT INTO wide (id, u) SELECT n, '[1,2,3]' FROM generate_series(1, 1000) n;
         ANALYZE wide",
    );
    let missing = cluster.diagnosis("index_missing", "yellow");
    assert_eq!(missing.run_on, "coordinator");
    cluster.mend("index_missing");
    let found = cluster.diagnoses("not_indexable");
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().all(|one| one.status == "yellow"), "{found:#?}");
    cluster.mend("not_indexable");
    // The undeclared column has its dimensions now, and needs an index like any other.
    let u = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
             WHERE attrelid = 'wide'::regclass AND attname = 'u'";
    assert_eq!(cluster.coordinator.value(u), "vector(3)");
    cluster.mend("index_missing");
}

fn indexes_that_no_search_uses() {
    let cluster = with_items(4000);
    let mut session = cluster.coordinator.session();
    // The samples of an ivfflat build are hundreds of scans, and read little.
    session.run(
        "CREATE INDEX items_lists_idx ON items USING ivfflat (v vector_l2_ops) WITH (lists = 50)",
    );
    session.run("DROP INDEX items_idx");
    let scans = "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname ~ '^items_'";
    until("the samples are counted", SOON, || {
        let counted = cluster.workers[0].shard_session().value(scans);
        if counted.parse::<u64>().is_ok_and(|scans| scans >= 10) { Ok(()) } else { Err(counted) }
    });
    assert_eq!(cluster.diagnoses("index_unused").len(), 0);
    for _ in 0..110 {
        session.run("SELECT count(*) FROM items");
    }
    drop(session);
    until("the scans are counted", SOON, || {
        let found = cluster.diagnoses("index_unused");
        if found.len() == 1 && found[0].status == "yellow" {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    for worker in &cluster.workers {
        worker.set("enable_seqscan", "off");
        worker.set("enable_sort", "off");
    }
    let mut session = cluster.coordinator.session();
    for _ in 0..5 {
        session.run("SELECT id FROM items ORDER BY v <-> '[1,2,3]' LIMIT 5");
    }
    drop(session);
    cluster.wait_until_well("index_unused");
}
