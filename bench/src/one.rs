//! Measures one worker: `citus_autoregister()` on a settled coordinator to which DNS has just shown
//! it, against what a person does by hand, one login to see that it is there and `citus_add_node`.

use crate::effort::{Effort, say};
use crate::fleet;
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use citus_fleet_tests::Cluster;
use citus_fleet_tests::server::Session;
use std::time::Instant;

/// As many distributed tables as a small application has; and none, the hardest case: the less there
/// is to send to the new worker, the more everything else counts.
const TABLES: usize = 10;

pub fn measure(effort: Effort) -> Vec<Figure> {
    let cluster = fleet::on_request(1);
    let bare = compare(&cluster, "empty cluster", effort.pick(15, 4));
    fleet::distribute(&cluster, TABLES);
    let tables = format!("{TABLES} distributed tables");
    vec![bare, compare(&cluster, &tables, effort.pick(15, 4))]
}

fn compare(cluster: &Cluster, what: &str, rounds: usize) -> Figure {
    let mut session = cluster.coordinator.session();
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    // The first round warms caches up and does not count.
    for round in 0..=rounds {
        let mut pair: [(Way, &mut Vec<f64>); 2] =
            [(with_fleet, &mut ours), (with_hands, &mut by_hand)];
        // Which of the two comes first changes from round to round.
        if round % 2 == 1 {
            pair.reverse();
        }
        for (way, taken) in pair {
            let millis = way(cluster, &mut session);
            fleet::expect_registered(cluster, 1);
            fleet::take_all_back(cluster);
            if round > 0 {
                taken.push(millis);
            }
        }
        if let (Some(a), Some(b)) = (ours.last(), by_hand.last()) {
            let round = format!("round {round} of {rounds}");
            say("one", &format!("{what}, {round}: {a:.1} ms, by hand {b:.1} ms"));
        }
    }
    let ratio = Spread::ratios(&ours, &by_hand);
    let baseline = Spread::new(by_hand.clone()).show(1);
    Figure::new(&format!("Registering 1 worker, {what}"))
        .ours(format!("{} ms", Spread::new(ours.clone()).show(1)))
        .baseline(format!("{baseline} ms: one login, `citus_add_node`"))
        .ratio(&ratio)
        .goal("≤ 1.3", Goal::AtMost(1.3), ratio.median())
        .samples("ours_ms", &ours)
        .samples("baseline_ms", &by_hand)
}

/// Registers the one worker, and says how many milliseconds it took.
type Way = fn(&Cluster, &mut Session) -> f64;

fn with_fleet(cluster: &Cluster, session: &mut Session) -> f64 {
    cluster.announce_all();
    let started = Instant::now();
    session.run("SELECT * FROM pg_catalog.citus_autoregister()");
    started.elapsed().as_secs_f64() * 1e3
}

fn with_hands(cluster: &Cluster, session: &mut Session) -> f64 {
    let worker = &cluster.workers[0];
    let add = format!("SELECT pg_catalog.citus_add_node('{}', {})", worker.address, worker.port);
    let started = Instant::now();
    fleet::log_in(worker);
    session.run(&add);
    started.elapsed().as_secs_f64() * 1e3
}
