//! What SQL shows and whom it lets: grants, comments, names, errors with hints, what doctor() finds.

use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::run::port;
use citus_fleet_tests::{Need, Server, until};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("sql_surface", &[Need::Fleet];
        nothing_is_granted_to_public,
        every_object_has_a_comment,
        pg_monitor_reads_and_changes_nothing,
        the_contract_is_there,
        status_follows_what_happens,
        a_dump_restores_the_extension_without_its_state,
    );
    tests.extend(suite!("sql_surface", &[Need::Fleet, Need::Citus, Need::Vector];
        autoregister_fails_with_a_hint,
        doctor_finds_what_is_wrong,
        doctor_knows_whether_shards_can_be_split,
    ));
    tests
}

pub fn plain() -> Plan {
    Plan::workers(1)
        .without_citus()
        .set("citus_fleet.allowed_networks", "127.0.0.0/8")
        .set("citus_fleet.interval", "200ms")
}

/// The extension's own objects, as rows of classid, objid and what they are called.
const OBJECTS: &str = "
    SELECT d.classid, d.objid, pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS what
    FROM pg_catalog.pg_depend d
    WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
    AND d.refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'citus_fleet')";

fn names(server: &Server, query: &str) -> Vec<String> {
    server.rows(query).iter().map(|row| row["what"].to_string()).collect()
}

fn nothing_is_granted_to_public() {
    let cluster = plain().start();
    let functions = format!(
        "SELECT o.what FROM ({OBJECTS}) o WHERE o.classid = 'pg_proc'::regclass
         AND has_function_privilege('public', o.objid, 'EXECUTE')"
    );
    let relations = format!(
        "SELECT o.what FROM ({OBJECTS}) o WHERE o.classid = 'pg_class'::regclass
         AND has_table_privilege('public', o.objid, 'SELECT, INSERT, UPDATE, DELETE')"
    );
    let definers = format!(
        "SELECT o.what FROM ({OBJECTS}) o JOIN pg_proc p ON p.oid = o.objid
         WHERE o.classid = 'pg_proc'::regclass AND p.prosecdef
         AND NOT coalesce(p.proconfig::text LIKE '%search_path=%', false)"
    );
    for query in [functions, relations, definers] {
        assert_eq!(names(&cluster.coordinator, &query), Vec::<String>::new(), "{query}");
    }
    let count = format!("SELECT count(*) FROM ({OBJECTS}) o WHERE o.classid = 'pg_proc'::regclass");
    assert_ne!(cluster.coordinator.value(&count), "0");
    let schema = "SELECT has_schema_privilege('public', 'fleet', 'CREATE')";
    assert_eq!(cluster.coordinator.value(schema), "f");
}

fn every_object_has_a_comment() {
    let cluster = plain().start();
    let silent = format!(
        "SELECT o.what FROM ({OBJECTS}) o
         WHERE o.classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass)
         AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = o.objid AND c.relkind IN ('S', 'i'))
         AND coalesce(obj_description(o.objid, o.classid::regclass::name), '') = ''"
    );
    assert_eq!(names(&cluster.coordinator, &silent), Vec::<String>::new());
    // What an operator reads first: the columns of the views and of the table.
    let columns = "SELECT c.relname || '.' || a.attname AS what FROM pg_class c
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE c.oid = 'fleet.workers'::regclass AND col_description(c.oid, a.attnum) IS NULL
         AND EXISTS (SELECT FROM pg_description d WHERE d.objoid = c.oid AND d.objsubid > 0)";
    assert_eq!(names(&cluster.coordinator, columns), Vec::<String>::new());
}

pub const READS: [&str; 6] = [
    "SELECT * FROM fleet.workers",
    "SELECT * FROM fleet.events",
    "SELECT fleet.status()",
    "SELECT * FROM fleet.doctor()",
    "SELECT * FROM fleet.vector_nodes",
    "SELECT fleet.vector_health()",
];

