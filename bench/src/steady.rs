//! Measures the controller with 1,000 candidates when nothing happens any more: its share of a core,
//! the WAL that is written meanwhile, its memory and its transactions, against one with no sources.

mod window;

use crate::crowd::{Crowd, addresses, free_port};
use crate::effort::{Effort, say};
use crate::fleet::{self, wait_for};
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use citus_fleet_tests::server::{Server, Spec};
use citus_fleet_tests::{Cluster, until};
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};
use window::{Window, look};

const CANDIDATES: usize = 1000;
const SETTLED: Duration = Duration::from_secs(120);

/// Blocks of loopback, one for each kind of candidate.
const DEAD: u8 = 65;
const SAME: u8 = 66;
const CROWD: u8 = 67;

pub fn measure(effort: Effort) -> Vec<Figure> {
    let span = effort.seconds(30, 10);
    // Patience with the dead grows for four minutes, so they begin to be dead first.
    let dead = quiet();
    dead.dns.addresses("dead", &addresses(DEAD, CANDIDATES));
    watch(&dead, &format!("dead:{}", free_port()));
    let since = Instant::now();
    let all = counts("unreachable");
    wait_for(&dead, "all are unreachable", SETTLED, STATES, &all);
    say("steady", &format!("{CANDIDATES} dead candidates are known"));
    let early = dead_for(&dead, since, effort.seconds(30, 10), span);

    let mut cases = Vec::new();
    let mut idle = Vec::new();
    let alive = quiet();
    idle.push(observe(&alive, "no sources", effort.seconds(15, 5)));
    cases.push(("one server behind 1,000 addresses", same_server(&alive, span)));
    // Nobody's changes: the crowd cannot be added by Citus.
    alive.coordinator.set("citus_fleet.enabled", "off");
    let crowd = Crowd::start(&alive.coordinator);
    let members = addresses(CROWD, CANDIDATES);
    alive.dns.addresses("crowd", &members);
    watch(&alive, &format!("crowd:{}", crowd.port));
    let ready = counts("ready");
    wait_for(&alive, "all are ready", SETTLED, STATES, &ready);
    cases.push(("1,000 workers, not registered", observe(&alive, "1,000 ready", span)));
    crowd.register(&alive.coordinator, &members);
    alive.coordinator.set("citus_fleet.enabled", "on");
    let active = counts("active");
    wait_for(&alive, "all are active", SETTLED, STATES, &active);
    cases.push(("1,000 workers, registered", observe(&alive, "1,000 active", span)));
    alive.coordinator.run("DELETE FROM pg_catalog.pg_dist_node WHERE groupid >= 1000");
    watch(&alive, "");
    idle.push(observe(&alive, "no sources", effort.seconds(15, 5)));
    drop(alive);

    let age = effort.seconds(240, 60);
    let late = dead_for(&dead, since, age, span);
    let dead_long = format!("1,000 dead addresses, after {} min", age.as_secs() / 60);
    cases.insert(0, (&dead_long, late));
    let early_cpu = Figure::new("CPU: 1,000 dead addresses, in their first minute")
        .ours(format!("{} % of a core", early.cpu.show(2)))
        .samples("percent", early.cpu.values());
    figures(&cases, &idle, early_cpu)
}

/// A coordinator whose Citus has nothing to say to the workers, since most of them are none, and
/// that writes no WAL by itself.
fn quiet() -> Cluster {
    let cluster = fleet::at_defaults(0)
        .set("citus_fleet.workers", "")
        .set("citus.distributed_deadlock_detection_factor", "-1")
        .set("citus.recover_2pc_interval", "-1")
        .set("checkpoint_timeout", "1d")
        .set("max_wal_size", "1GB")
        .start();
    until("the controller runs", SETTLED, || {
        cluster.coordinator.try_value("SELECT (fleet.status()->>'last_cycle')::float8 > 0")
    });
    cluster
}

fn watch(cluster: &Cluster, sources: &str) {
    cluster.coordinator.set("citus_fleet.workers", sources);
}

const STATES: &str = "SELECT fleet.status()->'workers'";

