//! Findings about what wears out, each provoked for real, shown, mended by its own remedy, and gone.

use crate::suite::{Test, suite};
use crate::vector_indexes::with_items;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::vector::Diagnosis;
use citus_fleet_tests::{Cluster, Need, until};

pub fn suite() -> Vec<Test> {
    suite!("vector_upkeep", &[Need::Fleet, Need::Citus, Need::Vector];
        dead_rows_of_one_shard,
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

fn dead_rows_of_one_shard() {
    let cluster = with_items(6000);
    let (shard, _) = cluster.workers[0].shard_of("items");
    cluster.workers[0].shard_session().run(&format!("DELETE FROM {shard} WHERE id % 7 = 0"));
    let found = await_diagnosis(&cluster, "dead_tuples", "yellow");
    assert_ne!(found.run_on, "coordinator", "{found:?}");
    cluster.mend("dead_tuples");
}
