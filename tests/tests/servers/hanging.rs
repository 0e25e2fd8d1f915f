//! Candidates that pass their probes and hang in the metadata sync: nobody else waits for them, or hardly.

use crate::lifecycle::{node_id, wait_for_node_state, wait_until_active_at};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::server::{Row, Session};
use citus_fleet_tests::wait::within;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, until};
use std::net::IpAddr;
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("hanging", &[Need::Fleet, Need::Citus, Need::Vector];
        ddl_hardly_waits_for_a_candidate_that_hangs,
        one_that_was_started_anew_is_tried_at_once,
        a_worker_is_followed_while_many_hang,
    )
}

/// How long finding out about a few that hang may take.
const KNOWN: Duration = Duration::from_secs(60);

/// Probes pass; what Citus writes there waits.
#[track_caller]
fn hang(server: &Server) -> Session {
    let mut session = server.session();
    session.run("BEGIN; LOCK TABLE pg_dist_node IN EXCLUSIVE MODE");
    session
}

#[track_caller]
fn wait_until_known(cluster: &Cluster, hung: &Server) -> Row {
    until("it is known to hang", KNOWN, || {
        let row = cluster.worker_at(hung.address)?;
        if &row["code"] == "hangs_joining" { Ok(row) } else { Err(format!("{row:?}")) }
    })
}

fn attempts(cluster: &Cluster, server: &Server) -> usize {
    let line = format!("register {}:{}: ", server.address, server.port);
    cluster
        .coordinator
        .log()
        .lines()
        .filter(|it| it.contains("failed") && it.contains(&line))
        .count()
}

fn ddl_hardly_waits_for_a_candidate_that_hangs() {
    let cluster = Plan::workers(3).unannounced().start();
    let [one, hung, late] = &cluster.workers[..] else { unreachable!() };
    cluster.announce(&[one.address]);
    cluster.wait_for_state(one.address, "active");
    let mut holder = hang(hung);
    cluster.announce(&[one.address, hung.address]);
    let row = wait_until_known(&cluster, hung);
    assert!(&row["state"] == "ready" && row["remedy"].contains("pg_locks"), "{row:?}");
    assert_eq!(attempts(&cluster, hung), 1);
    // It was 15 s of every 75 s: in so many cycles the next attempts came.
    let (_, taken) = within("DDL of the cluster, again and again", KNOWN, || {
        for n in 0..10 {
            cluster.coordinator.run(&format!(
                "CREATE TABLE t{n} (id int); SELECT create_distributed_table('t{n}', 'id', shard_count := 2)"
            ));
            cluster.wait_for_cycles(1);
        }
    });
    assert!(taken < Duration::from_secs(40), "{taken:?}");
    assert_eq!(attempts(&cluster, hung), 1);
    // Others join as if there were none such.
    cluster.announce(&[one.address, hung.address, late.address]);
    cluster.wait_for_state(late.address, "active");
    assert_eq!(attempts(&cluster, hung), 1);
    // And whoever asks for it gets it.
    holder.run("ROLLBACK");
    cluster.coordinator.run("SELECT * FROM citus_autoregister()");
    cluster.wait_for_state(hung.address, "active");
}

fn one_that_was_started_anew_is_tried_at_once() {
    let cluster = Plan::workers(1).unannounced().start();
    let hung = &cluster.workers[0];
    let holder = hang(hung);
    cluster.announce_all();
    wait_until_known(&cluster, hung);
    drop(holder);
    hung.restart();
    cluster.wait_for_state(hung.address, "active");
}

fn a_worker_is_followed_while_many_hang() {
    let mut cluster = Plan::workers(4).unannounced().start();
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "active");
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let holders: Vec<Session> = cluster.workers[1..].iter().map(hang).collect();
    cluster.announce_all();
    until("the first of them hangs", KNOWN, || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
             AND relation = 'pg_dist_node'::regclass";
        let waits = |server: &Server| server.try_value(waiting).is_ok_and(|count| count != "0");
        if cluster.workers[1..].iter().any(waits) { Ok(()) } else { Err("nobody waits yet") }
    });
    let new = IpAddr::from(cluster.subnet.address());
    cluster.workers[0].stop(Shutdown::Immediate);
    cluster.workers[0].move_to(new);
    cluster.workers[0].begin();
    cluster.announce_all();
    let (_, taken) = within("the worker is followed", Duration::from_secs(90), || {
        until("its row leads there", Duration::from_secs(80), || {
            let name = cluster
                .coordinator
                .try_value(&format!("SELECT nodename FROM pg_dist_node WHERE nodeid = {nodeid}"))?;
            if name == new.to_string() { Ok(()) } else { Err(name) }
        });
    });
    // One deadline, and no other before it.
    assert!(taken < Duration::from_secs(26), "{taken:?}");
    wait_until_active_at(&cluster, &nodeid, new);
    drop(holders);
    wait_for_node_state(&cluster, &nodeid, "active");
}
