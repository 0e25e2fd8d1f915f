//! Owns looking at controllers for a while: untouched, for CPU and WAL; then in a hurry and watched
//! closely, for memory and transactions, which show only over many cycles.

use crate::effort::Effort;
use crate::process::Usage;
use crate::spread::Spread;
use crate::{fleet, shell};
use citus_fleet_tests::Cluster;
use citus_fleet_tests::server::process::program;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// One value of the CPU share spans this: at the default interval, one cycle.
const SLICE: Duration = Duration::from_secs(5);

/// What was seen of a controller that was left alone.
pub struct Calm {
    /// Percent of one core, in slices.
    pub cpu: Vec<f64>,
    /// Bytes that its whole server wrote.
    pub wal: f64,
    /// KiB of memory of its own that it gained.
    pub gained: f64,
    /// The kinds of WAL records, each with its number.
    records: BTreeMap<String, usize>,
}

impl Calm {
    /// Keeps only the CPU shares from later than `early`; how much later that is.
    pub fn keep_after(&mut self, early: Duration) -> Duration {
        let slices = early.as_secs().div_ceil(SLICE.as_secs()) as usize;
        let forgotten = slices.min(self.cpu.len().saturating_sub(1));
        self.cpu.drain(..forgotten);
        SLICE * forgotten as u32
    }

    pub fn line(&self) -> String {
        let cpu = Spread::new(self.cpu.clone());
        let mut line = format!(
            "CPU {:.2} % ({:.1}–{:.1}), {:+} KiB, {} bytes of WAL",
            cpu.mean(),
            cpu.least(),
            cpu.most(),
            self.gained,
            self.wal
        );
        for (record, count) in &self.records {
            line += &format!(", {count} {record}");
        }
        line
    }
}

/// Watches several controllers at the same time, without touching them.
pub fn calm(clusters: &[&Cluster], span: Duration) -> Vec<Calm> {
    let pids: Vec<u32> = clusters.iter().map(|cluster| cluster.controller()).collect();
    let places = || -> Vec<String> { clusters.iter().map(|cluster| place(cluster)).collect() };
    let usages = || -> Vec<Usage> { pids.iter().map(|pid| Usage::of(*pid)).collect() };
    let from = places();
    let first = usages();
    let mut last = first.clone();
    let mut cpu = vec![Vec::new(); clusters.len()];
    for _ in 0..span.as_secs() / SLICE.as_secs() {
        thread::sleep(SLICE);
        let now = usages();
        for (shares, (now, last)) in cpu.iter_mut().zip(now.iter().zip(&last)) {
            shares.push(now.percent_since(last));
        }
        last = now;
    }
    let to = places();
    let wal = clusters.iter().zip(from.iter().zip(&to));
    wal.map(|(cluster, (from, to))| written(cluster, from, to))
        .zip(first.iter().zip(&last))
        .zip(cpu)
        .map(|(((wal, records), (first, last)), cpu)| Calm {
            cpu,
            wal,
            records,
            gained: last.anonymous as f64 - first.anonymous as f64,
        })
        .collect()
}

/// The end of the WAL, as far as it can be looked at.
fn place(cluster: &Cluster) -> String {
    thread::sleep(Duration::from_millis(300));
    cluster.coordinator.value("SELECT pg_catalog.pg_current_wal_flush_lsn()")
}

/// Bytes and kinds of the WAL records between two places. A snapshot for standbys, which the
/// background writer logs once after the last change of anybody, is nobody's doing in the window.
fn written(cluster: &Cluster, from: &str, to: &str) -> (f64, BTreeMap<String, usize>) {
    let (mut bytes, mut kinds) = (0.0, BTreeMap::new());
    if from == to {
        return (bytes, kinds);
    }
    let mut dump = program("pg_waldump");
    dump.arg("-p").arg(cluster.coordinator.data().join("pg_wal"));
    dump.args(["-s", from, "-e", to]);
    let (records, _) = shell::run(dump);
    for record in records.lines() {
        let total = record
            .split("tot): ")
            .nth(1)
            .and_then(|rest| rest.split(',').next()?.split('/').nth(1)?.trim().parse::<f64>().ok());
        if record.contains("RUNNING_XACTS") {
            continue;
        }
        bytes += total.unwrap_or(0.0);
        let words = record.split("desc: ").nth(1).unwrap_or(record);
        let kind = words.split([' ', ',']).next().unwrap_or_default();
        *kinds.entry(kind.to_string()).or_default() += 1;
    }
    (bytes, kinds)
}

/// What was seen of a controller that had far more to do than usual.
pub struct Hurried {
    /// KiB of memory of its own that it gained.
    pub gained: f64,
    /// Milliseconds that its longest transaction had lasted when it was seen.
    pub longest: f64,
    /// Milliseconds of CPU for one pass over everybody.
    pass: f64,
    resident: u64,
    cycles: u64,
}

impl Hurried {
    pub fn line(&self) -> String {
        format!(
            "passes of {:.0} ms of CPU, {} cycles in a hurry, {:+.0} KiB, {} MiB resident, longest transaction {:.1} ms",
            self.pass,
            self.cycles,
            self.gained,
            self.resident / 1024,
            self.longest
        )
    }
}

/// Some passes over everybody, so that it gets used to them; then cycles as fast as they come, and
/// the same passes again.
pub fn hurry(cluster: &Cluster, effort: Effort) -> Hurried {
    let rounds = effort.pick(4, 1);
    let coordinator = &cluster.coordinator;
    let pid = cluster.controller();
    let passes = || {
        let before = Usage::of(pid);
        for _ in 0..rounds {
            fleet::settle(cluster);
        }
        Usage::of(pid).millis_since(&before) / f64::from(rounds)
    };
    let cycles = || {
        let count = coordinator.value("SELECT fleet.status()->>'cycles'");
        count.parse::<u64>().expect("a count")
    };
    passes();
    coordinator.set("citus_fleet.interval", "100ms");
    thread::sleep(Duration::from_secs(2));
    let (cycles_before, before) = (cycles(), Usage::of(pid));
    let longest = longest_transaction(cluster, pid, effort.seconds(6, 3));
    let (cycles, pass) = (cycles() - cycles_before, passes());
    let after = Usage::of(pid);
    coordinator.reset("citus_fleet.interval");
    Hurried {
        gained: after.anonymous as f64 - before.anonymous as f64,
        longest,
        pass,
        resident: after.resident,
        cycles,
    }
}

/// Asks as often as it can how long the controller's transaction has lasted, if it is in one.
fn longest_transaction(cluster: &Cluster, pid: u32, span: Duration) -> f64 {
    let sql = format!(
        "SELECT coalesce(extract(epoch FROM clock_timestamp() - xact_start) * 1000, 0)
         FROM pg_catalog.pg_stat_get_activity({pid})"
    );
    let mut session = cluster.coordinator.session();
    let (began, mut longest) = (Instant::now(), 0.0_f64);
    while began.elapsed() < span {
        let millis: f64 = session.value(&sql).parse().expect("a number");
        longest = longest.max(millis);
        thread::sleep(Duration::from_micros(300));
    }
    longest
}
