//! The report over every kind of relation and of vector column there is, as they are after a load, a VACUUM
//! and an ANALYZE: nothing breaks it, and nothing that is well is called wrong.

use crate::suite::{Test, suite};
use crate::vector_upkeep::await_diagnosis;
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::vector::{Diagnosis, all_diagnoses};
use citus_fleet_tests::{Cluster, Need};
use std::collections::BTreeSet;

pub fn suite() -> Vec<Test> {
    suite!("vector_kinds", &[Need::Fleet, Need::Citus, Need::Vector];
        every_kind_of_relation_and_of_column_is_told_of,
        figures_that_no_relation_should_have_cost_no_other_its_own,
        every_remedy_that_is_offered_runs_and_helps,
        a_sparsevec_that_no_index_can_hold_is_told_before_a_build,
    )
}

/// Everything that reads the report.
const READERS: [&str; 11] = [
    "SELECT fleet.vector_health(true)",
    "SELECT fleet.vector_health()",
    "SELECT * FROM fleet.vector_tables",
    "SELECT * FROM fleet.vector_shards",
    "SELECT * FROM fleet.vector_indexes",
    "SELECT * FROM fleet.vector_nodes",
    "SELECT * FROM fleet.vector_recalls",
    "SELECT * FROM fleet.vector_findings",
    "SELECT * FROM fleet.vector_progress",
    "SELECT fleet.metrics()",
    "SELECT * FROM fleet.doctor()",
];

/// Columns of every type that pgvector has, with and without dimensions, and a domain over one.
const COLUMNS: &str = "v vector(3), w vector, h halfvec(3), i halfvec, s sparsevec(9), t sparsevec,
    b bit(8), d embedding";
const VALUES: &str = "SELECT n, '[1,2,3]', NULLIF('[1,2,3]', CASE WHEN n % 2 = 0 THEN '[1,2,3]' END)::vector,
    '[1,2,3]', '[4,5]', '{1:1,2:2}/9', '{3:1}/7', n::bit(8), '[3,2,1]' FROM generate_series(1, 400) n";

const RELATIONS: [&str; 13] = [
    "plain",
    "parts",
    "parts_1",
    "stray",
    "tags",
    "mine",
    "unlogged_here",
    "unlogged_there",
    "columns",
    "empty",
    "child",
    "seen",
    "far",
];

fn with_every_kind() -> Cluster {
    let cluster = Plan::workers(2).set("citus_fleet.index_min_rows", "100").start();
    cluster.wait_until_all_active();
    let coordinator = &cluster.coordinator;
    coordinator.script(&format!(
        "CREATE EXTENSION citus_columnar;
         CREATE DOMAIN embedding AS vector(3);
         CREATE TABLE plain (n int, {COLUMNS});
         SELECT create_distributed_table('plain', 'n', shard_count := 2);
         CREATE TABLE parts (n int, {COLUMNS}) PARTITION BY RANGE (n);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (300);
         CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
         CREATE TABLE stray (n int, {COLUMNS}) PARTITION BY LIST (n);
         SELECT create_distributed_table('parts', 'n', shard_count := 2);
         CREATE TABLE tags (n int, {COLUMNS});
         SELECT create_reference_table('tags');
         CREATE TABLE mine (n int, {COLUMNS});
         CREATE TABLE child () INHERITS (mine);
         CREATE UNLOGGED TABLE unlogged_here (n int, {COLUMNS});
         CREATE UNLOGGED TABLE unlogged_there (n int, {COLUMNS});
         SELECT create_distributed_table('unlogged_there', 'n', shard_count := 2);
         CREATE TABLE columns (n int, {COLUMNS}) USING columnar;
         SELECT create_distributed_table('columns', 'n', shard_count := 2);
         CREATE TABLE empty (n int, {COLUMNS});
         SELECT create_distributed_table('empty', 'n', shard_count := 2);
         CREATE EXTENSION postgres_fdw;
         CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FOREIGN TABLE far (n int, v vector(3)) SERVER elsewhere;
         CREATE TEMPORARY TABLE passing (n int, v vector(3))",
    ));
    for table in
        ["plain", "parts", "tags", "mine", "unlogged_here", "unlogged_there", "columns", "child"]
    {
        coordinator.run(&format!("INSERT INTO {table} {VALUES}"));
    }
    coordinator.run(
        "CREATE MATERIALIZED VIEW seen AS SELECT n, '[1,2,3]'::vector(3) AS v, '[1,2]'::vector AS w,
           '[1,2,3]'::halfvec(3) AS h, '{1:1}/9'::sparsevec(9) AS s, '[3,2,1]'::embedding AS d
         FROM generate_series(1, 400) n",
    );
    for table in ["plain", "parts", "tags", "mine", "unlogged_there", "empty", "seen"] {
        for key in [
            "hnsw (v vector_l2_ops)",
            "hnsw (h halfvec_cosine_ops)",
            "hnsw (s sparsevec_ip_ops)",
            "hnsw ((binary_quantize(v)::bit(3)) bit_hamming_ops)",
            "ivfflat (v vector_cosine_ops) WITH (lists = 2)",
            "hnsw ((d::vector(3)) vector_l1_ops)",
        ] {
            coordinator.run(&format!("CREATE INDEX ON {table} USING {key}"));
        }
    }
    cluster
}

