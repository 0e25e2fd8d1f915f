//! The controller as a process: it comes back, it goes at once, it leaves no trace when idle, and it
//! waits where there is nothing to do.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::{Plan, WORKER};
use citus_fleet_tests::fleet::{SOON, wait_for_state};
use citus_fleet_tests::net::{Manner, Stranger};
use citus_fleet_tests::run::port;
use citus_fleet_tests::server::process::send;
use citus_fleet_tests::wait::throughout;
use citus_fleet_tests::{Dns, Need, Server, Shutdown, Spec, until};
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("controller", &[Need::Fleet];
        waits_for_its_database_and_its_extension,
        comes_back_after_it_was_terminated,
        leaks_nothing,
        one_that_hangs_does_not_quicken_the_cycle,
    );
    tests.extend(suite!("controller", &[Need::Fleet, Need::Citus, Need::Vector];
        survives_kill_nine,
        survives_errors,
        survives_drop_and_create_extension,
        gives_up_a_lock_and_tries_again,
        does_nothing_on_a_standby_and_takes_over,
        writes_no_wal_when_nothing_changes,
        an_event_is_written_once_per_change,
    ));
    tests
}

pub fn plain(workers: usize) -> Plan {
    Plan::workers(workers)
        .without_citus()
        .set("citus_fleet.allowed_networks", "127.0.0.0/8")
        .set("citus_fleet.interval", "200ms")
}

/// Waits until the controller waits for a lock on `pg_dist_node`.
#[track_caller]
pub fn wait_for_lock_wait(server: &Server) {
    until("the controller waits for pg_dist_node", SOON, || {
        let waiting = server.try_value(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE l.relation = 'pg_dist_node'::regclass AND NOT l.granted
             AND a.backend_type = 'citus_fleet controller'",
        )?;
        if waiting == "0" { Err(waiting) } else { Ok(()) }
    });
}

fn gives_up_a_lock_and_tries_again() {
    let cluster = Plan::workers(1).unannounced().start();
    let pid = cluster.controller();
    let mut blocker = cluster.coordinator.session();
    blocker.run("BEGIN; LOCK TABLE pg_dist_node IN EXCLUSIVE MODE");
    cluster.announce_all();
    wait_for_lock_wait(&cluster.coordinator);
    let row = until("it gives up and says why", SOON, || {
        let row = cluster.worker_at(cluster.workers[0].address)?;
        if row["reason"].contains("lock") { Ok(row) } else { Err(format!("{row:?}")) }
    });
    assert_ne!(&row["state"], "active");
    blocker.run("COMMIT");
    cluster.wait_until_all_active();
    assert_eq!(cluster.controller(), pid);
}

fn waits_for_its_database_and_its_extension() {
    let cluster = plain(1).not_created().set("citus_fleet.database", "later").start();
    let mentions = || cluster.coordinator.log().matches("later").count();
    throughout("the log is not flooded", Duration::from_secs(3), || match mentions() {
        0..=20 => Ok(()),
        lines => Err(format!("{lines} lines tell of the missing database")),
    });
    cluster.workers[0].run("CREATE DATABASE later");
    cluster.coordinator.run("CREATE DATABASE later");
    let mut later = cluster.coordinator.session_as("postgres", "later");
    let controllers = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'later'
         AND backend_type = 'citus_fleet controller'";
    until("the controller is in its database", SOON, || {
        let count = later.value(controllers);
        if count == "1" { Ok(()) } else { Err(count) }
    });
    let before = cluster.dns.queries();
    later.run("CREATE EXTENSION citus_fleet");
    until("the worker is found", SOON, || {
        let rows = later.try_rows("SELECT state FROM fleet.workers").map_err(|e| e.to_string())?;
        match rows.as_slice() {
            [row] if &row["state"] == "ready" => Ok(()),
            rows => Err(format!("{rows:?}")),
        }
    });
    assert_eq!(before, 0, "it asked DNS without its extension");
}

fn comes_back_after_it_was_terminated() {
    let cluster = plain(2).unannounced().start();
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    for _ in 0..2 {
        let pid = cluster.controller();
        cluster.coordinator.run(&format!("SELECT pg_terminate_backend({pid})"));
        until("another controller runs", Duration::from_secs(5), || match cluster.controller() {
            now if now != pid => Ok(()),
            now => Err(now),
        });
    }
    cluster.announce_all();
    cluster.wait_for_state(cluster.workers[1].address, "ready");
}

