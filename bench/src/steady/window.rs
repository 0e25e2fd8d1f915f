//! Owns looking at one controller for a while: first untouched, for CPU and WAL; then in a hurry and
//! watched closely, for memory and transactions, which show only over many cycles.

use crate::process::Usage;
use crate::shell;
use crate::spread::Spread;
use citus_fleet_tests::Cluster;
use citus_fleet_tests::server::process::program;
use std::thread;
use std::time::{Duration, Instant};

/// One value of the CPU share spans this: at the default interval, one cycle.
const SLICE: Duration = Duration::from_secs(5);

/// How long the controller is made to hurry, after it has got used to it.
const HURRY: Duration = Duration::from_secs(8);

pub struct Window {
    /// Percent of one core, in slices and over all.
    pub cpu: Spread,
    pub mean_cpu: f64,
    /// Bytes that the whole server wrote.
    pub wal: f64,
    /// KiB of memory of its own that the controller gained in a hundred cycles.
    pub growth: f64,
    /// Milliseconds that its longest transaction had lasted when it was seen.
    pub longest: f64,
    resident: u64,
    cycles: u64,
}

impl Window {
    pub fn line(&self) -> String {
        format!(
            "CPU {} %, {} bytes of WAL; {} cycles in a hurry: {:+.0} KiB in 100 of them, {} MiB resident, longest transaction {:.1} ms",
            self.cpu.show(2),
            self.wal,
            self.cycles,
            self.growth,
            self.resident / 1024,
            self.longest
        )
    }
}

pub fn look(cluster: &Cluster, span: Duration) -> Window {
    let coordinator = &cluster.coordinator;
    let pid = cluster.controller();
    // What is not flushed cannot be looked at.
    let place = || {
        thread::sleep(Duration::from_millis(500));
        coordinator.value("SELECT pg_catalog.pg_current_wal_flush_lsn()")
    };

    let (from, first) = (place(), Usage::of(pid));
    let (mut last, mut cpu) = (first, Vec::new());
    while cpu.len() < (span.as_secs() / SLICE.as_secs()) as usize {
        thread::sleep(SLICE);
        let now = Usage::of(pid);
        cpu.push(now.percent_since(&last));
        last = now;
    }
    let wal = written(cluster, &from, &place());

    coordinator.set("citus_fleet.interval", "100ms");
    thread::sleep(Duration::from_secs(3));
    let cycles = || {
        let count = coordinator.value("SELECT fleet.status()->>'cycles'");
        count.parse::<u64>().expect("a count")
    };
    let (cycles_before, hurried) = (cycles(), Usage::of(pid));
    let longest = longest_transaction(cluster, pid);
    let (cycles, after) = (cycles() - cycles_before, Usage::of(pid));
    coordinator.reset("citus_fleet.interval");
    let grown = after.anonymous as f64 - hurried.anonymous as f64;
    Window {
        mean_cpu: last.percent_since(&first),
        cpu: Spread::new(cpu),
        wal,
        growth: 100.0 * grown / cycles.max(1) as f64,
        longest,
        resident: after.resident,
        cycles,
    }
}

/// Bytes of the WAL records between two places. A snapshot for standbys, which the background writer
/// logs once after the last change of anybody, is nobody's doing in the window and does not count.
fn written(cluster: &Cluster, from: &str, to: &str) -> f64 {
    if from == to {
        return 0.0;
    }
    let mut dump = program("pg_waldump");
    dump.arg("-p").arg(cluster.coordinator.data().join("pg_wal"));
    dump.args(["-s", from, "-e", to]);
    let (records, _) = shell::run(dump);
    let lengths = records
        .lines()
        .filter(|record| !record.contains("RUNNING_XACTS"))
        .filter_map(|record| record.split("tot): ").nth(1)?.split(',').next()?.split('/').nth(1));
    lengths.filter_map(|total| total.trim().parse::<f64>().ok()).sum()
}

/// Asks as often as it can how long the controller's transaction has lasted, if it is in one.
fn longest_transaction(cluster: &Cluster, pid: u32) -> f64 {
    let sql = format!(
        "SELECT coalesce(extract(epoch FROM clock_timestamp() - xact_start) * 1000, 0)
         FROM pg_catalog.pg_stat_get_activity({pid})"
    );
    let mut session = cluster.coordinator.session();
    let (began, mut longest) = (Instant::now(), 0.0_f64);
    while began.elapsed() < HURRY {
        let millis: f64 = session.value(&sql).parse().expect("a number");
        longest = longest.max(millis);
        thread::sleep(Duration::from_micros(300));
    }
    longest
}
