//! The page and the metrics of large clusters: six thousand placements, or a table for each of three
//! thousand tenants, are still something to read, and cost the coordinator little.

use crate::http::serving;
use crate::strangers_computing::ticks;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::http::get;
use citus_fleet_tests::{Cluster, Need, Server, until};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("http_size", &[Need::Fleet, Need::Citus, Need::Vector];
        six_thousand_placements_are_a_page,
    );
    tests.extend(suite!("http_size", &[Need::Fleet, Need::Vector];
        three_thousand_tables_are_a_page,
    ));
    tests
}

/// What a page that somebody looks at asks for at once.
const REFRESH: [&str; 4] =
    ["/health", "/vector", "/events?limit=15", "/vector/shards?offset=0&limit=25"];
const MOST_BYTES: usize = 200_000;
const MOST_LINES: usize = 2_000;
/// Seconds of one collection, in an ordinary build on a small machine.
const MOST_SECONDS: f64 = 1.0;

/// Seconds of CPU that the server of the documents has used.
fn cpu(server: &Server) -> f64 {
    let pid =
        server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'citus_fleet http'");
    ticks(pid.parse().expect("it runs")) as f64 / 100.0
}

#[track_caller]
fn body(at: SocketAddr, path: &str) -> String {
    let reply = get(at, path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    reply.body
}

/// One value of a document, by a path of SQL/JSON.
fn json(cluster: &Cluster, body: &str, path: &str) -> String {
    let sql = format!("SELECT jsonb_path_query('{}'::jsonb, '{path}')", body.replace('\'', "''"));
    cluster.coordinator.session().value(&sql)
}

/// That a viewer gets little, that Prometheus gets little, and that both are cheap.
#[track_caller]
fn assert_frugal(cluster: &Cluster, at: SocketAddr) {
    let observed = |body: &str| json(cluster, body, "$.observed_at");
    let earlier = observed(&body(at, "/vector"));
    // What the collection before this one has cost does not count.
    let before = cpu(&cluster.coordinator);
    until("it was collected anew", Duration::from_secs(60), || {
        let now = observed(&body(at, "/vector"));
        if now == earlier { Err(now) } else { Ok(()) }
    });
    let answers: Vec<String> = REFRESH.iter().map(|path| body(at, path)).collect();
    let metrics = body(at, "/metrics");
    let spent = cpu(&cluster.coordinator) - before;
    let bytes: Vec<usize> = answers.iter().map(String::len).collect();
    let lines = metrics.lines().count();
    eprintln!("{bytes:?} bytes, {lines} lines, {spent:.2} s");
    assert!(bytes.iter().sum::<usize>() < MOST_BYTES, "{bytes:?}");
    assert!(lines < MOST_LINES, "{lines}");
    assert!(spent < MOST_SECONDS, "{spent} s");
}

/// Follows a list from page to page, and returns what `column` says, row by row.
#[track_caller]
fn walk(cluster: &Cluster, at: SocketAddr, path: &str, column: &str) -> Vec<String> {
    let (mut seen, mut next) = (Vec::new(), "0".to_string());
    let mut session = cluster.coordinator.session();
    while next != "null" {
        let page = body(at, &format!("{path}?limit=200&offset={next}")).replace('\'', "''");
        let rows = session.rows(&format!(
            "SELECT r->>'{column}' AS value, page->'next' AS next
             FROM (SELECT '{page}'::jsonb) AS p (page), jsonb_array_elements(page->'rows') r"
        ));
        next = rows.first().map_or("null", |row| &row["next"]).to_string();
        seen.extend(rows.iter().map(|row| row["value"].to_string()));
    }
    seen
}

fn six_thousand_placements_are_a_page() {
    let plan = Plan::workers(4)
        .set("max_locks_per_transaction", "1000")
        .worker_set("max_locks_per_transaction", "1000");
    let (cluster, at) = serving(plan);
    cluster.wait_until_all_active();
    thread::scope(|scope| {
        for table in ["docs", "images", "items"] {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut session = cluster.coordinator.session();
                session.run("SET statement_timeout = 0");
                session.run(&format!("CREATE TABLE {table} (id bigint, v vector(3))"));
                session.run(&format!("CREATE INDEX ON {table} USING hnsw (v vector_l2_ops)"));
                session.run(&format!(
                    "SELECT create_distributed_table('{table}', 'id', shard_count := 2000, colocate_with := 'none')"
                ));
            });
        }
    });
    // A hundred shards lack their index, each with a statement of its own.
    cluster.workers[0].shard_session().run(
        "DO $$ DECLARE one text; BEGIN
           FOR one IN SELECT oid::regclass FROM pg_class WHERE relkind = 'i' AND relname ~ '^docs_v_idx_[0-9]+$'
                      ORDER BY relname LIMIT 100 LOOP
             EXECUTE 'DROP INDEX ' || one;
           END LOOP; END $$",
    );
    until("all of it is seen", Duration::from_secs(60), || {
        let page = body(at, "/vector/shards?wrong=1&table=public.docs&limit=200");
        let total = json(&cluster, &page, "$.total");
        if total == "100" { Ok(()) } else { Err(total) }
    });
    assert_frugal(&cluster, at);
    let summary = body(at, "/vector");
    assert_eq!(json(&cluster, &summary, "$.counts.shards.green"), "5900");
    assert_eq!(
        json(&cluster, &summary, "$.tables[0].table_name"),
        "\"public.docs\"",
        "the worst first"
    );
    // Every shard is found, those that are wrong before the others.
    let shards = walk(&cluster, at, "/vector/shards", "shardid");
    let (all, distinct) = (shards.len(), shards.iter().collect::<BTreeSet<_>>().len());
    assert_eq!((all, distinct), (6000, 6000));
    let statuses = walk(&cluster, at, "/vector/shards", "status");
    assert!(statuses[..100].iter().all(|status| status == "yellow"), "{:?}", &statuses[..100]);
    let node = format!("{}:{}", cluster.workers[1].address, cluster.workers[1].port);
    let of_node = body(at, &format!("/vector/shards?table=public.items&node={node}&limit=1"));
    assert_eq!(json(&cluster, &of_node, "$.total"), "500");
    let everything = body(at, "/metrics?shards=1");
    assert!(everything.lines().count() > 36_000, "shards are there for whoever asks");
}

