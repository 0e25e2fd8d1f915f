//! Indexes on real embeddings: those that are missing, were killed while they were built, or are not what
//! was declared; and what looks like it and is well.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::Session;
use citus_fleet_tests::{Need, embeddings, until};

pub const CHECKS: &[&str] = &[
    "index_missing",
    "index_invalid",
    "ccnew_leftover",
    "def_drift",
    "option_not_applied",
    "shell_invalid",
];

pub fn suite() -> Vec<Test> {
    suite!("truth_indexes", &[Need::Fleet, Need::Citus, Need::Vector]; indexes_come_to_harm)
}

fn indexes_come_to_harm() {
    let mut witness = Witness::with_items(plan(2), 4000);
    // A small table is searched as a whole, and as fast.
    witness.coordinator.script(
        "CREATE TABLE few (id int PRIMARY KEY, category text, v vector(384));
         SELECT create_distributed_table('few', 'id', shard_count := 4)",
    );
    witness.fill("few", 0..400);
    for number in 0..10 {
        search(&witness, "few", number);
    }
    let found = witness.speaks("index_missing", "yellow");
    assert_eq!((found.run_on.as_str(), found.affected.contains("few")), ("coordinator", false));
    witness.mends("index_missing");
    witness.is_well();

    lost_on_one_shard(&mut witness);
    killed_while_built(&mut witness);
    changed_on_a_shard(&mut witness);
    declared_and_not_built(&mut witness);
    invalid_on_the_coordinator(&mut witness);
    witness.attests(CHECKS);
}

fn search(witness: &Witness, table: &str, number: usize) {
    let query = embeddings::query(number);
    witness.coordinator.run(&format!("SELECT id FROM {table} ORDER BY v <-> '{query}' LIMIT 10"));
}

fn lost_on_one_shard(witness: &mut Witness) {
    let worker = &witness.workers[0];
    let (_, id) = worker.shard_of("items");
    worker.shard_session().run(&format!("DROP INDEX items_v_idx_{id}"));
    let found = witness.speaks("index_missing", "red");
    assert!(found.affected.contains(&id.to_string()), "{found:?}");
}

/// Starts a statement that builds an index, and ends its session while vectors go into it; `meanwhile` looks
/// at what is there just before.
fn kill_build(
    witness: &mut Witness,
    mut builder: Session,
    statement: String,
    meanwhile: impl FnOnce(&mut Witness),
) {
    let pid = builder.pid();
    let built = std::thread::spawn(move || builder.try_rows(&statement).map(drop));
    let phase = format!("SELECT phase FROM pg_stat_progress_create_index WHERE pid = {pid}");
    until("vectors go into the index", SOON, || {
        let phase = witness.workers[0].try_value(&phase)?;
        if phase.starts_with("building index") { Ok(()) } else { Err(phase) }
    });
    meanwhile(witness);
    witness.workers[0].run(&format!("SELECT pg_terminate_backend({pid})"));
    built.join().expect("the thread ends").expect_err("it was killed");
}

fn killed_while_built(witness: &mut Witness) {
    let (shard, id) = witness.workers[0].shard_of("items");
    // So that there is time to look and to kill, the graph goes to disk from the beginning.
    let slow = |witness: &Witness| {
        let mut session = witness.workers[0].shard_session();
        session.run("SET maintenance_work_mem = '1MB'; SET max_parallel_maintenance_workers = 0");
        session
    };
    let create = format!(
        "CREATE INDEX CONCURRENTLY items_v_idx_{id} ON {shard} USING hnsw (v vector_l2_ops)"
    );
    // A valid one for another distance serves other searches.
    witness.coordinator.run("CREATE INDEX other_idx ON items USING hnsw (v vector_cosine_ops)");
    let session = slow(witness);
    kill_build(witness, session, create, |witness| witness.is_silent("index_invalid"));
    let found = witness.speaks("index_invalid", "red");
    assert_eq!(found.remedy, format!("REINDEX INDEX CONCURRENTLY public.items_v_idx_{id};"));
    witness.mends("index_invalid");
    witness.coordinator.run("DROP INDEX other_idx");

    let session = slow(witness);
    let again = format!("REINDEX INDEX CONCURRENTLY items_v_idx_{id}");
    kill_build(witness, session, again, |witness| witness.is_silent("ccnew_leftover"));
    let found = witness.speaks("ccnew_leftover", "yellow");
    assert!(found.symptom.contains("_ccnew"), "{found:?}");
    witness.mends("ccnew_leftover");
    witness.is_well();
}

fn changed_on_a_shard(witness: &mut Witness) {
    let worker = &witness.workers[1];
    let (shard, id) = worker.shard_of("items");
    let mut session = worker.shard_session();
    session.run(&format!(
        "DROP INDEX items_v_idx_{id};
         CREATE INDEX items_v_idx_{id} ON {shard} USING hnsw (v vector_cosine_ops)"
    ));
    let found = witness.speaks("def_drift", "yellow");
    assert!(found.symptom.contains("vector_cosine_ops"), "{found:?}");
    witness.mends("def_drift");
    session.run(&format!("CREATE INDEX extra ON {shard} USING hnsw (v vector_ip_ops)"));
    witness.speaks("def_drift", "yellow");
    witness.mends("def_drift");
    witness.is_well();
    // What was rebuilt is the table's own, and goes with it. The same options in another order are the same.
    witness.coordinator.script(
        "DROP INDEX items_v_idx;
         CREATE INDEX items_v_idx ON items USING hnsw (v vector_l2_ops) WITH (m = 8, ef_construction = 32)",
    );
    session.run(&format!(
        "DROP INDEX items_v_idx_{id};
         CREATE INDEX items_v_idx_{id} ON {shard} USING hnsw (v vector_l2_ops)
           WITH (ef_construction = 32, m = 8)"
    ));
    witness.is_silent("def_drift");
    witness.is_well();
}

fn declared_and_not_built(witness: &mut Witness) {
    // What is declared again changes nothing.
    witness.coordinator.run("ALTER INDEX items_v_idx SET (m = 8, ef_construction = 32)");
    witness.is_silent("option_not_applied");
    witness.coordinator.run("ALTER INDEX items_v_idx SET (m = 12)");
    let found = witness.speaks("option_not_applied", "yellow");
    assert_eq!(found.run_on, "coordinator", "{found:?}");
    witness.is_silent("def_drift");
    witness.mends("option_not_applied");
    let built = "SELECT string_agg(DISTINCT built_with->>'m', ' ') FROM fleet.vector_indexes";
    assert_eq!(witness.coordinator.value(built), "12");
    witness.is_well();
}

/// Citus marks its own entry invalid, finds that there is nothing to do, and leaves it so (citus#8338).
fn invalid_on_the_coordinator(witness: &mut Witness) {
    let create = |name: &str| {
        let key = "hnsw (v vector_l2_ops) WITH (m = 12, ef_construction = 32)";
        let sql = format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON items USING {key}");
        witness.coordinator.run(&sql);
    };
    create("items_v_idx");
    witness.speaks("shell_invalid", "yellow");
    witness.mends("shell_invalid");
    witness.is_well();
}
