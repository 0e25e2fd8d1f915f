//! The main job: workers that DNS names are registered with Citus, once, and by themselves.

use crate::commands::autoregister;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::run::port;
use citus_fleet_tests::wait::throughout;
use citus_fleet_tests::{Cluster, Need, Relay, Server, Shutdown, until};
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    suite!("registration", &[Need::Fleet, Need::Citus, Need::Vector];
        a_worker_is_registered_within_seconds_of_its_start,
        three_workers_at_once,
        twenty_four_workers_at_once,
        the_coordinator_is_killed_in_the_middle,
        a_dead_worker_keeps_others_waiting_and_says_so,
        a_disabled_worker_is_reported,
        a_worker_that_comes_back_blank_is_not_overwritten,
        a_worker_that_is_gone_counts_as_absent_and_stays,
        the_coordinators_host_is_set_when_asked_for,
        nobody_joins_while_the_coordinators_host_cannot_be_set,
        no_other_server_is_given_out_as_the_coordinator,
        a_coordinators_host_that_nobody_answers_at_is_waited_for,
        names_are_registered_only_where_they_lead_to_one_server,
    )
}

/// How often each worker became active, going by `fleet.events`; what happened to it, where that is not once.
fn activations(cluster: &Cluster) -> Vec<String> {
    let rows = cluster.coordinator.rows(
        "SELECT CASE count(*) FILTER (WHERE event = 'active') WHEN 1 THEN '1'
                ELSE string_agg(concat(code, ' ', detail), ', ' ORDER BY id) END AS times
         FROM fleet.events WHERE nodeid IS NOT NULL GROUP BY nodeid",
    );
    rows.iter().map(|row| row["times"].to_string()).collect()
}

fn a_worker_is_registered_within_seconds_of_its_start() {
    let plan =
        Plan::workers(1).set("citus_fleet.interval", "5s").set("citus_fleet.probe_timeout", "3s");
    let cluster = plan.start();
    cluster.wait_until_all_active();
    // DNS names it before it runs, as orchestrators do.
    let spec = cluster.worker_spec("late");
    let address = spec.addresses[0];
    cluster.announce_with(&[address]);
    cluster.wait_for_state(address, "unreachable");
    let late = Server::start(spec);
    let started = Instant::now();
    let row = cluster.wait_for_state(late.address, "active");
    let taken = started.elapsed();
    assert!(taken < Duration::from_secs(5), "it took {taken:?}");

    let node = &cluster.nodes()[1];
    assert_eq!((&node["nodename"], &node["nodeport"]), (&row["nodename"], &row["nodeport"]));
    assert_eq!((&node["nodeid"], &node["groupid"]), (&row["nodeid"], &row["groupid"]));
    assert_eq!((&node["isactive"], &node["metadatasynced"]), ("t", "t"));
    // What the probes before it joined told is from another life; the next one tells anew.
    let row = until("the row is complete", SOON, || {
        let row = cluster.worker_at(late.address)?;
        if row["system_identifier"].is_empty() { Err(format!("{row:?}")) } else { Ok(row) }
    });
    assert_eq!(row["system_identifier"], late.system_identifier());
    let version = "SELECT extversion FROM pg_extension WHERE extname = ";
    assert_eq!(row["citus_version"], late.value(&format!("{version}'citus'")));
    assert_eq!(row["vector_version"], late.value(&format!("{version}'vector'")));
    assert!(row["server_version"].starts_with(&late.value("SHOW server_version")[..2]), "{row:?}");
    assert!(!row["since"].is_empty() && !row["last_seen"].is_empty(), "{row:?}");
    assert!(row["round_trip_ms"].parse::<f64>().is_ok_and(|ms| ms > 0.0), "{row:?}");
    assert_eq!((&row["reason"], &row["remedy"]), ("", ""));
}

