//! What Citus would accept and should not. Each test puts one such server beside a good worker: the
//! good one is registered, the other is not, for a reason that names the fact, and keeps its data.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::Row;
use citus_fleet_tests::{Cluster, Need, Server, run, until};
use std::net::IpAddr;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("preflight", &[Need::Fleet, Need::Citus, Need::Vector];
        a_worker_of_another_cluster,
        a_coordinator_of_another_cluster,
        a_single_node_with_distributed_tables,
        a_local_table_that_would_be_dropped,
        a_standby,
        a_server_without_citus,
        another_citus_version,
        another_vector_version,
        no_prepared_transactions,
        a_worker_without_vector_is_given_it,
        one_server_at_two_addresses_is_registered_once,
        a_clone_of_a_worker,
        two_clones_that_nobody_knows_yet,
    );
    tests.extend(suite!("preflight", &[Need::Fleet, Need::Citus, Need::Ipv6];
        one_server_in_both_families_is_registered_once,
    ));
    tests
}

/// A coordinator with a distributed table `items` and one good worker; DNS names nobody yet.
pub fn cluster() -> Cluster {
    let cluster = Plan::workers(1).unannounced().start();
    cluster.keep_shards_on_coordinator();
    cluster.coordinator.run(
        "CREATE SCHEMA app; CREATE TABLE app.items (id int, note text);
         SELECT create_distributed_table('app.items', 'id', shard_count := 4)",
    );
    cluster
}

/// What a server must not lose: its place in a cluster, its tables, and their rows.
fn fingerprint(server: &Server) -> Vec<String> {
    let citus = server.value("SELECT to_regclass('pg_catalog.pg_dist_node') IS NOT NULL") == "t";
    let mut queries = vec![
        "SELECT n.nspname, c.relname, c.relkind, c.oid FROM pg_class c JOIN pg_namespace n
         ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'app') ORDER BY 1, 2"
            .to_string(),
        "SELECT extname, extversion FROM pg_extension ORDER BY 1".to_string(),
    ];
    if citus {
        for table in ["pg_dist_node", "pg_dist_partition", "pg_dist_local_group", "pg_dist_shard"] {
            queries.push(format!("SELECT t::text FROM pg_catalog.{table} t ORDER BY 1"));
        }
    }
    if server.value("SELECT to_regclass('app.items') IS NOT NULL") == "t" {
        queries.push("SELECT i::text FROM app.items i ORDER BY 1".to_string());
    }
    queries.iter().map(|query| format!("{:?}", server.rows(query))).collect()
}

/// Announces the victim beside the good worker, and checks that the one is kept out for a reason
/// that has all these words, the other let in, and nothing changed.
#[track_caller]
fn kept_out(cluster: &Cluster, victim: &Server, state: &str, words: &[&str]) -> Row {
    let before = fingerprint(victim);
    cluster.announce_with(&[victim.address]);
    cluster.wait_until_all_active();
    let row = cluster.wait_for_state(victim.address, state);
    let reason = row["reason"].to_lowercase();
    for word in words {
        assert!(reason.contains(word), "the reason does not tell of {word:?}: {row:?}");
    }
    assert!(!row["remedy"].is_empty(), "{row:?}");
    assert_eq!(&row["nodeid"], "", "{row:?}");

    let rows = cluster.coordinator.rows("SELECT * FROM citus_autoregister()");
    let told = rows.iter().find(|row| row["nodename"] == victim.address.to_string());
    let told = told.unwrap_or_else(|| panic!("citus_autoregister() is silent about it: {rows:?}"));
    assert_ne!(&told["action"], "register", "{told:?}");
    assert!(!told["reason"].is_empty(), "{told:?}");

    let addresses: Vec<String> =
        cluster.nodes().iter().map(|n| n["nodename"].to_string()).collect();
    assert_eq!(addresses, [cluster.workers[0].address.to_string()]);
    assert_eq!(fingerprint(victim), before, "the server was changed");
    row
}

/// Another cluster, made by hand, with rows in `app.items` on its one worker.
fn other_cluster() -> Cluster {
    let other = Plan::workers(1).without_fleet().start();
    other.add_by_hand(&other.workers[0]);
    other.coordinator.run(
        "CREATE SCHEMA app; CREATE TABLE app.items (id int, note text);
         SELECT create_distributed_table('app.items', 'id', shard_count := 4);
         INSERT INTO app.items SELECT n, 'theirs' FROM generate_series(1, 50) n",
    );
    other
}

fn a_worker_of_another_cluster() {
    let (cluster, other) = (cluster(), other_cluster());
    kept_out(&cluster, &other.workers[0], "refused", &["cluster", "group"]);
    assert_eq!(other.coordinator.value("SELECT count(*) FROM app.items"), "50");
}

fn a_coordinator_of_another_cluster() {
    let (cluster, other) = (cluster(), other_cluster());
    kept_out(&cluster, &other.coordinator, "refused", &["coordinator", "cluster"]);
    assert_eq!(other.coordinator.value("SELECT count(*) FROM app.items"), "50");
}

fn a_single_node_with_distributed_tables() {
    let cluster = cluster();
    let single = Server::start(cluster.worker_spec("single-node"));
    single.run(
        "CREATE TABLE theirs (id int); SELECT create_distributed_table('theirs', 'id');
         INSERT INTO theirs VALUES (1), (2)",
    );
    kept_out(&cluster, &single, "refused", &["distributed table"]);
    assert_eq!(single.value("SELECT count(*) FROM theirs"), "2");
}

