//! Cases from the field about who is the coordinator: copies that cannot see it, and one that lacks its newest
//! changes. Each plays the sequence on real servers and counts rows.

use crate::field::{cut_off, wait_for_code};
use crate::lifecycle::{FIRST, distribute_items, node_id, with_items};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::dns::Dns;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, until};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("field_coordinators", &[Need::Fleet, Need::Citus, Need::Vector];
        a_copy_that_cannot_see_the_coordinator_changes_nothing,
        a_coordinator_that_lacks_a_node_gives_its_number_to_nobody,
    );
    let needs = &[Need::Fleet, Need::Citus, Need::Vector, Need::Mounts];
    tests.extend(suite!("field_coordinators", needs;
        two_coordinators_under_one_name_notice,
    ));
    tests
}

#[track_caller]
fn copy_of(cluster: &Cluster) -> Server {
    let coordinator = &cluster.coordinator;
    Server::clone_of(coordinator, coordinator.twin("copy", cluster.subnet.address()))
}

/// What makes a copy harmless or not is what it does while nobody is there to dispute it.
fn a_copy_that_cannot_see_the_coordinator_changes_nothing() {
    let mut cluster = with_items(Plan::workers(2).set("citus_fleet.rebalance_on_join", "on"));
    let nodeid = node_id(&cluster, &cluster.workers[0]);
    let before = cluster.workers[0].address;
    let copy = copy_of(&cluster);
    until("the copy says that there are two", SOON, || {
        let text = copy.try_value("SELECT fleet.status()->>'disputed'")?;
        if text == "true" { Ok(()) } else { Err(text) }
    });
    cluster.coordinator.stop(Shutdown::Fast);
    let next = cluster.subnet.address();
    cluster.workers[0].stop(Shutdown::Fast);
    cluster.workers[0].move_to(next);
    cluster.announce_all();
    cluster.workers[0].begin();
    // Also one that has never seen another.
    for _ in 0..2 {
        let cycles = || copy.try_value("SELECT fleet.status()->>'cycles'");
        let from: u64 = cycles().ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        until("the copy has looked often", SOON, || match cycles()?.parse::<u64>() {
            Ok(now) if now >= from + 8 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let row = format!("SELECT nodename FROM pg_dist_node WHERE nodeid = {nodeid}");
        assert_eq!(copy.value(&row), before.to_string(), "the copy has followed");
        assert_eq!(copy.value("SELECT count(*) FROM pg_dist_background_job"), "0");
        let worker = &cluster.workers[1];
        for call in ["accept_server", "remove_worker"] {
            let sql = format!("SELECT fleet.{call}('{}', {})", worker.address, worker.port);
            let refusal = copy.error(&sql);
            assert_eq!(refusal.state, "55000", "{call}: {refusal:?}");
        }
        copy.restart();
    }
    copy.stop(Shutdown::Fast);
    cluster.coordinator.begin();
    cluster.wait_for_state(cluster.workers[0].address, "active");
    assert_exact(&cluster.coordinator, FIRST);
}

/// A standby that lags is promoted: a worker has joined since, and holds shards.
fn a_coordinator_that_lacks_a_node_gives_its_number_to_nobody() {
    let mut cluster = with_items(Plan::workers(2));
    let mut heir = Server::standby_of(
        &cluster.coordinator,
        cluster.coordinator.twin("heir", cluster.subnet.address()),
    );
    cluster.wait_for_cycles(3);
    cut_off(&cluster.coordinator, &heir);
    let joined = Server::start(cluster.worker_spec("joined"));
    cluster.announce_with(&[joined.address]);
    cluster.wait_for_state(joined.address, "active");
    let nodeid = node_id(&cluster, &joined);
    cluster.coordinator.session().run(
        "CREATE TABLE later (id bigint PRIMARY KEY);
         SELECT create_distributed_table('later', 'id', shard_count := 6, colocate_with := 'none');
         INSERT INTO later SELECT generate_series(1, 100)",
    );
    let address = cluster.coordinator.address;
    cluster.coordinator.forget_session();
    cluster.coordinator.kill();
    heir.stop(Shutdown::Fast);
    heir.move_to(address);
    heir.begin();
    heir.promote();
    cluster.coordinator = heir;
    let told = wait_for_code(&cluster, cluster.workers[0].address, "nodes_differ");
    assert!(told.contains(&format!("it has node {nodeid} at {}", joined.address)), "{told}");
    let other = Server::start(cluster.worker_spec("other"));
    cluster.announce_with(&[joined.address, other.address]);
    let told = wait_for_code(&cluster, other.address, "nodes_differ_on");
    assert!(told.contains("nothing is changed"), "{told}");
    let doctor = "SELECT count(*) FROM fleet.doctor() WHERE status = 'error' AND finding ~ 'pg_dist_node|nodes in the metadata'";
    assert_eq!(cluster.coordinator.value(doctor), "1");
    cluster.wait_for_cycles(5);
    assert_eq!(cluster.workers[0].value("SELECT count(*) FROM later"), "100");
    assert_eq!(other.value("SELECT count(*) FROM pg_dist_node"), "0");
    // The operator decides for this one, and everything goes on.
    cluster.coordinator.run("SELECT start_metadata_sync_to_all_nodes()");
    cluster.wait_for_state(cluster.workers[0].address, "active");
    cluster.wait_for_state(other.address, "active");
    assert_exact(&cluster.coordinator, FIRST);
}

/// A copy runs on a host where the coordinator's name is its own.
fn two_coordinators_under_one_name_notice() {
    let plan = Plan::workers(2).own_resolver().set("citus_fleet.allowed_networks", "127.0.0.0/8");
    let cluster = plan.start();
    let (name, port) = ("coordinator.test", cluster.coordinator.port);
    cluster.dns.addresses(name, &[cluster.coordinator.address]);
    cluster.wait_until_all_active();
    cluster.coordinator.run(&format!("SELECT citus_set_coordinator_host('{name}', {port})"));
    distribute_items(&cluster);
    let theirs = Dns::start_at(cluster.subnet.address(), 53);
    let address = cluster.subnet.address();
    theirs.addresses(name, &[address.into()]);
    let both = [cluster.workers[0].address, cluster.workers[1].address];
    theirs.addresses("worker", &both);
    let mut spec = cluster.coordinator.twin("copy", address);
    spec.resolvers = Some(vec![theirs.address().ip()]);
    let copy = Server::clone_of(&cluster.coordinator, spec);
    let new = Server::start(cluster.worker_spec("new"));
    cluster.dns.addresses("worker", &[both[0], both[1], new.address]);
    cluster.wait_for_state(new.address, "active");
    until("the copy sees that the workers know more", SOON, || {
        let codes =
            "SELECT string_agg(DISTINCT code, ' ') FROM fleet.workers WHERE nodeid IS NOT NULL";
        let codes = copy.try_value(codes)?;
        if codes == "nodes_differ" { Ok(()) } else { Err(codes) }
    });
    let blank = Server::start(cluster.worker_spec("blank"));
    theirs.addresses("worker", &[both[0], both[1], blank.address]);
    until("it is held", SOON, || {
        let sql = format!("SELECT code FROM fleet.workers WHERE address = '{}'", blank.address);
        let code = copy.try_value(&sql)?;
        if code == "nodes_differ_on" { Ok(()) } else { Err(code) }
    });
    assert_eq!(blank.value("SELECT count(*) FROM pg_dist_node"), "0");
}
