//! Measures many workers at once: one `psql -c 'SELECT citus_autoregister()'` against a shell loop of
//! `psql -c 'SELECT citus_add_node(...)'`, for more and more workers.

use crate::effort::{Effort, say};
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use crate::{fleet, shell};
use citus_fleet_tests::{Cluster, Server};

/// At least this many times as fast with the most workers, and faster still than with fewer.
const GOAL: f64 = 5.0;

pub fn measure(effort: Effort) -> Vec<Figure> {
    let sizes = effort.pick(&[6, 12, 24][..], &[6, 24]);
    let rounds = effort.pick(5, 1);
    let most = *sizes.last().expect("a size");
    let cluster = fleet::on_request(most);
    say("many", &format!("{most} workers run"));
    let mut figures = Vec::new();
    let mut leads: Vec<f64> = Vec::new();
    for &size in sizes {
        let workers = &cluster.workers[..size];
        let (mut ours, mut loops) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut sides: [(Way, &mut Vec<f64>); 2] =
                [(with_fleet, &mut ours), (with_a_loop, &mut loops)];
            if round % 2 == 1 {
                sides.reverse();
            }
            for (way, taken) in sides {
                taken.push(way(&cluster, workers));
                fleet::expect_registered(&cluster, size);
                fleet::take_all_back(&cluster);
            }
            let (a, b) = (ours[round], loops[round]);
            say(
                "many",
                &format!(
                    "{size} workers, round {} of {rounds}: {a:.0} ms, loop {b:.0} ms",
                    round + 1
                ),
            );
        }
        // How many times as fast, so the larger the better.
        let lead = Spread::ratios(&loops, &ours);
        let figure = Figure::new(&format!("Registering {size} workers at once"))
            .ours(format!("{} ms", Spread::new(ours.clone()).show(0)))
            .baseline(format!(
                "{} ms: shell loop of `citus_add_node`",
                Spread::new(loops.clone()).show(0)
            ))
            .faster(&lead)
            .samples("ours_ms", &ours)
            .samples("baseline_ms", &loops);
        leads.push(lead.median());
        figures.push(if size == most {
            let grows = leads.windows(2).all(|pair| pair[0] < pair[1]);
            figure
                .goal("≥ 5 times as fast, growing with N", Goal::AtLeast(GOAL), lead.median())
                .and(grows)
        } else {
            figure
        });
    }
    fleet::dismiss(cluster);
    figures
}

/// Registers these workers, and says how many milliseconds it took.
type Way = fn(&Cluster, &[Server]) -> f64;

fn with_fleet(cluster: &Cluster, workers: &[Server]) -> f64 {
    cluster.announce(&fleet::addresses(workers));
    let command =
        shell::psql(&cluster.coordinator, "SELECT * FROM pg_catalog.citus_autoregister()");
    shell::run(command).1.as_secs_f64() * 1e3
}

fn with_a_loop(cluster: &Cluster, workers: &[Server]) -> f64 {
    let text = r#"port=$1; shift; for host; do
        "$PSQL" -X -q -A -t -v ON_ERROR_STOP=1 -c "SELECT citus_add_node('$host', $port)" || exit
    done"#;
    let mut arguments = vec![workers[0].port.to_string()];
    arguments.extend(workers.iter().map(|worker| worker.address.to_string()));
    let command = shell::script(&cluster.coordinator, text, &arguments);
    shell::run(command).1.as_secs_f64() * 1e3
}
