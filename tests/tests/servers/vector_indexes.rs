//! Findings about indexes, each provoked for real, shown, mended by its own remedy, and gone.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::{Cluster, Need, Server, until};

pub fn suite() -> Vec<Test> {
    suite!("vector_indexes", &[Need::Fleet, Need::Citus, Need::Vector];
        what_a_failed_concurrent_build_leaves,
        what_was_changed_on_a_shard,
        what_was_declared_and_not_built,
        columns_without_an_index,
        indexes_that_serve_other_searches,
        graphs_without_vectors,
        indexes_that_no_search_uses,
        shells_that_are_invalid,
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

/// Runs a statement that has to wait for a transaction that writes to the shard, until it gives up.
fn fail_while_written_to(worker: &Server, shard: &str, statement: &str) {
    let mut writer = worker.shard_session();
    writer.run(&format!("BEGIN; LOCK TABLE {shard} IN ROW EXCLUSIVE MODE"));
    let mut session = worker.shard_session();
    session.run("SET statement_timeout = '500ms'");
    let error = session.error(statement);
    assert_eq!(error.state, "57014", "{error}");
    writer.run("ROLLBACK");
}

fn what_a_failed_concurrent_build_leaves() {
    let cluster = with_items(2000);
    expect_well(&cluster);
    let worker = &cluster.workers[0];
    let (shard, id) = worker.shard_of("items");
    worker.shard_session().run(&format!("DROP INDEX items_idx_{id}"));
    let missing = cluster.diagnosis("index_missing", "red");
    assert!(missing.affected.contains(&id.to_string()), "{missing:?}");
    let rows = cluster.vector_shards("public.items");
    let marked: Vec<&str> = rows
        .iter()
        .filter(|row| row["findings"].contains("index_missing"))
        .map(|row| &row["shardid"])
        .collect();
    assert_eq!(marked, [id.to_string()]);
    fail_while_written_to(
        worker,
        &shard,
        &format!(
            "CREATE INDEX CONCURRENTLY items_idx_{id} ON {shard} USING hnsw (v vector_l2_ops)"
        ),
    );
    let invalid = cluster.diagnosis("index_invalid", "red");
    assert_eq!(invalid.remedy, format!("REINDEX INDEX CONCURRENTLY public.items_idx_{id};"));
    assert_eq!(cluster.diagnoses("index_missing").len(), 0);
    cluster.mend("index_invalid");
    fail_while_written_to(worker, &shard, &format!("REINDEX INDEX CONCURRENTLY items_idx_{id}"));
    let leftover = cluster.diagnosis("ccnew_leftover", "yellow");
    assert!(leftover.symptom.contains("_ccnew"), "{leftover:?}");
    cluster.mend("ccnew_leftover");
    expect_well(&cluster);
}

fn what_was_changed_on_a_shard() {
    let cluster = with_items(1000);
    let worker = &cluster.workers[1];
    let (shard, id) = worker.shard_of("items");
    worker.shard_session().run(&format!(
        "DROP INDEX items_idx_{id};
         CREATE INDEX items_idx_{id} ON {shard} USING hnsw (v vector_ip_ops) WITH (m = 8)"
    ));
    let drift = cluster.diagnosis("def_drift", "yellow");
    assert!(
        drift.symptom.contains("vector_ip_ops") && drift.symptom.contains("vector_l2_ops"),
        "{drift:?}"
    );
    cluster.mend("def_drift");
    worker
        .shard_session()
        .run(&format!("CREATE INDEX extra ON {shard} USING hnsw (v vector_ip_ops)"));
    cluster.diagnosis("def_drift", "yellow");
    cluster.mend("def_drift");
    expect_well(&cluster);
    // The rebuilt index is the table's own.
    cluster.coordinator.run("DROP INDEX items_idx");
    assert_eq!(cluster.coordinator.value("SELECT count(*) FROM fleet.vector_indexes"), "0");
}

fn what_was_declared_and_not_built() {
    let cluster = with_items(1000);
    cluster.coordinator.run("ALTER INDEX items_idx SET (m = 8, ef_construction = 32)");
    let old = cluster.diagnosis("option_not_applied", "yellow");
    assert_eq!(old.run_on, "coordinator", "{old:?}");
    assert_eq!(cluster.diagnoses("def_drift").len(), 0);
    cluster.mend("option_not_applied");
    expect_well(&cluster);
    let built = "SELECT DISTINCT built_with->>'m' FROM fleet.vector_indexes";
    assert_eq!(cluster.coordinator.value(built), "8");
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

/// Searches by the cosine are not served by what is valid for another distance; nor are all rows by an index of
/// some.
fn indexes_that_serve_other_searches() {
    let cluster = with_items(4000);
    cluster
        .coordinator
        .run("CREATE INDEX items_cosine_idx ON items USING hnsw (v vector_cosine_ops)");
    let worker = &cluster.workers[0];
    let mut session = worker.shard_session();
    let index = session.value(
        "SELECT min(relname) FROM pg_class WHERE relname ~ '^items_cosine_idx_[0-9]+$' AND relkind = 'i'",
    );
    // As a REINDEX CONCURRENTLY that was cancelled leaves it.
    session.run(&format!(
        "SET allow_system_table_mods = on;
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass"
    ));
    cluster.diagnosis("index_invalid", "red");
    cluster.mend("index_invalid");

    cluster.coordinator.script(
        "DROP INDEX items_cosine_idx;
         DROP INDEX items_idx;
         CREATE INDEX items_few_idx ON items USING hnsw (v vector_l2_ops) WHERE id % 100 = 0;
         ANALYZE items",
    );
    let found = cluster.diagnosis("index_partial", "yellow");
    assert!(found.symptom.contains("1 % of the rows"), "{found:?}");
    cluster.mend("index_partial");
    expect_well(&cluster);
}

fn graphs_without_vectors() {
    let cluster = with_items(100);
    cluster.coordinator.script(
        "CREATE TABLE late (id int PRIMARY KEY, v vector(3));
         SELECT create_distributed_table('late', 'id', shard_count := 2);
         CREATE INDEX late_idx ON late USING hnsw (v vector_l2_ops);
         INSERT INTO late SELECT n FROM generate_series(1, 200) n;
         SELECT pg_stat_force_next_flush()",
    );
    until("the rows are counted", SOON, || {
        let found = cluster.diagnoses("empty_graph");
        if found.len() == 1 && found[0].status == "yellow" {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    cluster.coordinator.run("UPDATE late SET v = '[1,2,3]'");
    cluster.mend("empty_graph");
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
    cluster.coordinator.session().run("SELECT id FROM items ORDER BY v <-> '[1,2,3]' LIMIT 5");
    cluster.wait_until_well("index_unused");
}

fn shells_that_are_invalid() {
    let cluster = with_items(1000);
    // Citus marks its own entry invalid, finds that there is nothing to do, and leaves it so
    // (citus#8338).
    cluster.coordinator.run(
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS items_idx ON items USING hnsw (v vector_l2_ops)",
    );
    let found = cluster.diagnosis("shell_invalid", "yellow");
    assert!(found.symptom.contains("items_idx"), "{found:?}");
    cluster.mend("shell_invalid");
    expect_well(&cluster);
}