fn survives_kill_nine() {
    let cluster = Plan::workers(2).unannounced().start();
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "active");
    let events = "SELECT count(*) FROM fleet.events";
    let before = cluster.coordinator.value(events);
    let pid = cluster.controller();
    send(pid, libc::SIGKILL);
    until("the server has recovered", SOON, || {
        let now = cluster.coordinator.try_value(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'citus_fleet controller'",
        )?;
        if now == pid.to_string() { Err(now) } else { Ok(()) }
    });
    cluster.wait_for_state(cluster.workers[0].address, "active");
    assert_eq!(cluster.coordinator.value(events), before);
    cluster.announce_all();
    cluster.wait_until_all_active();
    assert_eq!(cluster.nodes().len(), 2);
}

fn survives_errors() {
    let cluster = Plan::workers(2).unannounced().start();
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "active");
    let pid = cluster.controller();
    // What the controller writes to is gone for a while.
    cluster.coordinator.run("ALTER TABLE fleet.events RENAME TO hidden");
    cluster.announce_all();
    until("the error is told", SOON, || {
        let told = cluster.coordinator.try_value("SELECT fleet.status()->>'errors'")?;
        let logged = cluster.coordinator.log().contains("\"fleet.events\" does not exist");
        if logged || told.contains("fleet.events") { Ok(()) } else { Err(told) }
    });
    cluster.coordinator.run("ALTER TABLE fleet.hidden RENAME TO events");
    cluster.wait_until_all_active();
    assert_eq!(cluster.controller(), pid);
    until("the event is written after all", SOON, || {
        let count = cluster
            .coordinator
            .try_value("SELECT count(DISTINCT nodeid) FROM fleet.events WHERE event = 'active'")?;
        if count == "2" { Ok(()) } else { Err(count) }
    });
}

fn survives_drop_and_create_extension() {
    let cluster = Plan::workers(2).unannounced().start();
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "active");
    for _ in 0..2 {
        cluster.coordinator.run("DROP EXTENSION citus_fleet");
        let asked = cluster.dns.queries();
        throughout("it rests without its extension", Duration::from_millis(2500), || {
            match cluster.dns.queries() - asked {
                // A cycle that had begun may end.
                0..=12 => Ok(()),
                more => Err(format!("{more} queries")),
            }
        });
        cluster.coordinator.run("CREATE EXTENSION citus_fleet");
        cluster.wait_for_state(cluster.workers[0].address, "active");
    }
    cluster.announce_all();
    cluster.wait_until_all_active();
    assert_eq!(cluster.nodes().len(), 2);
}

fn does_nothing_on_a_standby_and_takes_over() {
    let cluster = Plan::workers(2).unannounced().start();
    cluster.announce(&[cluster.workers[0].address]);
    cluster.wait_for_state(cluster.workers[0].address, "active");
    let dns = Dns::start(cluster.subnet.address());
    let all: Vec<IpAddr> = cluster.workers.iter().map(|worker| worker.address).collect();
    dns.addresses(WORKER, &all);
    let spec = Spec::new("standby", cluster.subnet.address())
        .citus()
        .preload("citus_fleet")
        .set("citus_fleet.nameserver", &dns.address().to_string())
        .set("citus_fleet.workers", &format!("{WORKER}:{}", port()))
        .set("citus_fleet.interval", "1s");
    let standby = Server::standby_of(&cluster.coordinator, spec);
    throughout("the standby asks nobody", Duration::from_secs(3), || match dns.queries() {
        0 => Ok(()),
        queries => Err(queries),
    });
    let error = standby.error("SELECT * FROM citus_autoregister()");
    assert_eq!(error.state, "25006", "{error}");
    assert!(!error.hint.is_empty(), "{error}");
    standby.run("SELECT * FROM fleet.workers; SELECT fleet.status()");

    cluster.coordinator.stop(Shutdown::Fast);
    standby.promote();
    standby.run(&format!(
        "SELECT citus_set_coordinator_host('{}', {})",
        standby.address, standby.port
    ));
    for worker in &cluster.workers {
        wait_for_state(&standby, worker.address, "active");
    }
    assert_eq!(standby.value("SELECT count(*) FROM pg_dist_node WHERE groupid <> 0"), "2");
}

