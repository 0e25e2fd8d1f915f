//! `fleet.vector_recall` on every kind of table, by whoever calls it, and when nodes fail.

use crate::hostile::plant;
use crate::sql_surface::plain;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::Row;
use citus_fleet_tests::wait::within;
use citus_fleet_tests::{Cluster, Need, Server, until};
use std::thread;
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("vector_recall", &[Need::Fleet, Need::Vector];
        an_index_expression_runs_as_the_owner,
        the_budget_holds,
        bad_input_is_named,
        it_takes_select_on_the_table,
    );
    tests.extend(suite!("vector_recall", &[Need::Fleet, Need::Citus, Need::Vector];
        every_placement_of_every_kind_of_table,
        too_few_rows_come_back_where_ef_search_is_below_k,
        a_node_that_is_down_is_a_row,
        a_node_that_hangs_costs_the_others_nothing,
        a_cancel_ends_it_everywhere,
        hostile_objects_are_never_executed,
    ));
    tests
}

/// A server of its own, without Citus.
pub fn lone() -> Cluster {
    let cluster = plain().start();
    cluster.coordinator.run("CREATE EXTENSION vector");
    cluster
}

pub fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is no number in {row:?}"))
}

fn an_index_expression_runs_as_the_owner() {
    let cluster = lone();
    cluster.coordinator.run("CREATE ROLE mallory LOGIN; CREATE SCHEMA m AUTHORIZATION mallory");
    let mut mallory = cluster.coordinator.session_as("mallory", "postgres");
    mallory.run(
        "CREATE FUNCTION m.steal(vector) RETURNS vector IMMUTABLE LANGUAGE plpgsql AS $$
         BEGIN
           IF current_user <> 'mallory' THEN RAISE EXCEPTION 'ran as %', current_user; END IF;
           IF current_setting('search_path') LIKE '%public%' AND current_setting('application_name') = 'victim'
           THEN RAISE EXCEPTION 'with the search path of the caller'; END IF;
           RETURN $1;
         END $$;
         CREATE TABLE m.bait (v vector(3));
         INSERT INTO m.bait SELECT ARRAY[i, i % 7, i % 11]::vector FROM generate_series(1, 100) i;
         CREATE INDEX ON m.bait USING hnsw ((m.steal(v)::vector(3)) vector_l2_ops)",
    );
    let mut victim = cluster.coordinator.session();
    victim.run("SET application_name = 'victim'; SET search_path = public, pg_catalog");
    let rows = victim.rows("SELECT * FROM fleet.vector_recall('m.bait')");
    assert_eq!((rows.len(), &rows[0]["note"]), (1, ""), "{rows:?}");
    assert_eq!(number(&rows[0], "recall"), 1.0);
    assert_eq!(
        victim.value("SELECT current_user || current_setting('search_path')"),
        "postgrespublic, pg_catalog"
    );
    // One that fails is a note, and leaves the session as it was.
    mallory.run(
        "CREATE OR REPLACE FUNCTION m.steal(vector) RETURNS vector IMMUTABLE LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'out of order'; END $$",
    );
    let rows = victim.rows("SELECT * FROM fleet.vector_recall('m.bait')");
    assert!(rows[0]["note"].contains("out of order") && rows[0]["recall"].is_empty(), "{rows:?}");
    assert_eq!(
        victim.value("SELECT current_user || current_setting('search_path')"),
        "postgrespublic, pg_catalog"
    );
}

/// A table that 10,000 queries keep busy for many seconds.
fn busy(server: &Server) {
    server.run(
        "CREATE TABLE busy (v vector(64));
         INSERT INTO busy SELECT (SELECT array_agg(random()) FROM generate_series(1, 64) WHERE i > 0)::vector
           FROM generate_series(1, 20000) i;
         CREATE INDEX ON busy USING ivfflat (v vector_l2_ops) WITH (lists = 100)",
    );
}

