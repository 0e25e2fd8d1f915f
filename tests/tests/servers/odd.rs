//! What is odd without being wrong: rows, names, encodings and settings that PostgreSQL and Citus take.
//! None of it may stop anything else.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::install::install;
use citus_fleet_tests::server::Session;
use citus_fleet_tests::{Cluster, Need, Server, until};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("odd", &[Need::Fleet];
        settings_of_a_role_reach_no_work_of_the_fleet,
        no_argument_is_null_in_silence,
    );
    tests.extend(suite!("odd", &[Need::Fleet, Need::Citus, Need::Vector];
        a_row_that_cannot_be_understood_is_a_state_of_its_own,
        a_database_may_have_another_encoding,
    ));
    tests
}

fn code(session: &mut Session, nodeport: &str) -> Result<String, String> {
    let sql = format!("SELECT state || ' ' || code FROM fleet.workers WHERE nodeport = {nodeport}");
    let rows = session.try_rows(&sql).map_err(|error| error.to_string())?;
    rows.first().map(|row| row.first().to_string()).ok_or_else(|| "not listed".to_string())
}

#[track_caller]
fn wait_for_code(session: &mut Session, nodeport: &str, wanted: &str) {
    until(&format!("{nodeport} is {wanted}"), SOON, || match code(session, nodeport)? {
        now if now == wanted => Ok(()),
        now => Err(now),
    });
}

fn a_row_that_cannot_be_understood_is_a_state_of_its_own() {
    let cluster = Plan::workers(2).unannounced().start();
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "active");
    let mut session = cluster.coordinator.session();
    session.run(
        "SELECT citus_add_inactive_node('127.77.0.1', 70000);
         SELECT citus_add_inactive_node('x'' OR 1=1 --', 7777)",
    );
    for port in ["70000", "7777"] {
        wait_for_code(&mut session, port, "unreachable row_not_understood");
        let row = &session.rows(&format!("SELECT * FROM fleet.workers WHERE nodeport = {port}"))[0];
        assert!(row["reason"].contains(port) || row["reason"].contains('\''), "{row:?}");
        assert!(row["remedy"].contains("citus_update_node"), "{row:?}");
    }
    // Everything else goes on, after a restart too.
    cluster.announce_all();
    cluster.wait_until_all_active();
    drop(session);
    cluster.coordinator.restart();
    cluster.wait_for_cycles(1);
    cluster.wait_until_all_active();
    let mut session = cluster.coordinator.session();
    session.run("SELECT fleet.vector_health(); SELECT * FROM fleet.vector_nodes");
    session.run("SELECT * FROM fleet.set_search_option('hnsw.ef_search', '50')");
    session.run("SELECT fleet.remove_worker('127.77.0.1', 70000, drain => false)");
    until("it is listed no more", SOON, || match code(&mut session, "70000") {
        Err(_) => Ok(()),
        Ok(now) => Err(now),
    });
    session.run(
        "UPDATE pg_dist_node SET nodeport = 70000 WHERE nodename <> 'x' AND nodeid =
           (SELECT max(nodeid) FROM pg_dist_node WHERE isactive)",
    );
    // Who has an identity is found and followed, whatever became of the row.
    cluster.wait_until_all_active();
}

fn a_database_may_have_another_encoding() {
    let plan = Plan::workers(1).unannounced().not_created().set("citus_fleet.database", "latin");
    let cluster = plan.start();
    let worker = &cluster.workers[0];
    let coordinator = &cluster.coordinator;
    for server in [coordinator, worker] {
        server.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
        let mut session = server.session_as("postgres", "latin");
        session.run("CREATE EXTENSION citus");
        session.run("CREATE EXTENSION vector");
    }
    let mut session = coordinator.session_as("postgres", "latin");
    session.run(&format!(
        "SELECT citus_set_coordinator_host('{0}', {1});
         SELECT citus_set_node_property('{0}', {1}, 'shouldhaveshards', true)",
        coordinator.address, coordinator.port
    ));
    session.run("CREATE TABLE größe (id int PRIMARY KEY, v vector(3))");
    session.run("SELECT create_distributed_table('größe', 'id', shard_count := 4)");
    session.run("CREATE EXTENSION citus_fleet");
    cluster.announce_all();
    until("the worker is active", SOON, || {
        let rows = session.try_rows("SELECT state, reason FROM fleet.workers");
        let rows = rows.map_err(|error| error.to_string())?;
        match rows.first() {
            Some(row) if &row["state"] == "active" => Ok(()),
            _ => Err(format!("{rows:?} {:?}", coordinator.log().lines().last())),
        }
    });
    let tables =
        "SELECT table_name || ' ' || shards || ' ' || unknown_placements FROM fleet.vector_tables";
    assert_eq!(session.value(tables), "public.\"größe\" 4 0");
    session.run("SELECT citus_rebalance_start(shard_transfer_mode => 'block_writes')");
    session.run("SELECT citus_rebalance_wait()");
    assert_eq!(session.value(tables), "public.\"größe\" 4 0");
    // A character that LATIN1 does not have costs nothing but itself.
    session.run("SELECT citus_add_inactive_node('größe', 7777)");
    wait_for_code(&mut session, "7777", "unreachable row_not_understood");
    let reason = "SELECT reason FROM fleet.workers WHERE nodeport = 7777";
    assert!(session.value(reason).contains('ö'), "{}", session.value(reason));
    assert_eq!(session.value("SELECT nodename FROM fleet.events WHERE nodeport = 7777"), "größe");
}

