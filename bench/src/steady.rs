//! Measures controllers with 1,000 candidates when nothing happens any more: their share of a core,
//! the WAL written meanwhile, their memory and their transactions, against one with no sources. All
//! of them are watched at the same time, for as long as it takes until everybody has been probed.

mod window;

use crate::crowd::{Crowd, addresses, free_port};
use crate::effort::{Effort, say};
use crate::fleet::{self, wait_for};
use crate::process::Usage;
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use citus_fleet_tests::cluster::WORKER;
use citus_fleet_tests::server::{Server, Spec};
use citus_fleet_tests::{Cluster, until};
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};
use window::{Calm, Hurried, calm, hurry};

const CANDIDATES: usize = 1000;
const SETTLED: Duration = Duration::from_secs(120);

/// Seconds in which every healthy one of a thousand workers is probed: four a second, begun early by
/// a fifth of the time.
const ROUND: u64 = 210;

/// How old the dead are when they begin to count: the patience with them has nearly stopped growing
/// (four minutes would end that), and a minute is left, in which their names too are asked for.
const PATIENT: Duration = Duration::from_secs(180);

/// Blocks of loopback, one for each kind of candidate.
const DEAD: u8 = 65;
const SAME: u8 = 66;
const CROWD: u8 = 67;

struct Case {
    what: &'static str,
    cluster: Cluster,
    /// Whoever answers at the addresses.
    _answering: Option<Box<dyn Send>>,
}

pub fn measure(effort: Effort) -> Vec<Figure> {
    let began = Instant::now();
    let (dead, newborn) = dead();
    let cases = [dead, same_server(), ready(), active(), idle()];
    let young = Usage::of(cases[0].cluster.controller()).percent_since(&newborn);
    let young_age = began.elapsed();

    let span = effort.seconds(ROUND, 10);
    say("steady", &format!("all have settled; watched for {} s", span.as_secs()));
    let watching = Instant::now();
    let clusters: Vec<&Cluster> = cases.iter().map(|case| &case.cluster).collect();
    let mut calms = calm(&clusters, span);
    // What the dead cost is settled later than the rest.
    let early = PATIENT.saturating_sub(watching.duration_since(began));
    let dead_age = calms[0].keep_after(early) + watching.duration_since(began);
    let seen: Vec<Seen> = cases
        .iter()
        .zip(calms)
        .map(|(case, calm)| {
            say("steady", &format!("{}: {}", case.what, calm.line()));
            let hurried = hurry(&case.cluster, effort);
            say("steady", &format!("{}: {}", case.what, hurried.line()));
            Seen { what: case.what, calm, hurried }
        })
        .collect();
    let [seen @ .., idle] = &seen[..] else { unreachable!("the last one is idle") };

    let mut figures: Vec<Figure> = seen.iter().map(|seen| cpu(seen, idle)).collect();
    figures[0] = cpu_of_the_dead(&seen[0], idle, dead_age);
    figures.insert(
        1,
        Figure::new(&format!("CPU: {}, their first {} s", seen[0].what, young_age.as_secs()))
            .ours(format!("{young:.2} % of a core"))
            .samples("percent", &[young]),
    );
    let seconds = span.as_secs();
    let no_more = ("no more", idle.calm.wal);
    figures
        .push(worst(&format!("WAL in {seconds} s"), "bytes", seen, idle, no_more, |s| s.calm.wal));
    let (what, flat) = ("Memory gained by 4 passes and a hurry", ("flat: ≤ 1 MiB", 1024.0));
    figures.push(worst(what, "KiB", seen, idle, flat, |s| s.hurried.gained));
    let (what, short) = ("Longest transaction seen", ("< 50 ms", 50.0));
    figures.push(worst(what, "ms", seen, idle, short, |s| s.hurried.longest));
    figures
}

struct Seen {
    what: &'static str,
    calm: Calm,
    hurried: Hurried,
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
    until("the controller has looked around", SETTLED, || {
        cluster.coordinator.try_value("SELECT (fleet.status()->>'cycles')::int FROM pg_sleep(0.1)")
    });
    // Whoever reads a page with dead rows may prune it, and that is WAL.
    cluster.coordinator.run("VACUUM (FREEZE)");
    cluster
}

fn name_all(cluster: &Cluster, block: u8, port: u16) {
    cluster.dns.addresses(WORKER, &addresses(block, CANDIDATES));
    let source = format!("{WORKER}:{port}");
    cluster.coordinator.set("citus_fleet.workers", &source);
}

const STATES: &str = "SELECT fleet.status()->'workers'";

