//! Owns what the kernel says of one process: the time it has used and the memory it holds.
//! Must not know what the process is.

use std::fs;
use std::time::{Duration, Instant};

/// The use of one process at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    at: Instant,
    cpu: Duration,
    /// Memory of its own, in KiB: what a leak would add to.
    pub anonymous: u64,
    /// All its resident memory, in KiB, shared memory that it has touched included.
    pub resident: u64,
}

impl Usage {
    #[track_caller]
    pub fn of(pid: u32) -> Usage {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .unwrap_or_else(|error| panic!("process {pid}: {error}"))
        };
        let at = Instant::now();
        let stat = read("stat");
        // utime and stime are the 14th and 15th field; the name, the 2nd, may hold spaces.
        let ticks: u64 = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        // SAFETY: sysconf has no preconditions.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
        let status = read("status");
        let kib = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"))
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0)
        };
        Usage {
            at,
            cpu: Duration::from_secs_f64(ticks as f64 / per_second),
            anonymous: kib("RssAnon:"),
            resident: kib("VmRSS:"),
        }
    }

    /// The share of one core used since an earlier moment, in percent.
    pub fn percent_since(&self, earlier: &Usage) -> f64 {
        let used = self.cpu.saturating_sub(earlier.cpu);
        100.0 * used.as_secs_f64() / self.at.duration_since(earlier.at).as_secs_f64()
    }

    /// The time on a processor since an earlier moment, in milliseconds.
    pub fn millis_since(&self, earlier: &Usage) -> f64 {
        self.cpu.saturating_sub(earlier.cpu).as_secs_f64() * 1e3
    }
}