/// Everything that an owner of a database may set and that would end or spoil work.
fn hinder(server: &Server) {
    server.run("CREATE ROLE tester SUPERUSER LOGIN");
    let mut settings = vec![
        "statement_timeout = '1ms'",
        "idle_session_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "row_security = off",
        "search_path = 'nowhere'",
    ];
    if install().major >= 17 {
        settings.push("transaction_timeout = '1ms'");
    }
    let mut session = server.session_as("tester", "postgres");
    for setting in settings {
        session.run(&format!("ALTER ROLE postgres IN DATABASE postgres SET {setting}"));
    }
}

fn settings_of_a_role_reach_no_work_of_the_fleet() {
    let plan = Plan::workers(1)
        .without_citus()
        .set("citus_fleet.allowed_networks", "127.0.0.0/8")
        .set("citus_fleet.recall_interval", "1s");
    let cluster: Cluster = plan.start();
    let address = cluster.workers[0].address;
    cluster.wait_for_state(address, "ready");
    if Need::Vector.missing().is_none() {
        cluster.coordinator.run(
            "CREATE EXTENSION vector; CREATE TABLE v (id int PRIMARY KEY, e vector(2));
             INSERT INTO v SELECT n, format('[%s,1]', n)::vector FROM generate_series(1, 500) n;
             CREATE INDEX ON v USING hnsw (e vector_l2_ops)",
        );
    }
    cluster.coordinator.run("DELETE FROM fleet.events");
    hinder(&cluster.workers[0]);
    hinder(&cluster.coordinator);
    cluster.coordinator.restart();
    let mut session = cluster.coordinator.session_as("tester", "postgres");
    until("the worker is ready, and that is written down", SOON, || {
        let state = "SELECT state FROM fleet.workers JOIN fleet.events USING (nodename) WHERE event = state";
        let rows = session.try_rows(state).map_err(|error| error.to_string())?;
        match rows.first().map(|row| row.first()) {
            Some("ready") => Ok(()),
            _ => Err(format!("{rows:?}: {}", session.value("SELECT fleet.status()"))),
        }
    });
    let errors = session.value("SELECT fleet.status()->>'errors'");
    assert_eq!(errors, "[]");
    if Need::Vector.missing().is_none() {
        until("recall is measured", SOON, || {
            match session.value("SELECT count(*) FROM fleet.recall_results").as_str() {
                "0" => Err("nothing"),
                _ => Ok(()),
            }
        });
    }
}

fn no_argument_is_null_in_silence() {
    let cluster = Plan::workers(0).without_citus().start();
    let functions = cluster.coordinator.rows(
        "SELECT p.oid::regproc::text AS name,
                array_to_string(ARRAY(SELECT 'NULL::' || t::regtype FROM unnest(p.proargtypes) t), ', ') AS arguments
         FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
         JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
         WHERE e.extname = 'citus_fleet' AND p.pronargs > 0 ORDER BY 1",
    );
    assert!(functions.len() > 7, "{functions:?}");
    for function in &functions {
        let call = format!("SELECT * FROM {}({})", &function["name"], &function["arguments"]);
        let error = cluster.coordinator.error(&call);
        assert_eq!(error.state, "22004", "{call}: {error}");
        assert!(!error.hint.is_empty(), "{call}: {error}");
    }
}
