//! What remains where Citus is not there, or not there yet.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::run::port;
use citus_fleet_tests::server::Data;
use citus_fleet_tests::{Need, Server, Spec, until};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("without_citus", &[Need::Fleet];
        workers_are_discovered_probed_and_ready,
        the_library_alone_does_no_harm,
    );
    tests.extend(suite!("without_citus", &[Need::Fleet, Need::Citus]; citus_may_come_later));
    tests
}

fn workers_are_discovered_probed_and_ready() {
    let cluster =
        Plan::workers(3).without_citus().set("citus_fleet.allowed_networks", "127.0.0.0/8").start();
    for worker in &cluster.workers {
        let row = cluster.wait_for_state(worker.address, "ready");
        assert!(row["reason"].to_lowercase().contains("citus"), "{row:?}");
        assert!(row["remedy"].to_lowercase().contains("citus"), "{row:?}");
        assert_eq!(row["system_identifier"], worker.system_identifier());
        assert!(row["round_trip_ms"].parse::<f64>().is_ok_and(|ms| ms > 0.0), "{row:?}");
        assert_eq!((&row["citus_version"], &row["nodeid"]), ("", ""));
    }
    let error = cluster.coordinator.error("SELECT * FROM citus_autoregister()");
    assert_eq!(error.state, "55000", "{error}");
    assert!(error.hint.contains("citus"), "{error}");
    let doctor = cluster.coordinator.rows("SELECT * FROM fleet.doctor()");
    let told = doctor
        .iter()
        .any(|row| row["finding"].to_lowercase().contains("citus") && &row["status"] != "ok");
    assert!(told, "{doctor:?}");
    assert!(
        !cluster.coordinator.log().contains("ERROR:  relation"),
        "{}",
        cluster.coordinator.log()
    );
}

/// Preloaded, and nothing else: no setting, no extension.
fn the_library_alone_does_no_harm() {
    let subnet = citus_fleet_tests::Subnet::new();
    let server = Server::start(Spec::new("server", subnet.address()).preload("citus_fleet"));
    citus_fleet_tests::fleet::controller(&server);
    server.run("CREATE EXTENSION citus_fleet");
    assert_eq!(server.rows("SELECT * FROM fleet.workers").len(), 0);
    until("the controller has looked around", SOON, || {
        let role = server.try_value("SELECT fleet.status()->>'role'")?;
        if role.is_empty() || role == "waiting" { Err(role) } else { Ok(()) }
    });
    server.restart();
    server.run("DROP EXTENSION citus_fleet");
    assert!(!server.log().contains("PANIC") && !server.log().contains("terminated by signal"));

    let unloaded = Server::start(Spec::new("unloaded", subnet.address()));
    // Without preloading there is no controller: whichever step says so, it says what to do.
    let error = match unloaded.try_rows("CREATE EXTENSION citus_fleet") {
        Err(error) => error,
        Ok(_) => unloaded.error("SELECT * FROM citus_autoregister()"),
    };
    assert!(error.hint.contains("shared_preload_libraries"), "{error}");
}

fn citus_may_come_later() {
    let cluster = Plan::workers(0).without_citus().unannounced().not_created().start();
    drop(cluster.coordinator);
    // Preloaded, and created only after the controller is at work.
    let spec = Spec::new("coordinator", cluster.subnet.address())
        .citus()
        .preload("citus_fleet")
        .set("citus_fleet.nameserver", &cluster.dns.address().to_string())
        .set("citus_fleet.workers", &format!("worker:{}", port()))
        .set("citus_fleet.allowed_networks", "127.0.0.0/8")
        .set("citus_fleet.interval", "1s");
    let coordinator = Server::start(Spec { data: Data::Bare, ..spec });
    let worker = Server::start(Spec::new("worker", cluster.subnet.address()).citus());
    cluster.dns.addresses("worker", &[worker.address]);
    coordinator.run("CREATE EXTENSION citus_fleet");
    citus_fleet_tests::fleet::wait_for_state(&coordinator, worker.address, "ready");
    coordinator.run("CREATE EXTENSION citus");
    coordinator.run(&format!(
        "SELECT citus_set_coordinator_host('{}', {})",
        coordinator.address, coordinator.port
    ));
    citus_fleet_tests::fleet::wait_for_state(&coordinator, worker.address, "active");
}
