//! Findings that are meant to be so: who may say it, what it changes, and how it ends.

use crate::suite::{Test, suite};
use crate::vector_indexes::{expect_well, small};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::{Cluster, Need, until};

pub fn suite() -> Vec<Test> {
    suite!("silences", &[Need::Fleet, Need::Citus, Need::Vector];
        what_is_silenced_is_shown_and_worsens_nothing,
        a_partitioned_table_is_silenced_with_its_partitions,
        it_ends_by_itself,
        bad_input_changes_nothing,
        a_dump_keeps_it,
    )
}

/// Two tables that lack an index.
fn with_bare_tables() -> Cluster {
    let cluster = small(1);
    for table in ["exact", "forgotten"] {
        cluster.coordinator.script(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v vector(3));
             SELECT create_distributed_table('{table}', 'id', shard_count := 2, colocate_with := 'none');
             INSERT INTO {table} SELECT n, '[1,2,3]' FROM generate_series(1, 1000) n;
             ANALYZE {table}"
        ));
    }
    cluster.coordinator.run("SELECT pg_stat_force_next_flush()");
    cluster
}

const MISSING: &str = "SELECT string_agg(DISTINCT table_name, ' ') FROM fleet.vector_findings
    WHERE \"check\" = 'index_missing' AND silenced_by IS NULL";

#[track_caller]
fn wait_for_missing(cluster: &Cluster, wanted: &str) {
    until(&format!("an index is missing on {wanted:?}"), SOON, || {
        match cluster.coordinator.try_value(MISSING)? {
            tables if tables == wanted => Ok(()),
            other => Err(other),
        }
    });
}

fn what_is_silenced_is_shown_and_worsens_nothing() {
    let cluster = with_bare_tables();
    let coordinator = &cluster.coordinator;
    wait_for_missing(&cluster, "public.exact public.forgotten");
    coordinator.run(
        "SELECT fleet.silence('index_missing', 'exact', now() + '1 day', 'exact search on purpose')",
    );
    wait_for_missing(&cluster, "public.forgotten");
    let rated =
        "SELECT string_agg(table_name || ' ' || status, ', ' ORDER BY 1) FROM fleet.vector_tables";
    assert_eq!(coordinator.value(rated), "public.exact green, public.forgotten yellow");
    let told = coordinator.rows(
        "SELECT DISTINCT silenced_by, silenced_why, silenced_until > now() AS goes_on
         FROM fleet.vector_findings WHERE table_name = 'public.exact' AND \"check\" = 'index_missing'",
    );
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["silenced_by"], &told[0]["silenced_why"], &told[0]["goes_on"]),
        ("postgres", "exact search on purpose", "t")
    );
    let metrics = coordinator.value("SELECT fleet.metrics()");
    for line in [
        "citus_fleet_vector_silenced_findings{check=\"index_missing\"} 2.0",
        "citus_fleet_vector_findings{check=\"index_missing\",severity=\"yellow\"} 2.0",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
    // A whole check for the cluster, without a word about a table.
    coordinator.run("SELECT fleet.silence('index_missing', NULL, now() + '1 day', 'a prototype')");
    expect_well(&cluster);
    let report = coordinator.value("SELECT fleet.vector_health(true)");
    assert!(
        report.contains("a prototype") && report.contains("exact search on purpose"),
        "{report}"
    );
    coordinator.run("SELECT fleet.unsilence('index_missing')");
    coordinator.run("SELECT fleet.unsilence('index_missing', 'exact')");
    wait_for_missing(&cluster, "public.exact public.forgotten");
}

fn a_partitioned_table_is_silenced_with_its_partitions() {
    let cluster = small(1);
    cluster.coordinator.script(
        "CREATE TABLE logs (id int, day int, v vector(3), PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (1) TO (2);
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM (2) TO (3);
         SELECT create_distributed_table('logs', 'id', shard_count := 2);
         INSERT INTO logs SELECT n, 1 + n % 2, '[1,2,3]' FROM generate_series(1, 2000) n;
         ANALYZE logs;
         SELECT pg_stat_force_next_flush()",
    );
    wait_for_missing(&cluster, "public.logs_1 public.logs_2");
    cluster
        .coordinator
        .run("SELECT fleet.silence('index_missing', 'logs', now() + '1 day', 'a log')");
    wait_for_missing(&cluster, "");
}

