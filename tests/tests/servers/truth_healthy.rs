//! Clusters with which nothing is wrong, at moments at which it might look so: nothing but notes may be said
//! of them, however often one looks.

use crate::suite::{Test, suite};
use crate::truth::{Witness, alarms, plan};
use citus_fleet_tests::wait::throughout;
use citus_fleet_tests::{Need, embeddings};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    suite!("truth_healthy", &[Need::Fleet, Need::Citus, Need::Vector];
        a_table_that_was_just_loaded,
        steady_updates_that_autovacuum_keeps_up_with,
        exact_search_on_purpose,
    )
}

/// Looks again and again.
#[track_caller]
fn stays_well(witness: &Witness, span: Duration) {
    throughout("nothing is wrong", span, || {
        let alarms = alarms(witness);
        if alarms.is_empty() { Ok(()) } else { Err(format!("{alarms:#?}")) }
    });
}

fn a_table_that_was_just_loaded() {
    let witness = Witness::of(plan(2));
    witness.coordinator.script(
        "CREATE TABLE items (id int PRIMARY KEY, category text, v vector(384));
         SELECT create_distributed_table('items', 'id', shard_count := 16);
         CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops);
         CREATE TABLE lists (id int PRIMARY KEY, category text, v halfvec(384));
         SELECT create_distributed_table('lists', 'id', shard_count := 4, colocate_with := 'none')",
    );
    stays_well(&witness, Duration::from_secs(1));
    // While it is being loaded, and after.
    let (loaded, witness) = (&AtomicBool::new(false), &witness);
    thread::scope(|scope| {
        scope.spawn(|| {
            witness.fill("items", 0..4000);
            witness.fill("lists", 0..1900);
            loaded.store(true, Ordering::Release);
        });
        while !loaded.load(Ordering::Acquire) {
            stays_well(witness, Duration::from_millis(100));
        }
    });
    witness.coordinator.run(
        "CREATE INDEX lists_idx ON lists USING ivfflat (v halfvec_cosine_ops) WITH (lists = 2)",
    );
    stays_well(witness, Duration::from_secs(2));
    witness.coordinator.run("VACUUM ANALYZE");
    stays_well(witness, Duration::from_secs(1));
}

fn steady_updates_that_autovacuum_keeps_up_with() {
    let witness = Witness::with_items(plan(2).worker_set("autovacuum_naptime", "1s"), 4000);
    witness.coordinator.run("CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)");
    let (ended, witness) = (&AtomicBool::new(false), &witness);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = witness.coordinator.session();
            // Every row gets the vector of another one in its turn, as where documents are edited.
            let started = Instant::now();
            for turn in (0..4000).cycle() {
                // Where it was not well, nobody says that it has ended.
                if ended.load(Ordering::Acquire) || started.elapsed() > Duration::from_secs(40) {
                    break;
                }
                let vector = embeddings::row(turn + 4000);
                session.run(&format!("UPDATE items SET v = '{vector}' WHERE id = {turn}"));
            }
        });
        stays_well(witness, Duration::from_secs(20));
        ended.store(true, Ordering::Release);
    });
}

/// The searches of one tenant read its rows by the tenant's own index: few, and every one of them.
fn exact_search_on_purpose() {
    let witness = Witness::of(plan(2));
    witness.coordinator.script(
        "CREATE TABLE docs (tenant int, id int, v vector(384), PRIMARY KEY (tenant, id));
         SELECT create_distributed_table('docs', 'tenant', shard_count := 2)",
    );
    let columns = |id: usize| format!("{}\t{id}", id % 40);
    witness.coordinator.load("docs (tenant, id, v)", 0..4000, columns);
    witness.coordinator.run("ANALYZE docs");
    let mut session = witness.coordinator.session();
    for turn in 0..60 {
        let (tenant, query) = (turn % 40, embeddings::query(turn));
        session.run(&format!(
            "SELECT id FROM docs WHERE tenant = {tenant} ORDER BY v <=> '{query}' LIMIT 10"
        ));
    }
    drop(session);
    witness.is_well();
    let note = witness.diagnosis("index_missing", "green");
    assert!(note.symptom.contains("has no vector index"), "{note:?}");
    stays_well(&witness, Duration::from_secs(1));
}
