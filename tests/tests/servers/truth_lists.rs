//! Lists of ivfflat over real embeddings: trained on nothing, outgrown, too many; and those that are one on
//! purpose. Here too the defects of old versions, which concern graphs alone.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::Need;

pub const CHECKS: &[&str] = &["ivf_training", "ivf_lists", "ext_buggy"];

pub fn suite() -> Vec<Test> {
    suite!("truth_lists", &[Need::Fleet, Need::Citus, Need::Vector]; lists_and_their_training)
}

fn lists_and_their_training() {
    let mut witness = Witness::of(plan(2));
    for (table, lists) in [("exact", 1), ("items", 4)] {
        witness.coordinator.script(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, category text, v vector(384));
             SELECT create_distributed_table('{table}', 'id', shard_count := 2);
             CREATE INDEX {table}_idx ON {table} USING ivfflat (v vector_l2_ops) WITH (lists = {lists})"
        ));
    }
    // One list needs no training: it was chosen to read all.
    witness.fill("exact", 0..1600);
    witness.is_silent("ivf_training");
    witness.is_silent("ivf_lists");
    witness.is_well();

    witness.fill("items", 0..1600);
    let found = witness.speaks("ivf_training", "red");
    assert_eq!(found.run_on, "coordinator", "{found:?}");
    witness.mends("ivf_training");
    // Half as many again find their place in what was trained; several times as many do not.
    witness.fill("items", 1600..2400);
    witness.is_silent("ivf_training");
    witness.fill("items", 2400..7200);
    witness.speaks("ivf_training", "yellow");
    witness.mends("ivf_training");
    witness.is_well();

    let lists = |witness: &Witness, number: usize| {
        witness.coordinator.script(&format!(
            "ALTER INDEX items_idx SET (lists = {number});
             REINDEX INDEX items_idx"
        ));
    };
    lists(&witness, 10);
    witness.is_silent("ivf_lists");
    lists(&witness, 100);
    let found = witness.speaks("ivf_lists", "yellow");
    assert!(found.symptom.contains("100 lists"), "{found:?}");
    witness.mends("ivf_lists");
    witness.is_well();

    // No graph, none of its defects.
    witness.is_silent("ext_buggy");
    witness.coordinator.run("CREATE INDEX graph_idx ON exact USING hnsw (v vector_l2_ops)");
    let is_sound = "SELECT string_to_array(extversion, '.')::int[] >= '{0,8,4}'
                    FROM pg_extension WHERE extname = 'vector'";
    let checks: &[&str] = match witness.coordinator.value(is_sound).as_str() {
        "t" => {
            witness.is_silent("ext_buggy");
            &["ivf_training", "ivf_lists"]
        }
        _ => {
            witness.speaks("ext_buggy", "yellow");
            CHECKS
        }
    };
    witness.attests(checks);
}
