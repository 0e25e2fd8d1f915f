//! The harness itself, without the extension: a test may only blame citus_fleet for what these pass.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::server::Data;
use citus_fleet_tests::tls::Authority;
use citus_fleet_tests::{Need, Server, Shutdown, Spec, Subnet, until};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("harness", &[];
        every_server_has_an_identity_of_its_own,
        a_standby_follows_and_is_promoted,
        servers_are_frozen_killed_and_started_again,
    );
    tests.extend(suite!("harness", &[Need::Citus, Need::Vector]; workers_are_added_by_hand,
        citus_refuses_workers_of_a_coordinator_on_localhost,
    ));
    tests.extend(suite!("harness", &[Need::OpenSsl]; certificates_are_good_for_verify_full));
    tests
}

fn every_server_has_an_identity_of_its_own() {
    let subnet = Subnet::new();
    let spec = |name: &str| Spec::new(name, subnet.address());
    let servers = Server::start_all(vec![spec("one"), spec("two"), spec("three")]);
    let mut identities: Vec<String> = servers.iter().map(Server::system_identifier).collect();
    let clone = Server::clone_of(&servers[0], spec("clone"));
    assert_eq!(clone.system_identifier(), identities[0]);
    assert_eq!(clone.value("SELECT pg_is_in_recovery()"), "f");
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 3);
}

fn a_standby_follows_and_is_promoted() {
    let subnet = Subnet::new();
    let primary = Server::start(Spec::new("primary", subnet.address()));
    primary.run("CREATE TABLE t (n int)");
    let standby = Server::standby_of(&primary, Spec::new("standby", subnet.address()));
    primary.run("INSERT INTO t VALUES (1)");
    until("the row arrives", Duration::from_secs(10), || {
        match standby.try_value("SELECT count(*) FROM t")?.as_str() {
            "1" => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(standby.error("INSERT INTO t VALUES (2)").state, "25006");
    primary.stop(Shutdown::Immediate);
    standby.promote();
    standby.run("INSERT INTO t VALUES (2)");
}

fn servers_are_frozen_killed_and_started_again() {
    let server = Server::start(Spec::new("server", Subnet::new().address()));
    server.set("work_mem", "5MB");
    assert_eq!(server.session().value("SHOW work_mem"), "5MB");
    server.freeze();
    server.thaw();
    server.run("CREATE TABLE t ()");
    server.kill();
    server.begin();
    server.run("TABLE t");
    server.restart();
    server.set_hba(&["host all all 127.0.0.0/8 reject"]);
    assert_eq!(server.session().value("SHOW work_mem"), "5MB");
    server.freeze();
}

fn workers_are_added_by_hand() {
    let cluster = Plan::workers(3).without_fleet().start();
    for worker in &cluster.workers {
        cluster.add_by_hand(worker);
    }
    assert_eq!(cluster.nodes().len(), 3);
    cluster.coordinator.run(
        "CREATE TABLE items (id bigint PRIMARY KEY, v vector(3));
         SELECT create_distributed_table('items', 'id', shard_count := 6);
         INSERT INTO items SELECT n, '[1,2,3]' FROM generate_series(1, 100) n",
    );
    assert_eq!(cluster.coordinator.value("SELECT count(*) FROM items"), "100");

    let blank = cluster.worker_spec("blank");
    assert_eq!(blank.data, Data::Citus);
    let blank = Server::start(blank);
    let server_id = "SELECT metadata->>'server_id' FROM pg_dist_node_metadata";
    assert_ne!(blank.value(server_id), cluster.coordinator.value(server_id));
}

/// What `the_coordinators_host_is_set_when_asked_for` and its like build on.
fn citus_refuses_workers_of_a_coordinator_on_localhost() {
    let cluster = Plan::workers(1).coordinator_is_localhost().without_fleet().start();
    let worker = &cluster.workers[0];
    let add = format!("SELECT citus_add_node('{}', {})", worker.address, worker.port);
    let error = cluster.coordinator.error(&add);
    assert!(error.message.contains("localhost"), "{error}");
}

fn certificates_are_good_for_verify_full() {
    let subnet = Subnet::new();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let address = subnet.address();
    let spec = Spec::new("server", address).certificate(&authority.issue(address.into()));
    let server = Server::start(spec);
    server.run("CREATE EXTENSION dblink");
    let connect = |root: &std::path::Path| {
        server.try_value(&format!(
            "SELECT dblink_connect('c', 'host={address} port={} user=postgres sslmode=verify-full sslrootcert={}')",
            server.port,
            root.display()
        ))
    };
    let refused = connect(&stranger.root()).expect_err("the authority is another one");
    assert!(refused.contains("certificate verify failed"), "{refused}");
    assert_eq!(connect(&authority.root()), Ok("OK".to_string()));
}
