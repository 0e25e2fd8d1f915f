//! Measures clusters of many tables, a schema with two of them for each tenant: what a probe of a
//! candidate costs, against one where there are none, and a join, against one login and `citus_add_node`.

use crate::effort::{Effort, say};
use crate::fleet;
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use citus_fleet_tests::{Cluster, Server};
use std::time::Instant;

/// Room for the locks of a transaction that creates all tables of all tenants.
const LOCKS: (&str, &str) = ("max_locks_per_transaction", "4000");

pub fn measure(effort: Effort) -> Vec<Figure> {
    let sizes = effort.pick(&[0, 1_000, 10_000][..], &[0, 1_000]);
    let probes = effort.pick(40, 10);
    // Each joins once: to make one new again would take longer than all the rest.
    let plan = fleet::at_defaults(sizes.len() * 2).set(LOCKS.0, LOCKS.1);
    let cluster = fleet::requested(plan.worker_set(LOCKS.0, LOCKS.1));
    cluster.keep_shards_on_coordinator();
    let (mut figures, mut first, mut tenants) = (Vec::new(), Vec::new(), 0);
    for (number, (&size, pair)) in sizes.iter().zip(cluster.workers.chunks(2)).enumerate() {
        fleet::add_tenants(&cluster, tenants, size);
        tenants = size;
        let what = format!("{size} schemas of two tables");
        say("size", &what);
        let asked = probe(&cluster, &pair[0], probes);
        if first.is_empty() {
            first = asked.clone();
        }
        figures.push(probed(&what, &asked, &first));
        figures.push(joined(&what, &cluster, pair, number % 2 == 1));
    }
    fleet::dismiss(cluster);
    figures
}

/// What probes of a candidate took, in milliseconds: the first warms up and does not count.
fn probe(cluster: &Cluster, worker: &Server, rounds: usize) -> Vec<f64> {
    cluster.announce(&[worker.address]);
    let taken = (0..=rounds).map(|_| {
        fleet::settle(cluster);
        let row = cluster.worker_at(worker.address).expect("the candidate is listed");
        row["round_trip_ms"].parse().expect("the candidate has answered")
    });
    let taken: Vec<f64> = taken.collect();
    cluster.announce(&[]);
    fleet::settle(cluster);
    taken[1..].to_vec()
}

fn probed(what: &str, ours: &[f64], baseline: &[f64]) -> Figure {
    let ratio = Spread::ratios(ours, baseline);
    Figure::new(&format!("Probing a candidate, {what}"))
        .ours(format!("{} ms", Spread::new(ours.to_vec()).show_middle(1)))
        .baseline(format!("{} ms: without any", Spread::new(baseline.to_vec()).show_middle(1)))
        .middle_ratio(&ratio)
        .goal("≤ 1.3", Goal::AtMost(1.3), ratio.median())
        .samples("ours_ms", ours)
        .samples("baseline_ms", baseline)
}

fn joined(what: &str, cluster: &Cluster, pair: &[Server], is_first: bool) -> Figure {
    let mut session = cluster.coordinator.session();
    session.run("SET statement_timeout = 0");
    let mut take = |worker: &Server, statement: &str, logs_in: bool| {
        let started = Instant::now();
        if logs_in {
            fleet::log_in(worker);
        }
        session.run(statement);
        let seconds = started.elapsed().as_secs_f64();
        fleet::expect_registered(cluster, 1);
        cluster.announce(&[]);
        session.run(&format!(
            "SELECT pg_catalog.citus_remove_node('{}', {})",
            worker.address, worker.port
        ));
        seconds
    };
    let [first, second] = pair else { unreachable!("a pair of workers") };
    let add = format!("SELECT pg_catalog.citus_add_node('{}', {})", second.address, second.port);
    let mut sides = [0.0; 2];
    // Which of the two comes first changes from size to size.
    for side in if is_first { [0, 1] } else { [1, 0] } {
        sides[side] = if side == 1 {
            take(second, &add, true)
        } else {
            cluster.announce(&[first.address]);
            take(first, "SELECT * FROM pg_catalog.citus_autoregister()", false)
        };
    }
    let [ours, by_hand] = sides;
    fleet::settle(cluster);
    let ratio = Spread::new([ours / by_hand]);
    Figure::new(&format!("Registering 1 worker, {what}"))
        .ours(format!("{ours:.2} s"))
        .baseline(format!("{by_hand:.2} s: one login, `citus_add_node`"))
        .ratio(&ratio)
        .goal("≤ 1.3", Goal::AtMost(1.3), ratio.median())
        .samples("ours_s", &[ours])
        .samples("baseline_s", &[by_hand])
}
