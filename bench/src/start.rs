//! Measures a starting worker: the time from the moment at which it accepts connections to the commit
//! that makes it active, against a shell loop that tries `citus_add_node` every second.

use crate::effort::{Effort, phase, say};
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use crate::{fleet, shell};
use citus_fleet_tests::{Cluster, Server, Shutdown, until};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

const GOAL: Goal = Goal::AtMost(1.5);
const GOAL_TEXT: &str = "median < 1.5 s";
const DEADLINE: Duration = Duration::from_secs(60);

pub fn measure(effort: Effort) -> Vec<Figure> {
    let starts = effort.pick(10, 3);
    let fleet = stopped(fleet::at_defaults(2 * starts));
    let plain = stopped(fleet::at_defaults(starts).without_fleet());
    let (soon, late) = fleet.workers.split_at(starts);

    let (mut ours, mut loops) = (Vec::new(), Vec::new());
    for number in 0..starts {
        // A container whose data directory exists accepts connections a few seconds after its name.
        let lead = Duration::from_secs_f64(2.0 + 2.0 * phase(number));
        fleet.announce(&fleet::addresses(&soon[..=number]));
        thread::sleep(lead);
        ours.push(until_active(&fleet, &soon[number]));

        let mut tries = try_every_second(&plain, &plain.workers[number]);
        thread::sleep(lead);
        loops.push(until_active(&plain, &plain.workers[number]));
        let _ = tries.wait();
        say(
            "start",
            &format!(
                "start {} of {starts}, {:.1} s after the name: {:.2} s, shell loop {:.2} s",
                number + 1,
                lead.as_secs_f64(),
                ours[number],
                loops[number]
            ),
        );
    }

    // One that is named long before it runs: the first start with an initdb, an image to be pulled.
    let waited = effort.seconds(20, 8);
    let named: Vec<IpAddr> = fleet::addresses(&fleet.workers);
    fleet.announce(&named);
    thread::sleep(waited);
    let mut after_long = Vec::new();
    for (number, worker) in late.iter().enumerate() {
        thread::sleep(Duration::from_secs_f64(2.0 * phase(number)));
        after_long.push(until_active(&fleet, worker));
        say(
            "start",
            &format!("late start {} of {starts}: {:.2} s", number + 1, after_long[number]),
        );
    }

    let loop_text = format!("{} s: shell loop, 1 s of sleep", Spread::new(loops.clone()).show(2));
    let figure = |what: String, taken: &[f64]| {
        let spread = Spread::new(taken.to_vec());
        Figure::new(&what)
            .ours(format!("{} s", spread.show(2)))
            .baseline(loop_text.clone())
            .difference(format!(
                "{:.2}, of the medians",
                spread.median() / Spread::new(loops.clone()).median()
            ))
            .goal(GOAL_TEXT, GOAL, spread.median())
            .samples("ours_s", taken)
            .samples("baseline_s", &loops)
    };
    let of = |from: f64, what: &str| {
        format!("Accepting connections → active, {what} {from:.0} s after its name")
    };
    vec![
        figure(of(3.0, "started"), &ours),
        figure(of(waited.as_secs_f64(), "started more than"), &after_long),
    ]
}

/// A cluster whose workers are known to nobody and do not run.
fn stopped(plan: citus_fleet_tests::cluster::Plan) -> Cluster {
    let cluster = plan.unannounced().set("track_commit_timestamp", "on").start();
    cluster.announce(&[]);
    thread::scope(|scope| {
        for worker in &cluster.workers {
            scope.spawn(|| worker.stop(Shutdown::Fast));
        }
    });
    cluster
}

/// What stands in start-up scripts: again and again, until it works.
fn try_every_second(cluster: &Cluster, worker: &Server) -> Child {
    let text = r#"until "$PSQL" -X -q -A -t -v ON_ERROR_STOP=1 -c "SELECT citus_add_node('$1', $2)"
        do sleep 1; done"#;
    let arguments = [worker.address.to_string(), worker.port.to_string()];
    shell::script(&cluster.coordinator, text, &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell can be started")
}

/// Starts a worker, and gives the seconds between its first word that it accepts connections and the
/// commit that made it active: two clocks of one machine, and no polling in between.
fn until_active(cluster: &Cluster, worker: &Server) -> f64 {
    const ACCEPTS: &str = "database system is ready to accept connections";
    let starts = || worker.log().matches(ACCEPTS).count();
    let before = starts();
    worker.begin_without_waiting();
    until("the worker accepts connections", DEADLINE, || {
        if starts() > before { Ok(()) } else { Err("not yet") }
    });
    let log = worker.log();
    let line = log.lines().rfind(|line| line.contains(ACCEPTS));
    // `%m` of log_line_prefix: date, time with milliseconds, time zone.
    let moment: Vec<&str> = line.expect("just found").split(' ').take(3).collect();
    let sql = format!(
        "SELECT extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(xmin) - '{}'::timestamptz)
         FROM pg_catalog.pg_dist_node WHERE nodename = '{}' AND isactive",
        moment.join(" "),
        worker.address
    );
    until("the worker is active", DEADLINE, || {
        let seconds = cluster.coordinator.try_value(&sql)?;
        seconds.parse::<f64>().map_err(|_| seconds)
    })
}
