//! `fleet.set_search_option`: on all nodes or on none, and on those that come later.

use crate::sql_surface::plain;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::{Cluster, Need, Server};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("search_options", &[Need::Fleet, Need::Vector];
        without_citus_it_is_set_here,
        only_options_and_only_by_superusers,
    );
    tests.extend(suite!("search_options", &[Need::Fleet, Need::Citus, Need::Vector];
        it_is_set_on_every_node_and_on_those_that_come_later,
        searches_change_with_it,
        a_node_that_is_down_or_declines_changes_nothing,
        a_database_of_any_name,
    ));
    tests
}

/// What a new session on a server starts with.
fn of(server: &Server, option: &str) -> String {
    let mut session = server.session();
    session.run("LOAD 'vector'");
    session.value(&format!("SHOW {option}"))
}

fn everywhere(cluster: &Cluster, option: &str) -> Vec<String> {
    let servers = cluster.workers.iter().chain([&cluster.coordinator]);
    servers.map(|server| of(server, option)).collect()
}

fn it_is_set_on_every_node_and_on_those_that_come_later() {
    let cluster = Plan::workers(2).start();
    cluster.wait_until_all_active();
    let coordinator = &cluster.coordinator;
    let set = |name: &str, value: &str| {
        let rows =
            coordinator.rows(&format!("SELECT * FROM fleet.set_search_option('{name}', {value})"));
        rows.iter().map(|row| format!("{}→{}", &row["before"], &row["after"])).collect::<Vec<_>>()
    };
    assert_eq!(set("hnsw.ef_search", "'200'"), ["40→200"; 3]);
    assert_eq!(everywhere(&cluster, "hnsw.ef_search"), ["200"; 3]);
    assert_eq!(set("HNSW.ef_search", "'100'"), ["200→100"; 3]);
    assert_eq!(set("hnsw.iterative_scan", "'strict_order'"), ["off→strict_order"; 3]);
    assert_eq!(set("maintenance_work_mem", "'1GB'").len(), 3);
    // What is rolled back was never set, on any node.
    coordinator
        .run("BEGIN; SELECT * FROM fleet.set_search_option('ivfflat.probes', '7'); ROLLBACK");
    assert_eq!(everywhere(&cluster, "ivfflat.probes"), ["1"; 3]);

    let later = Server::start(cluster.worker_spec("later"));
    assert_eq!(of(&later, "hnsw.ef_search"), "40");
    cluster.announce_with(&[later.address]);
    cluster.wait_for_state(later.address, "active");
    assert_eq!(of(&later, "hnsw.ef_search"), "100");
    assert_eq!(of(&later, "hnsw.iterative_scan"), "strict_order");
    assert_eq!(of(&later, "maintenance_work_mem"), "1GB");

    assert_eq!(set("hnsw.ef_search", "NULL"), ["100→40"; 4]);
    assert_eq!(everywhere(&cluster, "hnsw.ef_search"), ["40"; 3]);
    assert_eq!(of(&later, "hnsw.ef_search"), "40");
    // A worker is not where it is set.
    let error = cluster.workers[0].error("SELECT fleet.set_search_option('hnsw.ef_search', '9')");
    assert_eq!(error.state, "55000", "{error}");
}

fn searches_change_with_it() {
    let cluster = Plan::workers(1).start();
    cluster.wait_until_all_active();
    cluster.coordinator.run(
        "CREATE TABLE items (id int, v vector(3));
         SELECT create_distributed_table('items', 'id', shard_count => 2);
         INSERT INTO items SELECT i, ARRAY[i, i % 7, i % 11]::vector FROM generate_series(1, 2000) i",
    );
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    let returned = || {
        let mut session = cluster.coordinator.session();
        // A setting of a transaction is all that can be made to reach the workers.
        for statement in [
            "SET citus.propagate_set_commands = 'local'",
            "BEGIN",
            "SET LOCAL enable_seqscan = off",
        ] {
            session.run(statement);
        }
        session.rows("SELECT id FROM items ORDER BY v <-> '[1,2,3]' LIMIT 300").len()
    };
    assert_eq!(returned(), 80, "two shards, 40 rows each");
    cluster.coordinator.run("SELECT * FROM fleet.set_search_option('hnsw.ef_search', '300')");
    assert_eq!(returned(), 300);
}