fn three_thousand_tables_are_a_page() {
    let plan = Plan::workers(0).without_citus().set("max_locks_per_transaction", "1000");
    let (cluster, at) = serving(plan);
    cluster.coordinator.run("CREATE EXTENSION vector");
    let mut session = cluster.coordinator.session();
    let numbers: Vec<usize> = (1..=3000).collect();
    for some in numbers.chunks(100) {
        let statements = some.iter().map(|n| {
            format!(
                "CREATE SCHEMA tenant{n}; CREATE TABLE tenant{n}.a (id bigint, v vector(3));
                 CREATE INDEX ON tenant{n}.a USING hnsw (v vector_l2_ops);"
            )
        });
        session.run(&statements.collect::<String>());
    }
    // As a REINDEX leaves it that has failed.
    session.run("ALTER INDEX tenant2718.a_v_idx RENAME TO a_v_idx_ccnew");
    session.run(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tenant2718.a_v_idx_ccnew'::regclass",
    );
    until("all of them are seen", Duration::from_secs(60), || {
        let summary = body(at, "/vector");
        let first = json(&cluster, &summary, "$.tables[0].table_name");
        if first == "\"tenant2718.a\"" { Ok(()) } else { Err(first) }
    });
    assert_frugal(&cluster, at);
    let summary = body(at, "/vector");
    assert_eq!(json(&cluster, &summary, "$.left_out.tables"), "2975");
    let tables: BTreeSet<String> =
        walk(&cluster, at, "/vector/tables", "table_name").into_iter().collect();
    assert_eq!(tables.len(), 3000);
    let found = body(at, "/vector/tables?find=TENANT299");
    assert_eq!(json(&cluster, &found, "$.total"), "11");
    // The one that is wrong keeps its series.
    assert!(body(at, "/metrics").contains("tenant2718.a"));
}