fn wait_for_all(cluster: &Cluster, state: &str) {
    let counts = format!("{{\"{state}\": {CANDIDATES}}}");
    wait_for(cluster, &format!("all are {state}"), SETTLED, STATES, &counts);
    say("steady", &format!("{CANDIDATES} are {state}"));
}

fn idle() -> Case {
    Case { what: "no sources", cluster: quiet(), _answering: None }
}

/// And the use of its controller before it learnt of them.
fn dead() -> (Case, Usage) {
    let cluster = quiet();
    let newborn = Usage::of(cluster.controller());
    name_all(&cluster, DEAD, free_port());
    wait_for_all(&cluster, "unreachable");
    (Case { what: "1,000 dead addresses", cluster, _answering: None }, newborn)
}

/// One real worker that listens everywhere: real logins, and one server to be known as one.
fn same_server() -> Case {
    let cluster = quiet();
    let mut spec = Spec::new("everywhere", Ipv4Addr::UNSPECIFIED)
        .citus()
        .preload("citus_fleet")
        .set("max_connections", "1100");
    spec.port = free_port();
    let worker = Server::start(spec);
    name_all(&cluster, SAME, worker.port);
    wait_for(&cluster, "it is active once", SETTLED, STATES, "{\"active\": 1}");
    // All thousand log in at once; those that were turned away try again soon.
    let errors = || cluster.coordinator.value("SELECT fleet.status()->>'probe_errors'");
    let mut before = errors();
    until("no login fails any more", SETTLED, || {
        thread::sleep(Duration::from_secs(6));
        let now = errors();
        if now == std::mem::replace(&mut before, now.clone()) { Ok(()) } else { Err(now) }
    });
    say("steady", &format!("one server is active at {CANDIDATES} addresses"));
    Case { what: "one server at 1,000 addresses", cluster, _answering: Some(Box::new(worker)) }
}

/// Workers that could be registered, and are not, since changes are withheld.
fn ready() -> Case {
    let cluster = quiet();
    cluster.coordinator.set("citus_fleet.enabled", "off");
    let crowd = Crowd::like(cluster.worker_spec("model").preload("citus_fleet"));
    name_all(&cluster, CROWD, crowd.port);
    wait_for_all(&cluster, "ready");
    Case { what: "1,000 workers, not registered", cluster, _answering: Some(Box::new(crowd)) }
}

fn active() -> Case {
    let cluster = quiet();
    let crowd = Crowd::like(cluster.worker_spec("model").preload("citus_fleet"));
    // Before DNS names them: Citus itself could not add them.
    crowd.register(&cluster.coordinator, &addresses(CROWD, CANDIDATES));
    name_all(&cluster, CROWD, crowd.port);
    wait_for_all(&cluster, "active");
    Case { what: "1,000 workers, registered", cluster, _answering: Some(Box::new(crowd)) }
}

fn cpu(seen: &Seen, idle: &Seen) -> Figure {
    let (ours, baseline) = (Spread::new(seen.calm.cpu.clone()), Spread::new(idle.calm.cpu.clone()));
    Figure::new(&format!("CPU: {}", seen.what))
        .ours(format!("{:.2} % of a core ({:.1}–{:.1})", ours.mean(), ours.least(), ours.most()))
        .baseline(format!(
            "{:.2} % ({:.1}–{:.1}): no sources",
            baseline.mean(),
            baseline.least(),
            baseline.most()
        ))
        .difference(format!("{:+.2} points", ours.mean() - baseline.mean()))
        .goal("< 1 %", Goal::AtMost(1.0), ours.mean())
        .samples("percent", &seen.calm.cpu)
        .samples("baseline_percent", &idle.calm.cpu)
}

fn cpu_of_the_dead(seen: &Seen, idle: &Seen, age: Duration) -> Figure {
    cpu(seen, idle).rename(&format!("CPU: {}, after {} s", seen.what, age.as_secs()))
}

/// One figure for all cases: what holds for the worst of them holds for all.
fn worst(
    what: &str,
    unit: &str,
    seen: &[Seen],
    idle: &Seen,
    goal: (&str, f64),
    part: fn(&Seen) -> f64,
) -> Figure {
    let ours: Vec<f64> = seen.iter().map(part).collect();
    let most = Spread::new(ours.clone()).most();
    let baseline = part(idle);
    Figure::new(&format!("{what}, the worst of {}", ours.len()))
        .ours(format!("{} {unit}", (most * 10.0).round() / 10.0))
        .baseline(format!("{} {unit}: no sources", (baseline * 10.0).round() / 10.0))
        .goal(goal.0, Goal::AtMost(goal.1), most)
        .samples("each", &ours)
        .samples("baseline", &[baseline])
}