#[track_caller]
fn read_all(cluster: &Cluster) {
    for reader in READERS {
        if let Err(error) = cluster.coordinator.try_rows(reader) {
            panic!("{reader}: {error}");
        }
    }
}

fn every_kind_of_relation_and_of_column_is_told_of() {
    let cluster = with_every_kind();
    read_all(&cluster);
    for upkeep in ["VACUUM", "ANALYZE", "VACUUM FULL"] {
        for relation in RELATIONS.iter().filter(|it| !matches!(**it, "far")) {
            // Citus refuses some of them; what matters is what the others leave behind.
            drop(cluster.coordinator.try_rows(&format!("{upkeep} {relation}")));
        }
        read_all(&cluster);
    }
    let pages = "SELECT relpages FROM pg_class WHERE oid = 'parts'::regclass";
    assert_eq!(
        cluster.coordinator.value(pages),
        "-1",
        "what ANALYZE leaves of a partitioned table"
    );
    let told = "SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM fleet.vector_tables";
    assert_eq!(
        cluster.coordinator.value(told),
        "public.child public.columns public.empty public.mine public.parts_1 public.parts_2 \
         public.plain public.seen public.tags public.unlogged_here public.unlogged_there"
    );
}

/// What an operator, pg_upgrade or a defect may leave in the catalogs.
fn figures_that_no_relation_should_have_cost_no_other_its_own() {
    let cluster = with_every_kind();
    for figures in [
        "reltuples = 'NaN', relpages = -1",
        "reltuples = 'Infinity', relpages = 2147483647",
        "reltuples = -1, relpages = 0",
    ] {
        for server in [&cluster.coordinator, &cluster.workers[0]] {
            server.session().run(&format!(
                "SET citus.override_table_visibility = off;
                 SET allow_system_table_mods = on;
                 UPDATE pg_class SET {figures} WHERE relname ~ '^plain';
                 UPDATE pg_statistic SET stanullfrac = 'NaN' WHERE starelid IN
                   (SELECT oid FROM pg_class WHERE relname ~ '^plain')"
            ));
        }
        read_all(&cluster);
        let rows = "SELECT rows FROM fleet.vector_tables WHERE table_name = 'public.tags'";
        assert_eq!(cluster.coordinator.value(rows), "400", "{figures}");
    }
}

/// Runs what it offers, round by round, until it offers nothing more: what was mended does not come back.
fn every_remedy_that_is_offered_runs_and_helps() {
    let cluster = with_every_kind();
    let mut mended: BTreeSet<(String, String)> = BTreeSet::new();
    for round in 0.. {
        let offered: Vec<Diagnosis> = all_diagnoses(&cluster.coordinator)
            .into_iter()
            .filter(|one| !one.remedy.is_empty())
            .collect();
        if offered.is_empty() {
            break;
        }
        assert!(round < 5, "{offered:#?}");
        for one in offered {
            let once = mended.insert((one.id.clone(), one.remedy.clone()));
            // What another remedy has rebuilt is measured again.
            assert!(once || one.id == "recall_unknown", "it is offered again: {one:?}");
            cluster.remedy(&one);
        }
        cluster.coordinator.run("ANALYZE");
    }
    let kinds: BTreeSet<&str> = mended.iter().map(|(id, _)| id.as_str()).collect();
    assert!(kinds.contains("index_missing") && kinds.contains("not_indexable"), "{kinds:?}");
    let left = cluster.diagnoses("not_indexable");
    // That a columnar table takes no index is only worth knowing.
    let left = left.iter().filter(|one| one.status != "green");
    let left: Vec<&str> = left.map(|one| one.symptom.as_str()).collect();
    assert_eq!(left, ["Column w of public.seen declares no dimensions."]);
}

/// The statistics do not tell, and a build that fails would leave an invalid index.
fn a_sparsevec_that_no_index_can_hold_is_told_before_a_build() {
    let cluster = Plan::workers(1).set("citus_fleet.index_min_rows", "100").start();
    cluster.wait_until_all_active();
    cluster.coordinator.script(
        "CREATE TABLE docs (n int, s sparsevec(1500));
         SELECT create_distributed_table('docs', 'n', shard_count := 2);
         INSERT INTO docs SELECT n, (SELECT array_agg(x) FROM generate_series(n, n + 1499) x)
           ::real[]::vector::sparsevec FROM generate_series(1, 400) n",
    );
    let offered = await_diagnosis(&cluster, "index_missing", "yellow");
    let first = offered.remedy.split(";\n").next().expect("a statement");
    let refusal = cluster.coordinator.error(first);
    assert!(refusal.message.contains("more than 1000 elements"), "{refusal:?}");
    assert_eq!(cluster.diagnoses("index_invalid").len(), 0);
}