fn a_node_that_is_down_or_declines_changes_nothing() {
    let cluster = Plan::workers(2).start();
    cluster.wait_until_all_active();
    let coordinator = &cluster.coordinator;
    let [up, down] = &cluster.workers[..] else { panic!("two workers") };
    let set = "SELECT * FROM fleet.set_search_option('hnsw.ef_search', '123')";
    down.kill();
    let error = coordinator.error(set);
    assert_eq!(error.state, "55000", "{error}");
    assert!(error.message.contains(&down.address.to_string()), "{error}");
    assert!(error.hint.contains("Nothing has been changed"), "{error}");
    assert_eq!(
        (of(up, "hnsw.ef_search"), of(coordinator, "hnsw.ef_search")),
        ("40".into(), "40".into())
    );
    // One that hangs is no different, but for the wait.
    down.begin();
    coordinator.run("SET citus_fleet.health_timeout = '500ms'");
    down.freeze();
    let error = coordinator.error(set);
    down.thaw();
    assert!(error.message.contains(&down.address.to_string()), "{error}");
    assert_eq!(of(up, "hnsw.ef_search"), "40");
    // One without pgvector's function of the fleet cannot be asked.
    coordinator.run("RESET citus_fleet.health_timeout");
    down.run("SET citus.enable_ddl_propagation = off; DROP EXTENSION citus_fleet");
    let error = coordinator.error(set);
    assert!(error.message.contains("check_search_option"), "{error}");
    assert_eq!(of(up, "hnsw.ef_search"), "40");
}

fn a_database_of_any_name() {
    let cluster = Plan::workers(1).not_created().start();
    let name = "it's \"odd\"";
    let create = "CREATE DATABASE \"it's \"\"odd\"\"\"";
    for server in [&cluster.coordinator, &cluster.workers[0]] {
        server.run("SET citus.enable_ddl_propagation = off");
        server.run(create);
        server.session_as("postgres", name).run("CREATE EXTENSION citus; CREATE EXTENSION vector");
    }
    let mut session = cluster.coordinator.session_as("postgres", name);
    let (own, worker) = (&cluster.coordinator, &cluster.workers[0]);
    session.run(&format!(
        "SELECT citus_set_coordinator_host('{}', {}); SELECT citus_add_node('{}', {});
         CREATE EXTENSION citus_fleet",
        own.address, own.port, worker.address, worker.port
    ));
    let rows = session.rows("SELECT * FROM fleet.set_search_option('ivfflat.probes', '5')");
    assert_eq!(rows.len(), 2, "{rows:?}");
    for server in [own, worker] {
        let mut other = server.session_as("postgres", name);
        other.run("LOAD 'vector'");
        assert_eq!(other.value("SHOW ivfflat.probes"), "5", "{}", server.name);
        assert_eq!(of(server, "ivfflat.probes"), "1", "another database");
    }
}

fn without_citus_it_is_set_here() {
    let cluster = plain().start();
    let server = &cluster.coordinator;
    // Not created in the database, yet installed on the machine: the value can be checked.
    let rows = server.rows("SELECT * FROM fleet.set_search_option('hnsw.ef_search', '80')");
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["before"], &rows[0]["after"]), ("40", "80"));
    assert_eq!(of(server, "hnsw.ef_search"), "80");
    server.set("hnsw.ef_search", "60");
    let rows = server.rows("SELECT * FROM fleet.set_search_option('hnsw.ef_search', NULL)");
    assert_eq!((&rows[0]["before"], &rows[0]["after"]), ("80", "60"), "what the file says is next");
    assert_eq!(of(server, "hnsw.ef_search"), "60");
}

fn only_options_and_only_by_superusers() {
    let cluster = plain().start();
    let server = &cluster.coordinator;
    for (arguments, state, word) in [
        ("'search_path', 'x'", "22023", "hnsw.ef_search"),
        ("'', 'x'", "22023", "hnsw.ef_search"),
        ("NULL, NULL", "22004", "Give it a value"),
        ("'hnsw.ef_search; SELECT 1', '1'", "22023", "hnsw.ef_search"),
        ("'hnsw.nonsense', '1'", "22023", "hnsw.ef_search"),
        ("'hnsw.ef_search', '0'", "22023", "1 .. 1000"),
        ("'hnsw.ef_search', 'many'", "22023", "many"),
        ("'hnsw.ef_search', ''", "22023", "hnsw.ef_search"),
        ("'hnsw.iterative_scan', 'sometimes'", "22023", "strict_order"),
        ("'maintenance_work_mem', '1XB'", "22023", "kB"),
    ] {
        let error = server.error(&format!("SELECT * FROM fleet.set_search_option({arguments})"));
        assert_eq!(error.state, state, "{arguments}: {error}");
        assert!(error.to_string().contains(word), "{arguments}: {error}");
        assert!(!error.detail.contains("panic"), "{arguments}: {error}");
    }
    assert_eq!(server.value("SELECT count(*) FROM pg_db_role_setting"), "0");
    server.run(
        "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE deputy LOGIN;
         GRANT USAGE ON SCHEMA fleet TO deputy;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA fleet TO deputy",
    );
    for user in ["watcher", "deputy"] {
        for function in ["set_search_option", "check_search_option"] {
            let call = format!("SELECT fleet.{function}('hnsw.ef_search', '50')");
            let error = server.session_as(user, "postgres").error(&call);
            assert_eq!(error.state, "42501", "{user}: {error}");
        }
    }
}
