//! Clusters with many tables, as with a schema for each tenant: a worker joins them too, a probe costs
//! what it costs anywhere, and nobody who is probed learns what tables there are.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::wait::within;
use citus_fleet_tests::{Cluster, Need, Server, until};
use std::thread;
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    suite!("size", &[Need::Fleet, Need::Citus];
        a_stranger_learns_no_name_of_a_table,
        who_has_a_table_of_that_name_is_refused,
        a_worker_joins_a_cluster_of_many_tenants,
        a_worker_that_hangs_in_the_sync_is_given_up,
        a_worker_without_room_for_locks_is_told_the_setting,
    )
}

/// Schemas with two tables each. A run by hand may want more of them.
fn tenants() -> usize {
    std::env::var("CITUS_FLEET_TENANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

/// A coordinator with so many tenants, and workers that nobody has announced.
#[track_caller]
fn with_tenants(plan: Plan, tenants: usize) -> Cluster {
    let cluster = plan.set("max_locks_per_transaction", "4000").unannounced().start();
    cluster.keep_shards_on_coordinator();
    let mut session = cluster.coordinator.session();
    session.run("SET citus.enable_schema_based_sharding = on; SET client_min_messages = warning");
    let numbers: Vec<usize> = (1..=tenants).collect();
    for some in numbers.chunks(50) {
        let statements = some.iter().map(|n| {
            format!(
                "CREATE SCHEMA t{n}; CREATE TABLE t{n}.a (id bigint PRIMARY KEY, body text);
                 CREATE TABLE t{n}.b (id bigint PRIMARY KEY, body text);"
            )
        });
        session.run(&statements.collect::<String>());
    }
    cluster
}

const ACTIVITY: &str =
    "SELECT query FROM pg_stat_activity WHERE backend_type = 'citus_fleet controller'";

#[track_caller]
fn wait_for_the_sync(cluster: &Cluster) {
    until("the controller is at it", SOON, || {
        let activity = cluster.coordinator.try_value(ACTIVITY)?;
        if activity.starts_with("citus_fleet: register") { Ok(()) } else { Err(activity) }
    });
}

fn a_stranger_learns_no_name_of_a_table() {
    let cluster = Plan::workers(0).start();
    cluster.keep_shards_on_coordinator();
    cluster.coordinator.run(
        "CREATE TABLE known_to_nobody (id int); SELECT create_distributed_table('known_to_nobody', 'id')",
    );
    let stranger = Server::start(cluster.plain_spec("stranger").set("log_statement", "all"));
    cluster.announce_with(&[stranger.address]);
    cluster.wait_for_state(stranger.address, "refused");
    cluster.wait_for_cycles(1);
    let log = stranger.log();
    assert!(log.contains("system_identifier"), "it was asked: {log}");
    assert!(!log.contains("known_to_nobody"), "it was told");
}

fn who_has_a_table_of_that_name_is_refused() {
    let cluster = Plan::workers(3).unannounced().start();
    cluster.keep_shards_on_coordinator();
    let [same, other, full] = &cluster.workers[..] else { unreachable!() };
    cluster.coordinator.run(
        "CREATE TABLE \"odd.Name\" (id int); SELECT create_distributed_table('\"odd.Name\"', 'id')",
    );
    same.run("CREATE TABLE \"odd.Name\" (id int)");
    other.run("CREATE SCHEMA odd; CREATE TABLE odd.\"Name\" (id int)");
    full.run("DO $$ BEGIN FOR n IN 1..1001 LOOP EXECUTE format('CREATE SEQUENCE s%s', n); END LOOP; END $$");
    cluster.announce_all();
    cluster.wait_for_state(other.address, "active");
    let row = cluster.wait_for_state(same.address, "refused");
    assert_eq!(&row["code"], "table_would_be_dropped", "{row:?}");
    assert!(row["reason"].contains("public.odd.Name"), "{row:?}");
    let row = cluster.wait_for_state(full.address, "refused");
    assert_eq!(&row["code"], "too_many_relations", "{row:?}");
    // It is looked at anew, as are the tables here.
    same.run("DROP TABLE \"odd.Name\"");
    full.run("DO $$ BEGIN FOR n IN 1..1001 LOOP EXECUTE format('DROP SEQUENCE IF EXISTS s%s', n); END LOOP; END $$");
    cluster.wait_until_all_active();
}

fn a_worker_joins_a_cluster_of_many_tenants() {
    let tenants = tenants();
    let plan = Plan::workers(2).worker_set("max_locks_per_transaction", "4000");
    let cluster = with_tenants(plan, tenants);
    let [first, second] = &cluster.workers[..] else { unreachable!() };
    cluster.announce(&[first.address]);
    let started = Instant::now();
    wait_for_the_sync(&cluster);
    let row = cluster.worker_at(first.address).expect("it is listed");
    assert_eq!((&row["state"], &row["code"]), ("ready", "syncing"), "{row:?}");
    assert!(row["reason"].contains(&format!("{} tables", tenants * 2)), "{row:?}");
    until("it is seen to get on", SOON, || {
        let row = cluster.worker_at(first.address)?;
        let done = row["reason"].rsplit("; ").next().unwrap_or_default();
        let count = done.strip_suffix(" of them are done").and_then(|count| count.parse().ok());
        if count.is_some_and(|count: usize| count > 0) { Ok(()) } else { Err(format!("{row:?}")) }
    });
    // Whoever waits finds out for what.
    thread::scope(|scope| {
        let ddl = scope.spawn(|| {
            let mut session = cluster.coordinator.session();
            session.run("SET statement_timeout = 0; CREATE TABLE late (id int)");
            session.run("SELECT create_distributed_table('late', 'id', shard_count := 1)");
        });
        until("the statement that waits is told", Duration::from_secs(600), || {
            let holder = "SELECT h.query FROM pg_stat_activity a, unnest(pg_blocking_pids(a.pid)) b, pg_stat_activity h
                          WHERE a.query LIKE '%create_distributed_table%' AND h.pid = b LIMIT 1";
            match cluster.coordinator.try_value(holder) {
                Ok(query) if query.starts_with("citus_fleet: register") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        ddl.join().expect("the statement ends");
    });
    until("it is active", Duration::from_secs(900), || {
        let row = cluster.worker_at(first.address)?;
        if &row["state"] == "active" { Ok(()) } else { Err(format!("{row:?}")) }
    });
    eprintln!("{tenants} tenants: joined after {:?}", started.elapsed());
    let count = "SELECT count(*) FROM pg_dist_partition";
    assert_eq!(first.value(count), cluster.coordinator.value(count));
    // A probe costs what it costs anywhere, of a candidate and of a worker.
    second.run("CREATE TABLE late (id int)");
    cluster.announce_all();
    cluster.wait_for_state(second.address, "refused");
    cluster.wait_for_cycles(2);
    for worker in [first, second] {
        let row = cluster.worker_at(worker.address).expect("it is listed");
        let millis: f64 = row["round_trip_ms"].parse().expect("it was probed");
        assert!(millis < 500.0, "{row:?}");
        eprintln!("{tenants} tenants: the probe of {} takes {millis} ms", worker.name);
    }
}

/// As a host whose disk stalls: it accepts connections, a cancel too, and says nothing ever after.
fn a_worker_that_hangs_in_the_sync_is_given_up() {
    let plan = Plan::workers(1).worker_set("max_locks_per_transaction", "4000");
    let cluster = with_tenants(plan, 1000);
    let worker = &cluster.workers[0];
    cluster.announce_all();
    wait_for_the_sync(&cluster);
    worker.freeze();
    // Well before the time that so many tables may take in all.
    until("the controller gives up", Duration::from_secs(30), || {
        let row = cluster.worker_at(worker.address)?;
        let is_told = row["reason"].contains("nothing has come of it for");
        if is_told { Ok(()) } else { Err(format!("{row:?}")) }
    });
    // While it hangs on, nobody waits for it.
    let row = cluster.worker_at(worker.address).expect("it is listed");
    assert_eq!((&row["state"], &row["code"]), ("ready", "hangs_joining"), "{row:?}");
    let (_, taken) = within("DDL of the cluster", Duration::from_secs(10), || {
        let mut session = cluster.coordinator.session();
        session.run("CREATE TABLE late (id int)");
        session.run("SELECT create_distributed_table('late', 'id', shard_count := 1)");
    });
    assert!(taken < Duration::from_secs(5), "{taken:?}");
    worker.thaw();
    cluster.coordinator.run("SELECT * FROM citus_autoregister()");
    cluster.wait_for_state(worker.address, "active");
}

fn a_worker_without_room_for_locks_is_told_the_setting() {
    // Room for most of them, so that it takes seconds to find out, in which the DDL of the cluster waits.
    let plan = Plan::workers(1).worker_set("max_locks_per_transaction", "40");
    let cluster = with_tenants(plan, 2000);
    cluster.announce_all();
    let row = until("the reason names the setting", Duration::from_secs(60), || {
        let row = cluster.worker_at(cluster.workers[0].address)?;
        let is_told = row["reason"].contains("max_locks_per_transaction");
        if is_told { Ok(row) } else { Err(format!("{row:?}")) }
    });
    // So it is not tried every minute, but ever more rarely.
    assert_eq!(&row["code"], "hangs_joining", "{row:?}");
    assert!(cluster.nodes().is_empty(), "{:?}", cluster.nodes());
}
