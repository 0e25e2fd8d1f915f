//! Nodes that lack something, with real searches on them: the extension, an answer, a shard, a setting.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::server::Session;
use citus_fleet_tests::{Need, Shutdown};

pub const CHECKS: &[&str] = &["ext_skew", "node_unreachable", "placement_missing", "guc_drift"];

pub fn suite() -> Vec<Test> {
    suite!("truth_nodes", &[Need::Fleet, Need::Citus, Need::Vector]; nodes_lack_something)
}

fn nodes_lack_something() {
    let mut witness = Witness::of(plan(2));
    witness.is_silent("ext_skew");
    witness.workers[1].shard_session().run("DROP EXTENSION vector");
    let found = witness.speaks("ext_skew", "red");
    assert!(found.symptom.contains("has no vector"), "{found:?}");
    witness.mends("ext_skew");

    witness.coordinator.script(
        "CREATE ROLE app LOGIN;
         CREATE TABLE items (id int PRIMARY KEY, category text, v vector(384));
         SELECT create_distributed_table('items', 'id', shard_count := 4);
         CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)",
    );
    witness.fill("items", 0..1600);
    witness.is_well();
    a_node_that_is_full_and_one_that_is_gone(&mut witness);
    a_shard_that_is_lost(&mut witness);
    settings_that_differ(&mut witness);
    witness.attests(CHECKS);
}

fn a_node_that_is_full_and_one_that_is_gone(witness: &mut Witness) {
    // Clients have taken every connection that they may have.
    let worker = &witness.workers[0];
    let clients: Vec<Session> =
        std::iter::from_fn(|| worker.try_session("app", "postgres").ok()).collect();
    assert!(clients.len() > 10, "{}", clients.len());
    witness.is_silent("node_unreachable");
    drop(clients);

    witness.workers[0].stop(Shutdown::Immediate);
    witness.speaks("node_unreachable", "red");
    // What it holds is not known, and so not missing.
    witness.is_silent("placement_missing");
    witness.workers[0].begin();
    witness.falls_silent("node_unreachable");
}

fn a_shard_that_is_lost(witness: &mut Witness) {
    let (shard, id) = witness.workers[0].shard_of("items");
    let mut session = witness.workers[0].shard_session();
    session.run(&format!("ALTER TABLE {shard} RENAME TO mislaid"));
    let found = witness.speaks("placement_missing", "red");
    assert!(found.affected.contains(&id.to_string()) && found.remedy.is_empty(), "{found:?}");
    let rows = witness.vector_shards("public.items");
    let red: Vec<&str> =
        rows.iter().filter(|row| &row["status"] == "red").map(|row| &row["shardid"]).collect();
    assert_eq!((rows.len(), red), (4, vec![id.to_string().as_str()]), "{rows:?}");
    session.run(&format!("ALTER TABLE mislaid RENAME TO {shard}"));
    witness.falls_silent("placement_missing");
    witness.is_well();
}

fn settings_that_differ(witness: &mut Witness) {
    witness.coordinator.run("SELECT fleet.set_search_option('hnsw.ef_search', '80')");
    witness.coordinator.forget_session();
    witness.is_silent("guc_drift");
    witness.workers[1].set("ivfflat.probes", "7");
    let found = witness.speaks("guc_drift", "yellow");
    assert!(found.symptom.contains("ivfflat.probes is 7"), "{found:?}");
    witness.mends("guc_drift");
    witness.is_well();
}
