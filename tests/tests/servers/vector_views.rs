//! What the views of vector-shard health show: tables of every kind, every placement, hostile names,
//! nodes that do not answer, and whom they let read.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::vector::diagnoses;
use citus_fleet_tests::wait::within;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, until};
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("vector_views", &[Need::Fleet, Need::Citus, Need::Vector];
        tables_of_every_kind_are_there,
        names_may_hold_anything,
        a_node_that_is_down_is_evidence,
        a_disabled_node_is_activated_by_the_remedy,
        a_node_that_hangs_costs_no_more_than_the_deadline,
        a_cancel_is_answered_at_once,
        collecting_waits_for_no_lock,
        monitors_read_and_nobody_else,
        a_worker_says_where_to_ask,
        a_standby_of_the_coordinator_answers,
        two_readers_see_the_same,
    );
    tests.extend(suite!("vector_views", &[Need::Fleet, Need::Vector];
        without_citus_there_are_local_tables,
        without_vectors_there_is_nothing,
    ));
    tests
}

fn names(server: &Server, query: &str) -> Vec<String> {
    server.rows(query).iter().map(|row| row.first().to_string()).collect()
}

fn tables_of_every_kind_are_there() {
    let cluster = Cluster::with_workers(2);
    cluster.wait_until_all_active();
    cluster.coordinator.script(
        "CREATE TABLE items (tenant int, v vector(3), h halfvec(4), s sparsevec(5));
         SELECT create_distributed_table('items', 'tenant', shard_count := 4);
         CREATE TABLE tags (v vector(3));
         SELECT create_reference_table('tags');
         CREATE TABLE mine (b bit(8));
         CREATE INDEX ON mine USING hnsw (b bit_hamming_ops);
         CREATE TABLE log (id int, day date, v vector(3)) PARTITION BY RANGE (day);
         CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         SELECT create_distributed_table('log', 'id', shard_count := 2);
         CREATE TABLE plain (id int);
         SELECT create_distributed_table('plain', 'id');
         CREATE DOMAIN embedding AS vector(3);
         CREATE TABLE boxed (e embedding);
         CREATE VIEW seen AS SELECT * FROM items;
         CREATE TEMPORARY TABLE passing (v vector(3))",
    );
    cluster.coordinator.script(
        "SET citus.enable_schema_based_sharding = on;
         CREATE SCHEMA app;
         CREATE TABLE app.docs (v vector(3))",
    );
    cluster.coordinator.run("CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)");
    cluster
        .coordinator
        .run("CREATE INDEX ON items USING hnsw ((binary_quantize(v)::bit(3)) bit_hamming_ops)");
    let tables = names(
        &cluster.coordinator,
        "SELECT concat_ws(' ', table_name, kind, shards, placements, unknown_placements,
                          partition_of, columns::text, status)
         FROM fleet.vector_tables ORDER BY table_name",
    );
    assert_eq!(
        tables,
        [
            "app.docs schema 1 1 0 {v} green",
            "public.boxed local 1 1 0 {e} green",
            "public.items distributed 4 4 0 {v,h,s} green",
            "public.log_1 distributed 2 2 0 public.log {v} green",
            "public.mine local 1 1 0 {} green",
            "public.tags reference 1 3 0 {v} green",
        ]
    );
    let placed = "SELECT count(*) FROM fleet.vector_shards WHERE status = 'green'";
    assert_eq!(cluster.coordinator.value(placed), "12");
    let by_citus =
        "SELECT string_agg(s.shardid || '@' || s.nodename, ' ' ORDER BY 1) FROM citus_shards s
                    WHERE s.table_name = 'items'::regclass";
    let by_us = "SELECT string_agg(s.shardid || '@' || s.nodename, ' ' ORDER BY 1) FROM fleet.vector_shards s
                 WHERE s.table_name = 'public.items'";
    assert_eq!(cluster.coordinator.value(by_us), cluster.coordinator.value(by_citus));
    let indexes =
        "SELECT count(*) FILTER (WHERE valid), count(*) FILTER (WHERE built_with->>'m' = '16'),
                          count(DISTINCT shard_index_name)
                   FROM fleet.vector_indexes WHERE table_name = 'public.items'";
    let row = &cluster.coordinator.rows(indexes)[0];
    assert_eq!(format!("{row:?}"), r#"{"count": "8", "count": "8", "count": "8"}"#);
    let nodes = "SELECT count(*) FROM fleet.vector_nodes WHERE reason IS NULL AND memory_bytes > 0
                 AND disk_free_bytes > 0 AND settings->>'hnsw.ef_search' = '40'";
    assert_eq!(cluster.coordinator.value(nodes), "3");
    // Rows are counted without an ANALYZE.
    cluster.coordinator.run(
        "INSERT INTO items SELECT n, '[1,2,3]' FROM generate_series(1, 500) n;
         INSERT INTO tags SELECT '[1,2,3]' FROM generate_series(1, 50)",
    );
    until("the statistics have arrived", SOON, || {
        let rows = cluster.coordinator.try_value(
            "SELECT string_agg(rows::text, ' ' ORDER BY table_name) FROM fleet.vector_tables
             WHERE rows > 0",
        )?;
        if rows == "500 50" { Ok(()) } else { Err(rows) }
    });
}