fn the_budget_holds() {
    let cluster = lone();
    busy(&cluster.coordinator);
    let mut session = cluster.coordinator.session();
    let measure = |session: &mut citus_fleet_tests::server::Session, budget: &str| {
        let call = format!("SELECT * FROM fleet.vector_recall('busy', 10, 10000, '{budget}')");
        let started = Instant::now();
        let mut rows = session.rows(&call);
        (rows.remove(0), started.elapsed())
    };
    // Too short for one look at every row: no figure, rather than a wrong one.
    let (row, took) = measure(&mut session, "2 ms");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(row["recall"].is_empty() && row["note"].contains("budget"), "{row:?}");
    // Enough for some of the queries: those that stay are measured against all rows.
    let (row, took) = measure(&mut session, "1 s");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(row["note"].contains("budget allowed"), "{row:?}");
    let queries = number(&row, "queries");
    assert!((10.0..10_000.0).contains(&queries), "{row:?}");
    assert!(
        number(&row, "recall") > 0.0 && number(&row, "ci_low") < number(&row, "ci_high"),
        "{row:?}"
    );
    // A lock is waited for no longer either.
    let mut other = cluster.coordinator.session();
    other.run("BEGIN; LOCK TABLE busy IN ACCESS EXCLUSIVE MODE");
    session.run("SET lock_timeout = '200ms'");
    assert_eq!(session.error("SELECT * FROM fleet.vector_recall('busy')").state, "55P03");
    other.run("ROLLBACK");
}

fn bad_input_is_named() {
    let cluster = lone();
    let server = &cluster.coordinator;
    server.run(
        "CREATE TABLE plain (id int);
         CREATE TABLE loose (v vector);
         CREATE TABLE bare (v vector(3));
         CREATE TABLE fine (v vector(3)); CREATE INDEX fine_idx ON fine USING hnsw (v vector_l2_ops);
         CREATE VIEW seen AS SELECT * FROM fine;
         CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
         CREATE FOREIGN TABLE far (v vector(3)) SERVER s;
         CREATE SEQUENCE counter",
    );
    for (arguments, state, word) in [
        ("'nowhere'", "42P01", "nowhere"),
        ("'plain'", "42809", "vector"),
        ("'loose'", "55000", "dimensions"),
        ("'bare'", "55000", "CREATE INDEX"),
        ("'seen'", "42809", "view"),
        ("'far'", "42809", "foreign"),
        ("'fine_idx'", "42809", "index"),
        ("'counter'", "42809", "table"),
        ("'fine', 0", "22023", "k is 0"),
        ("'fine', -1", "22023", "k is -1"),
        ("'fine', 10, 0", "22023", "sample"),
        ("'fine', 10, 2000000000", "22023", "sample"),
        ("'fine', 2000000000", "22023", "k times sample"),
        ("'fine', 10, 10, '0'", "22023", "budget"),
        ("'fine', 10, 10, '-1 s'", "22023", "budget"),
        ("'fine', 10, 10, '1000 years'", "22023", "budget"),
    ] {
        let error = server.error(&format!("SELECT * FROM fleet.vector_recall({arguments})"));
        assert_eq!(error.state, state, "{arguments}: {error}");
        assert!(error.to_string().contains(word), "{arguments}: {error}");
        assert!(!error.to_string().contains("backtrace"), "{arguments}: {error}");
    }
    // An honest answer where there is nothing to ask with.
    for rows in ["", "INSERT INTO fine VALUES (NULL)", "INSERT INTO fine VALUES ('[1,2,3]')"] {
        if !rows.is_empty() {
            server.run(rows);
        }
        let row = &server.rows("SELECT * FROM fleet.vector_recall('fine')")[0];
        assert!(row["recall"].is_empty() && !row["note"].is_empty(), "{row:?}");
    }
    // An index that is not valid answers nobody.
    server.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'fine_idx'::regclass");
    let error = server.error("SELECT * FROM fleet.vector_recall('fine')");
    assert_eq!(error.state, "55000", "{error}");
}

fn it_takes_select_on_the_table() {
    let cluster = lone();
    let server = &cluster.coordinator;
    server.run(
        "CREATE TABLE secret (v vector(3)); CREATE INDEX ON secret USING hnsw (v vector_l2_ops);
         INSERT INTO secret SELECT ARRAY[i, 1, 2]::vector FROM generate_series(1, 50) i;
         CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE reader LOGIN",
    );
    let call = "SELECT * FROM fleet.vector_recall('secret')";
    server.run("GRANT SELECT ON secret TO reader");
    let mut reader = server.session_as("reader", "postgres");
    assert_eq!(reader.error(call).state, "42501", "without pg_monitor");
    let mut watcher = server.session_as("watcher", "postgres");
    assert_eq!(watcher.error(call).state, "42501", "without SELECT");
    server.run("GRANT SELECT ON secret TO watcher");
    assert_eq!(number(&watcher.rows(call)[0], "recall"), 1.0);
    // Only a superuser's figures are kept.
    assert_eq!(server.value("SELECT count(*) FROM fleet.recall_results"), "0");
    server.run(
        "ALTER TABLE secret ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON secret USING (false)",
    );
    assert_eq!(watcher.error(call).state, "42501", "past a row-level policy");
    let internal = "SELECT fleet.shard_recall('{public.secret}', 10, 10, 1000)";
    assert_eq!(watcher.error(internal).state, "42501");
}

