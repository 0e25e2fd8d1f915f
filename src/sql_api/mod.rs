//! Owns the functions that SQL calls: they check who calls and where, and pass on.
//! Must not talk to the network or to Citus: a session asks the controller, which does.

mod doctor;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

use crate::error::Error;
use crate::observe::citus_nodes as catalogs;
use crate::worker::board;
use crate::worker::status::Report;
use pgrx::prelude::*;
use std::time::Duration;

/// How long a session waits for a pass. A pass takes a few deadlines of `citus_fleet.probe_timeout`
/// and of Citus's own; a controller that has been terminated is back after a second.
const PASS_DEADLINE: Duration = Duration::from_secs(120);

/// How long a session waits for a controller to be there at all.
const CONTROLLER_DEADLINE: Duration = Duration::from_secs(5);

#[pg_schema]
pub mod pg_catalog {
    use super::{Error, Report, autoregister};
    use pgrx::prelude::*;

    /// Runs one full pass now: asks every source, probes every server, and registers the workers
    /// that pass preflight; with `dry_run`, only says what it would do.
    ///
    /// The pass is the controller's own, in transactions of its own: nothing talks to the network
    /// while the caller's transaction is held up, one worker that fails does not take the others
    /// with it, and a ROLLBACK of the caller undoes nothing. It may be cancelled at any moment; the
    /// controller finishes what it has begun.
    ///
    /// Errors: 42501 unless superuser; 25006 on a standby; 55000 on a worker, without Citus, in
    /// another database than the controller's, or when the library is not preloaded.
    // pgrx reads the columns from the signature itself and knows no alias.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn citus_autoregister(
        dry_run: default!(bool, false),
    ) -> TableIterator<
        'static,
        (
            name!(nodename, String),
            name!(nodeport, i32),
            name!(nodeid, Option<i32>),
            name!(action, String),
            name!(outcome, String),
            name!(reason, Option<String>),
        ),
    > {
        let report: Report = autoregister(dry_run).unwrap_or_else(|error: Error| error.raise());
        TableIterator::new(report.rows.into_iter().map(|row| {
            let action = match serde_json::to_value(row.action) {
                Ok(serde_json::Value::String(word)) => word,
                _ => String::new(),
            };
            (
                row.nodename,
                row.nodeport,
                row.nodeid,
                action,
                row.outcome.as_str().to_owned(),
                row.reason,
            )
        }))
    }
}

#[pg_schema]
pub mod fleet {
    use super::{Error, doctor, set_paused, snapshot_json, status_json};
    use pgrx::JsonB;
    use pgrx::prelude::*;

    /// What the controller saw in its last cycle, as JSON; NULL while there is none. The views of
    /// this schema read it.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn snapshot() -> Option<JsonB> {
        snapshot_json().unwrap_or_else(|error: Error| error.raise()).map(JsonB)
    }

    /// The controller: role, paused, last cycle, its duration, errors, counts by state.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn status() -> JsonB {
        JsonB(status_json().unwrap_or_else(|error: Error| error.raise()))
    }

    /// The configuration of this node and of the cluster, check by check: `ok`, `warning` or `error`.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn doctor() -> TableIterator<
        'static,
        (
            name!(check, String),
            name!(status, String),
            name!(finding, String),
            name!(remedy, Option<String>),
        ),
    > {
        let findings = doctor::examine().unwrap_or_else(|error: Error| error.raise());
        TableIterator::new(findings.into_iter().map(|finding| {
            (finding.check.into(), finding.status.as_str().into(), finding.finding, finding.remedy)
        }))
    }

    /// Stops all changes of the cluster's metadata until `fleet.resume()`; observation goes on. Waits
    /// for a change that is under way. Survives a restart and a failover.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn pause() {
        set_paused("fleet.pause()", true).unwrap_or_else(|error: Error| error.raise());
    }

    /// Lets changes happen again.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn resume() {
        set_paused("fleet.resume()", false).unwrap_or_else(|error: Error| error.raise());
    }
}

fn require_superuser(function: &'static str) -> Result<(), Error> {
    // SAFETY: looks at the current role.
    if unsafe { pg_sys::superuser() } { Ok(()) } else { Err(Error::NotSuperuser(function)) }
}

