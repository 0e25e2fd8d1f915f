//! Measures what the controller takes from the foreground: pgbench on the coordinator with the
//! controller watching four workers, against the controller asleep, in short runs one after another.

use crate::effort::{Effort, say};
use crate::process::Usage;
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use crate::{fleet, shell};
use citus_fleet_tests::Cluster;
use std::time::Duration;

const GOAL: f64 = 0.99;

pub fn measure(effort: Effort) -> Vec<Figure> {
    let cluster = fleet::at_defaults(4).set("shared_buffers", "256MB").start();
    cluster.wait_until_all_active();
    let mut fill = shell::at(&cluster.coordinator, "pgbench");
    fill.args(["-i", "-q", "-s", "5", "postgres"]);
    shell::run(fill);
    let pairs = effort.pick(6, 1);
    [("select-only", "-S"), ("tpcb-like", "-b tpcb-like")]
        .into_iter()
        .map(|(name, option)| compare(&cluster, name, option, pairs))
        .collect()
}

/// One run holds one cycle of the controller at its default interval.
const SECONDS: u64 = 5;

fn compare(cluster: &Cluster, name: &str, option: &str, pairs: usize) -> Figure {
    let controller = cluster.controller();
    let (mut on, mut off, mut share) = (Vec::new(), Vec::new(), Vec::new());
    transactions_per_second(cluster, option, 1);
    for pair in 0..pairs {
        // On, off, off, on: a drift of the machine hits both.
        let order = if pair % 2 == 0 { [true, false] } else { [false, true] };
        for is_on in order {
            switch(cluster, is_on);
            let before = Usage::of(controller);
            let tps = transactions_per_second(cluster, option, SECONDS);
            if is_on {
                share.push(Usage::of(controller).percent_since(&before));
                on.push(tps);
            } else {
                off.push(tps);
            }
        }
        say(
            "pgbench",
            &format!(
                "{name}, pair {} of {pairs}: on {:.0}, off {:.0} tps",
                pair + 1,
                on[pair],
                off[pair]
            ),
        );
    }
    let ratio = Spread::ratios(&on, &off);
    Figure::new(&format!("pgbench {name}, 4 workers"))
        .ours(format!(
            "{} tps; the controller took {:.2} % of a core",
            Spread::new(on.clone()).show_middle(0),
            Spread::new(share.clone()).mean()
        ))
        .baseline(format!("{} tps: controller asleep", Spread::new(off.clone()).show_middle(0)))
        .middle_ratio(&ratio)
        .goal("≥ 0.99", Goal::AtLeast(GOAL), ratio.median())
        .samples("on_tps", &on)
        .samples("off_tps", &off)
        .samples("controller_percent", &share)
}

/// Off is off altogether: no source, no change, no cycle.
fn switch(cluster: &Cluster, is_on: bool) {
    let source = format!("worker:{}", cluster.coordinator.port);
    let settings = if is_on {
        [("workers", source.as_str()), ("enabled", "on"), ("interval", "5s")]
    } else {
        [("workers", ""), ("enabled", "off"), ("interval", "1h")]
    };
    let named: Vec<(String, &str)> =
        settings.into_iter().map(|(name, value)| (format!("citus_fleet.{name}"), value)).collect();
    let named: Vec<(&str, &str)> =
        named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    cluster.coordinator.set_all(&named);
    // The cycle that the reload has woken is not part of either side.
    std::thread::sleep(Duration::from_millis(500));
}

fn transactions_per_second(cluster: &Cluster, option: &str, seconds: u64) -> f64 {
    let mut command = shell::at(&cluster.coordinator, "pgbench");
    command.args(option.split(' '));
    command.args(["-M", "prepared", "-c", "4", "-j", "2", "-T", &seconds.to_string(), "postgres"]);
    let (text, _) = shell::run(command);
    text.lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("pgbench tells no rate:\n{text}"))
}
