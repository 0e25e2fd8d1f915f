//! Measures the look at vector-shard health: `fleet.vector_shards` over 1,024 placements on four nodes,
//! against the same facts through `run_command_on_shards`, and against `citus_shards`.

use crate::effort::{Effort, say};
use crate::fleet;
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use citus_fleet_tests::Cluster;
use citus_fleet_tests::server::Session;
use std::time::Instant;

const NODES: usize = 4;
const PLACEMENTS: usize = 1024;
const GOAL: f64 = 10.0;

/// What a shard can tell of itself in one statement: rows, dead rows, sizes, and its vector indexes
/// with their validity and definition. The metapages of the indexes are left out, which no SQL reads.
const FACTS: &str = r"
    SELECT json_build_object(
      'rows', c.reltuples, 'live', pg_stat_get_live_tuples(c.oid), 'dead', pg_stat_get_dead_tuples(c.oid),
      'modified', pg_stat_get_mod_since_analyze(c.oid), 'scans', pg_stat_get_numscans(c.oid),
      'bytes', pg_relation_size(c.oid), 'vacuumed', pg_stat_get_last_vacuum_time(c.oid),
      'indexes', (SELECT json_agg(json_build_object(
         'name', i.indexrelid::regclass, 'valid', i.indisvalid, 'definition', pg_get_indexdef(i.indexrelid),
         'bytes', pg_relation_size(i.indexrelid), 'scans', pg_stat_get_numscans(i.indexrelid)))
       FROM pg_index i WHERE i.indrelid = c.oid))::text
    FROM pg_class c WHERE c.oid = '%s'::regclass";

pub fn measure(effort: Effort) -> Vec<Figure> {
    let cluster = with_shards();
    let rounds = effort.pick(11, 3);
    let mut session = cluster.coordinator.session();
    let (mut ours, mut by_shard, mut by_citus) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms caches up and does not count.
    for round in 0..=rounds {
        let view = time(&mut session, "SELECT * FROM fleet.vector_shards");
        let shards = time(
            &mut session,
            &format!(
                "SELECT * FROM run_command_on_shards('items', $facts${FACTS}$facts$) WHERE success"
            ),
        );
        let citus =
            time(&mut session, "SELECT * FROM citus_shards WHERE table_name = 'items'::regclass");
        if round > 0 {
            ours.push(view);
            by_shard.push(shards);
            by_citus.push(citus);
        }
        say(
            "vector",
            &format!(
                "round {round} of {rounds}: {view:.0} ms, by shard {shards:.0} ms, citus_shards {citus:.0} ms"
            ),
        );
    }
    drop(session);
    fleet::dismiss(cluster);
    let what = format!("`fleet.vector_shards`, {PLACEMENTS} placements on {NODES} nodes");
    let figure = |baseline: &[f64], name: &str| {
        Figure::new(&what)
            .ours(format!("{} ms", Spread::new(ours.clone()).show(0)))
            .baseline(format!("{} ms: {name}", Spread::new(baseline.to_vec()).show(0)))
            .faster(&Spread::ratios(baseline, &ours))
            .samples("ours_ms", &ours)
            .samples("baseline_ms", baseline)
    };
    let lead = Spread::ratios(&by_shard, &ours).median();
    vec![
        figure(&by_shard, "the same facts by `run_command_on_shards`").goal(
            "≥ 10 times as fast",
            Goal::AtLeast(GOAL),
            lead,
        ),
        figure(&by_citus, "`citus_shards`, sizes alone"),
    ]
}

/// Milliseconds until the last row of all placements is there.
fn time(session: &mut Session, sql: &str) -> f64 {
    let started = Instant::now();
    let rows = session.rows(sql);
    let taken = started.elapsed().as_secs_f64() * 1e3;
    assert_eq!(rows.len(), PLACEMENTS, "{sql}");
    taken
}

fn with_shards() -> Cluster {
    // The baseline connects once for each shard, all at the same time.
    let connections = (PLACEMENTS / NODES + 60).to_string();
    let cluster = fleet::at_defaults(NODES)
        .set("max_connections", &connections)
        .worker_set("max_connections", &connections)
        .set("max_locks_per_transaction", "1024")
        .worker_set("max_locks_per_transaction", "1024")
        .start();
    cluster.wait_until_all_active();
    cluster.coordinator.script(&format!(
        "CREATE TABLE items (id bigint PRIMARY KEY, v vector(8));
         SELECT create_distributed_table('items', 'id', shard_count := {PLACEMENTS});
         CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops);
         INSERT INTO items SELECT n, format('[%s,%s,3,4,5,6,7,8]', n % 97, n % 89)::vector FROM generate_series(1, 20000) n;
         ANALYZE items"
    ));
    say("vector", &format!("{PLACEMENTS} shards with an hnsw index each"));
    cluster
}