fn a_local_table_that_would_be_dropped() {
    let cluster = cluster();
    let server = Server::start(cluster.worker_spec("local-table"));
    server.run(
        "CREATE SCHEMA app; CREATE TABLE app.items (id int, note text);
         INSERT INTO app.items VALUES (1, 'precious')",
    );
    kept_out(&cluster, &server, "refused", &["items"]);
    assert_eq!(server.value("SELECT note FROM app.items"), "precious");
    // The operator follows the remedy, and it works.
    server.run("ALTER TABLE app.items RENAME TO kept");
    cluster.wait_for_state(server.address, "active");
    assert_eq!(server.value("SELECT note FROM app.kept"), "precious");
}

fn a_standby() {
    let cluster = cluster();
    let primary = Server::start(cluster.worker_spec("primary"));
    let standby = Server::standby_of(&primary, cluster.worker_spec("standby"));
    kept_out(&cluster, &standby, "standby", &["standby"]);
    drop(primary);
    standby.promote();
    cluster.wait_for_state(standby.address, "active");
}

fn a_server_without_citus() {
    let cluster = cluster();
    let server = Server::start(cluster.plain_spec("no-citus"));
    kept_out(&cluster, &server, "refused", &["citus"]);
}

/// A server that claims another version of an extension than it has.
fn with_version(cluster: &Cluster, extension: &str, version: &str) -> Server {
    let spec = cluster.worker_spec("other-version").set("citus.enable_version_checks", "off");
    let server = Server::start(spec);
    server.run(&format!(
        "UPDATE pg_catalog.pg_extension SET extversion = '{version}' WHERE extname = '{extension}'"
    ));
    server
}

fn another_citus_version() {
    let cluster = cluster();
    let server = with_version(&cluster, "citus", "13.1-1");
    let ours = "SELECT extversion FROM pg_extension WHERE extname = 'citus'";
    let ours = cluster.coordinator.value(ours);
    kept_out(&cluster, &server, "refused", &["citus", "13.1-1", &ours]);
}

fn another_vector_version() {
    let cluster = cluster();
    // vector is compared when the cluster has it.
    let server = with_version(&cluster, "vector", "0.7.0");
    kept_out(&cluster, &server, "refused", &["vector", "0.7.0"]);
}

fn no_prepared_transactions() {
    let cluster = cluster();
    let spec = cluster.worker_spec("no-prepared").set("max_prepared_transactions", "0");
    let server = Server::start(spec);
    kept_out(&cluster, &server, "refused", &["max_prepared_transactions"]);
}

fn a_worker_without_vector_is_given_it() {
    let cluster = cluster();
    let server = Server::start(cluster.worker_spec("no-vector"));
    server.run("DROP EXTENSION vector");
    cluster.announce(&[server.address]);
    cluster.wait_for_state(server.address, "active");
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'";
    assert_eq!(server.value(version), cluster.coordinator.value(version));
    until("the view has the worker's vector version", SOON, || {
        let row = cluster.worker_at(server.address)?;
        let version = cluster.coordinator.value(version);
        if row["vector_version"] == version { Ok(()) } else { Err(format!("{row:?}")) }
    });
}

/// Announces both addresses of one server, and checks that there is one node for it.
#[track_caller]
fn registered_once(cluster: &Cluster, server: &Server, addresses: &[IpAddr]) {
    cluster.announce_with(addresses);
    cluster.wait_until_all_active();
    until("one of the addresses is active", SOON, || {
        let states: Vec<String> = addresses
            .iter()
            .map(|address| {
                cluster.worker_at(*address).map_or_else(|e| e, |row| row["state"].to_string())
            })
            .collect();
        if states.iter().any(|state| state == "active") {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    });
    cluster.wait_for_cycles(3);
    let nodes = cluster.nodes();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    let query = format!(
        "SELECT count(*) FROM fleet.workers WHERE state = 'active' AND system_identifier::text = '{}'",
        server.system_identifier()
    );
    assert_eq!(cluster.coordinator.value(&query), "1");
    cluster.coordinator.run("CREATE TABLE t (id int); SELECT create_distributed_table('t', 'id')");
}

fn one_server_at_two_addresses_is_registered_once() {
    let cluster = cluster();
    let second = cluster.subnet.address();
    let server = Server::start(cluster.worker_spec("two-addresses").also_at(second));
    registered_once(&cluster, &server, &[server.address, second.into()]);
}

fn one_server_in_both_families_is_registered_once() {
    let (six, _alone) = run::ipv6();
    let cluster = cluster();
    let server = Server::start(cluster.worker_spec("both-families").also_at(six));
    registered_once(&cluster, &server, &[server.address, six]);
}

fn a_clone_of_a_worker() {
    let cluster = cluster();
    let original = &cluster.workers[0];
    let clone = Server::clone_of(original, cluster.worker_spec("clone"));
    assert_eq!(clone.system_identifier(), original.system_identifier());
    // The original is in first, so it is the copy that has to explain itself.
    cluster.announce_all();
    cluster.wait_until_all_active();
    kept_out(&cluster, &clone, "conflict", &[&original.address.to_string()]);
}

fn two_clones_that_nobody_knows_yet() {
    let cluster = cluster();
    let one = Server::start(cluster.worker_spec("one"));
    let two = Server::clone_of(&one, cluster.worker_spec("two"));
    cluster.announce_with(&[one.address, two.address]);
    cluster.wait_until_all_active();
    cluster.wait_for_state(one.address, "conflict");
    let row = cluster.wait_for_state(two.address, "conflict");
    assert!(row["reason"].contains(&one.address.to_string()), "{row:?}");
    assert_eq!(cluster.nodes().len(), 1);
    // With one of them gone, the other is an ordinary worker.
    drop(two);
    cluster.announce_with(&[one.address]);
    cluster.wait_for_state(one.address, "active");
}
