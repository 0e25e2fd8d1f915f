//! What an endpoint that is no registered worker gets to know: nothing that it could pass on. And how servers
//! log in to each other where the operator has not said a word about it.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::impostor::{Fraud, Impostor};
use citus_fleet_tests::run::{self, port};
use citus_fleet_tests::server::Row;
use citus_fleet_tests::tls::Authority;
use citus_fleet_tests::{Cluster, Need, Server, Spec, until};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("strangers", &[Need::Fleet, Need::Citus];
        who_is_trusted_proves_nothing,
        a_password_without_tls_takes_the_operators_word,
        md5_takes_the_operators_word,
        a_relay_without_tls_gets_in_only_where_the_operator_lets_it,
        a_probe_that_waits_for_a_lock_leaves_no_backend_behind,
    );
    tests.extend(suite!("strangers", &[Need::Fleet, Need::Citus, Need::OpenSsl];
        any_certificate_will_do_for_scram,
        a_password_file_will_do_for_scram,
        a_client_certificate_is_no_password,
        a_verified_server_is_logged_in_to_as_citus_does,
        md5_is_bound_to_nothing_with_tls_either,
        a_relay_with_tls_gets_in_only_where_the_operator_lets_it,
    ));
    tests
}

const PASSWORD: &str = "canary-password";
const TRUST: &str = "host all all 127.0.0.0/8 trust";
const SETTING: &str = "citus_fleet.unbound_passwords";

