//! `citus_fleet.http_listen`: what is served is what SQL says, to whom it may be served, by a process
//! that is no superuser; and whatever clients do, the controller and the database go on.

use crate::lifecycle::distribute_items;
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::http::{Answer, get, request, send};
use citus_fleet_tests::prometheus::Prometheus;
use citus_fleet_tests::run::port;
use citus_fleet_tests::server::process::send as signal;
use citus_fleet_tests::wait::within;
use citus_fleet_tests::{Cluster, Need, Shutdown, run, until};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("http", &[Need::Fleet, Need::Citus, Need::Vector];
        the_documents_say_what_sql_says,
        a_worker_that_is_gone_makes_health_fail,
        names_of_tables_are_never_markup,
        a_storm_of_requests_is_one_collection,
    );
    tests.extend(suite!("http", &[Need::Fleet];
        nothing_listens_by_default,
        it_is_served_by_pg_monitor,
        only_hosts_that_it_goes_by_are_answered,
        a_token_is_asked_for_and_can_be_exchanged,
        what_is_not_there_or_not_allowed_is_refused,
        slow_clients_are_let_go,
        a_thousand_connections_leave_the_database_alone,
        a_megabyte_of_headers_is_refused,
        garbage_is_refused,
        a_port_in_use_is_waited_for,
        it_comes_back_after_a_kill,
        bad_settings_are_refused,
    ));
    tests.extend(suite!("http", &[Need::Fleet, Need::Citus, Need::Vector, Need::Prometheus];
        promtool_finds_nothing_wrong,
        prometheus_scrapes_and_alerts,
    ));
    tests
}

/// The coordinator's address has this port free.
fn http_port() -> u16 {
    port() + 1
}

#[track_caller]
pub fn serving(plan: Plan) -> (Cluster, SocketAddr) {
    let listen = format!("{{address}}:{}", http_port());
    let cluster = plan.set("citus_fleet.http_listen", &listen).start();
    let at = SocketAddr::new(cluster.coordinator.address, http_port());
    eventually(at, "/ready", "the controller is at work", |reply| reply.status == 200);
    (cluster, at)
}

/// Without Citus, and with one worker that could be registered.
#[track_caller]
fn plain() -> (Cluster, SocketAddr) {
    serving(crate::sql_surface::plain())
}

/// Collected anew: nothing is older than a few seconds.
#[track_caller]
fn eventually(at: SocketAddr, path: &str, what: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
    until(what, SOON, || {
        let reply = get(at, path).map_err(|error| error.to_string())?;
        if holds(&reply) { Ok(reply) } else { Err(format!("{} {}", reply.status, reply.body)) }
    })
}

/// That the database answers, and the controller goes on, at once.
#[track_caller]
fn assert_undisturbed(cluster: &Cluster) {
    within("a query and a pass", Duration::from_secs(10), || {
        assert_eq!(cluster.coordinator.session().value("SELECT 1"), "1");
        cluster.wait_for_cycles(1);
    });
}