fn require_primary(function: &'static str) -> Result<(), Error> {
    // SAFETY: looks at the server's state.
    if unsafe { pg_sys::RecoveryInProgress() } { Err(Error::InRecovery(function)) } else { Ok(()) }
}

fn autoregister(dry_run: bool) -> Result<Report, Error> {
    require_superuser("citus_autoregister()")?;
    require_primary("citus_autoregister()")?;
    match catalogs::own_group()? {
        None => return Err(Error::NoCitus),
        Some(0) => {}
        Some(group) => return Err(Error::NotCoordinator { group }),
    }
    require_controller()?;
    let _turn = Turn::take();
    let request = board::request(dry_run)?;
    board::wake_controller()?;
    let answer = board::await_answer(request, PASS_DEADLINE)?;
    let answer = answer.ok_or(Error::NoAnswer { seconds: PASS_DEADLINE.as_secs() })?;
    let report: Report = serde_json::from_str(&answer)?;
    match report.error {
        Some(error) => Err(Error::PassFailed(error)),
        None => Ok(report),
    }
}

/// The controller of this database, waited for as long as a restart takes.
fn require_controller() -> Result<(), Error> {
    let started = std::time::Instant::now();
    loop {
        if let Some(controller) = board::controller()? {
            // SAFETY: set when this session connected.
            if controller.database == unsafe { pg_sys::MyDatabaseId } {
                return Ok(());
            }
            let controlled = crate::settings::database().to_string_lossy().into_owned();
            return Err(Error::OtherDatabase { controlled });
        }
        if started.elapsed() > CONTROLLER_DEADLINE {
            return Err(Error::NoController);
        }
        crate::worker::signals::sleep(Duration::from_millis(50));
        // SAFETY: the latch of this session; a cancel is raised here.
        unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        pgrx::check_for_interrupts!();
    }
}

/// One session's turn to make a request: the board has room for one. Waiting for it obeys
/// `lock_timeout` and cancels, and an ERROR gives it back.
struct Turn(pg_sys::LOCKTAG);

impl Turn {
    fn take() -> Self {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: 0x666c_6565,
            locktag_field3: 0x7400_0000,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        // SAFETY: a lock of the transaction, in a class that PostgreSQL leaves to extensions.
        unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false) };
        Self(tag)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // SAFETY: the lock that `take` has acquired; an ERROR unwinds through here before the abort.
        unsafe { pg_sys::LockRelease(&self.0, pg_sys::ExclusiveLock as i32, false) };
    }
}

fn snapshot_json() -> Result<Option<serde_json::Value>, Error> {
    Ok(match board::snapshot()? {
        Some(json) => Some(serde_json::from_str(&json)?),
        None => None,
    })
}

fn status_json() -> Result<serde_json::Value, Error> {
    let controller = board::controller()?;
    // SAFETY: looks at the server's state.
    let in_recovery = unsafe { pg_sys::RecoveryInProgress() };
    let mut status = snapshot_json()?.map_or_else(
        || serde_json::json!({ "role": if in_recovery { "standby" } else { "none" }, "errors": [], "workers": {} }),
        |mut snapshot| snapshot["status"].take(),
    );
    // For people and for casts to timestamptz, as PostgreSQL writes it in JSON.
    if let Some(seconds) = status["last_cycle"].as_f64() {
        let text: Option<String> = catalogs::read_one(
            "SELECT pg_catalog.to_json(pg_catalog.to_timestamp($1)) OPERATOR(pg_catalog.#>>) '{}'",
            &[seconds.into()],
        )?;
        status["last_cycle"] = serde_json::json!(text);
    }
    status["controller_pid"] = serde_json::json!(controller.map(|controller| controller.pid));
    Ok(status)
}

fn set_paused(function: &'static str, paused: bool) -> Result<(), Error> {
    require_superuser(function)?;
    require_primary(function)?;
    Spi::run_with_args(
        "UPDATE fleet.control SET paused = $1, changed_at = pg_catalog.now(), changed_by = SESSION_USER
         WHERE paused OPERATOR(pg_catalog.<>) $1",
        &[paused.into()],
    )?;
    // The controller sees the new value only after the commit.
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, || {
        // A controller that is not woken looks by itself after an interval.
        let _ = board::wake_controller();
    });
    Ok(())
}
