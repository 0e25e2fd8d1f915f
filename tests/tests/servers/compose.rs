//! A Compose cluster on a real Docker engine: workers join, leave and come back elsewhere, and every row
//! and every search result stays what it was; what cannot work is refused before anything has started.

use crate::suite::{Test, suite};
use citus_fleet_tests::compose::{Compose, Image, PASSWORD, SLOW};
use citus_fleet_tests::server::SqlError;
use citus_fleet_tests::{Need, until};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn suite() -> Vec<Test> {
    suite!("compose", &[Need::Docker];
        grows_and_shrinks,
        follows_containers_to_new_addresses,
        a_worker_comes_back_in_another_container,
        nodes_verify_each_other,
        refuses_what_cannot_work,
    )
}

const ROWS: i64 = 1000;

/// One cluster at a time: each has several servers, and they share the engine.
fn alone() -> MutexGuard<'static, ()> {
    static CLUSTER: Mutex<()> = Mutex::new(());
    CLUSTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A distributed table with an index for searches, on the workers that are there.
#[track_caller]
fn fill(compose: &Compose) {
    let mut session = compose.session();
    session.run("CREATE TABLE items (id bigint PRIMARY KEY, v vector(3))");
    session.run("SELECT create_distributed_table('items', 'id', shard_count := 10)");
    session.run(&format!(
        "INSERT INTO items SELECT n, format('[%s,0,1]', n)::vector FROM generate_series(1, {ROWS}) n"
    ));
    session.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
}

/// Every row is there once, and a search over all shards finds the five nearest, in their order.
#[track_caller]
fn assert_exact(compose: &Compose) {
    let mut session = compose.session();
    let sum =
        session.value("SELECT count(*) || ' ' || sum(id) || ' ' || count(DISTINCT v) FROM items");
    assert_eq!(sum, format!("{ROWS} {} {ROWS}", ROWS * (ROWS + 1) / 2));
    let search = "SELECT id FROM items ORDER BY v <-> '[500.2,0,1]' LIMIT 5";
    let found: Vec<String> =
        session.rows(search).iter().map(|row| row.first().to_string()).collect();
    assert_eq!(found, ["500", "501", "499", "502", "498"]);
}

/// Waits until searches work again, then holds them to every row.
#[track_caller]
fn assert_recovers(compose: &Compose, workers: &[u32]) {
    compose.wait_until_active(workers);
    until("every shard answers", SLOW, || {
        compose.try_session()?.try_rows("SELECT count(*) FROM items").map(drop)
    });
    assert_exact(compose);
}

#[track_caller]
fn rows_of(compose: &Compose, sql: &str) -> Vec<String> {
    compose.session().rows(sql).iter().map(|row| format!("{row:?}")).collect()
}

/// Which row of `pg_dist_node` holds which shards.
const PLACEMENTS: &str =
    "SELECT nodeid, shardid FROM pg_dist_placement JOIN pg_dist_node USING (groupid) ORDER BY 1, 2";

fn grows_and_shrinks() {
    let _alone = alone();
    let compose = Compose::new(&[]);
    compose.up(3);
    compose.wait_until_active(&[1, 2, 3]);
    fill(&compose);
    assert_exact(&compose);

    compose.up(5);
    compose.wait_until_active(&[1, 2, 3, 4, 5]);
    compose.session().run("SELECT citus_rebalance_start()");
    until("shards are on five workers", SLOW, || {
        let mut session = compose.try_session()?;
        match session.value("SELECT count(DISTINCT nodename) FROM citus_shards").as_str() {
            "5" => Ok(()),
            other => Err(SqlError { message: format!("on {other}"), ..SqlError::default() }),
        }
    });
    compose.session().run("SELECT citus_rebalance_wait()");
    assert_exact(&compose);

    let said = compose.program("scale-down");
    assert!(said.contains("removed; 4 left"), "{said}");
    assert!(!compose.containers("running").contains(&compose.worker(5)));
    let left = compose.session().value("SELECT count(*) FROM pg_dist_node WHERE groupid > 0");
    assert_eq!(left, "4");
    assert_exact(&compose);

    // The place of the one that has left is free: the next one of its number is a new worker.
    compose.up(5);
    compose.wait_until_active(&[1, 2, 3, 4, 5]);
    assert_exact(&compose);

    // One that has gone before it could be cleaned: whoever gets its address joins as itself.
    let (node, address) = (compose.node(5), compose.address(&compose.worker(5)));
    let enable = |on: &str| {
        let mut session = compose.session();
        session.run(&format!("ALTER SYSTEM SET citus_fleet.enabled = {on}"));
        session.run("SELECT pg_reload_conf()");
    };
    enable("off");
    compose.session().run(&format!("SELECT fleet.remove_worker('{node}', 5432)"));
    compose.docker(&["rm", "--force", &compose.worker(5)]);
    compose.run(&["run", "--rm", "--no-deps", "-T", "init", "retire", &node]);
    enable("on");
    compose.up(5);
    assert_eq!(compose.address(&compose.worker(5)), address, "the address is not used again");
    compose.wait_until_active(&[1, 2, 3, 4, 5]);
    assert_exact(&compose);
}

