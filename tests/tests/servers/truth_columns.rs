//! Columns of real embeddings, and whether an index serves their searches: partial ones, vectors that are
//! missing by accident or on purpose, columns that no index can hold, indexes that no search uses.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::{Need, embeddings};

pub const CHECKS: &[&str] =
    &["index_partial", "not_indexable", "empty_graph", "index_unused", "unindexed_rows"];

pub fn suite() -> Vec<Test> {
    suite!("truth_columns", &[Need::Fleet, Need::Citus, Need::Vector];
        indexes_serve_what_is_searched,
        vectors_are_missing,
    )
}

fn indexes_serve_what_is_searched() {
    let mut witness = Witness::with_items(plan(2), 4000);
    let coordinator = &witness.coordinator;
    coordinator.script(
        "CREATE INDEX libs_idx ON items USING hnsw (v vector_l2_ops) WHERE category = 'libs';
         ANALYZE items",
    );
    let found = witness.speaks("index_partial", "yellow");
    assert!(found.symptom.contains("% of its rows"), "{found:?}");
    witness.mends("index_partial");
    witness.is_well();

    searches_by_another_operator(&mut witness);
    no_index_can_be_built(&mut witness);
    witness.attests(&["index_partial", "not_indexable", "index_unused"]);
}

fn searches_by_another_operator(witness: &mut Witness) {
    witness.coordinator.script("DROP INDEX libs_idx");
    let search = |witness: &Witness, operator: &str, times: usize| {
        let mut session = witness.coordinator.session();
        for number in 0..times {
            let query = embeddings::query(number);
            session.run(&format!("SELECT id FROM items ORDER BY v {operator} '{query}' LIMIT 10"));
        }
    };
    // The index is by the Euclidean distance.
    search(witness, "<=>", 50);
    witness.is_silent("index_unused");
    search(witness, "<=>", 60);
    witness.speaks("index_unused", "yellow");
    // A look by EXPLAIN is no use; a few searches that it serves are enough: somebody needs it. The planner would
    // rather read so few rows.
    for worker in &witness.workers {
        worker.set_all(&[("enable_seqscan", "off"), ("enable_sort", "off")]);
    }
    search(witness, "<->", 1);
    witness.speaks("index_unused", "yellow");
    search(witness, "<->", 5);
    witness.falls_silent("index_unused");
    search(witness, "<=>", 60);
    witness.is_silent("index_unused");
}

fn no_index_can_be_built(witness: &mut Witness) {
    witness.coordinator.script(
        "CREATE EXTENSION IF NOT EXISTS citus_columnar;
         CREATE TABLE bare (id int PRIMARY KEY, category text, v vector);
         SELECT create_distributed_table('bare', 'id', shard_count := 2, colocate_with := 'none');
         CREATE TABLE archive (id int, category text, v vector(384)) USING columnar;
         SELECT create_distributed_table('archive', 'id', shard_count := 2, colocate_with := 'none')",
    );
    // Nobody counts what is written to such a table.
    let columns = |id: usize| format!("{id}\t{}", embeddings::category(id));
    witness.coordinator.load("archive (id, category, v)", 0..1600, columns);
    witness.coordinator.run("ANALYZE archive");
    witness.fill("bare", 0..400);
    // An archive was chosen for what it is good at, and few rows need no index.
    witness.is_silent("not_indexable");
    witness.fill("bare", 400..1600);
    let found = witness.speaks_of("not_indexable", "public.bare", "yellow");
    witness.remedy(&found);
    witness.falls_silent("not_indexable");
    let declared = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
                    WHERE attrelid = 'bare'::regclass AND attname = 'v'";
    assert_eq!(witness.coordinator.value(declared), "vector(384)");
    // From now on it is a column like any other.
    witness.mends("index_missing");
    witness.is_well();
}

fn vectors_are_missing() {
    let mut witness = Witness::with_items(plan(2), 4000);
    // Seven rows in ten have none, as where only some documents are to be found by meaning.
    witness.coordinator.script(
        "UPDATE items SET v = NULL WHERE id % 10 < 7;
         VACUUM ANALYZE items;
         CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)",
    );
    witness.is_silent("unindexed_rows");
    witness.is_well();
    // An index that says so is not partial in any sense that matters.
    witness.coordinator.script(
        "CREATE INDEX given_idx ON items USING hnsw (v vector_l2_ops) WHERE v IS NOT NULL;
         DROP INDEX items_idx;
         ANALYZE items",
    );
    witness.is_well();

    // None at all, yet: the column has just been added.
    witness.coordinator.script(
        "ALTER TABLE items ADD COLUMN w vector(384);
         CREATE INDEX w_idx ON items USING hnsw (w vector_cosine_ops)",
    );
    witness.is_silent("empty_graph");
    witness.coordinator.run("ANALYZE items");
    witness.is_silent("empty_graph");
    witness.is_well();
    // Zeros are vectors, and have no angle to anything.
    witness.coordinator.script(
        "UPDATE items SET w = array_fill(0, ARRAY[384])::vector;
         VACUUM ANALYZE items",
    );
    witness.speaks("empty_graph", "yellow");
    witness.coordinator.script(
        "UPDATE items SET w = coalesce(v, array_fill(id, ARRAY[384])::vector);
         VACUUM ANALYZE items",
    );
    witness.falls_silent("empty_graph");

    // What one shard lacks alone has got lost there.
    let (shard, id) = witness.workers[0].shard_of("items");
    witness.workers[0]
        .shard_session()
        .run(&format!("UPDATE {shard} SET w = NULL WHERE id % 3 = 0; ANALYZE {shard}"));
    let found = witness.speaks_of("unindexed_rows", &id.to_string(), "yellow");
    assert!(found.symptom.contains("have no w"), "{found:?}");
    witness.coordinator.script(
        "UPDATE items SET w = array_fill(id + 1, ARRAY[384])::vector WHERE w IS NULL;
         ANALYZE items",
    );
    witness.falls_silent("unindexed_rows");
    witness.attests(&["empty_graph", "unindexed_rows"]);
}
