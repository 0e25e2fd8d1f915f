//! Owns the life of the controller: connecting, waiting for what does not exist yet, one cycle after
//! another, and going on after an error.
//! Must not end on an ERROR: only a signal or a dead postmaster ends it.

use super::memory::Memory;
use super::snapshot::{Role, Snapshot};
use super::{cycle, events};
use crate::backend::catalog;
use crate::backend::transaction::transaction;
use crate::backend::{connection, signals};
use crate::board::report::Report;
use crate::board::{self, Request};
use crate::error::Error;
use crate::observe::network::Network;
use crate::sampler::start::Sampler;
use crate::settings;
use pgrx::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

/// How often a controller with nothing to do looks whether that has changed.
const IDLE: Duration = Duration::from_secs(1);

/// The background worker's entry point. It ends only by a signal, and then exits non-zero: the
/// postmaster does not restart a worker that exits with 0.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn citus_fleet_controller(_argument: pg_sys::Datum) {
    signals::install();
    if let Err(error) = connect().and_then(|()| serve()) {
        error.raise();
    }
}

/// Connects to the database. One that does not exist ends the process with FATAL, which is said in
/// the log once: the next process waits without a database until there is one.
fn connect() -> Result<(), Error> {
    let database = settings::database();
    if board::is_database_missing()? {
        connection::connect_as_controller(None);
        while !exists(&database)? {
            signals::sleep(IDLE);
            signals::attend();
        }
        board::set_database_missing(false)?;
        // A process connects once: the next one, a second later, connects to the database.
        // SAFETY: ends this process in good order.
        unsafe { pg_sys::proc_exit(1) };
    }
    board::set_database_missing(true)?;
    connection::connect_as_controller(Some(&database));
    board::set_database_missing(false)?;
    board::take_over()
}

fn exists(database: &std::ffi::CStr) -> Result<bool, Error> {
    transaction(|| {
        // SAFETY: a catalog lookup in a transaction, by a NUL-terminated name.
        let oid = unsafe { pg_sys::get_database_oid(database.as_ptr(), true) };
        Ok(oid != pg_sys::InvalidOid)
    })
}

fn serve() -> Result<(), Error> {
    let mut network = Network::new()?;
    let mut memory: Option<Memory> = None;
    let mut sampler = Sampler::default();
    let mut last_error = String::new();
    loop {
        signals::attend();
        let wait = match step(&mut network, &mut memory, &mut sampler) {
            Ok(wait) => {
                last_error.clear();
                wait
            }
            Err(error) => {
                let error = error.to_string();
                if error != last_error {
                    log!("citus_fleet: a cycle failed and is repeated: {error}");
                    publish_failure(&error)?;
                }
                if let Some(request) = board::pending_request()? {
                    answer_failed(request, &error)?;
                }
                last_error = error;
                IDLE
            }
        };
        network.wait(wait, |answer| memory.as_ref().is_none_or(|memory| memory.is_news(answer)));
    }
}

/// Does whatever this server is for, once, and says how long to wait.
fn step(
    network: &mut Network,
    memory: &mut Option<Memory>,
    sampler: &mut Sampler,
) -> Result<Duration, Error> {
    let request = board::pending_request()?;
    let role = transaction(role)?;
    if role != Role::Coordinator {
        *memory = None;
        return idle(role, request).map(|()| IDLE);
    }
    let memory = match memory {
        Some(memory) => memory,
        None => memory.insert(Memory::new(transaction(events::last_standings)?)),
    };
    let wait = cycle::run(network, memory, request)?.unwrap_or_default();
    sampler.attend(settings::recall_interval())?;
    Ok(wait)
}

fn role() -> Result<Role, Error> {
    if !catalog::is_installed(c"citus_fleet") {
        return Ok(Role::Waiting);
    }
    Ok(match catalog::own_group()? {
        None | Some(0) => Role::Coordinator,
        Some(_) => Role::Worker,
    })
}

fn idle(role: Role, request: Option<Request>) -> Result<(), Error> {
    let why = match role {
        Role::Waiting => {
            "the extension citus_fleet does not exist for the controller yet: commit CREATE EXTENSION first"
        }
        _ => "this node is not the coordinator",
    };
    let snapshot = Snapshot::idle(role, transaction(|| Ok(catalog::current_database()))?);
    board::publish(&serde_json::to_string(&snapshot)?)?;
    request.map_or(Ok(()), |request| answer_failed(request, why))
}

/// Adds to what was seen last that nothing is seen any more, and why.
fn publish_failure(error: &str) -> Result<(), Error> {
    let last = board::snapshot()?.and_then(|text| serde_json::from_str(&text).ok());
    let mut snapshot: Value = match last {
        Some(last) => last,
        None => serde_json::to_value(Snapshot::idle(Role::Coordinator, String::new()))?,
    };
    snapshot["status"]["errors"] = json!([format!("the last cycle failed: {error}")]);
    board::publish(&snapshot.to_string())
}

/// Tells the session that waits for a pass why there was none.
fn answer_failed(request: Request, why: &str) -> Result<(), Error> {
    board::answer(request, &serde_json::to_string(&Report::failed(why))?)
}