fn three_workers_at_once() {
    let cluster = Cluster::with_workers(3);
    cluster.wait_until_all_active();
    assert_eq!(cluster.nodes().len(), 3);
    cluster.coordinator.run(
        "CREATE TABLE items (id bigint PRIMARY KEY, v vector(3));
         SELECT create_distributed_table('items', 'id', shard_count := 6)",
    );
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    cluster.coordinator.run(
        "INSERT INTO items SELECT n, format('[%s,0,1]', n)::vector FROM generate_series(1, 99) n",
    );
    let nearest = "SELECT id FROM items ORDER BY v <-> '[42,0,1]' LIMIT 1";
    assert_eq!(cluster.coordinator.value(nearest), "42");
    let used =
        "SELECT count(DISTINCT nodename) FROM citus_shards WHERE table_name = 'items'::regclass";
    assert_eq!(cluster.coordinator.value(used), "3");
    assert_eq!(activations(&cluster), ["1", "1", "1"]);
}

fn twenty_four_workers_at_once() {
    let cluster = Plan::workers(24).unannounced().start();
    cluster.announce_all();
    cluster.wait_until_all_active();
    assert_eq!(cluster.nodes().len(), 24);
    let distinct =
        "SELECT count(DISTINCT groupid) FROM pg_dist_node WHERE isactive AND metadatasynced";
    assert_eq!(cluster.coordinator.value(distinct), "25");
    assert_eq!(activations(&cluster), ["1"; 24]);
    cluster.coordinator.run(
        "CREATE TABLE t (id int); SELECT create_distributed_table('t', 'id', shard_count := 24)",
    );
    let used = "SELECT count(DISTINCT nodename) FROM citus_shards WHERE table_name = 't'::regclass";
    assert_eq!(cluster.coordinator.value(used), "24");
}

fn the_coordinator_is_killed_in_the_middle() {
    let cluster = Plan::workers(6).unannounced().start();
    cluster.controller();
    cluster.announce_all();
    until("Citus is at work on a worker", SOON, || {
        let citus =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'citus_internal%'";
        let busy = cluster.workers.iter().any(|worker| worker.value(citus) != "0");
        if busy { Ok(()) } else { Err("no session of Citus") }
    });
    cluster.coordinator.kill();
    cluster.coordinator.begin();
    cluster.wait_until_all_active();
    let nodes = cluster.nodes();
    assert_eq!(nodes.len(), 6);
    assert!(
        nodes.iter().all(|node| &node["isactive"] == "t" && &node["metadatasynced"] == "t"),
        "{nodes:?}"
    );
    assert_eq!(activations(&cluster), ["1"; 6]);
    cluster.coordinator.run("CREATE TABLE t (id int); SELECT create_distributed_table('t', 'id')");
}

fn a_dead_worker_keeps_others_waiting_and_says_so() {
    let cluster = Plan::workers(2).unannounced().start();
    let [first, second] = &cluster.workers[..] else { unreachable!() };
    cluster.announce(&[first.address]);
    cluster.wait_for_state(first.address, "active");
    first.stop(Shutdown::Immediate);
    cluster.wait_for_state(first.address, "unreachable");
    cluster.announce_all();
    until("the reason names the dead worker", SOON, || {
        let row = cluster.worker_at(second.address)?;
        let named = row["reason"].contains(&first.address.to_string());
        if &row["state"] != "active" && named { Ok(()) } else { Err(format!("{row:?}")) }
    });
    assert_eq!(cluster.nodes().len(), 1);
    first.begin();
    cluster.wait_until_all_active();
}

fn a_disabled_worker_is_reported() {
    let cluster = Cluster::with_workers(2);
    cluster.wait_until_all_active();
    let worker = &cluster.workers[1];
    cluster.coordinator.run(&format!(
        "SELECT citus_disable_node('{}', {}, synchronous := true)",
        worker.address, worker.port
    ));
    let row = cluster.wait_for_state(worker.address, "inactive");
    assert!(!row["reason"].is_empty() && row["remedy"].contains("citus_activate_node"), "{row:?}");
    cluster.wait_for_cycles(2);
    let states = cluster.coordinator.rows("SELECT isactive FROM pg_dist_node WHERE NOT isactive");
    assert_eq!(states.len(), 1);
    cluster.coordinator.run(&row["remedy"]);
    cluster.wait_until_all_active();
}

