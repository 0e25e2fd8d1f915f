//! Owns the program: which measurements there are, which are asked for, and how it ends.
//! Must not fail because a goal is missed: only a measurement that could not be made is an error.

mod builds;
mod crowd;
mod effort;
mod fleet;
mod follow;
mod machine;
mod many;
mod one;
mod process;
mod recall;
mod report;
mod shell;
mod size;
mod spread;
mod start;
mod steady;
mod throughput;
mod vector;

use citus_fleet_tests::{Need, run};
use effort::{Effort, say};
use report::{Figure, Report};
use std::panic::catch_unwind;
use std::process::exit;
use std::time::Instant;

struct Measurement {
    name: &'static str,
    what: &'static str,
    needs: &'static [Need],
    program: Option<&'static str>,
    measure: fn(Effort) -> Vec<Figure>,
}

const CITUS: &[Need] = &[Need::Fleet, Need::Citus];

const PATRONI: &[Need] = &[Need::Fleet, Need::Citus, Need::Patroni];

const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "one",
        what: "registering one worker, against a bare citus_add_node and one login",
        needs: CITUS,
        program: None,
        measure: one::measure,
    },
    Measurement {
        name: "many",
        what: "registering 6, 12 and 24 workers at once, against a shell loop of citus_add_node",
        needs: CITUS,
        program: Some("psql"),
        measure: many::measure,
    },
    Measurement {
        name: "start",
        what: "from \"accepts connections\" to active, against a shell loop that tries every second",
        needs: CITUS,
        program: Some("psql"),
        measure: start::measure,
    },
    Measurement {
        name: "follow",
        what: "from \"the promoted server accepts connections\" to the updated row, against Patroni's Citus handler",
        needs: PATRONI,
        program: None,
        measure: follow::measure,
    },
    Measurement {
        name: "steady",
        what: "CPU, WAL, memory and snapshots with 1,000 candidates, against a controller with no sources",
        needs: CITUS,
        program: None,
        measure: steady::measure,
    },
    Measurement {
        name: "size",
        what: "a probe and a join with 0, 1,000 and 10,000 tenant schemas, against a probe without any and a bare citus_add_node",
        needs: CITUS,
        program: None,
        measure: size::measure,
    },
    Measurement {
        name: "vector",
        what: "fleet.vector_shards over 1,024 placements, against run_command_on_shards and citus_shards",
        needs: &[Need::Fleet, Need::Citus, Need::Vector],
        program: None,
        measure: vector::measure,
    },
    Measurement {
        name: "recall",
        what: "recall of 100 queries on a shard of 100,000 × 256, against 100 exact scans",
        needs: &[Need::Fleet, Need::Citus, Need::Vector],
        program: None,
        measure: recall::measure,
    },
    Measurement {
        name: "builds",
        what: "spills, memory, /dev/shm and pages of index builds, as predicted, against real ones",
        needs: &[Need::Vector],
        program: None,
        measure: builds::measure,
    },
    Measurement {
        name: "pgbench",
        what: "foreground throughput with the controller on, against off",
        needs: CITUS,
        program: Some("pgbench"),
        measure: throughput::measure,
    },
];

const USAGE: &str = "usage: citus_fleet_bench [--quick] [--list] [NAME...]";

fn main() {
    let mut quick = false;
    let mut names = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => quick = true,
            "--list" => return list(),
            "--help" | "-h" => return println!("{USAGE}"),
            name if MEASUREMENTS.iter().any(|known| known.name == name) => names.push(argument),
            other => {
                eprintln!("{other}: no such measurement or option\n{USAGE}");
                exit(2);
            }
        }
    }
    let wanted = |measurement: &&Measurement| {
        names.is_empty() || names.iter().any(|name| name == measurement.name)
    };
    let mut report = Report::new(quick);
    let started = Instant::now();
    for measurement in MEASUREMENTS.iter().filter(wanted) {
        take(measurement, Effort { quick }, &mut report);
    }
    say("all", &format!("done in {} s", started.elapsed().as_secs()));
    println!("\n{}", report.markdown());
    report.write();
    // exit() runs the harness's clean-up, as every other end of the process does.
    exit(i32::from(report.has_failures()));
}

fn list() {
    for measurement in MEASUREMENTS {
        println!("{:8} {}", measurement.name, measurement.what);
    }
}

fn take(measurement: &Measurement, effort: Effort, report: &mut Report) {
    let name = measurement.name;
    let lacking = measurement.needs.iter().find_map(|need| need.missing());
    if let Some(reason) = lacking.or_else(|| shell::missing(measurement.program?)) {
        say(name, &format!("skipped: {reason}"));
        report.skip(name, &reason);
        return;
    }
    say(name, measurement.what);
    run::enter_test(&format!("bench::{name}"));
    match catch_unwind(|| (measurement.measure)(effort)) {
        Ok(figures) => {
            for figure in figures {
                say(name, &figure.line());
                report.add(figure);
            }
        }
        Err(_) => report.fail(name),
    }
}
