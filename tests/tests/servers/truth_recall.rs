//! Real embeddings under real searches: what is known of their recall, when that holds no longer, and when it
//! is too low.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::Need;

pub const CHECKS: &[&str] = &["recall_unknown", "recall_low"];

pub fn suite() -> Vec<Test> {
    suite!("truth_recall", &[Need::Fleet, Need::Citus, Need::Vector];
        recall_is_known_as_long_as_the_figure_holds,
    )
}

const WHY: &str = "SELECT coalesce(reason, '') FROM fleet.vector_recalls";

fn recall_is_known_as_long_as_the_figure_holds() {
    let mut witness = Witness::with_items(plan(2), 4000);
    witness.coordinator.run("CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)");
    let found = witness.speaks("recall_unknown", "unknown");
    assert!(found.symptom.contains("not been measured"), "{found:?}");
    witness.mends("recall_unknown");
    // A thousand rows of a shard are an easy search.
    witness.is_silent("recall_low");
    witness.is_well();
    let known = witness.coordinator.rows("SELECT * FROM fleet.vector_recalls");
    let [row] = &known[..] else { panic!("{known:?}") };
    assert_eq!(
        (&row["status"], &row["queries"], &row["placements"], &row["measured_placements"]),
        ("green", "400", "4", "4")
    );
    assert!(row["settings"].contains("hnsw.ef_search=40"), "{row:?}");
    // What was measured is no use of the index.
    let scans = "SELECT sum(scans) FROM fleet.vector_indexes";
    assert_eq!(witness.coordinator.value(scans), "0");

    what_ends_a_figure(&mut witness);
    searches_that_look_too_little(&mut witness);
    one_graph_that_is_worse(&mut witness);
    witness.attests(CHECKS);
}

fn what_ends_a_figure(witness: &mut Witness) {
    // A tenth more rows change little; a quarter may change it.
    witness.fill("items", 4000..4400);
    witness.is_silent("recall_unknown");
    witness.fill("items", 4400..5200);
    let found = witness.speaks("recall_unknown", "unknown");
    assert!(found.symptom.contains("rows were written"), "{found:?}");
    witness.mends("recall_unknown");
    // Another index, if of the same name.
    witness.coordinator.run("REINDEX INDEX CONCURRENTLY items_idx");
    let found = witness.speaks("recall_unknown", "unknown");
    assert!(found.symptom.contains("rebuilt"), "{found:?}");
    witness.mends("recall_unknown");
    // Nobody can tell what was written since.
    witness.workers[0].kill();
    witness.workers[0].begin();
    let found = witness.speaks("recall_unknown", "unknown");
    assert!(found.symptom.contains("statistics of its node were reset or lost"), "{found:?}");
    witness.mends("recall_unknown");
    // What a month does to it.
    witness
        .coordinator
        .run("UPDATE fleet.recall_results SET measured_at = now() - interval '31 days'");
    let found = witness.speaks("recall_unknown", "unknown");
    assert!(found.symptom.contains("31 days ago"), "{found:?}");
    assert_eq!(witness.coordinator.value("SELECT recall IS NULL FROM fleet.vector_recalls"), "t");
    witness.mends("recall_unknown");
}

fn searches_that_look_too_little(witness: &mut Witness) {
    witness.coordinator.run("SELECT fleet.set_search_option('hnsw.ef_search', '1')");
    let found = witness.speaks("recall_unknown", "unknown");
    assert!(found.symptom.contains("hnsw.ef_search = 40, which is 1 now"), "{found:?}");
    witness.mends("recall_unknown");
    let found = witness.speaks("recall_low", "red");
    assert!(found.symptom.contains("of the rows asked for"), "{found:?}");
    assert!(!found.affected.contains("shards"), "the table as a whole: {found:?}");
    for _ in 0..6 {
        for found in witness.diagnoses("recall_low") {
            witness.remedy(&found);
        }
    }
    witness.falls_silent("recall_low");
    let effort = witness.coordinator.value("SELECT settings FROM fleet.vector_recalls");
    assert!(!effort.contains("hnsw.ef_search=1 "), "{effort}");
}

/// Built once with hardly any neighbours, it is declared like all others again.
fn one_graph_that_is_worse(witness: &mut Witness) {
    let worker = &witness.workers[0];
    let (_, id) = worker.shard_of("items");
    let mut session = worker.shard_session();
    session.run(&format!("ALTER INDEX items_idx_{id} SET (m = 2, ef_construction = 4)"));
    session.run(&format!("REINDEX INDEX CONCURRENTLY items_idx_{id}"));
    session.run(&format!("ALTER INDEX items_idx_{id} RESET (m, ef_construction)"));
    witness.coordinator.run("SELECT fleet.vector_recall('items')");
    let found = witness.speaks_of("recall_low", &id.to_string(), "red");
    assert!(found.symptom.contains("unlike those of other shards"), "{found:?}");
    witness.remedy(&found);
    witness.coordinator.run("SELECT fleet.vector_recall('items')");
    witness.falls_silent("recall_low");
    assert_eq!(witness.coordinator.value(WHY), "");
}
