//! What wears out under real writes, and what autovacuum keeps up with by itself.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::{Need, until};

pub const CHECKS: &[&str] = &["dead_tuples", "bloat", "stats_stale"];

pub fn suite() -> Vec<Test> {
    suite!("truth_upkeep", &[Need::Fleet, Need::Citus, Need::Vector]; writes_wear_an_index_out)
}

fn writes_wear_an_index_out() {
    let mut witness = Witness::with_items(plan(2), 6000);
    witness.coordinator.run("CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)");
    // Fewer than autovacuum would act upon.
    witness.coordinator.run("UPDATE items SET v = v + v WHERE id % 100 < 15");
    await_dead(&witness, "items", 900);
    witness.is_silent("dead_tuples");
    witness.is_well();
    // Room that later rows will use, in a table that grows.
    witness.coordinator.run("VACUUM ANALYZE items");
    witness.is_silent("bloat");
    witness.fill("items", 6000..7500);
    witness.coordinator.run("ANALYZE items");
    witness.is_silent("bloat");
    witness.is_well();

    updates_that_indexes_do_not_see(&mut witness);
    let before = await_dead(&witness, "items", 0);
    witness.coordinator.run("DELETE FROM items WHERE id % 10 < 6");
    await_dead(&witness, "items", before + 4000);
    let found = witness.speaks("dead_tuples", "red");
    assert_eq!(found.run_on, "coordinator", "{found:?}");
    witness.coordinator.run("VACUUM ANALYZE items");
    witness.falls_silent("dead_tuples");
    let found = witness.speaks("bloat", "yellow");
    assert_eq!(found.run_on, "coordinator", "{found:?}");
    witness.mends("bloat");
    witness.is_well();

    witness.coordinator.run("DELETE FROM items WHERE id % 10 < 9");
    witness.fill("items", 10_000..11_500);
    witness.speaks("dead_tuples", "red");
    witness.mends("dead_tuples");
    statistics_that_are_old(&mut witness);
    witness.attests(CHECKS);
}

/// Waits until so many dead rows of a table have been counted on all nodes together, and says how many.
#[track_caller]
fn await_dead(witness: &Witness, table: &str, least: u64) -> u64 {
    until("the dead rows are counted", SOON, || {
        let sql = format!(
            "SELECT sum(dead_rows) FROM fleet.vector_shards WHERE table_name = 'public.{table}'"
        );
        let dead = witness.coordinator.try_value(&sql)?;
        dead.parse().ok().filter(|dead| *dead >= least).ok_or(dead)
    })
}

/// A row that stays within its page leaves nothing behind in an index.
fn updates_that_indexes_do_not_see(witness: &mut Witness) {
    witness.coordinator.script(
        "CREATE TABLE counted (id int PRIMARY KEY, category text, v vector(384), seen int DEFAULT 0)
           WITH (fillfactor = 40);
         SELECT create_distributed_table('counted', 'id', shard_count := 2, colocate_with := 'none')",
    );
    witness.fill("counted", 0..2400);
    witness.coordinator.script(
        "CREATE INDEX counted_idx ON counted USING hnsw (v vector_l2_ops);
         ANALYZE counted;
         UPDATE counted SET seen = seen + 1 WHERE id % 10 < 4",
    );
    await_dead(witness, "counted", 900);
    witness.is_silent("dead_tuples");
    witness.is_well();
}

/// Autovacuum analyzes by itself what is nobody's concern then.
fn statistics_that_are_old(witness: &mut Witness) {
    // Without the index, which takes its time and has nothing to do with it.
    witness.coordinator.run("DROP INDEX items_idx");
    witness.fill("items", 20_000..25_000);
    witness.is_silent("stats_stale");
    for worker in &witness.workers {
        worker.set("autovacuum", "off");
    }
    witness.speaks("stats_stale", "yellow");
    witness.mends("stats_stale");
}
