//! Owns clusters to measure on: at the extension's default settings, and their workers made new
//! again between two repetitions.
//! Must not measure.

use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::{Cluster, Server, until};
use postgres::{Config, NoTls};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

/// The harness makes the controller hurry; here it has the settings that it is shipped with.
pub fn at_defaults(workers: usize) -> Plan {
    Plan::workers(workers).set("citus_fleet.interval", "5s").set("citus_fleet.probe_timeout", "3s")
}

/// A cluster in which nothing is registered, or even looked at, unless it is asked for: so that one
/// side of a comparison never works while the other one is measured. Neither keeps connections to
/// workers that are about to be new ones, whose servers nobody has been connected to.
pub fn on_request(workers: usize) -> Cluster {
    requested(at_defaults(workers))
}

/// The same with more settings.
pub fn requested(plan: Plan) -> Cluster {
    // Citus connects every node to every other one now and then.
    let (name, many) = ("max_connections", "300");
    let cluster = plan
        .set("citus_fleet.enabled", "off")
        .set("citus_fleet.interval", "1h")
        .set("citus.max_cached_conns_per_worker", "0")
        .set(name, many)
        .worker_set(name, many)
        .unannounced()
        .start();
    cluster.announce(&[]);
    settle(&cluster);
    cluster
}

/// One whole pass that changes nothing: afterwards the controller knows what there is to know.
pub fn settle(cluster: &Cluster) {
    cluster.coordinator.run("SELECT pg_catalog.citus_autoregister(dry_run => true)");
}

/// Where distributed tables live, so that what is left of them can be dropped with it.
const SCHEMA: &str = "app";

/// Distributed tables, on the coordinator as long as it is alone.
pub fn distribute(cluster: &Cluster, tables: usize) {
    cluster.coordinator.run(&format!(
        "SELECT pg_catalog.citus_set_node_property(nodename, nodeport, 'shouldhaveshards', true)
         FROM pg_catalog.pg_dist_node WHERE groupid = 0;
         CREATE SCHEMA {SCHEMA}"
    ));
    for table in 1..=tables {
        cluster.coordinator.run(&format!(
            "CREATE TABLE {SCHEMA}.t{table} (id bigint PRIMARY KEY, body text);
             SELECT create_distributed_table('{SCHEMA}.t{table}', 'id', shard_count := 32)"
        ));
    }
}

/// Schemas of two tables, one schema for each tenant from one number to another.
pub fn add_tenants(cluster: &Cluster, from: usize, to: usize) {
    let mut session = cluster.coordinator.session();
    session.run("SET citus.enable_schema_based_sharding = on; SET client_min_messages = warning");
    for tenant in from + 1..=to {
        session.run(&format!(
            "CREATE SCHEMA t{tenant}; CREATE TABLE t{tenant}.a (id bigint PRIMARY KEY, body text);
             CREATE TABLE t{tenant}.b (id bigint PRIMARY KEY, body text)"
        ));
    }
}

pub fn addresses(workers: &[Server]) -> Vec<IpAddr> {
    workers.iter().map(|worker| worker.address).collect()
}

/// What an add by hand needs first: proof that the server lets the coordinator's role in.
#[track_caller]
pub fn log_in(worker: &Server) {
    Config::new()
        .host(&worker.address.to_string())
        .port(worker.port)
        .user("postgres")
        .dbname("postgres")
        .connect(NoTls)
        .expect("the worker lets us in");
}

#[track_caller]
pub fn expect_registered(cluster: &Cluster, count: usize) {
    let sql = "SELECT count(*) FROM pg_catalog.pg_dist_node
               WHERE groupid <> 0 AND isactive AND metadatasynced";
    assert_eq!(cluster.coordinator.value(sql), count.to_string());
}

/// Removes every worker from the cluster and makes it as new: Citus leaves a removed worker with the
/// cluster's metadata, which only a new Citus is surely without.
#[track_caller]
pub fn take_all_back(cluster: &Cluster) {
    cluster.announce(&[]);
    cluster.coordinator.run(
        "SELECT pg_catalog.citus_remove_node(nodename, nodeport)
         FROM pg_catalog.pg_dist_node WHERE groupid <> 0",
    );
    thread::scope(|scope| {
        for worker in &cluster.workers {
            scope.spawn(|| renew(worker));
        }
    });
    settle(cluster);
}

fn renew(worker: &Server) {
    let mut session = worker.session();
    let group = session.value("SELECT groupid FROM pg_catalog.pg_dist_local_group");
    if group == "0" {
        return;
    }
    // Citus's maintenance daemon may be looking at what is dropped.
    until("Citus is installed anew", Duration::from_secs(20), || {
        session.try_rows(&format!(
            "DROP EXTENSION IF EXISTS citus CASCADE; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
             CREATE EXTENSION citus"
        ))
    });
    drop(session);
    // The first backend of a database pays for its caches, and the maintenance daemon starts with it.
    worker.session().run("SELECT pg_catalog.citus_version()");
    worker.run("CHECKPOINT");
}

/// Waits until a statement on the coordinator gives this value.
#[track_caller]
pub fn wait_for(cluster: &Cluster, what: &str, deadline: Duration, sql: &str, wanted: &str) {
    until(what, deadline, || {
        let seen = cluster.coordinator.try_value(sql)?;
        if seen == wanted { Ok(()) } else { Err(seen) }
    });
}

/// Ends a cluster; many servers one after the other would take a while.
pub fn dismiss(mut cluster: Cluster) {
    thread::scope(|scope| {
        for worker in cluster.workers.drain(..) {
            scope.spawn(|| drop(worker));
        }
    });
}