fn it_ends_by_itself() {
    let cluster = with_bare_tables();
    cluster.coordinator.run(
        "SELECT fleet.silence('index_missing', NULL, clock_timestamp() + '2 s', 'until we have eaten')",
    );
    wait_for_missing(&cluster, "");
    wait_for_missing(&cluster, "public.exact public.forgotten");
    // What has ended, or has lost its table, is forgotten when the next one comes.
    cluster.coordinator.run("SELECT fleet.silence('skew', 'exact', now() + '1 day', 'why')");
    cluster.coordinator.run("DROP TABLE exact");
    assert_eq!(cluster.diagnoses("index_missing").len(), 1);
    cluster.coordinator.run("SELECT fleet.silence('bloat', NULL, now() + '1 day', 'why')");
    let left = "SELECT string_agg(\"check\", ' ') FROM fleet.silences";
    assert_eq!(cluster.coordinator.value(left), "bloat");
}

fn bad_input_changes_nothing() {
    let cluster = small(1);
    let coordinator = &cluster.coordinator;
    coordinator.run("CREATE TABLE t (v vector(3)); CREATE INDEX ON t USING hnsw (v vector_l2_ops); CREATE ROLE ann LOGIN; GRANT pg_monitor TO ann");
    for (call, state) in [
        ("silence('no_such_check', NULL, now() + '1 day', 'why')", "22023"),
        ("silence('skew', NULL, now() - interval '1 day', 'why')", "22023"),
        ("silence('skew', NULL, 'infinity', 'why')", "22023"),
        ("silence('skew', NULL, '294276-12-31 23:59:59', 'why')", "22023"),
        ("silence('ext_buggy', 't', now() + '1 day', 'why')", "22023"),
        ("silence('skew', 't_v_idx', now() + '1 day', 'why')", "42809"),
        ("silence('skew', NULL, now() + '1 day', ' ')", "22023"),
        ("silence('skew', NULL, NULL, 'why')", "22004"),
        ("silence(NULL, NULL, now() + '1 day', 'why')", "22004"),
        ("silence('skew', 'no_such_table', now() + '1 day', 'why')", "42P01"),
        ("unsilence('skew', 't')", "42704"),
        ("unsilence('no_such_check')", "22023"),
    ] {
        let error = coordinator.error(&format!("SELECT fleet.{call}"));
        assert_eq!(error.state, state, "{call}: {error}");
    }
    let mut session = coordinator.session();
    session.run("SET ROLE ann");
    let denied = session.error("SELECT fleet.silence('skew', NULL, now() + '1 day', 'why')");
    assert_eq!(denied.state, "42501", "{denied}");
    assert_eq!(session.value("SELECT count(*) FROM fleet.silences"), "0");
    let elsewhere =
        cluster.workers[0].error("SELECT fleet.silence('skew', NULL, now() + '1 day', 'why')");
    assert_eq!(elsewhere.state, "55000", "{elsewhere}");
}

fn a_dump_keeps_it() {
    let cluster = with_bare_tables();
    cluster
        .coordinator
        .run("SELECT fleet.silence('index_missing', 'exact', now() + '1 day', 'exact')");
    let dumped = "SELECT count(*) FROM pg_extension, unnest(extconfig) c
        WHERE extname = 'citus_fleet' AND c::regclass::text = 'fleet.silences'";
    assert_eq!(cluster.coordinator.value(dumped), "1");
    // One whose table is gone would be a number, and somebody else's elsewhere.
    cluster.coordinator.run("DROP TABLE exact");
    let condition =
        "SELECT extcondition[array_position(extconfig, 'fleet.silences'::regclass::oid)]
        FROM pg_extension WHERE extname = 'citus_fleet'";
    let condition = cluster.coordinator.value(condition);
    let left = format!("SELECT count(*) FROM fleet.silences {condition}");
    assert_eq!(cluster.coordinator.value(&left), "0");
}
