//! Owns when a sampler is started: at `citus_fleet.recall_interval`, and never while one runs.
//! Must not wait for it.

use crate::backend::transaction::transaction;
use crate::error::Error;
use crate::recall_results;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::{log, pg_sys};
use std::time::{Duration, Instant};

/// What the sampler is called in `pg_stat_activity` and in the log.
pub const NAME: &str = "citus_fleet recall";

/// How long after a start that failed the next one is tried.
const RETRY: Duration = Duration::from_secs(60);

/// What the controller knows of the samplers that it has started.
#[derive(Default)]
pub struct Sampler {
    worker: Option<DynamicBackgroundWorker>,
    /// Not before then; unknown at first.
    due: Option<Instant>,
    /// The interval by which it is due.
    interval: Duration,
}

impl Sampler {
    /// Starts a sampler where one is due; an interval of zero means never.
    pub fn attend(&mut self, interval: Duration) -> Result<(), Error> {
        if interval.is_zero() {
            self.due = None;
            return Ok(());
        }
        if self.is_running() {
            return Ok(());
        }
        let now = Instant::now();
        if self.due.is_none() || self.interval != interval {
            // The last results tell of a run before this controller, or by another interval.
            let age = transaction(recall_results::age)?;
            self.due = Some(now + age.map_or(Duration::ZERO, |age| interval.saturating_sub(age)));
            self.interval = interval;
        }
        if self.due.is_some_and(|due| due <= now) {
            self.worker = start();
            let next = if self.worker.is_some() { interval } else { RETRY };
            self.due = Some(now + next);
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        let status = self.worker.as_ref().map(DynamicBackgroundWorker::pid);
        matches!(status, Some(Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted)))
    }
}

fn start() -> Option<DynamicBackgroundWorker> {
    // SAFETY: this process's id.
    let own = unsafe { pg_sys::MyProcPid };
    let started = BackgroundWorkerBuilder::new(NAME)
        .set_type(NAME)
        .set_library("citus_fleet")
        .set_function("citus_fleet_sampler")
        .enable_spi_access()
        .set_restart_time(None)
        // Otherwise its end cannot be seen.
        .set_notify_pid(own)
        .load_dynamic();
    if started.is_err() {
        log!(
            "citus_fleet: no process could be started to measure recall: see max_worker_processes"
        );
    }
    started.ok()
}