fn names_may_hold_anything() {
    let cluster = Plan::workers(2).set("citus_fleet.index_min_rows", "100").start();
    cluster.wait_until_all_active();
    // 63 bytes, so that Citus has to shorten the shards' names, and everything that breaks quoting.
    let long = format!("it's \"ünï\" $$ \\ % USING hnsw ({}", "x".repeat(31));
    assert_eq!(long.len(), 63);
    let table = format!("\"{}\"", long.replace('"', "\"\""));
    cluster.coordinator.script(&format!(
        "CREATE SCHEMA \"s'; --\";\n CREATE TABLE \"s'; --\".{table} (\"it's\" int, \"v \"\"\" vector(3));
         SELECT create_distributed_table(format('%I.%I', 's''; --', relname)::regclass, 'it''s', shard_count := 2)
         FROM pg_class WHERE relname LIKE 'it''s%' AND relkind = 'r'"
    ));
    cluster.coordinator.run(&format!(
        "CREATE INDEX {table} ON \"s'; --\".{table} USING hnsw (\"v \"\"\" vector_l2_ops) WITH (m = 8)"
    ).replacen(&table, &table.replacen("it", "at", 1), 1));
    cluster.coordinator.run(&format!(
        "INSERT INTO \"s'; --\".{table} SELECT n, format('[%s,%s,1]', n % 7, n % 11)::vector FROM generate_series(1, 1000) n"
    ));
    let rows = cluster.coordinator.rows("SELECT * FROM fleet.vector_shards");
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(rows[0]["table_name"], format!("\"s'; --\".{table}"));
    assert_eq!(cluster.diagnoses("placement_missing").len(), 0);
    assert_eq!(cluster.diagnoses("def_drift").len(), 0);
    // A shard loses its index, and the remedy gives it back under the name that Citus looks for.
    let worker = &cluster.workers[0];
    let mut session = worker.shard_session();
    let index = session.value(
        "SELECT indexrelid::regclass FROM pg_index JOIN pg_class c ON c.oid = indexrelid
         WHERE c.relam = (SELECT oid FROM pg_am WHERE amname = 'hnsw') AND c.relname ~ '_[0-9]+$'",
    );
    session.run(&format!("DROP INDEX {index}"));
    let found = until("the shard lacks its index", SOON, || {
        let found = cluster.diagnoses("index_missing");
        if found.len() == 1 && found[0].status == "red" {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    });
    assert_eq!(found[0].run_on, format!("{}:{}", worker.address, worker.port));
    cluster.mend("index_missing");
    assert_eq!(cluster.diagnoses("def_drift").len(), 0);
    // Dropping it from the coordinator reaches the rebuilt one, too.
    cluster.coordinator.run(&format!("DROP INDEX \"s'; --\".{}", table.replacen("it", "at", 1)));
    let left = "SELECT count(*) FROM fleet.vector_indexes";
    assert_eq!(cluster.coordinator.value(left), "0");
    // Dead rows on all shards: the remedy is the table's.
    let name = format!("\"s'; --\".{table}");
    cluster
        .coordinator
        .run(&format!("CREATE INDEX ON {name} USING hnsw (\"v \"\"\" vector_l2_ops)"));
    cluster.coordinator.run(&format!(
        "INSERT INTO {name} SELECT n, format('[%s,%s,1]', n % 7, n % 11)::vector FROM generate_series(1, 3000) n;
         DELETE FROM {name} WHERE \"it's\" % 2 = 0"
    ));
    until("the dead rows are counted", SOON, || {
        let found = cluster.diagnoses("dead_tuples");
        if found.len() == 1 && found[0].run_on == "coordinator" {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    cluster.mend("dead_tuples");
}

/// A cluster of two workers with a distributed and a reference table.
fn with_tables(plan: Plan) -> Cluster {
    let cluster = plan.start();
    cluster.wait_until_all_active();
    cluster.coordinator.script(
        "CREATE TABLE items (tenant int, v vector(3));
         SELECT create_distributed_table('items', 'tenant', shard_count := 4);
         CREATE INDEX ON items USING hnsw (v vector_l2_ops);
         CREATE TABLE tags (v vector(3));
         SELECT create_reference_table('tags')",
    );
    cluster
}

fn a_node_that_is_down_is_evidence() {
    let cluster = with_tables(Plan::workers(2));
    cluster.workers[0].stop(Shutdown::Immediate);
    let dead = cluster.workers[0].address.to_string();
    let rows = cluster.coordinator.rows("SELECT * FROM fleet.vector_shards");
    assert_eq!(rows.len(), 7, "{rows:?}");
    for row in &rows {
        let (status, found) = match row["nodename"] == dead {
            true => ("red", "{node_unreachable}"),
            false => ("green", "{}"),
        };
        assert_eq!((&row["status"], &row["findings"]), (status, found), "{row:?}");
        assert_eq!(row["reason"].is_empty(), row["nodename"] != dead, "{row:?}");
    }
    let tables = "SELECT string_agg(status || unknown_placements, ' ' ORDER BY table_name)
                  FROM fleet.vector_tables";
    assert_eq!(cluster.coordinator.value(tables), "red2 red1");
    cluster.diagnosis("node_unreachable", "red");
    assert_eq!(cluster.diagnoses("placement_missing").len(), 0);
    cluster.workers[0].begin();
    cluster.wait_until_well("node_unreachable");
    // A server that answers and does not let us in: Citus may still get in.
    cluster.workers[0].set_hba(&["host all all 127.0.0.0/8 reject"]);
    cluster.diagnosis("node_unreachable", "unknown");
    let unknown = "SELECT count(*) FROM fleet.vector_shards WHERE status = 'unknown'";
    assert_eq!(cluster.coordinator.value(unknown), "3");
}

fn a_disabled_node_is_activated_by_the_remedy() {
    let cluster = Cluster::with_workers(2);
    cluster.wait_until_all_active();
    cluster
        .coordinator
        .script("CREATE TABLE tags (v vector(3));\n SELECT create_reference_table('tags')");
    let worker = &cluster.workers[0];
    cluster.coordinator.run(&format!(
        "SELECT citus_disable_node('{}', {}, synchronous := true)",
        worker.address, worker.port
    ));
    cluster.diagnosis("node_unreachable", "red");
    cluster.mend("node_unreachable");
}

fn a_node_that_hangs_costs_no_more_than_the_deadline() {
    let cluster = with_tables(Plan::workers(2));
    cluster.workers[1].freeze();
    let mut session = cluster.coordinator.session();
    session.run("SET citus_fleet.health_timeout = '1s'");
    let count = "SELECT count(*) FILTER (WHERE status = 'red'), count(*) FROM fleet.vector_shards";
    let (rows, taken) = within("the view", Duration::from_secs(3), || session.rows(count));
    cluster.workers[1].thaw();
    assert!(taken >= Duration::from_secs(1), "{taken:?}");
    assert_eq!(format!("{:?}", rows[0]), r#"{"count": "3", "count": "7"}"#);
}

fn a_cancel_is_answered_at_once() {
    let cluster = with_tables(Plan::workers(2));
    cluster.workers[1].freeze();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut session = cluster.coordinator.session();
        session.run("SET citus_fleet.health_timeout = '30s'");
        let canceller = session.canceller();
        let pid = session.pid();
        let asked = std::thread::spawn(move || {
            let error = session.error("SELECT * FROM fleet.vector_shards");
            (error, Instant::now(), session.value("SELECT 1"))
        });
        // Until it waits for the node, and no longer computes.
        until("the view is being read", SOON, || {
            let active = cluster.coordinator.try_value(&format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'
                 AND query LIKE '%vector_shards%' AND clock_timestamp() - query_start > '0.5 s'"
            ))?;
            if active == "1" { Ok(()) } else { Err(active) }
        });
        let cancelled = Instant::now();
        canceller.cancel_query(postgres::NoTls).expect("the cancel is sent");
        let (error, ended, alive) = asked.join().expect("the session answers");
        assert_eq!((error.state.as_str(), alive.as_str()), ("57014", "1"), "{error}");
        best = best.min(ended.duration_since(cancelled));
    }
    cluster.workers[1].thaw();
    assert!(best <= Duration::from_millis(200), "{best:?}");
}

fn collecting_waits_for_no_lock() {
    let cluster = with_tables(Plan::workers(2));
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_ip_ops) WHERE tenant > 3");
    // On a shard, and on the shell table.
    let (shard, id) = cluster.workers[0].shard_of("items");
    let mut on_shard = cluster.workers[0].shard_session();
    on_shard.run(&format!("BEGIN; LOCK TABLE {shard} IN ACCESS EXCLUSIVE MODE"));
    let rows = "SELECT string_agg(shardid::text, ' ') FROM fleet.vector_indexes
                WHERE table_name = 'public.items' AND definition IS NULL GROUP BY shardid";
    let (locked, _) =
        within("the view", Duration::from_secs(4), || cluster.coordinator.value(rows));
    assert_eq!(locked, format!("{id} {id}"));
    on_shard.run("ROLLBACK");
    let mut on_shell = cluster.coordinator.session();
    on_shell.run("SET citus.enable_ddl_propagation = off; BEGIN; LOCK TABLE ONLY items IN ACCESS EXCLUSIVE MODE");
    let count = "SELECT count(*) FROM fleet.vector_shards WHERE status = 'green'";
    let (seen, _) = within("the view", Duration::from_secs(4), || cluster.coordinator.value(count));
    assert_eq!(seen, "7");
}

const VIEWS: [&str; 5] = ["shards", "indexes", "tables", "nodes", "progress"];

fn monitors_read_and_nobody_else() {
    let cluster = with_tables(Plan::workers(1));
    cluster
        .coordinator
        .run("CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN");
    let mut watcher = cluster.coordinator.session_as("watcher", "postgres");
    let mut nobody = cluster.coordinator.session_as("nobody", "postgres");
    for view in VIEWS {
        let read = format!("SELECT * FROM fleet.vector_{view}");
        let rows = watcher.rows(&read);
        assert_eq!(rows.is_empty(), view == "progress", "{read}: {rows:?}");
        assert_eq!(nobody.error(&read).state, "42501", "{read}");
    }
    let health = "SELECT fleet.vector_health()->>'status'";
    assert_ne!(watcher.value(health), "");
    assert_eq!(nobody.error(health).state, "42501");
    // What only the nodes ask each other for.
    assert_eq!(watcher.error("SELECT fleet.vector_evidence()").state, "42501");
    let unknown = watcher.error("SELECT fleet.vector_rows('everything')");
    assert_eq!(unknown.state, "22023", "{unknown}");
    assert!(unknown.hint.contains("shards"), "{unknown}");
    // The columns that people read are all described.
    let silent = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                  WHERE c.relnamespace = 'fleet'::regnamespace AND c.relname LIKE 'vector%'
                  AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL";
    assert_eq!(cluster.coordinator.value(silent), "0");
}

fn a_worker_says_where_to_ask() {
    let cluster = with_tables(Plan::workers(1));
    for ask in ["SELECT * FROM fleet.vector_shards", "SELECT fleet.vector_health()"] {
        let error = cluster.workers[0].error(ask);
        assert_eq!(error.state, "55000", "{error}");
        assert!(error.hint.contains("coordinator"), "{error}");
    }
}

fn a_standby_of_the_coordinator_answers() {
    let cluster = with_tables(Plan::workers(1));
    let spec = cluster.coordinator.twin("standby", cluster.subnet.address());
    let standby = Server::standby_of(&cluster.coordinator, spec);
    until("the standby has the tables", SOON, || {
        let seen =
            standby.try_value("SELECT count(*) FROM fleet.vector_shards WHERE status = 'green'")?;
        if seen == "6" { Ok(()) } else { Err(seen) }
    });
    assert_eq!(diagnoses(&standby, "node_unreachable").len(), 0);
}

fn two_readers_see_the_same() {
    let cluster = with_tables(Plan::workers(2));
    let report = "SELECT fleet.vector_health(true) - 'observed_at'";
    let first = cluster.coordinator.value(report);
    for _ in 0..3 {
        assert_eq!(cluster.coordinator.session().value(report), first);
    }
}

fn without_citus_there_are_local_tables() {
    let cluster = Plan::workers(0).without_citus().start();
    cluster.coordinator.run(
        "CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext;
         SET search_path = public, ext;
         CREATE TABLE items (id int, v vector(3));
         CREATE TABLE parts (id int, v vector(3)) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
    );
    cluster.coordinator.set("citus_fleet.index_min_rows", "100");
    cluster.coordinator.script(
        "INSERT INTO items SELECT n, ext.array_to_vector(array[n, 1, 2], 3, true) FROM generate_series(1, 500) n;
         SELECT pg_stat_force_next_flush();
         ANALYZE items",
    );
    let rows = cluster.coordinator.rows("SELECT * FROM fleet.vector_shards ORDER BY table_name");
    let shown: Vec<String> = rows
        .iter()
        .map(|row| {
            format!("{} {} {} {}", &row["table_name"], &row["kind"], &row["rows"], &row["status"])
        })
        .collect();
    assert_eq!(shown, ["public.items local 500 yellow", "public.parts_1 local 0 green"]);
    assert_eq!((&rows[0]["shardid"], &rows[0]["nodename"]), ("", "localhost"));
    // The operator class lives where the extension does.
    let missing = cluster.diagnosis("index_missing", "yellow");
    assert!(missing.remedy.contains("ext.vector_l2_ops"), "{missing:?}");
    cluster.mend("index_missing");
    let status = "SELECT status FROM fleet.vector_tables LIMIT 1";
    assert_eq!(cluster.coordinator.value(status), "unknown", "nobody has measured its recall");
    cluster.mend("recall_unknown");
    assert_eq!(cluster.coordinator.value(status), "green");
}

fn without_vectors_there_is_nothing() {
    let cluster = Plan::workers(0).without_citus().start();
    cluster.coordinator.run("CREATE TABLE plain (id int)");
    for view in ["shards", "indexes", "tables", "progress"] {
        let rows = cluster.coordinator.rows(&format!("SELECT * FROM fleet.vector_{view}"));
        assert_eq!(rows.len(), 0, "{view}: {rows:?}");
    }
    assert_eq!(cluster.coordinator.rows("SELECT * FROM fleet.vector_nodes").len(), 1);
    assert_eq!(cluster.coordinator.value("SELECT fleet.vector_health()->>'status'"), "green");
    assert_eq!(
        cluster.coordinator.value("SELECT fleet.vector_health(true)->'details'->>'tables'"),
        "0"
    );
}