fn a_worker_that_comes_back_blank_is_not_overwritten() {
    let mut cluster = Cluster::with_workers(2);
    cluster.wait_until_all_active();
    cluster.coordinator.run("CREATE TABLE t (id int); SELECT create_distributed_table('t', 'id')");
    let lost = cluster.workers.pop().expect("two workers");
    let mut spec = cluster.worker_spec("blank");
    spec.addresses = vec![lost.address];
    drop(lost);
    let blank = Server::start(spec);
    let row = cluster.wait_for_state(blank.address, "blank");
    assert!(!row["reason"].is_empty() && !row["remedy"].is_empty(), "{row:?}");
    autoregister(&cluster);
    cluster.wait_for_state(blank.address, "blank");
    assert_eq!(blank.value("SELECT groupid FROM pg_dist_local_group"), "0");
    assert_eq!(blank.value("SELECT count(*) FROM pg_dist_partition"), "0");
    assert_eq!(cluster.nodes().len(), 2);
    cluster.wait_for_state(cluster.workers[0].address, "active");
}

fn a_worker_that_is_gone_counts_as_absent_and_stays() {
    let cluster = Plan::workers(2).set("citus_fleet.absent_after", "1s").start();
    cluster.wait_until_all_active();
    let [stays, goes] = &cluster.workers[..] else { unreachable!() };
    cluster.announce(&[stays.address]);
    goes.stop(Shutdown::Immediate);
    cluster.wait_for_state(goes.address, "absent");
    assert_eq!(cluster.nodes().len(), 2);
    cluster.wait_for_state(stays.address, "active");
    goes.begin();
    cluster.announce_all();
    cluster.wait_until_all_active();
    assert_eq!(cluster.nodes().len(), 2);
}

fn the_coordinators_host_is_set_when_asked_for() {
    let cluster = Plan::workers(1).coordinator_is_localhost().start();
    let address: IpAddr = cluster.coordinator.address;
    let row = cluster.wait_for_state(cluster.workers[0].address, "ready");
    assert!(row["reason"].contains("localhost"), "{row:?}");
    assert!(row["remedy"].contains("citus_set_coordinator_host"), "{row:?}");
    throughout("nothing is guessed", Duration::from_secs(2), || {
        cluster
            .coordinator
            .try_value("SELECT count(*) FROM pg_dist_node WHERE nodename <> 'localhost'")
            .and_then(|count| if count == "0" { Ok(()) } else { Err(count) })
    });
    cluster.coordinator.set("citus_fleet.coordinator_host", &format!("{address}:{}", port()));
    cluster.wait_until_all_active();
    let own = cluster.coordinator.rows("SELECT * FROM pg_dist_node WHERE groupid = 0");
    assert_eq!(own.len(), 1);
    assert_eq!(
        (&own[0]["nodename"], &own[0]["nodeport"]),
        (&*address.to_string(), &*port().to_string())
    );
}

fn nobody_joins_while_the_coordinators_host_cannot_be_set() {
    let cluster = Plan::workers(1).coordinator_is_localhost().unannounced().start();
    let (own, worker) = (cluster.coordinator.address, cluster.workers[0].address);
    // Another row has the address already.
    cluster.coordinator.run(&format!(
        "INSERT INTO pg_dist_node (nodename, nodeport, groupid, noderole, isactive, shouldhaveshards)
         VALUES ('{own}', {}, 0, 'secondary', false, false)",
        port()
    ));
    cluster.coordinator.set("citus_fleet.coordinator_host", &format!("{own}:{}", port()));
    cluster.announce_all();
    until("the worker waits for the coordinator's address", SOON, || {
        let row = cluster.worker_at(worker)?;
        let waits = &row["state"] == "ready" && row["reason"].contains("duplicate key");
        if waits { Ok(()) } else { Err(format!("{row:?}")) }
    });
    let refused = cluster.coordinator.try_rows("SELECT * FROM citus_autoregister()");
    assert!(refused.unwrap_err().to_string().contains("duplicate key"));
    assert!(cluster.nodes().is_empty(), "{:?}", cluster.nodes());

    cluster.coordinator.run("DELETE FROM pg_dist_node WHERE noderole = 'secondary'");
    cluster.wait_until_all_active();
}

