//! Measures recall: `fleet.vector_recall` on a shard, against asking the shard for the exact answer
//! to as many queries, one scan each.

use crate::effort::{Effort, say};
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::server::Session;
use std::time::Instant;

const ROWS: usize = 100_000;
const DIMENSIONS: usize = 256;
const QUERIES: usize = 100;

pub fn measure(effort: Effort) -> Vec<Figure> {
    // All of the shard is in memory, which favours whoever reads it a hundred times.
    let cluster = Plan::workers(1).worker_set("shared_buffers", "512MB").start();
    cluster.wait_until_all_active();
    let mut coordinator = cluster.coordinator.session();
    let mut worker = cluster.workers[0].session();
    let shard = fill(&mut coordinator, &mut worker);
    let queries: Vec<String> = worker
        .rows(&format!("SELECT v::text FROM {shard} ORDER BY id LIMIT {QUERIES}"))
        .iter()
        .map(|row| row.first().to_owned())
        .collect();
    let rounds = effort.pick(5, 2);
    let (mut ours, mut serial, mut parallel) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let taken = [
            with_fleet(&mut coordinator),
            with_scans(&mut worker, &shard, &queries, 0),
            with_scans(&mut worker, &shard, &queries, 2),
        ];
        say("recall", &format!("round {round} of {rounds}: {taken:.0?} ms"));
        // The first round warms caches up and does not count.
        if round > 0 {
            ours.push(taken[0]);
            serial.push(taken[1]);
            parallel.push(taken[2]);
        }
    }
    vec![
        figure("one process each", &ours, &serial).goal(
            "≥ 10 times as fast",
            Goal::AtLeast(10.0),
            Spread::ratios(&serial, &ours).median(),
        ),
        figure("two parallel workers each", &ours, &parallel),
    ]
}

fn figure(scans: &str, ours: &[f64], baseline: &[f64]) -> Figure {
    let shown = Spread::new(baseline.to_vec()).show(0);
    Figure::new(&format!("Recall of {QUERIES} queries, {ROWS} × {DIMENSIONS}"))
        .ours(format!("{} ms", Spread::new(ours.to_vec()).show(0)))
        .baseline(format!("{shown} ms: {QUERIES} exact scans, {scans}"))
        .faster(&Spread::ratios(baseline, ours))
        .samples("ours_ms", ours)
        .samples("baseline_ms", baseline)
}

/// A distributed table of one shard; returns the shard's name. An ivfflat index, because it is built
/// in seconds: what is measured hardly depends on it.
fn fill(coordinator: &mut Session, worker: &mut Session) -> String {
    coordinator.run(
        "CREATE TABLE items (id int, v vector(256));
         SELECT create_distributed_table('items', 'id', shard_count => 1)",
    );
    let shard = coordinator.value(
        "SELECT pg_catalog.shard_name(logicalrelid, shardid) FROM pg_dist_shard
         WHERE logicalrelid = 'items'::regclass",
    );
    worker.run(&format!(
        "INSERT INTO {shard} SELECT i, (
           SELECT array_agg(random()) FROM generate_series(1, {DIMENSIONS}) WHERE i > 0)::vector
         FROM generate_series(1, {ROWS}) i"
    ));
    coordinator.run("CREATE INDEX ON items USING ivfflat (v vector_l2_ops) WITH (lists = 100)");
    worker.run(&format!("VACUUM {shard}"));
    shard
}

fn with_fleet(session: &mut Session) -> f64 {
    let started = Instant::now();
    let rows = session.rows(&format!("SELECT * FROM fleet.vector_recall('items', 10, {QUERIES})"));
    let taken = started.elapsed().as_secs_f64() * 1e3;
    assert_eq!((rows.len(), &rows[0]["note"], &rows[0]["queries"]), (1, "", "100"), "{rows:?}");
    taken
}

fn with_scans(session: &mut Session, shard: &str, queries: &[String], processes: usize) -> f64 {
    session.run(&format!(
        "SET enable_indexscan = off; SET max_parallel_workers_per_gather = {processes}"
    ));
    let started = Instant::now();
    for query in queries {
        session.run(&format!("SELECT id FROM {shard} ORDER BY v <-> '{query}' LIMIT 11"));
    }
    started.elapsed().as_secs_f64() * 1e3
}