/// 512 random rows of eight dimensions for a table with columns id and v.
fn fill(server: &Server, table: &str) {
    server.run(&format!(
        "INSERT INTO {table} (id, v) SELECT i, (SELECT array_agg(random()) FROM generate_series(1, 8) WHERE i > 0)::vector
         FROM generate_series(1, 512) i"
    ));
}

fn every_placement_of_every_kind_of_table() {
    let cluster = Plan::workers(2).start();
    cluster.wait_until_all_active();
    let coordinator = &cluster.coordinator;
    let long = "ÄÖ".repeat(15);
    let tables = [
        (
            "\"it's a \"\"test\"\"\"".to_owned(),
            "create_distributed_table($$%$$, 'id', shard_count => 6)",
        ),
        (format!("\"{long}\""), "create_distributed_table($$%$$, 'id', shard_count => 2)"),
        ("reference".to_owned(), "create_reference_table($$%$$)"),
        ("managed".to_owned(), "citus_add_local_table_to_metadata($$%$$)"),
        ("plainly_local".to_owned(), ""),
    ];
    for (table, distribute) in &tables {
        coordinator.run(&format!("CREATE TABLE {table} (id int, v vector(8))"));
        if !distribute.is_empty() {
            coordinator.run(&format!("SELECT {}", distribute.replace('%', table)));
        }
    }
    coordinator.run(
        "SET citus.enable_schema_based_sharding = on;
         CREATE SCHEMA \"Ten ant\"; RESET citus.enable_schema_based_sharding;
         CREATE TABLE \"Ten ant\".t (id int, v vector(8));
         CREATE TABLE parted (id int, v vector(8)) PARTITION BY RANGE (id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (300);
         CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (300) TO (1000);
         SELECT create_distributed_table('parted', 'id', shard_count => 2);
         CREATE TABLE local_parted (id int, v vector(8)) PARTITION BY RANGE (id);
         CREATE TABLE local_1 PARTITION OF local_parted FOR VALUES FROM (1) TO (300);
         CREATE TABLE local_2 PARTITION OF local_parted FOR VALUES FROM (300) TO (1000)",
    );
    let more = ["\"Ten ant\".t", "parted", "local_parted"].map(str::to_owned);
    let placements = |table: &str| -> usize {
        let count = format!(
            "SELECT count(*) FROM pg_dist_placement p JOIN pg_dist_shard s USING (shardid)
             WHERE s.logicalrelid = ANY (ARRAY(SELECT relid FROM pg_partition_tree($${table}$$) WHERE isleaf) || $${table}$$::regclass)
             AND NOT EXISTS (SELECT FROM pg_partitioned_table t WHERE t.partrelid = s.logicalrelid)"
        );
        coordinator.value(&count).parse().expect("a number")
    };
    for table in tables.iter().map(|(table, _)| table).chain(&more) {
        coordinator.run(&format!("CREATE INDEX ON {table} USING hnsw (v vector_cosine_ops)"));
        fill(coordinator, table);
        let rows =
            coordinator.rows(&format!("SELECT * FROM fleet.vector_recall($${table}$$, 5, 50)"));
        let wanted = match table.as_str() {
            "plainly_local" => 1,
            "local_parted" => 2,
            other => placements(other),
        };
        assert_eq!(rows.len(), wanted, "{table}: {rows:?}");
        for row in &rows {
            assert_eq!(&row["note"], "", "{table}: {row:?}");
            assert!(number(row, "recall") > 0.9 && number(row, "queries") > 10.0, "{row:?}");
        }
        // Every placement is named by the node that Citus has it on.
        let unknown = format!(
            "SELECT count(*) FROM fleet.vector_recall($${table}$$, 5, 50) r
             WHERE r.shardid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_dist_shard_placement p
               WHERE (p.nodename, p.nodeport, p.shardid) = (r.nodename, r.nodeport, r.shardid))"
        );
        assert_eq!(coordinator.value(&unknown), "0", "{table}");
    }
    // One shard whose index is gone is a row that says so.
    let call = format!("SELECT * FROM fleet.vector_recall($${}$$, 5, 50)", tables[0].0);
    let shard = coordinator.rows(&call);
    let (node, index) = (&shard[0]["nodename"], &shard[0]["index"]);
    let worker = cluster.workers.iter().find(|w| w.address.to_string() == *node).expect("a worker");
    let index = worker.value(&format!("SELECT quote_ident($q${index}$q$)"));
    worker.run("SET citus.enable_manual_changes_to_shards = on");
    worker.run(&format!("DROP INDEX public.{index}"));
    let after = coordinator.rows(&call);
    let bare: Vec<&Row> =
        after.iter().filter(|row| row["note"].contains("no hnsw or ivfflat")).collect();
    assert_eq!((after.len(), bare.len()), (shard.len(), 1), "{after:?}");
    assert_eq!(bare[0]["shardid"], shard[0]["shardid"]);
    // Whoever may look and may read needs no password of the controller's.
    coordinator.run("CREATE ROLE watcher LOGIN IN ROLE pg_monitor");
    let mut watcher = coordinator.session_as("watcher", "postgres");
    let reference = "SELECT * FROM fleet.vector_recall('reference', 5, 50)";
    assert_eq!(watcher.error(reference).state, "42501");
    coordinator.run("GRANT SELECT ON reference TO watcher");
    let rows = watcher.rows(reference);
    assert!(rows.len() == 3 && rows.iter().all(|row| row["note"].is_empty()), "{rows:?}");
    // Workers do not know the others' placements.
    let error = cluster.workers[0].error("SELECT fleet.vector_recall('reference')");
    assert_eq!(error.state, "55000", "{error}");
}