/// A worker that lets others in as pg_hba.conf says, and whose superuser has the cluster's password.
#[track_caller]
fn worker(spec: Spec, hba: &str) -> Server {
    let server = Server::start(spec);
    server.run(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
    server.set_hba(&[hba]);
    server
}

/// Gives the coordinator the password, for itself and for logging in to others.
#[track_caller]
fn know_password(coordinator: &Server) {
    coordinator.run(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
    coordinator.run(&format!(
        "INSERT INTO pg_catalog.pg_dist_authinfo VALUES (0, 'postgres', 'password={PASSWORD}')"
    ));
}

/// A coordinator with TLS, which lets others in, and itself, as pg_hba.conf says.
#[track_caller]
fn encrypted(plan: Plan, authority: &Authority, hba: &str) -> Cluster {
    let mut cluster = plan.unannounced().start();
    let certificate = authority.issue(cluster.coordinator.address);
    cluster.coordinator.certify(&certificate);
    cluster.coordinator.restart();
    cluster.coordinator.set_hba(&[hba]);
    cluster
}

fn certified(cluster: &Cluster, name: &str) -> Spec {
    let spec = cluster.worker_spec(name);
    // An authority of its own, which nobody knows.
    let certificate = Authority::new().issue(spec.addresses[0]);
    spec.certificate(&certificate)
}

#[track_caller]
fn wait_for_code(cluster: &Cluster, address: IpAddr, code: &str) -> Row {
    until(&format!("{address} is {code}"), SOON, || {
        let row = cluster.worker_at(address)?;
        if &row["code"] == code { Ok(row) } else { Err(format!("{row:?}")) }
    })
}

/// It is kept out, and told so; once the operator has said the word, it is registered.
#[track_caller]
fn takes_the_operators_word(cluster: &Cluster, server: &Server) {
    cluster.announce(&[server.address]);
    let row = wait_for_code(cluster, server.address, "password_not_bound");
    assert_eq!(&row["state"], "unreachable");
    for word in ["ssl = on", SETTING] {
        assert!(row["remedy"].contains(word), "{row:?}");
    }
    assert_eq!(doctor(cluster), "ok");
    cluster.coordinator.set(SETTING, "on");
    assert_eq!(doctor(cluster), "warning");
    cluster.wait_for_state(server.address, "active");
    // What is registered is Citus's business: it logs in there all the time.
    cluster.coordinator.set(SETTING, "off");
    cluster.wait_for_cycles(3);
    cluster.wait_for_state(server.address, "active");
}

fn doctor(cluster: &Cluster) -> String {
    cluster
        .coordinator
        .value(&format!("SELECT status FROM fleet.doctor() WHERE \"check\" = '{SETTING}'"))
}

fn who_is_trusted_proves_nothing() {
    let cluster = Plan::workers(1).unannounced().start();
    know_password(&cluster.coordinator);
    cluster.announce_all();
    cluster.wait_until_all_active();
}

fn a_password_without_tls_takes_the_operators_word() {
    let cluster = Plan::workers(0).unannounced().start();
    know_password(&cluster.coordinator);
    let server = worker(cluster.worker_spec("scram"), "host all all 127.0.0.0/8 scram-sha-256");
    takes_the_operators_word(&cluster, &server);
}

fn md5(cluster: &Cluster, spec: Spec, hba: &str) {
    // Citus gives a new worker the coordinator's roles with their passwords.
    cluster.coordinator.set("password_encryption", "md5");
    know_password(&cluster.coordinator);
    let server = worker(spec.set("password_encryption", "md5"), hba);
    takes_the_operators_word(cluster, &server);
}

fn md5_takes_the_operators_word() {
    let cluster = Plan::workers(0).unannounced().start();
    md5(&cluster, cluster.worker_spec("md5"), "host all all 127.0.0.0/8 md5");
}

fn md5_is_bound_to_nothing_with_tls_either() {
    let plan = Plan::workers(0).set("citus.node_conninfo", "sslmode=require");
    let cluster = encrypted(plan, &Authority::new(), TRUST);
    md5(&cluster, certified(&cluster, "md5"), "hostssl all all 127.0.0.0/8 md5");
}

/// Citus's own default: `sslmode=require`, and certificates that nobody verifies.
fn any_certificate_will_do_for_scram() {
    const HBA: &str = "hostssl all all 127.0.0.0/8 scram-sha-256";
    let plan = Plan::workers(0)
        .set("citus.node_conninfo", "sslmode=require")
        .set("citus_fleet.coordinator_host", "{address}");
    let cluster = encrypted(plan, &Authority::new(), HBA);
    know_password(&cluster.coordinator);
    let right = worker(certified(&cluster, "right"), HBA);
    let wrong = worker(certified(&cluster, "wrong"), HBA);
    wrong.run("ALTER ROLE postgres PASSWORD 'canary-other'");
    // Nothing is encrypted there, and nothing is sent.
    let bare = worker(cluster.worker_spec("bare"), "host all all 127.0.0.0/8 scram-sha-256");
    cluster.announce(&[right.address, wrong.address, bare.address]);
    cluster.wait_for_state(right.address, "active");
    wait_for_code(&cluster, wrong.address, "wrong_password");
    wait_for_code(&cluster, bare.address, "tls_failed");
    wrong.run(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
    cluster.wait_for_state(wrong.address, "active");
    // sslmode=prefer takes TLS where there is some, and that is enough.
    cluster.coordinator.set("citus.node_conninfo", "sslmode=prefer");
    let next = worker(certified(&cluster, "next"), HBA);
    cluster.announce(&[right.address, wrong.address, bare.address, next.address]);
    cluster.wait_for_state(next.address, "active");
    wait_for_code(&cluster, bare.address, "password_not_bound");
}

fn a_password_file_will_do_for_scram() {
    const HBA: &str = "hostssl all all 127.0.0.0/8 scram-sha-256";
    let file = run::directory().join(format!("pgpass-{}", run::unique()));
    fs::write(&file, format!("*:*:*:postgres:{PASSWORD}\n")).expect("a password file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
    run::give_to_servers(&file);
    let plan = Plan::workers(0)
        .set("citus.node_conninfo", "sslmode=require")
        .env("PGPASSFILE", &file.to_string_lossy());
    let cluster = encrypted(plan, &Authority::new(), HBA);
    cluster.coordinator.run(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
    let server = worker(certified(&cluster, "worker"), HBA);
    cluster.announce(&[server.address]);
    cluster.wait_for_state(server.address, "active");
}

fn a_client_certificate_is_no_password() {
    let authority = Authority::new();
    let client = authority.issue_to_client("postgres");
    let proof =
        format!("sslcert={} sslkey={}", client.certificate().display(), client.key().display());
    let conninfo = format!("sslmode=require {proof}");
    let plan = Plan::workers(0).set("citus.node_conninfo", &conninfo);
    let cluster = encrypted(plan, &Authority::new(), TRUST);
    let root = authority.root();
    let spec = certified(&cluster, "worker").set("ssl_ca_file", &root.to_string_lossy());
    let server = worker(spec, "hostssl all all 127.0.0.0/8 cert");
    cluster.announce(&[server.address]);
    cluster.wait_for_state(server.address, "active");
}

fn a_verified_server_is_logged_in_to_as_citus_does() {
    const HBA: &str = "hostssl all all 127.0.0.0/8 scram-sha-256";
    let authority = Authority::new();
    let conninfo = format!("sslmode=verify-full sslrootcert={}", authority.root().display());
    let plan = Plan::workers(0).set("citus.node_conninfo", &conninfo);
    let cluster = encrypted(plan, &authority, HBA);
    know_password(&cluster.coordinator);
    let spec = cluster.worker_spec("worker");
    let certificate = authority.issue(spec.addresses[0]);
    let server = worker(spec.certificate(&certificate), HBA);
    cluster.announce(&[server.address]);
    cluster.wait_for_state(server.address, "active");
}

const STEAL: &str = "CREATE ROLE thief SUPERUSER";

/// Starts an impostor among the candidates, and says whether it got into the coordinator.
#[track_caller]
fn is_robbed(cluster: &Cluster, fraud: Fraud) -> bool {
    cluster.coordinator.run("DROP ROLE IF EXISTS thief");
    let impostor = Impostor::start(cluster.subnet.address(), port(), fraud);
    let address = impostor.address.ip();
    cluster.announce(&[address]);
    let has_thief = || {
        cluster.coordinator.value("SELECT count(*) FROM pg_roles WHERE rolname = 'thief'") == "1"
    };
    let outcome = until("the impostor has tried in vain, or got in", SOON, || {
        let row = cluster.worker_at(address)?;
        match (has_thief(), &row["state"]) {
            (true, _) => Ok(true),
            (false, "unreachable") => Ok(false),
            _ => Err(format!("{row:?}")),
        }
    });
    if !outcome {
        // And it is tried again and again.
        cluster.wait_for_cycles(3);
        assert!(!has_thief());
    }
    outcome
}

fn a_relay_without_tls_gets_in_only_where_the_operator_lets_it() {
    let cluster = Plan::workers(0).unannounced().start();
    let coordinator = &cluster.coordinator;
    know_password(coordinator);
    coordinator.set_hba(&["host all all 127.0.0.0/8 scram-sha-256"]);
    let victim = SocketAddr::new(coordinator.address, coordinator.port);
    let fraud = Fraud { victim, certificate: None, victim_tls: false, statement: STEAL };
    assert!(!is_robbed(&cluster, fraud.clone()));
    coordinator.set(SETTING, "on");
    assert!(is_robbed(&cluster, fraud));
}

fn a_relay_with_tls_gets_in_only_where_the_operator_lets_it() {
    let plan = Plan::workers(0).set("citus.node_conninfo", "sslmode=require");
    let cluster = encrypted(plan, &Authority::new(), "host all all 127.0.0.0/8 scram-sha-256");
    let coordinator = &cluster.coordinator;
    know_password(coordinator);
    let certificate = Authority::new().issue_to_client("localhost");
    let victim = SocketAddr::new(coordinator.address, coordinator.port);
    let fraud =
        Fraud { victim, certificate: Some(certificate), victim_tls: true, statement: STEAL };
    // It hands on a proof that is bound to its own certificate.
    assert!(!is_robbed(&cluster, fraud.clone()));
    let log = coordinator.log();
    assert!(log.contains("SCRAM channel binding check failed"), "{log}");
    // Without TLS on the other side there is nothing to bind to, so it gets no proof to hand on.
    let half = Fraud { victim_tls: false, ..fraud };
    assert!(!is_robbed(&cluster, half.clone()));
    coordinator.set(SETTING, "on");
    assert!(is_robbed(&cluster, half));
}

fn a_probe_that_waits_for_a_lock_leaves_no_backend_behind() {
    let cluster = Plan::workers(1).unannounced().start();
    let worker = &cluster.workers[0];
    let mut blocker = worker.session();
    blocker.run("BEGIN; LOCK TABLE pg_catalog.pg_dist_node IN ACCESS EXCLUSIVE MODE");
    cluster.announce_all();
    let probes = || {
        worker.rows(
            "SELECT pid, backend_start < clock_timestamp() - interval '4 s' AS is_old
             FROM pg_catalog.pg_stat_activity WHERE application_name = 'citus_fleet'",
        )
    };
    let mut seen = std::collections::BTreeSet::new();
    until("several probes have waited in vain", Duration::from_secs(30), || {
        let now = probes();
        assert!(now.iter().all(|probe| &probe["is_old"] == "f"), "{now:?}");
        seen.extend(now.iter().map(|probe| probe["pid"].to_string()));
        if seen.len() >= 4 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    cluster.wait_for_state(worker.address, "unreachable");
    cluster.announce(&[]);
    until("none of them is left", SOON, || match probes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    blocker.run("ROLLBACK");
    cluster.announce_all();
    cluster.wait_until_all_active();
}