fn follows_containers_to_new_addresses() {
    let _alone = alone();
    let compose = Compose::new(&[]);
    compose.up(3);
    fill(&compose);
    let placements = rows_of(&compose, PLACEMENTS);
    let workers = [1, 2, 3].map(|number| compose.worker(number));
    let addresses = || workers.each_ref().map(|worker| compose.address(worker));

    // Killed, and started again from the highest address down: each gets the lowest that is free.
    let before = addresses();
    let mut order: Vec<(Ipv4Addr, &String)> = Vec::new();
    for (address, worker) in before.iter().zip(&workers) {
        order.push((address.parse().expect("an address"), worker));
    }
    order.sort();
    for worker in &workers {
        compose.docker(&["kill", worker]);
    }
    for (_, worker) in order.iter().rev() {
        compose.docker(&["start", worker]);
    }
    assert_ne!(
        before,
        addresses(),
        "no address has changed: this test does not test what it should"
    );
    assert_recovers(&compose, &[1, 2, 3]);

    // The workers take queries before the coordinator is there at all.
    compose.run(&["stop"]);
    for worker in &workers {
        compose.docker(&["start", worker]);
    }
    until("the workers are healthy", SLOW, || {
        let health = workers.each_ref().map(|worker| compose.health(worker));
        if health == ["healthy"; 3] { Ok(()) } else { Err(health.join(", ")) }
    });
    compose.docker(&["start", &compose.coordinator()]);
    assert_recovers(&compose, &[1, 2, 3]);

    compose.run(&["restart"]);
    assert_recovers(&compose, &[1, 2, 3]);

    compose.run(&["down"]);
    assert_eq!(compose.containers("running"), Vec::<String>::new());
    compose.up(3);
    assert_recovers(&compose, &[1, 2, 3]);
    assert_eq!(placements, rows_of(&compose, PLACEMENTS), "every shard is where it was");
}

fn a_worker_comes_back_in_another_container() {
    let _alone = alone();
    let compose = Compose::new(&[]);
    compose.up(3);
    fill(&compose);
    let placements = rows_of(&compose, PLACEMENTS);

    // Removed without draining: its row and its shards stay.
    compose.docker(&["rm", "--force", &compose.worker(2)]);
    let gone = format!(
        "SELECT state FROM fleet.workers WHERE nodename = '{}' AND state IN ('unreachable', 'absent')",
        compose.node(2)
    );
    until("the missing worker is reported", SLOW, || match compose.session().rows(&gone).len() {
        1 => Ok(()),
        _ => Err("it is not"),
    });
    assert_eq!(placements, rows_of(&compose, PLACEMENTS), "nothing is removed by itself");

    // Compose does not use the number again while a higher one is there: the data goes to worker 4.
    compose.up(3);
    assert_recovers(&compose, &[1, 3, 4]);
    assert_eq!(placements, rows_of(&compose, PLACEMENTS), "every shard is where it was");
}

fn nodes_verify_each_other() {
    let _alone = alone();
    let compose = Compose::new(&["POSTGRES_PASSWORD="]);
    compose.up(1);
    fill(&compose);
    let (coordinator, worker) = (compose.coordinator(), compose.worker(1));
    survives_dying_orphans(&compose, &worker);
    let psql = |container: &str, target: &str, sql: &str| {
        let program = format!("psql -qAtX \"{target}\" -c \"{sql}\" 2>&1 || true");
        compose.docker(&["exec", container, "sh", "-c", &program]).trim().to_string()
    };
    let verified = "sslmode=verify-full sslrootcert=/identity/ca.crt";
    // Nothing in the environment of `docker exec` tells psql the password; the server's file does.
    let by_file = "passfile=/run/postgresql/pgpass";

    // A session whose connections to the workers stay open.
    let mut session = compose.session();
    session.run("SELECT count(*) FROM items");
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL";
    assert_eq!(psql(&worker, "", encrypted), "t");

    let node = compose.node(1);
    assert_eq!(psql(&coordinator, &format!("host={node} {verified} {by_file}"), "SELECT 1"), "1");
    assert_eq!(psql(&worker, &format!("host=coordinator {verified} {by_file}"), "SELECT 1"), "1");
    let refusals = [
        (
            &worker,
            format!("host={} {verified} {by_file}", compose.address(&coordinator)),
            "does not match",
        ),
        (&coordinator, format!("host={node} sslmode=disable {by_file}"), "no encryption"),
        (&coordinator, format!("host={node} sslmode=require"), "no password supplied"),
    ];
    for (container, target, reason) in refusals {
        let said = psql(container, &target, "SELECT 1");
        assert!(said.contains(reason), "{target}: {said}");
    }

    for container in [&coordinator, &worker] {
        assert_ne!(compose.docker(&["exec", container, "id", "-u"]).trim(), "0");
        let keys = compose.docker(&[
            "exec",
            container,
            "sh",
            "-c",
            "find / -name ca.key 2>/dev/null || true",
        ]);
        assert_eq!(keys, "", "the key of the CA is in reach of a server");
        for said in [
            &["inspect", container][..],
            &["top", container, "-eo", "pid,args"],
            &["logs", container],
        ] {
            assert!(!compose.docker(said).contains("canary"), "docker {said:?} shows the password");
        }
    }
    assert!(PASSWORD.contains("canary"));
    let environments = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'";
    let environment = compose.docker(&["exec", &coordinator, "sh", "-c", environments]);
    assert!(environment.contains("PGPASSFILE") && !environment.contains("canary"), "{environment}");
}