/// Two workers and a table `items` of four shards with an index.
fn cluster_with_items() -> Cluster {
    let cluster = Plan::workers(2).start();
    cluster.wait_until_all_active();
    cluster.coordinator.run(
        "CREATE TABLE items (id int, v vector(8));
         SELECT create_distributed_table('items', 'id', shard_count => 4)",
    );
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    fill(&cluster.coordinator, "items");
    cluster
}

fn too_few_rows_come_back_where_ef_search_is_below_k() {
    let cluster = cluster_with_items();
    let call = "SELECT * FROM fleet.vector_recall('items', 80, 30)";
    // The session's own setting reaches no worker, as users of the table find out too.
    let mut session = cluster.coordinator.session();
    session.run("LOAD 'vector'; SET hnsw.ef_search = 1000");
    for row in session.rows(call) {
        let ratio = number(&row, "returned_ratio");
        assert!((0.4..0.55).contains(&ratio), "{row:?}");
        assert!(number(&row, "recall") <= ratio + 1e-9, "{row:?}");
    }
    session.run("SELECT * FROM fleet.set_search_option('hnsw.ef_search', '200')");
    for row in session.rows(call) {
        assert_eq!(number(&row, "returned_ratio"), 1.0, "{row:?}");
        assert_eq!(number(&row, "recall"), 1.0, "{row:?}");
    }
}

fn rows_of(rows: &[Row], node: &Server) -> usize {
    let address = node.address.to_string();
    rows.iter().filter(|row| row["nodename"] == address).count()
}

fn a_node_that_is_down_is_a_row() {
    let cluster = cluster_with_items();
    let [up, down] = &cluster.workers[..] else { panic!("two workers") };
    down.kill();
    let (rows, _) = within("a dead node", Duration::from_secs(10), || {
        cluster.coordinator.rows("SELECT * FROM fleet.vector_recall('items')")
    });
    assert_eq!((rows.len(), rows_of(&rows, up), rows_of(&rows, down)), (4, 2, 2), "{rows:?}");
    for row in &rows {
        let is_up = row["nodename"] == up.address.to_string();
        assert_eq!(row["recall"].is_empty(), !is_up, "{row:?}");
        assert_eq!(row["note"].is_empty(), is_up, "{row:?}");
        assert!(!row["shardid"].is_empty() && !row["placement"].is_empty(), "{row:?}");
    }
    // What was measured of it before is kept.
    down.begin();
    cluster.coordinator.run("SELECT * FROM fleet.vector_recall('items')");
    let kept = "SELECT count(*) FROM fleet.recall_results";
    assert_eq!(cluster.coordinator.value(kept), "4");
    down.kill();
    cluster.coordinator.run("SELECT * FROM fleet.vector_recall('items')");
    assert_eq!(cluster.coordinator.value(kept), "4");
}