fn no_other_server_is_given_out_as_the_coordinator() {
    let cluster = Plan::workers(1).coordinator_is_localhost().unannounced().start();
    let other = Server::start(cluster.worker_spec("other"));
    let elsewhere = format!("{}:{}", other.address, other.port);
    cluster.coordinator.set("citus_fleet.coordinator_host", &elsewhere);
    cluster.announce_all();
    let worker = cluster.workers[0].address;
    let is_refused = || {
        until("the worker and doctor() name the other server", SOON, || {
            let row = cluster.worker_at(worker)?;
            let doctor = "SELECT * FROM fleet.doctor() WHERE \"check\" = 'coordinator_host'";
            let doctor = cluster.coordinator.try_rows(doctor).map_err(|e| e.to_string())?.remove(0);
            let named =
                |text: &str| text.contains(&elsewhere) && text.contains(&other.system_identifier());
            let is_told = &row["state"] == "ready"
                && named(&row["reason"])
                && row["remedy"].contains("citus_fleet.coordinator_host")
                && &doctor["status"] == "error"
                && named(&doctor["finding"]);
            if is_told { Ok(()) } else { Err(format!("{row:?}, {doctor:?}")) }
        });
        assert_eq!(autoregister(&cluster)[0]["outcome"].to_string(), "skipped");
        assert!(cluster.nodes().is_empty(), "{:?}", cluster.nodes());
    };
    is_refused();
    let own = "SELECT nodename FROM pg_dist_node WHERE groupid = 0";
    assert_eq!(cluster.coordinator.value(own), "localhost");

    // As wrong, and written by hand.
    cluster.coordinator.reset("citus_fleet.coordinator_host");
    cluster
        .coordinator
        .run(&format!("SELECT citus_set_coordinator_host('{}', {})", other.address, other.port));
    is_refused();

    // A right setting alone does not tell a restored copy from the coordinator: the row is another's still.
    let address = cluster.coordinator.address;
    cluster.coordinator.set("citus_fleet.coordinator_host", &format!("{address}:{}", port()));
    cluster.wait_for_cycles(2);
    is_refused();
    cluster.coordinator.run(&format!("SELECT citus_set_coordinator_host('{address}', {})", port()));
    cluster.wait_until_all_active();
    assert_eq!(cluster.workers[0].value(own), address.to_string());
}

/// As behind a Service or a proxy that has nobody to lead to yet.
fn a_coordinators_host_that_nobody_answers_at_is_waited_for() {
    let cluster = Plan::workers(1).coordinator_is_localhost().start();
    let proxy = cluster.subnet.address();
    cluster.coordinator.set("citus_fleet.coordinator_host", &format!("{proxy}:{}", port()));
    let worker = cluster.workers[0].address;
    until("the reason says what is waited for", SOON, || {
        let row = cluster.worker_at(worker)?;
        let named = row["reason"].contains(&format!("{proxy}:{} cannot be reached", port()));
        if &row["state"] == "ready" && named { Ok(()) } else { Err(format!("{row:?}")) }
    });
    let own = "SELECT nodename FROM pg_dist_node WHERE groupid = 0";
    assert_eq!(cluster.coordinator.value(own), "localhost");
    let _relay = Relay::start(proxy, port(), cluster.coordinator.address);
    cluster.wait_until_all_active();
    assert_eq!(cluster.workers[0].value(own), proxy.to_string());
}

fn names_are_registered_only_where_they_lead_to_one_server() {
    // The system's resolver, which Citus uses, does not know these names: nodes go by address.
    let cluster = Cluster::with_workers(2);
    cluster.dns.pointers(cluster.workers[0].address, &["worker-1.test"]);
    cluster.wait_until_all_active();
    let mut names: Vec<String> =
        cluster.nodes().iter().map(|node| node["nodename"].to_string()).collect();
    let mut addresses: Vec<String> =
        cluster.workers.iter().map(|w| w.address.to_string()).collect();
    names.sort();
    addresses.sort();
    assert_eq!(names, addresses);
}
