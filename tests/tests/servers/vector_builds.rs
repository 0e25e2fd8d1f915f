//! Findings about builds, those under way and those to come, each provoked for real, shown, mended by
//! its own remedy, and gone.

use crate::suite::{Test, suite};
use crate::vector_indexes::{expect_well, with_items};
use crate::vector_upkeep::await_diagnosis;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::{Need, until};

pub fn suite() -> Vec<Test> {
    suite!("vector_builds", &[Need::Fleet, Need::Citus, Need::Vector];
        a_build_that_waits,
        a_build_that_would_spill,
        a_training_that_would_fail,
        builds_that_would_exhaust_the_host,
        indexes_that_do_not_fit_into_memory,
    )
}

fn a_build_that_waits() {
    let cluster = with_items(1000);
    let worker = &cluster.workers[0];
    let (shard, id) = worker.shard_of("items");
    let mut writer = worker.shard_session();
    writer.run(&format!("BEGIN; LOCK TABLE {shard} IN ROW EXCLUSIVE MODE"));
    let mut builder = worker.shard_session();
    let build = format!("REINDEX INDEX CONCURRENTLY items_idx_{id}");
    let stuck = std::thread::spawn(move || builder.error(&build));
    let running = await_diagnosis(&cluster, "build_running", "yellow");
    assert!(running.affected.contains(&id.to_string()), "{running:?}");
    let progress = cluster.coordinator.rows("SELECT * FROM fleet.vector_progress");
    assert_eq!(progress.len(), 1, "{progress:?}");
    assert_eq!(
        (&progress[0]["activity"], &progress[0]["shardid"], &progress[0]["table_name"]),
        ("build", &*id.to_string(), "public.items")
    );
    assert!(progress[0]["phase"].contains("waiting"), "{progress:?}");
    // What is being built is neither invalid nor left over.
    assert_eq!(cluster.diagnoses("ccnew_leftover").len(), 0);
    cluster.coordinator.run("SET citus_fleet.stalled_after = 0");
    let stalled = await_diagnosis(&cluster, "build_stalled", "red");
    assert_eq!(cluster.diagnoses("build_running").len(), 0);
    cluster.remedy(&stalled);
    assert_eq!(stuck.join().expect("the session answers").state, "57014");
    cluster.wait_until_well("build_stalled");
    writer.run("ROLLBACK");
    cluster.mend("ccnew_leftover");
    expect_well(&cluster);
}

fn a_build_that_would_spill() {
    let cluster = with_items(8000);
    let worker = &cluster.workers[0];
    worker.set("maintenance_work_mem", "1MB");
    let found = until("a build would spill", SOON, || {
        let found = cluster.diagnoses("build_spill");
        if found.is_empty() { Err("nothing") } else { Ok(found) }
    });
    let address = format!("{}:{}", worker.address, worker.port);
    assert!(found.iter().all(|one| one.run_on == address && one.status == "yellow"), "{found:#?}");
    // What was predicted is what happens: pgvector says so where it can be heard.
    let (_, id) = worker.shard_of("items");
    worker.set("log_min_messages", "notice");
    worker.session().run(&format!("REINDEX INDEX public.items_idx_{id}"));
    assert!(worker.log().contains("hnsw graph no longer fits into maintenance_work_mem"));
    cluster.mend("build_spill");
    let spilled = worker.log().matches("no longer fits").count();
    worker.session().run(&format!("REINDEX INDEX public.items_idx_{id}"));
    assert_eq!(worker.log().matches("no longer fits").count(), spilled);
}

fn a_training_that_would_fail() {
    let cluster = with_items(100);
    cluster.coordinator.script(
        "CREATE TABLE clusters (id int PRIMARY KEY, v vector(3));
         SELECT create_distributed_table('clusters', 'id', shard_count := 2, colocate_with := 'none');
         INSERT INTO clusters SELECT n, format('[%s,%s,1]', n, n % 89)::vector FROM generate_series(1, 20000) n;
         CREATE INDEX clusters_idx ON clusters USING ivfflat (v vector_l2_ops) WITH (lists = 100)",
    );
    let worker = &cluster.workers[0];
    worker.set("maintenance_work_mem", "2MB");
    let (_, id) = worker.shard_of("clusters");
    until("a build would fail", SOON, || {
        let found = cluster.diagnoses("ivf_build_mem");
        if found.is_empty() { Err("nothing") } else { Ok(()) }
    });
    // So it does.
    let error = worker.session().error(&format!("REINDEX INDEX public.clusters_idx_{id}"));
    assert!(error.message.contains("memory required"), "{error}");
    cluster.mend("ivf_build_mem");
    worker.session().run(&format!("REINDEX INDEX public.clusters_idx_{id}"));
}

fn builds_that_would_exhaust_the_host() {
    let cluster = with_items(1000);
    let worker = &cluster.workers[0];
    // No test has so many rows; the catalogs are told that there are.
    let memory: f64 = cluster
        .coordinator
        .value("SELECT min(memory_bytes) FROM fleet.vector_nodes")
        .parse()
        .expect("bytes of memory");
    let mut session = worker.shard_session();
    session.run(&format!(
        "SELECT pg_stat_reset_single_table_counters(oid) FROM pg_class WHERE relname ~ '^items_[0-9]+$';
         UPDATE pg_class SET reltuples = {}, relpages = pg_relation_size(oid) / 8192
         WHERE relname ~ '^items_[0-9]+$'",
        memory * 0.7 / 700.0
    ));
    worker.set("maintenance_work_mem", "1TB");
    let found = await_diagnosis(&cluster, "build_oom", "red");
    assert!(found.remedy.contains("citus.max_adaptive_executor_pool_size = 1"), "{found:?}");
    cluster.mend("build_oom");
}

fn indexes_that_do_not_fit_into_memory() {
    let cluster = with_items(1000);
    cluster.workers[0].set("effective_cache_size", "64kB");
    let found = await_diagnosis(&cluster, "memory_fit", "red");
    assert!(found.remedy.contains("effective_cache_size"), "{found:?}");
    cluster.mend("memory_fit");
    expect_well(&cluster);
}
