//! Findings about what wears out, each provoked for real, shown, mended by its own remedy, and gone.

use crate::suite::{Test, suite};
use crate::vector_indexes::{expect_well, with_items};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::vector::Diagnosis;
use citus_fleet_tests::{Cluster, Need, until};

pub fn suite() -> Vec<Test> {
    suite!("vector_upkeep", &[Need::Fleet, Need::Citus, Need::Vector];
        dead_rows,
        dead_rows_of_one_shard,
        dead_rows_that_autovacuum_lets_lie,
        dead_rows_that_no_index_leads_to,
        wasted_pages,
        missing_vectors_and_old_statistics,
        lists_that_were_trained_on_nothing,
        lists_that_do_not_suit_the_rows,
        a_vacuum_that_is_stuck,
    )
}

/// Waits for the only diagnosis of an id: statistics arrive a little later.
#[track_caller]
pub fn await_diagnosis(cluster: &Cluster, id: &str, status: &str) -> Diagnosis {
    until(&format!("{id} is {status}"), SOON, || match cluster.diagnoses(id).as_slice() {
        [one] if one.status == status => Ok(one.clone()),
        other => Err(format!("{other:#?}")),
    })
}

fn dead_rows() {
    let cluster = with_items(6000);
    cluster.coordinator.run("DELETE FROM items WHERE id % 10 < 3");
    let found = await_diagnosis(&cluster, "dead_tuples", "red");
    assert_eq!(found.run_on, "coordinator", "{found:?}");
    assert_eq!(found.remedy, "REINDEX INDEX CONCURRENTLY public.items_idx;\nVACUUM public.items;");
    cluster.mend("dead_tuples");
    cluster.coordinator.run("ANALYZE items");
    expect_well(&cluster);
}

fn dead_rows_of_one_shard() {
    let cluster = with_items(6000);
    let (shard, _) = cluster.workers[0].shard_of("items");
    cluster.workers[0].shard_session().run(&format!("DELETE FROM {shard} WHERE id % 7 = 0"));
    let found = await_diagnosis(&cluster, "dead_tuples", "yellow");
    assert_ne!(found.run_on, "coordinator", "{found:?}");
    cluster.mend("dead_tuples");
}

/// Waits until so many dead rows of a table have been counted on all nodes together.
#[track_caller]
fn await_dead(cluster: &Cluster, table: &str, least: f64) {
    until("the dead rows are counted", SOON, || {
        let sql = format!(
            "SELECT coalesce(sum(dead_rows), 0) FROM fleet.vector_shards WHERE table_name = 'public.{table}'"
        );
        let dead = cluster.coordinator.try_value(&sql)?;
        if dead.parse::<f64>().is_ok_and(|dead| dead >= least) { Ok(()) } else { Err(dead) }
    });
}

/// As a server is set up by default: a fifth of the rows may be dead before anything is done about it.
fn dead_rows_that_autovacuum_lets_lie() {
    let cluster = with_items(8000);
    // On, and not within this test.
    for server in cluster.workers.iter().chain([&cluster.coordinator]) {
        server.set("autovacuum_naptime", "1h");
        server.set("autovacuum", "on");
    }
    cluster.coordinator.run("UPDATE items SET v = '[1,2,3]' WHERE id % 100 < 15");
    await_dead(&cluster, "items", 1000.0);
    for id in ["dead_tuples", "stats_stale"] {
        let alarms = cluster.diagnoses(id);
        assert!(alarms.iter().all(|one| one.status == "green"), "{alarms:#?}");
    }
    cluster.coordinator.run("DELETE FROM items WHERE id % 10 < 4");
    await_diagnosis(&cluster, "dead_tuples", "red");
}

/// HOT updates leave nothing behind in the indexes.
fn dead_rows_that_no_index_leads_to() {
    let cluster = with_items(100);
    cluster.coordinator.script(
        "CREATE TABLE counted (id int PRIMARY KEY, seen int, v vector(3)) WITH (fillfactor = 40);
         SELECT create_distributed_table('counted', 'id', shard_count := 2);
         INSERT INTO counted SELECT n, 0, format('[%s,%s,1]', n % 97, n % 89)::vector
           FROM generate_series(1, 6000) n;
         CREATE INDEX ON counted USING hnsw (v vector_l2_ops);
         ANALYZE counted",
    );
    cluster.coordinator.run("UPDATE counted SET seen = seen + 1 WHERE id % 10 < 4");
    await_dead(&cluster, "counted", 2000.0);
    assert_eq!(cluster.diagnoses("dead_tuples").len(), 0);
    cluster.coordinator.run("UPDATE counted SET v = '[1,2,3]' WHERE id % 10 < 4");
    await_diagnosis(&cluster, "dead_tuples", "yellow");
}