fn the_documents_say_what_sql_says() {
    let (cluster, at) = serving(Plan::workers(2));
    cluster.wait_until_all_active();
    distribute_items(&cluster);
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    eventually(at, "/vector", "the shards are seen", |reply| reply.body.contains("public.items"));
    eventually(at, "/metrics", "both have answered since they joined", |reply| {
        reply.body.contains("code=\"active\",registered=\"true\"} 2")
    });
    let sql = |sql: &str| cluster.coordinator.session().value(sql);
    let json = |body: &str, path: &str| {
        let quoted = body.replace('\'', "''");
        sql(&format!("SELECT jsonb_path_query('{quoted}'::jsonb, '{path}')"))
    };
    let workers = get(at, "/workers").unwrap();
    assert_eq!(json(&workers.body, "$.workers.size()"), sql("SELECT count(*) FROM fleet.workers"));
    for list in ["shards", "tables", "nodes"] {
        let page = get(at, &format!("/vector/{list}")).unwrap();
        let rows = sql(&format!("SELECT count(*) FROM fleet.vector_{list}"));
        assert_eq!(json(&page.body, "$.rows.size()"), rows, "{list}");
        assert_eq!(json(&page.body, "$.total"), rows, "{list}");
    }
    let vector = get(at, "/vector").unwrap();
    assert_eq!(
        json(&vector.body, "$.counts.shards.green"),
        sql("SELECT count(*) FROM fleet.vector_shards WHERE status = 'green'")
    );
    assert_eq!(json(&vector.body, "$.left_out.tables"), "0");
    let health = get(at, "/health").unwrap();
    assert_eq!(
        json(&health.body, "$.search.status"),
        sql("SELECT fleet.vector_health()->'status'")
    );
    let ready = get(at, "/ready").unwrap();
    assert_eq!((ready.status, json(&ready.body, "$.ready").as_str()), (200, "true"));
    // The same text, sample by sample, apart from what changes by itself.
    let metrics = get(at, "/metrics").unwrap();
    let lasting = |text: &str| -> Vec<String> {
        let changes = ["cycle", "changes", "dead_tuples"];
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| {
                !line.starts_with('#') && !changes.iter().any(|what| line.contains(what))
            })
            .map(str::to_string)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(lasting(&metrics.body), lasting(&sql("SELECT fleet.metrics()")));
    assert!(metrics.body.contains("citus_fleet_workers{state=\"active\"} 2"), "{}", metrics.body);
    assert!(metrics.body.contains("citus_fleet_vector_index_bytes{table=\"public.items\""));
    assert!(!metrics.body.contains("shardid"), "shards only on request");
    assert!(get(at, "/metrics?shards=1").unwrap().body.contains("shardid"));
    let asked =
        request(at, "GET", "/metrics", &[("Accept", "application/openmetrics-text")]).unwrap();
    assert!(asked.head.contains("application/openmetrics-text") && asked.body.contains("# EOF"));
    let page = get(at, "/").unwrap();
    assert!(page.body.contains("<!doctype html>") && page.head.contains("default-src 'none'"));
    assert!(
        !page.body.contains("http://") && !page.body.contains("https://"),
        "no external assets"
    );
}

fn a_worker_that_is_gone_makes_health_fail() {
    let (cluster, at) = serving(Plan::workers(1));
    cluster.wait_until_all_active();
    eventually(at, "/health", "the fleet is well", |reply| reply.status == 200);
    let worker = &cluster.workers[0];
    worker.stop(Shutdown::Immediate);
    let reply = eventually(at, "/health", "the fleet is red", |reply| reply.status == 503);
    assert!(reply.body.contains("unreachable"), "{}", reply.body);
    assert_eq!(get(at, "/ready").unwrap().status, 200, "the controller itself is at work");
    worker.begin();
    eventually(at, "/health", "the fleet is well again", |reply| reply.status == 200);
}

fn names_of_tables_are_never_markup() {
    let (cluster, at) = serving(Plan::workers(1));
    cluster.wait_until_all_active();
    cluster.coordinator.run(
        "CREATE TABLE \"x\"\"} 1\nfake{a=\"\"<script>alert(1)</script>\\\" (id bigint PRIMARY KEY, v vector(3));
         SELECT create_distributed_table('\"x\"\"} 1\nfake{a=\"\"<script>alert(1)</script>\\\"', 'id', shard_count := 2)",
    );
    let reply = eventually(at, "/metrics", "the table is there", |r| r.body.contains("alert"));
    assert!(!reply.body.lines().any(|line| line.starts_with("fake")), "{}", reply.body);
    // JSON is never taken for a page, and the page runs no script but its own.
    let vector = get(at, "/vector").unwrap();
    assert!(vector.head.contains("application/json") && vector.head.contains("nosniff"));
}

fn a_storm_of_requests_is_one_collection() {
    let (cluster, at) = serving(Plan::workers(1));
    cluster.wait_until_all_active();
    let logins = "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'";
    let count = || -> i64 { cluster.workers[0].session().value(logins).parse().unwrap() };
    eventually(at, "/metrics", "metrics are served", |reply| reply.status == 200);
    let before = count();
    let started = Instant::now();
    for _ in 0..200 {
        assert_eq!(get(at, "/metrics").unwrap().status, 200);
    }
    // Each collection logs in to the worker once, and so does each probe of a second or less.
    let most = 10 + 4 * started.elapsed().as_secs() as i64;
    let logins = count() - before;
    assert!(logins < most, "{logins} logins for 200 requests in {:?}", started.elapsed());
}

