//! Owns how a session asks the controller: who may, where, and waiting for the answer.
//! Must not change the cluster by itself: the controller does.

use crate::backend::{catalog, locks, signals};
use crate::board::{self, report::Report};
use crate::error::Error;
use crate::settings;
use pgrx::prelude::*;
use std::time::Duration;

/// How long a session waits for a pass. A pass takes a few deadlines of `citus_fleet.probe_timeout`
/// and of Citus's own; a controller that has been terminated is back after a second.
const PASS_DEADLINE: Duration = Duration::from_secs(120);

/// How long a session waits for a controller to be there at all.
const CONTROLLER_DEADLINE: Duration = Duration::from_secs(5);

pub fn require_superuser(function: &'static str) -> Result<(), Error> {
    // SAFETY: looks at the current role.
    if unsafe { pg_sys::superuser() } { Ok(()) } else { Err(Error::NotSuperuser(function)) }
}

pub fn require_primary(function: &'static str) -> Result<(), Error> {
    // SAFETY: looks at the server's state.
    if unsafe { pg_sys::RecoveryInProgress() } { Err(Error::InRecovery(function)) } else { Ok(()) }
}

/// The primary of the coordinator, with Citus in this database.
pub fn require_coordinator(function: &'static str) -> Result<(), Error> {
    require_primary(function)?;
    match catalog::own_group()? {
        None => Err(Error::NoCitus),
        Some(0) => Ok(()),
        Some(group) => Err(Error::NotCoordinator { group }),
    }
}

pub fn autoregister(dry_run: bool) -> Result<Report, Error> {
    require_superuser("citus_autoregister()")?;
    require_coordinator("citus_autoregister()")?;
    require_controller()?;
    let _turn = locks::Turn::take();
    let request = board::request(dry_run)?;
    board::wake_controller()?;
    let answer = loop {
        match board::await_answer(request, PASS_DEADLINE)? {
            Some(answer) => break answer,
            // It has said that it takes long, and what.
            None if is_syncing()? => {}
            None => return Err(Error::NoAnswer { seconds: PASS_DEADLINE.as_secs() }),
        }
    };
    let report: Report = serde_json::from_str(&answer)?;
    match report.error {
        Some(error) => Err(Error::PassFailed(error)),
        None => Ok(report),
    }
}

/// Whether the controller is sending a node the metadata of many tables.
fn is_syncing() -> Result<bool, Error> {
    let snapshot = snapshot_json()?.unwrap_or_default();
    let workers = snapshot["workers"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(workers.iter().any(|worker| worker["code"] == "syncing"))
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
            let controlled = settings::database().to_string_lossy().into_owned();
            return Err(Error::OtherDatabase { controlled });
        }
        if started.elapsed() > CONTROLLER_DEADLINE {
            return Err(Error::NoController);
        }
        signals::sleep(Duration::from_millis(50));
        // SAFETY: the latch of this session; a cancel is raised here.
        unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        pgrx::check_for_interrupts!();
    }
}

/// That this server, and nobody else, runs at the coordinator's address, as the controller saw in its last cycle.
pub fn require_undisputed() -> Result<(), Error> {
    let snapshot = snapshot_json()?.unwrap_or_default();
    let status = &snapshot["status"];
    match status["unproved"].as_bool() {
        Some(true) => {
            let reason = status["coordinator_host"]["reason"].as_str().unwrap_or_default();
            Err(Error::Disputed(reason.to_owned()))
        }
        _ => Ok(()),
    }
}

pub fn snapshot_json() -> Result<Option<serde_json::Value>, Error> {
    Ok(match board::snapshot()? {
        Some(json) => Some(serde_json::from_str(&json)?),
        None => None,
    })
}

/// The same with how far a change has come that the controller is at: it can say nothing itself meanwhile.
pub fn snapshot_of_now() -> Result<Option<serde_json::Value>, Error> {
    let mut snapshot = snapshot_json()?;
    let workers = snapshot.as_mut().and_then(|it| it["workers"].as_array_mut());
    for worker in workers.into_iter().flatten().filter(|worker| worker["code"] == "syncing") {
        let reason = worker["reason"].as_str().unwrap_or_default();
        worker["reason"] = serde_json::json!(format!("{reason}; {} of them are done", sent()?));
    }
    Ok(snapshot)
}

/// How many tables Citus has sent the definition of: of each it keeps the lock until the commit.
fn sent() -> Result<i64, Error> {
    let controller = board::controller()?.map(|controller| controller.pid);
    let count = catalog::read_one(
        "SELECT pg_catalog.count(DISTINCT l.relation) FROM pg_catalog.pg_locks l
         JOIN pg_catalog.pg_dist_partition p
           ON p.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) l.relation
         WHERE l.pid OPERATOR(pg_catalog.=) $1",
        &[controller.into()],
    )?;
    Ok(count.unwrap_or_default())
}

pub fn status_json() -> Result<serde_json::Value, Error> {
    let controller = board::controller()?;
    // SAFETY: looks at the server's state.
    let in_recovery = unsafe { pg_sys::RecoveryInProgress() };
    let mut status = snapshot_json()?.map_or_else(
        || serde_json::json!({ "role": if in_recovery { "standby" } else { "none" }, "errors": [], "workers": {} }),
        |mut snapshot| snapshot["status"].take(),
    );
    // For people and for casts to timestamptz, as PostgreSQL writes it in JSON.
    if let Some(seconds) = status["last_cycle"].as_f64() {
        let text: Option<String> = catalog::read_one(
            "SELECT pg_catalog.to_json(pg_catalog.to_timestamp($1)) OPERATOR(pg_catalog.#>>) '{}'",
            &[seconds.into()],
        )?;
        status["last_cycle"] = serde_json::json!(text);
    }
    status["controller_pid"] = serde_json::json!(controller.map(|controller| controller.pid));
    Ok(status)
}

pub fn set_paused(function: &'static str, paused: bool) -> Result<(), Error> {
    require_superuser(function)?;
    require_primary(function)?;
    Spi::run_with_args(
        "UPDATE fleet.control SET paused = $1, changed_at = pg_catalog.now(), changed_by = SESSION_USER
         WHERE paused OPERATOR(pg_catalog.<>) $1",
        &[paused.into()],
    )?;
    wake_controller_after_commit();
    Ok(())
}

/// The controller sees what a transaction has written only after its commit.
pub fn wake_controller_after_commit() {
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, || {
        // A controller that is not woken looks by itself after an interval.
        let _ = board::wake_controller();
    });
}
