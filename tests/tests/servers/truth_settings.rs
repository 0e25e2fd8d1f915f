//! Settings that real searches go by, and what searches order by.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::Need;
use citus_fleet_tests::embeddings::query;

pub const CHECKS: &[&str] = &["role_settings", "index_scans_off", "operator_unserved"];

pub fn suite() -> Vec<Test> {
    suite!("truth_settings", &[Need::Fleet, Need::Citus, Need::Vector];
        what_searches_go_by,
    )
}

fn what_searches_go_by() {
    let statements = plan(2)
        .set("shared_preload_libraries", "citus,citus_fleet,pg_stat_statements")
        .worker_set("shared_preload_libraries", "citus,pg_stat_statements");
    let mut witness = Witness::with_items(statements, 4000);
    witness.coordinator.script(
        "CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops);
         CREATE EXTENSION pg_stat_statements;
         CREATE ROLE app LOGIN;
         GRANT SELECT ON items TO app",
    );
    settings_of_a_role(&mut witness);
    settings_of_the_caller(&mut witness);
    index_scans(&mut witness);
    operators(&mut witness);
    witness.attests(CHECKS);
}

fn settings_of_a_role(witness: &mut Witness) {
    witness.is_silent("role_settings");
    witness.coordinator.run("ALTER ROLE app SET hnsw.ef_search = 400");
    witness.is_silent("role_settings");
    witness.coordinator.run("ALTER ROLE app SET hnsw.ef_search = 1");
    let found = witness.speaks("role_settings", "yellow");
    assert_eq!(found.remedy, "ALTER ROLE app RESET hnsw.ef_search;");
    // Citus has taken it to all nodes, and takes the remedy there.
    witness.mends("role_settings");
    witness.workers[0].shard_session().run(
        "SET citus.enable_alter_role_set_propagation = off;
         ALTER ROLE app IN DATABASE postgres SET hnsw.ef_search = 2",
    );
    let found = witness.speaks("role_settings", "yellow");
    assert!(found.remedy.contains("IN DATABASE postgres RESET hnsw.ef_search"), "{found:?}");
    witness.mends("role_settings");
}

/// What the caller has set for itself is nobody else's, nor what is told over HTTP.
fn settings_of_the_caller(witness: &mut Witness) {
    witness.coordinator.run("ALTER ROLE postgres SET hnsw.ef_search = 400");
    let mut session = witness.coordinator.session();
    let told = "SELECT count(*) FROM fleet.vector_findings WHERE \"check\" = 'guc_drift'
        AND symptom LIKE '% on the coordinator'";
    assert_eq!(session.value("LOAD 'vector'; SHOW hnsw.ef_search"), "400");
    assert_eq!(session.value(told), "0");
    session.run("SELECT fleet.vector_recall('items')");
    let settings = "SELECT DISTINCT settings FROM fleet.recall_results";
    assert!(session.value(settings).contains("hnsw.ef_search=40 "), "{}", session.value(settings));
    witness.coordinator.run("ALTER ROLE postgres RESET hnsw.ef_search");
    // However it is typed, it is the same.
    for worker in &witness.workers {
        worker.shard_session().run(
            "SET citus.enable_ddl_propagation = off; ALTER DATABASE postgres SET hnsw.iterative_scan = 'Off'",
        );
    }
    witness.is_silent("guc_drift");
    assert_eq!(witness.diagnoses("recall_unknown").len(), 0);
}

fn index_scans(witness: &mut Witness) {
    witness.is_silent("index_scans_off");
    let worker = &witness.workers[0];
    worker.set("enable_indexscan", "off");
    witness.speaks("index_scans_off", "yellow");
    witness.mends("index_scans_off");
    witness.workers[0].shard_session().run(
        "SET citus.enable_ddl_propagation = off;
         ALTER DATABASE postgres SET enable_indexscan = off",
    );
    witness.speaks("index_scans_off", "yellow");
    witness.mends("index_scans_off");
    witness.coordinator.run("ALTER ROLE app SET enable_indexscan = off");
    let found = witness.speaks("index_scans_off", "yellow");
    assert_eq!(found.remedy, "ALTER ROLE app RESET enable_indexscan;");
    witness.mends("index_scans_off");
}

/// As many searches as are no try.
fn search(witness: &Witness, operator: &str) {
    let mut session = witness.coordinator.session();
    for number in 0..120 {
        let order = format!("v {operator} '{}'", query(number));
        session.run(&format!("SELECT id FROM items ORDER BY {order} LIMIT 10"));
    }
}

fn operators(witness: &mut Witness) {
    search(witness, "<->");
    // Whether the planner takes the index for so few rows is another matter.
    witness.is_silent("operator_unserved");
    // It orders few rows of an inner search, which another operator has found.
    let mut session = witness.coordinator.session();
    for number in 0..120 {
        let vector = query(number);
        session.run(&format!(
            "SELECT id FROM (SELECT id, v FROM items WHERE id < 100 ORDER BY v <-> '{vector}' LIMIT 40) i
             ORDER BY v <#> '{vector}' LIMIT 10"
        ));
    }
    drop(session);
    witness.is_silent("operator_unserved");
    search(witness, "<=>");
    let found = witness.speaks("operator_unserved", "yellow");
    assert!(found.symptom.contains("<=>") && !found.symptom.contains("<->"), "{found:?}");
    assert!(found.remedy.contains("vector_cosine_ops"), "{found:?}");
    witness.mends("operator_unserved");
}