fn writes_no_wal_when_nothing_changes() {
    let cluster = Plan::workers(2)
        .set("citus_fleet.interval", "100ms")
        .set("checkpoint_timeout", "1h")
        .start();
    let nobody: IpAddr = cluster.subnet.address().into();
    cluster.announce_with(&[nobody]);
    cluster.wait_until_all_active();
    cluster.wait_for_state(nobody, "unreachable");
    let position = || cluster.coordinator.value("SELECT pg_current_wal_insert_lsn()");
    let transaction =
        || cluster.coordinator.value("SELECT pg_snapshot_xmax(pg_current_snapshot())");
    // The server itself logs its running transactions once after the last change, hence a second try.
    until("cycles pass without a byte of WAL", Duration::from_secs(60), || {
        let before = (position(), transaction());
        cluster.wait_for_cycles(5);
        let after = (position(), transaction());
        if before == after { Ok(()) } else { Err(format!("from {before:?} to {after:?}")) }
    });
}

fn an_event_is_written_once_per_change() {
    let cluster = Plan::workers(2).set("citus_fleet.interval", "200ms").start();
    cluster.wait_until_all_active();
    let events = || {
        let rows = cluster.coordinator.rows(
            "SELECT nodename || ' ' || event AS what FROM fleet.events
             WHERE event IN ('active', 'unreachable') ORDER BY at, nodename",
        );
        rows.iter().map(|row| row["what"].to_string()).collect::<Vec<_>>()
    };
    let total = || cluster.coordinator.value("SELECT count(*) FROM fleet.events");
    let (before, count) = (events(), total());
    assert_eq!(before.len(), 2, "{before:?}");
    cluster.wait_for_cycles(3);
    assert_eq!(total(), count);
    cluster.coordinator.restart();
    cluster.wait_until_all_active();
    cluster.wait_for_cycles(3);
    assert_eq!(total(), count, "a restart is no change: {:?}", events());

    let worker = &cluster.workers[1];
    worker.stop(Shutdown::Immediate);
    cluster.wait_for_state(worker.address, "unreachable");
    worker.begin();
    cluster.wait_until_all_active();
    cluster.wait_for_cycles(2);
    let name = worker.address.to_string();
    assert_eq!(events()[2..], [format!("{name} unreachable"), format!("{name} active")]);
}

fn leaks_nothing() {
    let cluster = plain(1).set("citus_fleet.interval", "100ms").start();
    let silent = Stranger::start(cluster.subnet.address(), port(), Manner::Garbage);
    let nobody: IpAddr = cluster.subnet.address().into();
    cluster.announce_with(&[silent.address.ip(), nobody]);
    cluster.wait_for_state(nobody, "unreachable");
    let pid = cluster.controller();
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").count();
    let fewest = |count: &dyn Fn() -> usize| {
        let mut fewest = usize::MAX;
        throughout("counting", Duration::from_millis(500), || {
            fewest = fewest.min(count());
            Ok::<(), String>(())
        });
        fewest
    };
    let before = (fewest(&files), fewest(&threads));
    cluster.wait_for_cycles(10);
    let after = (fewest(&files), fewest(&threads));
    assert!(
        after.0 <= before.0 && after.1 <= before.1,
        "open files and threads: {before:?}, {after:?}"
    );
}

/// A hung server takes the whole deadline of a probe: it is asked again at the regular cycles only.
fn one_that_hangs_does_not_quicken_the_cycle() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let cluster = plain(2).set("citus_fleet.interval", "2s").start();
    let hung = &cluster.workers[1];
    cluster.wait_for_state(hung.address, "ready");
    hung.freeze();
    cluster.wait_for_state(hung.address, "unreachable");
    // It was news that it fails, and is once more when it has failed for so long that it is silent.
    cluster.wait_for_cycles(4);
    let started = Instant::now();
    cluster.wait_for_cycles(5);
    let took = started.elapsed();
    hung.thaw();
    assert!(took >= INTERVAL * 4, "five cycles in {took:?}");
    cluster.wait_for_state(hung.address, "ready");
}
