//! Findings about nodes and about what is between them, each provoked for real, shown, mended by its
//! own remedy, and gone.

use crate::suite::{Test, suite};
use crate::vector_indexes::{expect_well, small, with_items};
use crate::vector_upkeep::await_diagnosis;
use citus_fleet_tests::{Need, Server, until};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("vector_cluster", &[Need::Fleet, Need::Citus, Need::Vector];
        versions_that_differ,
        settings_that_differ,
        a_node_that_holds_too_much,
    )
}

fn versions_that_differ() {
    let cluster = with_items(100);
    let worker = &cluster.workers[1];
    // What the update to 0.8.0 has brought is taken away again.
    let mut session = worker.shard_session();
    for element in ["integer", "real", "double precision", "numeric"] {
        session.run(&format!("ALTER EXTENSION vector DROP CAST ({element}[] AS sparsevec)"));
        session.run(&format!("DROP CAST ({element}[] AS sparsevec)"));
        let function = format!("array_to_sparsevec({element}[], integer, boolean)");
        session.run(&format!("ALTER EXTENSION vector DROP FUNCTION {function}"));
        session.run(&format!("DROP FUNCTION {function}"));
    }
    session.run("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'");
    let found = cluster.diagnosis("ext_skew", "yellow");
    assert!(found.symptom.contains("0.7.4"), "{found:?}");
    cluster.mend("ext_skew");
    expect_well(&cluster);
}

fn settings_that_differ() {
    let cluster = with_items(100);
    let worker = &cluster.workers[0];
    worker.shard_session().run("ALTER DATABASE postgres SET hnsw.ef_search = 100");
    let found = cluster.diagnosis("guc_drift", "yellow");
    assert!(found.symptom.contains("100") && found.symptom.contains("40"), "{found:?}");
    assert_eq!(found.remedy, "SELECT fleet.set_search_option('hnsw.ef_search', '40');");
    cluster.mend("guc_drift");
    // What this session sets, the workers do not get.
    cluster.coordinator.run("LOAD 'vector'; SET hnsw.ef_search = 200");
    let found = cluster.diagnosis("guc_drift", "yellow");
    assert!(found.symptom.contains("This session"), "{found:?}");
    cluster.coordinator.run("RESET hnsw.ef_search");
    cluster.wait_until_well("guc_drift");
}

fn a_node_that_holds_too_much() {
    let cluster = small(1);
    // No primary key: shards can be moved only while writes wait.
    cluster.coordinator.script(
        "CREATE TABLE items (id int, v vector(3));
         SELECT create_distributed_table('items', 'id', shard_count := 4);
         INSERT INTO items SELECT n, '[1,2,3]' FROM generate_series(1, 1000) n;
         CREATE INDEX ON items USING hnsw (v vector_l2_ops)",
    );
    assert_eq!(cluster.diagnoses("skew").len(), 0);
    let late = Server::start(cluster.worker_spec("late"));
    cluster.announce_with(&[late.address]);
    cluster.wait_for_state(late.address, "active");
    let found = await_diagnosis(&cluster, "skew", "yellow");
    assert!(found.remedy.contains("citus_rebalance_start"), "{found:?}");
    cluster.remedy(&found);
    until("the shards are spread evenly", Duration::from_secs(60), || {
        match cluster.diagnoses("skew").as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
}