/// A health check that is given up leaves children behind, which die as they may. Were the server their
/// reaper, it would take each for one of its own processes that has crashed, and end all sessions.
#[track_caller]
fn survives_dying_orphans(compose: &Compose, container: &str) {
    let checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let ask = ["exec", container, "psql", "-qAtX", "-c", checkpointer];
    let before = compose.docker(&ask);
    let orphan = compose.docker(&["exec", container, "sh", "-c", "sleep 600 >&- 2>&- & echo $!"]);
    compose.docker(&["exec", container, "sh", "-c", &format!("kill -PIPE {orphan}")]);
    until("nothing is left of the orphan", SLOW, || {
        let gone = format!("[ ! -e /proc/{} ] && echo gone || echo there", orphan.trim());
        match compose.docker(&["exec", container, "sh", "-c", &gone]).trim() {
            "gone" => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(before, compose.docker(&ask), "the server has started anew");
}

/// Says that nothing of the project is running, nor trying to.
#[track_caller]
fn assert_nothing_runs(compose: &Compose) {
    for state in ["running", "restarting"] {
        assert_eq!(compose.containers(state), Vec::<String>::new());
    }
}

#[track_caller]
fn assert_refused(compose: &Compose, reason: &str) {
    let said = compose.refused(&["up", "--detach", "--scale", "worker=1"]);
    // What `init` says is in its log, as that of any service.
    let said = format!("{said}{}", compose.run(&["logs", "--no-color"]));
    assert!(said.contains(reason), "{reason:?} is not in what is said:\n{said}");
    assert_nothing_runs(compose);
}

fn refuses_what_cannot_work() {
    let _alone = alone();
    assert_refused(
        &Compose::new(&["POSTGRES_PASSWORD_FILE="]),
        "there is no password for postgres",
    );
    assert_refused(
        &Compose::new(&["POSTGRES_PASSWORD_FILE=./empty"]).with_file("empty", "\n"),
        "is empty",
    );
    for (files, reason) in [
        ("/usr/share/postgresql/*/extension/citus_fleet.control", "no extension citus_fleet"),
        ("/usr/local/bin/citus-fleet-*", "this image has no citus_fleet"),
    ] {
        let image = Image::without(files);
        assert_refused(&Compose::new(&[&format!("IMAGE={}", image.0)]), reason);
    }

    let compose =
        Compose::new(&["POSTGRES_PASSWORD_FILE=", r"POSTGRES_PASSWORD='a:canary\ $ecret'"]);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, compose.port)).expect("the port is free");
    assert_refused(&compose, &compose.port.to_string());
    drop(taken);
    // What was refused has left nothing in the way; and a password in .env is as good as one in a file.
    compose.up(1);
    compose.session();
    let second = compose.refused(&["run", "--rm", "--no-deps", "-T", "coordinator"]);
    assert!(second.contains("is in use by another container"), "{second}");
    compose.run(&["down"]);

    let other = Compose::new(&[]);
    other.up(1);
    other.run(&["down"]);
    let volume = format!(
        "volumes: {{worker-data: {{external: true, name: {}_worker-data}}}}",
        compose.project
    );
    let other = other.with_file("docker-compose.override.yml", &volume);
    assert_refused(&other, "the volumes are of different clusters");

    compose.run(&["down"]);
    compose.docker(&["volume", "rm", &format!("{}_coordinator-data", compose.project)]);
    assert_refused(&compose, "the coordinator's volume is empty");
}
