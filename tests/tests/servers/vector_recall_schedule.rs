//! Recall that is measured by schedule, and what is kept of it.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::process::send;
use citus_fleet_tests::{Cluster, Need, until};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("vector_recall_schedule", &[Need::Fleet, Need::Citus, Need::Vector];
        results_come_by_themselves_and_go_with_their_tables,
        what_a_superuser_measures_is_kept,
        it_stops_at_once_and_never_runs_twice,
    )
}

/// A distributed table of two shards, a reference table and a local one, each with an index.
fn with_tables(plan: Plan) -> Cluster {
    let cluster = plan.start();
    cluster.wait_until_all_active();
    cluster.coordinator.run(
        "CREATE TABLE spread (id int, v vector(4)); CREATE TABLE everywhere (LIKE spread); CREATE TABLE \"Here\" (LIKE spread);
         SELECT create_distributed_table('spread', 'id', shard_count => 2);
         SELECT create_reference_table('everywhere')",
    );
    for table in ["spread", "everywhere", "\"Here\""] {
        cluster.coordinator.run(&format!(
            "INSERT INTO {table}
             SELECT i, ARRAY[i, i % 3, i % 5, i % 7]::vector FROM generate_series(1, 400) i"
        ));
        cluster.coordinator.run(&format!("CREATE INDEX ON {table} USING hnsw (v vector_l2_ops)"));
    }
    cluster
}

const PER_TABLE: &str = "SELECT string_agg(n, ' ') FROM (
    SELECT relation::text || '=' || count(*) AS n FROM fleet.recall_results
    WHERE recall = 1 AND settings LIKE '%hnsw.ef_search=40%' GROUP BY relation ORDER BY 1) s";

fn results_come_by_themselves_and_go_with_their_tables() {
    let cluster = with_tables(Plan::workers(1).set("citus_fleet.interval", "200ms"));
    let coordinator = &cluster.coordinator;
    let results = || coordinator.value(PER_TABLE);
    let sampler = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'citus_fleet recall'";
    cluster.wait_for_cycles(2);
    assert_eq!(
        (results(), coordinator.value(sampler)),
        (String::new(), "0".into()),
        "off by default"
    );
    coordinator.set("citus_fleet.recall_interval", "1s");
    // The reference table is on the coordinator too.
    let all = "\"Here\"=1 everywhere=2 spread=2";
    let wait_for = |wanted: &str| {
        until(&format!("the results are {wanted:?}"), SOON, || match results() {
            now if now == wanted => Ok(()),
            now => Err(now),
        })
    };
    wait_for(all);
    let count = "SELECT count(DISTINCT measured_at) FROM fleet.recall_results";
    let newest = || coordinator.value("SELECT max(measured_at) FROM fleet.recall_results");
    let before = newest();
    until("they are measured again", SOON, || match newest() {
        now if now != before => Ok(()),
        now => Err(now),
    });
    assert_ne!(coordinator.value(count), "1", "each table has a transaction of its own");
    coordinator.run("DROP TABLE spread; DROP TABLE \"Here\"");
    wait_for("everywhere=2");
    coordinator.run("DROP INDEX everywhere_v_idx");
    coordinator.set("citus_fleet.recall_interval", "0");
    until("the last sampler has ended", SOON, || match coordinator.value(sampler).as_str() {
        "0" => Ok(()),
        other => Err(other.to_owned()),
    });
    let last = newest();
    cluster.wait_for_cycles(8);
    assert_eq!(newest(), last, "none is started any more");
}

fn what_a_superuser_measures_is_kept() {
    let cluster = with_tables(Plan::workers(1));
    let mut session = cluster.coordinator.session();
    let count = "SELECT count(*) FROM fleet.recall_results";
    session.run("SELECT * FROM fleet.vector_recall('spread', 5)");
    session.run("SELECT * FROM fleet.vector_recall('spread', 10, 99)");
    session.run("BEGIN READ ONLY; SELECT * FROM fleet.vector_recall('spread'); COMMIT");
    session.run("BEGIN; SELECT * FROM fleet.vector_recall('spread'); ROLLBACK");
    assert_eq!(session.value(count), "0");
    session.run("SELECT * FROM fleet.vector_recall('spread')");
    assert_eq!(session.value(count), "2");
    let kept = session.rows(
        "SELECT r.*, s.logicalrelid FROM fleet.recall_results r JOIN pg_dist_shard s USING (shardid)",
    );
    for row in &kept {
        assert_eq!(
            (&row["relation"], &row["k"], &row["queries"]),
            ("spread", "10", "100"),
            "{row:?}"
        );
        assert!(
            row["placement"].ends_with(&row["shardid"]) && row["index"].ends_with(&row["shardid"]),
            "{row:?}"
        );
    }
    // The file is the one that the index has on its node.
    let filenodes = session.value(
        "SELECT count(*) FROM fleet.recall_results r, run_command_on_placements('spread',
           $$SELECT pg_relation_filenode(indexrelid) FROM pg_index WHERE indrelid = '%s'::regclass$$) p
         WHERE p.shardid = r.shardid AND p.result = r.filenode::text",
    );
    assert_eq!(filenodes, "2");
}

fn it_stops_at_once_and_never_runs_twice() {
    let cluster = Plan::workers(1).set("citus_fleet.interval", "200ms").start();
    cluster.wait_until_all_active();
    cluster.coordinator.run(
        "CREATE TABLE slow (v vector(64));
         INSERT INTO slow SELECT array_fill(i % 97, ARRAY[64])::vector FROM generate_series(1, 2000) i;
         CREATE INDEX ON slow USING ivfflat (v vector_l2_ops) WITH (lists = 10)",
    );
    // Somebody holds the table, so a sampler waits for it.
    let mut blocker = cluster.coordinator.session();
    blocker.run("BEGIN; LOCK TABLE slow IN ACCESS EXCLUSIVE MODE");
    cluster.coordinator.set("citus_fleet.recall_interval", "1s");
    let samplers = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'citus_fleet recall'";
    let waiting = || -> Result<u32, String> {
        let row = cluster.coordinator.value(
            "SELECT coalesce(max(pid), 0) FROM pg_stat_activity
             WHERE backend_type = 'citus_fleet recall' AND wait_event_type = 'Lock'",
        );
        row.parse().ok().filter(|pid| *pid != 0).ok_or(row)
    };
    let pid = until("a sampler waits for the lock", SOON, waiting);
    // A controller that comes back does not know of it, and its sampler gives way.
    send(cluster.controller(), libc::SIGTERM);
    until("there is another controller", SOON, || match cluster.controller() {
        0 => Err("none"),
        _ => Ok(()),
    });
    cluster.wait_for_cycles(5);
    let now = cluster.coordinator.value(samplers);
    assert!(now.split(' ').count() <= 1, "{now}");
    let started = std::time::Instant::now();
    let victim = waiting().unwrap_or(pid);
    send(victim, libc::SIGTERM);
    until("the sampler is gone", SOON, || {
        match citus_fleet_tests::server::process::is_alive(victim) {
            true => Err("it runs"),
            false => Ok(()),
        }
    });
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    blocker.run("ROLLBACK");
    until("it is measured after all", SOON, || {
        match cluster.coordinator.value("SELECT count(*) FROM fleet.recall_results").as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}
