//! Hostile objects in `public`, first in everybody's search path: none of them may ever run.

use crate::sql_surface::{READS, plain};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::{Cluster, Need, Server};

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("hostile", &[Need::Fleet];
        hostile_objects_are_never_executed,
        what_was_there_before_is_not_adopted,
    );
    tests.extend(suite!("hostile", &[Need::Fleet, Need::Citus, Need::Vector];
        hostile_objects_are_never_executed_beside_citus,
        hostile_objects_are_never_executed_by_health,
    ));
    tests
}

/// Plants functions and operators that shout in `public`, first in everybody's search path.
pub fn plant(server: &Server) {
    server.run(
        "CREATE FUNCTION public.shout() RETURNS bool LANGUAGE plpgsql AS
           $$ BEGIN RAISE WARNING 'HOSTILE CODE RAN'; RETURN true; END $$;
         CREATE FUNCTION public.shout(text, text) RETURNS bool LANGUAGE sql AS 'SELECT public.shout()';
         CREATE FUNCTION public.shout(int, int) RETURNS bool LANGUAGE sql AS 'SELECT public.shout()';
         CREATE FUNCTION public.shout(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT public.shout()';
         CREATE FUNCTION public.shout(name, name) RETURNS bool LANGUAGE sql AS 'SELECT public.shout()';
         CREATE FUNCTION public.shout(bool, bool) RETURNS bool LANGUAGE sql AS 'SELECT public.shout()';
         CREATE FUNCTION public.shout(bigint, bigint) RETURNS bool LANGUAGE sql AS 'SELECT public.shout()';
         CREATE FUNCTION public.shouted(text, text) RETURNS text LANGUAGE sql AS 'SELECT public.shout()::text';
         CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS
           'SELECT pg_catalog.now() FROM (SELECT public.shout()) s';
         CREATE FUNCTION public.to_json(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1 FROM (SELECT public.shout()) s';
         CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT public.shout()::text';
         CREATE FUNCTION public.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT public.shout()';
         CREATE FUNCTION public.to_timestamp(double precision) RETURNS timestamptz LANGUAGE sql AS 'SELECT public.now()';
         CREATE FUNCTION public.citus_add_node(text, integer) RETURNS integer LANGUAGE sql AS 'SELECT public.shout()::int';",
    );
    for kind in ["text", "int", "oid", "name", "bool", "bigint"] {
        for operator in ["=", "<>", "<", ">", "<="] {
            server.run(&format!(
                "CREATE OPERATOR public.{operator} (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = public.shout)"
            ));
        }
    }
    server.run(
        "CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = public.shouted)",
    );
    server.run(
        "ALTER DATABASE postgres SET search_path = public, pg_catalog;
         ALTER ROLE postgres SET search_path = public, pg_catalog",
    );
}

/// Uses everything as a superuser with the hostile search path.
#[track_caller]
fn nothing_shouts(cluster: &Cluster) {
    let mut session = cluster.coordinator.session();
    let warned = session.value("SELECT 1 WHERE 'a'::text = 'b'::text");
    assert_eq!(warned, "1", "the trap is set");
    let before = cluster.coordinator.log().matches("HOSTILE CODE RAN").count();
    assert_ne!(before, 0);
    for read in READS {
        session.run(read);
    }
    session.run("SELECT fleet.pause(); SELECT fleet.resume()");
    let _ = session.try_rows("SELECT * FROM pg_catalog.citus_autoregister()");
    cluster.wait_for_cycles(3);
    let log = cluster.coordinator.log();
    let shouts: Vec<&str> =
        log.lines().filter(|line| line.contains("HOSTILE")).skip(before).collect();
    assert_eq!(shouts, Vec::<&str>::new());
}

fn hostile_objects_are_never_executed() {
    let cluster = plain().not_created().start();
    plant(&cluster.coordinator);
    cluster.coordinator.forget_session();
    // In its own words: the harness's queries would spring the trap themselves.
    cluster.coordinator.run("SET search_path = pg_catalog; CREATE EXTENSION citus_fleet");
    cluster.wait_for_state(cluster.workers[0].address, "ready");
    nothing_shouts(&cluster);
}

fn hostile_objects_are_never_executed_beside_citus() {
    let cluster = Plan::workers(2).unannounced().start();
    plant(&cluster.coordinator);
    cluster.coordinator.restart();
    cluster.coordinator.run("SET search_path = pg_catalog");
    cluster.announce_all();
    cluster.wait_until_all_active();
    nothing_shouts(&cluster);
}

fn hostile_objects_are_never_executed_by_health() {
    let cluster = crate::vector_indexes::with_items(1000);
    let servers = || cluster.workers.iter().chain([&cluster.coordinator]);
    // Each has its own: Citus would hand the coordinator's on, and let no worker have any.
    servers().for_each(|server| server.set("citus.enable_ddl_propagation", "off"));
    servers().for_each(plant);
    let shouts = || -> usize {
        servers().map(|server| server.log().matches("HOSTILE CODE RAN").count()).sum()
    };
    let mut session = cluster.coordinator.session();
    session.value("SELECT 1 WHERE 'a'::text = 'b'::text");
    let before = shouts();
    assert_ne!(before, 0, "the trap is set");
    for view in ["shards", "indexes", "tables", "nodes", "progress"] {
        session.run(&format!("TABLE fleet.vector_{view}"));
    }
    // Every node has answered, with the trap in its own search path.
    assert_eq!(session.rows("TABLE fleet.vector_shards").len(), 4);
    session.run("SELECT fleet.vector_health(verbose => true)");
    assert_eq!(shouts(), before);
}

/// CVE-2022-2625: an install script that takes over somebody else's object hands its owner the rest.
fn what_was_there_before_is_not_adopted() {
    let cluster = plain().not_created().start();
    let server = &cluster.coordinator;
    server.run("CREATE ROLE mallory LOGIN; GRANT CREATE ON DATABASE postgres TO mallory");
    server.session_as("mallory", "postgres").run("CREATE SCHEMA fleet");
    let error = server.error("CREATE EXTENSION citus_fleet");
    assert!(error.message.contains("fleet"), "{error}");
    server.run("DROP SCHEMA fleet");
    server.run("CREATE EXTENSION citus_fleet");
    cluster.wait_for_state(cluster.workers[0].address, "ready");
}