fn counts(state: &str) -> String {
    format!("{{\"{state}\": {CANDIDATES}}}")
}

fn dead_for(dead: &Cluster, since: Instant, age: Duration, span: Duration) -> Window {
    thread::sleep(age.saturating_sub(since.elapsed()));
    let what = format!("{CANDIDATES} dead for {} s", since.elapsed().as_secs());
    observe(dead, &what, span)
}

/// One real worker that listens everywhere: real logins, and one server to be known as one.
fn same_server(cluster: &Cluster, span: Duration) -> Window {
    let mut spec = Spec::new("everywhere", Ipv4Addr::UNSPECIFIED)
        .citus()
        .preload("citus_fleet")
        .set("max_connections", "1100");
    spec.port = free_port();
    let worker = Server::start(spec);
    cluster.dns.addresses("same", &addresses(SAME, CANDIDATES));
    watch(cluster, &format!("same:{}", worker.port));
    wait_for(cluster, "it is active once", SETTLED, STATES, "{\"active\": 1}");
    // All thousand log in at once; those that were turned away try again soon.
    let errors = || cluster.coordinator.value("SELECT fleet.status()->>'probe_errors'");
    let mut before = errors();
    until("no login fails any more", SETTLED, || {
        thread::sleep(Duration::from_secs(6));
        let now = errors();
        if now == std::mem::replace(&mut before, now.clone()) { Ok(()) } else { Err(now) }
    });
    let window = observe(cluster, "1,000 addresses of one server", span);
    watch(cluster, "");
    cluster.coordinator.run(
        "SELECT pg_catalog.citus_remove_node(nodename, nodeport)
         FROM pg_catalog.pg_dist_node WHERE groupid <> 0",
    );
    window
}

fn observe(cluster: &Cluster, what: &str, span: Duration) -> Window {
    let window = look(cluster, span);
    say("steady", &format!("{what}: {}", window.line()));
    window
}

fn figures(cases: &[(&str, Window)], idle: &[Window], early_cpu: Figure) -> Vec<Figure> {
    let idle_cpu = Spread::new(idle.iter().flat_map(|window| window.cpu.values().to_vec()));
    let mut figures: Vec<Figure> = cases
        .iter()
        .map(|(what, window)| {
            Figure::new(&format!("CPU: {what}"))
                .ours(format!("{} % of a core", window.cpu.show(2)))
                .baseline(format!("{} %: no sources", idle_cpu.show(2)))
                .difference(format!("+{:.2} points", window.mean_cpu - idle_cpu.median()))
                .goal("< 1 %", Goal::AtMost(1.0), window.mean_cpu)
                .samples("percent", window.cpu.values())
                .samples("baseline_percent", idle_cpu.values())
        })
        .collect();
    figures.insert(1, early_cpu);

    let of = |part: fn(&Window) -> f64, windows: &mut dyn Iterator<Item = &Window>| -> Vec<f64> {
        windows.map(part).collect()
    };
    let mut worst =
        |what: &str, unit: &str, digits: usize, goal: (&str, f64), part: fn(&Window) -> f64| {
            let ours = of(part, &mut cases.iter().map(|(_, window)| window));
            let baseline = of(part, &mut idle.iter());
            let most = Spread::new(ours.clone()).most();
            figures.push(
                Figure::new(what)
                    .ours(format!("{most:.digits$} {unit}, the worst of {}", ours.len()))
                    .baseline(format!(
                        "{:.digits$} {unit}: no sources",
                        Spread::new(baseline.clone()).most()
                    ))
                    .goal(goal.0, Goal::AtMost(goal.1), most)
                    .samples("each", &ours)
                    .samples("baseline", &baseline),
            );
        };
    worst("WAL written in the window", "bytes", 0, ("none", 0.0), |w| w.wal);
    worst("Memory grown in 100 cycles", "KiB", 0, ("flat: ≤ 64 KiB", 64.0), |w| w.growth);
    worst("Longest transaction seen", "ms", 1, ("< 50 ms", 50.0), |w| w.longest);
    figures
}