fn a_node_that_hangs_costs_the_others_nothing() {
    let cluster = cluster_with_items();
    let [up, hung] = &cluster.workers[..] else { panic!("two workers") };
    hung.freeze();
    let (rows, _) = within("a node that hangs", Duration::from_secs(8), || {
        cluster.coordinator.rows("SELECT * FROM fleet.vector_recall('items', 10, 100, '1 s')")
    });
    hung.thaw();
    assert_eq!((rows_of(&rows, up), rows_of(&rows, hung)), (2, 2), "{rows:?}");
    for row in &rows {
        let is_up = row["nodename"] == up.address.to_string();
        assert_eq!(row["recall"].is_empty(), !is_up, "{row:?}");
    }
}

/// Whether somebody measures recall on a server.
fn measures(server: &Server) -> bool {
    server.value(
        "SELECT count(*) > 0 FROM pg_stat_activity
         WHERE state = 'active' AND query LIKE '%shard_recall%' AND pid <> pg_backend_pid()",
    ) == "t"
}

fn a_cancel_ends_it_everywhere() {
    let cluster = Plan::workers(1).start();
    cluster.wait_until_all_active();
    busy(&cluster.coordinator);
    cluster.coordinator.run(
        "CREATE TABLE spread (id int, v vector(64));
         SELECT create_distributed_table('spread', 'id', shard_count => 1);
         INSERT INTO spread SELECT 1, v FROM busy",
    );
    cluster.coordinator.run("CREATE INDEX ON spread USING ivfflat (v vector_l2_ops)");
    let worker = &cluster.workers[0];
    for table in ["busy", "spread"] {
        let mut session = cluster.coordinator.session();
        let canceller = session.canceller();
        let call = format!("SELECT * FROM fleet.vector_recall('{table}', 10, 10000, '50 s')");
        let caller = thread::spawn(move || {
            let error = session.error(&call);
            (error, Instant::now())
        });
        let server = if table == "busy" { &cluster.coordinator } else { worker };
        let begun = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active'
             AND query LIKE '%_recall(%' AND pid <> pg_backend_pid()
             AND now() - query_start > '300 ms'";
        until("it measures", SOON, || match server.value(begun).as_str() {
            "t" => Ok(()),
            other => Err(other.to_owned()),
        });
        let cancelled = Instant::now();
        canceller.cancel_query(postgres::NoTls).expect("the cancel is sent");
        let (error, ended) = caller.join().expect("the caller ends");
        assert_eq!(error.state, "57014", "{error}");
        let took = ended - cancelled;
        assert!(took < Duration::from_millis(500), "{table}: {took:?}");
        until("the node has stopped too", Duration::from_secs(3), || {
            if measures(worker) { Err("it still measures") } else { Ok(()) }
        });
    }
}

fn hostile_objects_are_never_executed() {
    let cluster = cluster_with_items();
    for server in [&cluster.coordinator, &cluster.workers[0], &cluster.workers[1]] {
        server.run("SET citus.enable_ddl_propagation = off");
        plant(server);
        server.forget_session();
    }
    let mut session = cluster.coordinator.session();
    let shouts = || -> usize {
        let all = [&cluster.coordinator, &cluster.workers[0], &cluster.workers[1]];
        all.iter().map(|server| server.log().matches("HOSTILE").count()).sum()
    };
    session.run("SELECT 1 WHERE 'a'::text = 'b'::text");
    let before = shouts();
    assert_ne!(before, 0, "the trap is set");
    let rows = session.rows("SELECT * FROM fleet.vector_recall('public.items')");
    assert!(rows.len() == 4 && rows.iter().all(|row| number(row, "recall") > 0.9), "{rows:?}");
    session.run("SELECT * FROM fleet.set_search_option('hnsw.ef_search', '77')");
    assert_eq!(shouts(), before);
}