fn wasted_pages() {
    let cluster = with_items(16_000);
    cluster.coordinator.run("DELETE FROM items WHERE id % 10 < 6");
    // What a session has deleted is counted a little later; not after the VACUUM, please.
    await_diagnosis(&cluster, "dead_tuples", "red");
    cluster.coordinator.run("VACUUM ANALYZE items");
    let found = await_diagnosis(&cluster, "bloat", "yellow");
    assert_eq!(found.run_on, "coordinator", "{found:?}");
    cluster.mend("bloat");
    expect_well(&cluster);
}

fn missing_vectors_and_old_statistics() {
    let cluster = with_items(1000);
    cluster.coordinator.run("INSERT INTO items SELECT n FROM generate_series(10001, 18000) n");
    await_diagnosis(&cluster, "stats_stale", "yellow");
    cluster.mend("stats_stale");
    // Now it is known that most rows have no vector.
    let found = await_diagnosis_any(&cluster, "unindexed_rows");
    assert!(found.iter().all(|one| one.status == "yellow"), "{found:#?}");
    cluster.coordinator.run("UPDATE items SET v = '[1,2,3]' WHERE v IS NULL");
    cluster.coordinator.run("ANALYZE items");
    cluster.wait_until_well("unindexed_rows");
}

#[track_caller]
fn await_diagnosis_any(cluster: &Cluster, id: &str) -> Vec<Diagnosis> {
    until(&format!("{id} is there"), SOON, || match cluster.diagnoses(id) {
        found if found.is_empty() => Err("nothing"),
        found => Ok(found),
    })
}

/// An ivfflat index on an empty table of two shards, then so many rows.
fn with_lists(cluster: &Cluster, lists: u32, rows: u32) {
    cluster.coordinator.script(&format!(
        "CREATE TABLE clusters (id int PRIMARY KEY, v vector(3));
         SELECT create_distributed_table('clusters', 'id', shard_count := 2, colocate_with := 'none');
         CREATE INDEX clusters_idx ON clusters USING ivfflat (v vector_l2_ops) WITH (lists = {lists});
         INSERT INTO clusters SELECT n, format('[%s,%s,1]', n % 97, n % 89)::vector FROM generate_series(1, {rows}) n;
         SELECT pg_stat_force_next_flush();
         ANALYZE clusters"
    ));
}

fn lists_that_were_trained_on_nothing() {
    let cluster = with_items(100);
    with_lists(&cluster, 5, 10_000);
    let found = await_diagnosis(&cluster, "ivf_training", "red");
    assert_eq!(found.run_on, "coordinator", "{found:?}");
    cluster.mend("ivf_training");
    // Rows that come after a training on rows wear it out more slowly.
    cluster.coordinator.run(
        "INSERT INTO clusters SELECT n, format('[%s,%s,1]', n % 97, n % 89)::vector FROM generate_series(10001, 40000) n",
    );
    await_diagnosis(&cluster, "ivf_training", "yellow");
    cluster.mend("ivf_training");
}

fn lists_that_do_not_suit_the_rows() {
    let cluster = with_items(100);
    with_lists(&cluster, 100, 4000);
    let found = await_diagnosis(&cluster, "ivf_lists", "yellow");
    assert!(found.remedy.contains("lists = 2"), "{found:?}");
    cluster.mend("ivf_lists");
    assert_eq!(cluster.diagnoses("option_not_applied").len(), 0);
}

fn a_vacuum_that_is_stuck() {
    let cluster = with_items(8000);
    cluster.coordinator.run("SET citus_fleet.stalled_after = 0");
    let (shard, _) = cluster.workers[0].shard_of("items");
    cluster.coordinator.run("DELETE FROM items WHERE id % 2 = 0");
    let mut vacuum = cluster.workers[0].shard_session();
    let stuck = std::thread::spawn(move || {
        vacuum.run("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1");
        vacuum.error(&format!("VACUUM {shard}"))
    });
    let found = await_diagnosis(&cluster, "vacuum_stuck", "yellow");
    let progress = cluster.coordinator.rows("SELECT * FROM fleet.vector_progress");
    assert_eq!((&progress[0]["activity"], &progress[0]["table_name"]), ("vacuum", "public.items"));
    cluster.remedy(&found);
    let error = stuck.join().expect("the session answers");
    assert_eq!(error.state, "57014", "{error}");
    cluster.wait_until_well("vacuum_stuck");
}