fn pg_monitor_reads_and_changes_nothing() {
    let cluster = plain().start();
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    cluster.coordinator.run(
        "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN;
         GRANT CREATE ON SCHEMA public TO nobody",
    );
    let mut watcher = cluster.coordinator.session_as("watcher", "postgres");
    let mut nobody = cluster.coordinator.session_as("nobody", "postgres");
    for read in READS {
        assert_ne!(watcher.rows(read).len(), 0, "{read}");
        assert_eq!(nobody.error(read).state, "42501", "{read}");
    }
    assert_eq!(watcher.rows(READS[0]).len(), 1);
    for change in [
        "SELECT citus_autoregister()",
        "SELECT citus_autoregister(dry_run => true)",
        "SELECT fleet.pause()",
        "SELECT fleet.resume()",
        "INSERT INTO fleet.events DEFAULT VALUES",
        "DELETE FROM fleet.events",
    ] {
        for session in [&mut watcher, &mut nobody] {
            assert_eq!(session.error(change).state, "42501", "{change}");
        }
    }
    let internal = format!(
        "SELECT o.what FROM ({OBJECTS}) o WHERE o.classid = 'pg_class'::regclass
         AND has_table_privilege('watcher', o.objid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
    );
    assert_eq!(names(&cluster.coordinator, &internal), Vec::<String>::new());
}

/// The names in DESIGN.md that this version delivers.
fn the_contract_is_there() {
    let cluster = plain().start();
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    let columns = |query: &str| {
        let query = format!(
            "SELECT string_agg(a.attname, ' ' ORDER BY a.attnum) FROM pg_attribute a
             WHERE a.attrelid = '{query}'::regclass AND a.attnum > 0 AND NOT a.attisdropped"
        );
        cluster.coordinator.value(&query)
    };
    assert_eq!(
        columns("fleet.workers"),
        "nodename nodeport address nodeid groupid state code since reason remedy source \
         system_identifier server_version citus_version vector_version round_trip_ms last_seen"
    );
    let events = columns("fleet.events");
    for column in ["at", "nodename", "nodeport", "nodeid", "event", "code", "detail"] {
        assert!(events.split(' ').any(|name| name == column), "{column} is not in {events}");
    }
    let result = |function: &str| {
        cluster
            .coordinator
            .value(&format!("SELECT pg_get_function_result('{function}'::regprocedure)"))
    };
    assert_eq!(
        result("pg_catalog.citus_autoregister(boolean)"),
        "TABLE(nodename text, nodeport integer, nodeid integer, action text, outcome text, reason text)"
    );
    assert_eq!(
        result("fleet.doctor()"),
        "TABLE(\"check\" text, status text, finding text, remedy text)"
    );
    assert_eq!(result("fleet.status()"), "jsonb");
    assert_eq!(result("fleet.vector_health(boolean)"), "jsonb");
    for view in ["shards", "indexes", "tables", "nodes"] {
        assert!(columns(&format!("fleet.vector_{view}")).contains("status"), "{view}");
    }
    assert_eq!(
        result("fleet.vector_recall(regclass, integer, integer, interval)"),
        "TABLE(nodename text, nodeport integer, shardid bigint, placement text, index text, k integer, \
         queries integer, recall double precision, ci_low double precision, ci_high double precision, \
         p10 double precision, returned_ratio double precision, duration interval, note text)"
    );
    assert_eq!(
        result("fleet.set_search_option(text, text)"),
        "TABLE(nodename text, nodeport integer, before text, after text)"
    );
    let settings = cluster.coordinator.rows(
        "SELECT name, coalesce(current_setting(name), '') AS value, boot_val, context, short_desc
         FROM pg_settings WHERE name LIKE 'citus\\_fleet.%'",
    );
    for (name, default) in [
        ("workers", ""),
        ("database", "postgres"),
        ("enabled", "on"),
        ("interval", "5000"),
        ("probe_timeout", "3000"),
        ("absent_after", "60"),
        ("node_names", "auto"),
        ("nameserver", ""),
        ("allowed_networks", "private"),
        ("allowed_names", ""),
        ("max_workers", "1024"),
        ("coordinator_host", ""),
        ("event_retention", "2592000"),
        ("recall_interval", "0"),
        ("recall_target", "0.9"),
    ] {
        let name = format!("citus_fleet.{name}");
        let setting = settings.iter().find(|row| row["name"] == name);
        let setting = setting.unwrap_or_else(|| panic!("there is no {name}"));
        assert_eq!(&setting["boot_val"], default, "{name}");
        assert!(!setting["short_desc"].is_empty(), "{name}");
    }
    let event = cluster.coordinator.rows("SELECT * FROM fleet.events WHERE event = 'ready'");
    assert_eq!(event.len(), 1, "{event:?}");
    assert!(!event[0]["at"].is_empty() && event[0]["detail"].starts_with('{'), "{event:?}");
    // No setting can be invented under the extension's prefix.
    let unknown = cluster.coordinator.error("SET citus_fleet.wrokers = 'x'");
    assert_eq!(unknown.state, "42602", "{unknown}");
}

fn status_follows_what_happens() {
    let cluster = plain().start();
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    let status = |key: &str| {
        cluster.coordinator.value(&format!("SELECT coalesce(fleet.status()->>'{key}', '(null)')"))
    };
    for key in ["role", "last_cycle", "errors"] {
        assert_ne!(status(key), "(null)", "{key}");
    }
    assert_eq!(status("paused"), "false");
    assert_eq!(status("workers"), "{\"ready\": 1}");
    for (call, paused) in
        [("pause", "true"), ("pause", "true"), ("resume", "false"), ("resume", "false")]
    {
        cluster.coordinator.run(&format!("SELECT fleet.{call}()"));
        until(&format!("paused is {paused}"), SOON, || {
            let now = status("paused");
            if now == paused { Ok(()) } else { Err(now) }
        });
    }
    // A pause that is rolled back was never one.
    cluster.coordinator.run("BEGIN; SELECT fleet.pause(); ROLLBACK");
    cluster.wait_for_cycles(1);
    assert_eq!(status("paused"), "false");
}

fn a_dump_restores_the_extension_without_its_state() {
    let cluster = plain().start();
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    let directory = cluster.coordinator.directory();
    let mut dump = citus_fleet_tests::server::process::program("pg_dump");
    dump.arg("-h").arg(directory).args(["-p", &port().to_string(), "-U", "postgres", "postgres"]);
    let output = dump.output().expect("pg_dump runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("CREATE EXTENSION IF NOT EXISTS citus_fleet"));
    // A restore elsewhere must not bring this cluster's workers or a second schema with it.
    assert!(!text.contains(&cluster.workers[0].address.to_string()), "{text}");
    assert!(!text.contains("CREATE TABLE fleet."), "{text}");
}

fn autoregister_fails_with_a_hint() {
    let cluster = Plan::workers(1).start();
    cluster.wait_until_all_active();
    let call = "SELECT * FROM pg_catalog.citus_autoregister()";
    let on_worker = cluster.workers[0].error(call);
    assert_eq!(on_worker.state, "55000", "{on_worker}");
    assert!(
        on_worker.message.contains("coordinator") || on_worker.message.contains("worker"),
        "{on_worker}"
    );
    assert!(!on_worker.hint.is_empty(), "{on_worker}");

    // A worker without the library preloaded has the function too: Citus gave it the extension.
    let bare = Server::start(cluster.worker_spec("not-preloaded"));
    cluster.announce_with(&[bare.address]);
    cluster.wait_for_state(bare.address, "active");
    let not_preloaded = bare.error(call);
    assert_eq!(not_preloaded.state, "55000", "{not_preloaded}");
    assert!(!not_preloaded.hint.is_empty(), "{not_preloaded}");

    cluster.coordinator.run(
        "CREATE ROLE deputy LOGIN;
         GRANT EXECUTE ON FUNCTION pg_catalog.citus_autoregister(boolean) TO deputy",
    );
    let deputy = cluster.coordinator.session_as("deputy", "postgres").error(call);
    assert_eq!(deputy.state, "42501", "{deputy}");
    assert!(deputy.hint.to_lowercase().contains("superuser"), "{deputy}");

    let without = plain().start();
    without.wait_for_state(without.workers[0].address, "ready");
    let error = without.coordinator.error(call);
    assert_eq!(error.state, "55000", "{error}");
    assert!(error.hint.contains("citus"), "{error}");

    cluster.coordinator.run("CREATE DATABASE other");
    let mut other = cluster.coordinator.session_as("postgres", "other");
    other.run("CREATE EXTENSION citus; CREATE EXTENSION citus_fleet");
    let error = other.error(call);
    assert_eq!(error.state, "55000", "{error}");
    assert!(!error.hint.is_empty(), "{error}");
}

fn doctor_finds_what_is_wrong() {
    let cluster = Plan::workers(1).start();
    cluster.wait_until_all_active();
    let findings = || -> Vec<(String, String, String)> {
        let rows = cluster.coordinator.rows("SELECT * FROM fleet.doctor()");
        let text = |row: &citus_fleet_tests::server::Row| {
            (
                row["status"].to_string(),
                format!("{}: {}", &row["check"], &row["finding"]),
                row["remedy"].to_string(),
            )
        };
        rows.iter().map(text).collect()
    };
    let wrong = |word: &str| {
        findings().into_iter().find(|(status, finding, remedy)| {
            status != "ok" && format!("{finding} {remedy}").contains(word)
        })
    };
    let healthy = findings();
    assert!(healthy.len() >= 5, "{healthy:?}");
    assert!(healthy.iter().any(|(status, ..)| status == "ok"), "{healthy:?}");
    let own = cluster.coordinator.address.to_string();
    for (name, good, bad) in [
        ("citus_fleet.workers", "", "nowhere.test"),
        ("citus_fleet.allowed_networks", "private", "0.0.0.0/0"),
        ("citus.local_hostname", &own, "localhost"),
        ("citus.node_conninfo", "sslmode=verify-full", "sslmode=disable"),
    ] {
        // The last part of the setting's name, or what is in it, has to be in the row.
        let word = match name {
            "citus_fleet.workers" => "nowhere.test",
            "citus.node_conninfo" => "sslmode",
            other => other,
        };
        cluster.coordinator.set(name, good);
        until(&format!("doctor() is content with {name} = {good}"), SOON, || {
            cluster.coordinator.forget_session();
            wrong(word).map_or(Ok(()), |row| Err(format!("{row:?}")))
        });
        cluster.coordinator.set(name, bad);
        until(&format!("doctor() tells of {name} = {bad}"), SOON, || {
            cluster.coordinator.forget_session();
            match wrong(word) {
                Some((_, finding, remedy)) if !finding.is_empty() && !remedy.is_empty() => Ok(()),
                other => Err(format!("{other:?} in {:?}", findings())),
            }
        });
        cluster.coordinator.reset(name);
    }
}

/// PostgreSQL 17.11 and its like want output plugins approved, and Citus has one of its own.
fn doctor_knows_whether_shards_can_be_split() {
    let cluster = Plan::workers(1).set("wal_level", "logical").worker_set("wal_level", "logical");
    let cluster = cluster.start();
    cluster.wait_until_all_active();
    cluster.coordinator.run(
        "CREATE TABLE t (id bigint PRIMARY KEY);
         SELECT create_distributed_table('t', 'id', shard_count := 1)",
    );
    let split = "SELECT citus_split_shard_by_split_points(s.shardid, '{0}',
                   pg_catalog.array_fill(n.nodeid, '{2}'), 'force_logical')
                 FROM pg_dist_shard s, pg_dist_node n WHERE n.groupid = 1";
    let told = "SELECT * FROM fleet.doctor() WHERE \"check\" = 'output_plugin_libraries'";
    let told = cluster.coordinator.rows(told).remove(0);
    if &told["status"] != "ok" {
        let error = cluster.coordinator.error(split);
        assert!(error.to_string().contains("output plugin"), "{error}");
        for node in [&cluster.coordinator, &cluster.workers[0]] {
            let statements = told["remedy"].strip_suffix("; on every node").expect("a remedy");
            statements.split("; ").for_each(|statement| node.run(statement));
            until("the node has reloaded", SOON, || {
                node.forget_session();
                match node.value("SHOW output_plugin_libraries") {
                    approved if approved.contains("citus") => Ok(()),
                    approved => Err(approved),
                }
            });
        }
    }
    cluster.coordinator.run(split);
    assert_eq!(cluster.coordinator.value("SELECT count(*) FROM pg_dist_shard"), "2");
}
