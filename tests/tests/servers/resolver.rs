//! What the system's resolver says of workers that are registered by name: Citus connects by it. The
//! coordinator has a resolv.conf of its own, and the scripted DNS answers on port 53.

use crate::lifecycle::{node_id_of, wait_for_node_state, worker};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::{Plan, WORKER};
use citus_fleet_tests::dns::Dns;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::run::port;
use citus_fleet_tests::wait::throughout;
use citus_fleet_tests::{Behaviour, Cluster, Need, Shutdown, until};
use std::net::IpAddr;
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("resolver", &[Need::Fleet, Need::Mounts];
        name_servers_are_asked_in_order,
    );
    tests.extend(suite!("resolver", &[Need::Fleet, Need::Citus, Need::Mounts];
        a_name_that_is_gone_disables_nobody_who_answers,
        without_an_answer_nobody_is_active,
        a_restart_of_a_healthy_cluster_is_no_event,
        names_that_dns_accepts_are_registered,
    ));
    tests
}

/// The state of the worker at an address, or that it is not listed.
fn state(cluster: &Cluster, address: IpAddr) -> String {
    cluster.worker_at(address).map_or_else(|_| "-".to_string(), |row| row["state"].to_string())
}

fn name_servers_are_asked_in_order() {
    let plan = Plan::workers(1)
        .without_citus()
        .own_resolver()
        .set("citus_fleet.allowed_networks", "127.0.0.0/8")
        .set("citus_fleet.interval", "200ms");
    let cluster = plan.start();
    let address = cluster.workers[0].address;
    cluster.wait_for_state(address, "ready");
    let first = cluster.dns.address().ip();
    // Another one, which knows nobody.
    let ignorant = Dns::start_at(cluster.subnet.address(), 53);
    let second = ignorant.address().ip();
    cluster.coordinator.resolve_by(&[first, second]);
    throughout("what the first server says counts", Duration::from_secs(4), || {
        let state = state(&cluster, address);
        if state == "ready" { Ok(()) } else { Err(state) }
    });
    assert_eq!(ignorant.queries(), 0, "the second server was asked");
    // As it does when it says that there is no such name.
    cluster.coordinator.resolve_by(&[second, first]);
    until("the worker is not listed", SOON, || match state(&cluster, address).as_str() {
        "-" => Ok(()),
        other => Err(other.to_string()),
    });
    // A server that has nothing to say is passed over.
    for behaviour in [Behaviour::ServFail, Behaviour::Refused, Behaviour::Silent] {
        cluster.coordinator.resolve_by(&[second]);
        ignorant.behave(Behaviour::Answer);
        until("nobody is listed", SOON, || match state(&cluster, address).as_str() {
            "-" => Ok(()),
            other => Err(other.to_string()),
        });
        ignorant.behave(behaviour);
        cluster.coordinator.resolve_by(&[second, first]);
        cluster.wait_for_state(address, "ready");
    }
}

/// One worker, registered under the name that the source gives.
#[track_caller]
fn named(plan: Plan) -> (Cluster, String) {
    let cluster = plan.own_resolver().start();
    cluster.wait_until_all_active();
    let nodeid = node_id_of(&cluster, WORKER);
    (cluster, nodeid)
}

fn is_active(cluster: &Cluster, nodeid: &str) -> String {
    let sql = format!("SELECT isactive FROM pg_dist_node WHERE nodeid = {nodeid}");
    cluster.coordinator.session().value(&sql)
}

fn a_name_that_is_gone_disables_nobody_who_answers() {
    let plan = Plan::workers(1)
        .set("citus_fleet.absent_after", "1s")
        .set("citus_fleet.on_absent", "disable");
    let (cluster, nodeid) = named(plan);
    cluster.dns.forget(WORKER);
    let row = wait_for_node_state(&cluster, &nodeid, "unreachable");
    assert_eq!(&row["code"], "name_lost", "{row:?}");
    assert!(row["reason"].contains(&cluster.workers[0].address.to_string()), "{row:?}");
    throughout("its server answers, so it is not absent", Duration::from_secs(4), || {
        let row = worker(&cluster.coordinator, &nodeid)?;
        let is_left_alone = &row["state"] == "unreachable" && is_active(&cluster, &nodeid) == "t";
        if is_left_alone { Ok(()) } else { Err(format!("{row:?}")) }
    });
    cluster.workers[0].stop(Shutdown::Immediate);
    wait_for_node_state(&cluster, &nodeid, "inactive");
    assert_eq!(is_active(&cluster, &nodeid), "f");
    cluster.workers[0].begin();
    cluster.announce_all();
    wait_for_node_state(&cluster, &nodeid, "active");
    assert_eq!(is_active(&cluster, &nodeid), "t");
}

fn without_an_answer_nobody_is_active() {
    let (cluster, nodeid) = named(Plan::workers(1));
    cluster.workers[0].stop(Shutdown::Immediate);
    for behaviour in [Behaviour::ServFail, Behaviour::Silent] {
        cluster.dns.behave(behaviour);
        cluster.coordinator.restart();
        let row = wait_for_node_state(&cluster, &nodeid, "discovered");
        assert_eq!(&row["code"], "not_located", "{row:?}");
        throughout("it is not active", Duration::from_secs(2), || {
            let row = worker(&cluster.coordinator, &nodeid)?;
            if &row["state"] == "discovered" { Ok(()) } else { Err(format!("{row:?}")) }
        });
    }
    cluster.dns.behave(Behaviour::Answer);
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    cluster.workers[0].begin();
    wait_for_node_state(&cluster, &nodeid, "active");
}

/// Slow answers included, as long as they come within the deadline of a probe.
fn a_restart_of_a_healthy_cluster_is_no_event() {
    let plan = Plan::workers(1).set("citus_fleet.probe_timeout", "3s");
    let (cluster, nodeid) = named(plan);
    let events = "SELECT count(*) FROM fleet.events";
    let before = cluster.coordinator.session().value(events);
    for delay in [0, 700] {
        cluster.dns.behave(Behaviour::Delay(Duration::from_millis(delay)));
        cluster.coordinator.restart();
        until("the controller shows the worker", SOON, || {
            let row = worker(&cluster.coordinator, &nodeid)?;
            assert_eq!((&row["state"], &row["code"]), ("active", "active"), "{row:?}");
            Ok::<(), String>(())
        });
    }
    cluster.wait_for_cycles(1);
    assert_eq!(cluster.coordinator.session().value(events), before);
}

fn names_that_dns_accepts_are_registered() {
    let cluster = Plan::workers(3).own_resolver().unannounced().start();
    let [one, two, three] = &cluster.workers[..] else { unreachable!() };
    cluster.dns.addresses("xn--wrker-jua", &[one.address]);
    cluster.dns.addresses("w.1", &[two.address]);
    cluster.dns.addresses("10-0-0-7.3", &[three.address]);
    cluster.dns.services("_pg._tcp.pool", &[(port(), "10-0-0-7.3")]);
    let sources = format!("xn--wrker-jua:{0}, w.1:{0}, srv:_pg._tcp.pool", port());
    cluster.coordinator.set("citus_fleet.workers", &sources);
    cluster.wait_until_all_active();
    let mut names: Vec<String> =
        cluster.nodes().iter().map(|node| node["nodename"].to_string()).collect();
    names.sort();
    assert_eq!(names, ["10-0-0-7.3", "w.1", "xn--wrker-jua"]);
}