fn nothing_listens_by_default() {
    let cluster = crate::sql_surface::plain().start();
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'citus_fleet http'";
    assert_eq!(cluster.coordinator.value(workers), "0");
    assert_eq!(cluster.coordinator.value("SHOW citus_fleet.http_listen"), "");
}

fn it_is_served_by_pg_monitor() {
    let (cluster, _) = plain();
    let row = cluster.coordinator.rows(
        "SELECT usename, rolsuper FROM pg_stat_activity JOIN pg_roles ON rolname = usename
         WHERE backend_type = 'citus_fleet http'",
    );
    assert_eq!((&row[0]["usename"], &row[0]["rolsuper"]), ("pg_monitor", "f"));
}

fn only_hosts_that_it_goes_by_are_answered() {
    let (cluster, at) = plain();
    let asked = |host: &str| request(at, "GET", "/ready", &[("Host", host)]).unwrap().status;
    eventually(at, "/ready", "the controller is at work", |reply| reply.status == 200);
    assert_eq!(asked("localhost"), 200);
    assert_eq!(asked("[::1]:9187"), 200);
    assert_eq!(asked("evil.example"), 421);
    assert_eq!(asked("coordinator:9187"), 421);
    assert_eq!(send(at, b"GET /ready HTTP/1.0\r\n\r\n", SOON).unwrap().status, 421);
    cluster.coordinator.set("citus_fleet.http_hosts", "db, coordinator");
    until("the name is known", SOON, || match asked("coordinator:9187") {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!(asked("evil.example"), 421);
}

fn a_token_is_asked_for_and_can_be_exchanged() {
    let (cluster, at) = plain();
    let file = cluster.coordinator.directory().join("token");
    let write = |text: &str| {
        fs::write(&file, text).unwrap();
        run::give_to_servers(&file);
    };
    write("t0ken-one\n");
    cluster.coordinator.set("citus_fleet.http_token_file", &file.to_string_lossy());
    let with = |token: &str| {
        request(at, "GET", "/ready", &[("Authorization", &format!("Bearer {token}"))]).unwrap()
    };
    until("a token is asked for", SOON, || {
        match get(at, "/ready").map_or(0, |reply| reply.status) {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    for path in ["/metrics", "/health", "/workers", "/vector", "/elsewhere"] {
        let reply = get(at, path).unwrap();
        assert_eq!(reply.status, 401, "{path}");
        assert!(reply.head.to_lowercase().contains("www-authenticate: bearer"), "{}", reply.head);
    }
    assert_eq!(get(at, "/").unwrap().status, 200, "the page holds nothing and asks for the token");
    assert_eq!(with("t0ken-one").status, 200);
    assert_eq!(with("t0ken-on").status, 401);
    write("t0ken-two");
    assert_eq!((with("t0ken-one").status, with("t0ken-two").status), (401, 200));
    fs::remove_file(&file).unwrap();
    assert_eq!((with("t0ken-two").status, with("").status), (401, 401));
    let log = cluster.coordinator.log();
    assert!(!log.contains("t0ken"), "{log}");
}

fn what_is_not_there_or_not_allowed_is_refused() {
    let (_cluster, at) = plain();
    assert_eq!(get(at, "/elsewhere").unwrap().status, 404);
    assert_eq!(get(at, "/../etc/passwd").unwrap().status, 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = request(at, method, "/metrics", &[]).unwrap();
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.head.contains("GET, HEAD"), "{}", reply.head);
    }
    assert_eq!(get(at, "/vector/elsewhere").unwrap().status, 404);
    for (query, why) in [
        ("limit=0", "from 1 to 200"),
        ("limit=201", "from 1 to 200"),
        ("offset=-1", "offset is a number"),
        ("wrong=maybe", "0 or 1"),
        ("node=a&node=b", "given twice"),
        ("tabel=items", "no parameter \"tabel\""),
    ] {
        let reply = get(at, &format!("/vector/shards?{query}")).unwrap();
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.body.contains(why), "{query}: {}", reply.body);
    }
    let head = request(at, "HEAD", "/metrics", &[]).unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

fn slow_clients_are_let_go() {
    let (cluster, at) = plain();
    // Slowloris: heads that never end, as many as there is room for.
    let mut slow: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(at).unwrap()).collect();
    for client in &mut slow {
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    }
    assert_undisturbed(&cluster);
    until("there is room again", SOON, || {
        for client in &mut slow {
            let _ = client.write_all(b"a");
        }
        match get(at, "/ready").map_or(0, |reply| reply.status) {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    });
}

fn a_thousand_connections_leave_the_database_alone() {
    let (cluster, at) = plain();
    let crowd: Vec<TcpStream> = (0..1000)
        .filter_map(|_| TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok())
        .collect();
    assert!(crowd.len() > 500, "{} connections", crowd.len());
    assert_undisturbed(&cluster);
    drop(crowd);
    eventually(at, "/ready", "it serves again", |reply| reply.status == 200);
}

fn a_megabyte_of_headers_is_refused() {
    let (cluster, at) = plain();
    let mut client = TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    // It may be hung up on before all of it is sent.
    let _ = client.write_all(head.as_bytes());
    let mut reply = Vec::new();
    let _ = client.read_to_end(&mut reply);
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");
    assert_undisturbed(&cluster);
    assert_eq!(get(at, "/ready").unwrap().status, 200);
}

fn garbage_is_refused() {
    let (cluster, at) = plain();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(at).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(garbage).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = String::new();
        let _ = client.read_to_string(&mut reply);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 400"), "{reply}");
    }
    assert_undisturbed(&cluster);
    assert_eq!(get(at, "/ready").unwrap().status, 200);
}

fn a_port_in_use_is_waited_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let cluster =
        crate::sql_surface::plain().set("citus_fleet.http_listen", &at.to_string()).start();
    until("the log says so", SOON, || {
        let log = cluster.coordinator.log();
        match log.matches(&format!("cannot listen at {at}")).count() {
            0 => Err("not yet"),
            _ => Ok(()),
        }
    });
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    cluster.wait_for_cycles(2);
    assert_eq!(cluster.coordinator.log().matches("cannot listen").count(), 1, "it is said once");
    drop(taken);
    eventually(at, "/ready", "it serves", |reply| reply.status == 200);
}

fn it_comes_back_after_a_kill() {
    let (cluster, at) = plain();
    let pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'citus_fleet http'";
    let pid: u32 = cluster.coordinator.value(pid).parse().unwrap();
    let controller = cluster.controller();
    signal(pid, libc::SIGTERM);
    until("it is another process", SOON, || {
        let now = cluster.coordinator.try_value(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'citus_fleet http'",
        )?;
        if now == pid.to_string() { Err(now) } else { Ok(()) }
    });
    eventually(at, "/ready", "it serves again", |reply| reply.status == 200);
    assert_eq!(cluster.controller(), controller);
}

fn bad_settings_are_refused() {
    let cluster = crate::sql_surface::plain().start();
    for value in ["9187", "localhost:9187", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:1"] {
        let error =
            cluster.coordinator.try_alter_system("citus_fleet.http_listen", value).unwrap_err();
        assert_eq!(error.state, "22023", "{value}: {error}");
        assert!(error.detail.contains("127.0.0.1:9187"), "{error}");
    }
}

fn promtool_finds_nothing_wrong() {
    let (cluster, at) = serving(Plan::workers(2));
    cluster.wait_until_all_active();
    distribute_items(&cluster);
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    for path in ["/metrics", "/metrics?shards=1"] {
        let metrics =
            eventually(at, path, "the table is there", |r| r.body.contains("public.items"));
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(metrics.body.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{path}: {said}");
    }
}

fn prometheus_scrapes_and_alerts() {
    let (cluster, at) = serving(Plan::workers(2));
    cluster.wait_until_all_active();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring/rules.yaml");
    let prometheus = Prometheus::start(&cluster.subnet, at, &rules);
    let asks = |path: &str, what: &str| {
        until(&format!("{path} has {what}"), Duration::from_secs(60), || {
            let answer = prometheus.api(path)?;
            if answer.contains(what) { Ok(()) } else { Err(answer) }
        });
    };
    asks("/api/v1/query?query=up", r#","1"]"#);
    asks("/api/v1/query?query=citus_fleet_workers%7Bstate%3D%22active%22%7D", r#","2"]"#);
    assert!(!prometheus.api("/api/v1/alerts").unwrap().contains("CitusFleetWorkerInTrouble"));
    cluster.workers[1].stop(Shutdown::Immediate);
    // It fires two minutes later; that it would is what `promtool test rules` is for.
    asks("/api/v1/alerts", "CitusFleetWorkerInTrouble");
}
