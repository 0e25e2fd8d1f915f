//! Owns the life of the background worker that serves HTTP: connecting as `pg_monitor`, listening,
//! and collecting whatever requests ask for.
//! Must not be a superuser at any moment, nor touch the controller.

use super::documents;
use super::server::accept;
use super::shelf::Shelf;
use crate::backend::{connection, signals};
use crate::board;
use crate::error::Error;
use crate::settings;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const NAME: &str = "citus_fleet http";

/// How often something that is missing is looked for again: the controller, or the port.
const RETRY: Duration = Duration::from_secs(1);

/// How long a signal may go unnoticed.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// Registers the worker where there is an address to listen at.
pub fn register() {
    if settings::http_listen().is_none() {
        return;
    }
    if cfg!(feature = "pg16") {
        log!("citus_fleet.http_listen needs PostgreSQL 17: nothing is served");
        return;
    }
    BackgroundWorkerBuilder::new(NAME)
        .set_type(NAME)
        .set_library("citus_fleet")
        .set_function("citus_fleet_http")
        // This also sets the start time, so it comes first.
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(5)))
        .load();
}

/// The background worker's entry point. It ends only by a signal or an error, and is started again.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn citus_fleet_http(_argument: pg_sys::Datum) {
    signals::install();
    if let Err(error) = serve() {
        error.raise();
    }
}

fn serve() -> Result<(), Error> {
    let Some(address) = settings::http_listen() else {
        return Ok(());
    };
    // Where the controller runs, the database exists.
    while board::controller()?.is_none() {
        signals::sleep(RETRY);
        signals::attend();
    }
    // It may see everything that is served and change nothing.
    connection::connect(Some(&settings::database()), Some(c"pg_monitor"));
    let failed = |error: std::io::Error| Error::Internal(error.to_string());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let listener = listen(&runtime, address);
    log!("citus_fleet: http://{address}/ is open");
    let shelf = Rc::new(Shelf::default());
    let tasks = tokio::task::LocalSet::new();
    tasks.spawn_local(accept(listener, Rc::clone(&shelf)));
    loop {
        signals::attend();
        let turn = async {
            let stopped = async {
                while !signals::interrupted() {
                    tokio::time::sleep(HEARTBEAT).await;
                }
            };
            tokio::select! {
                () = stopped => {}
                () = shelf.wanted() => {}
            }
        };
        tasks.block_on(&runtime, turn);
        if shelf.is_wanted() {
            shelf.renew(documents::collect());
        }
    }
}

/// Listens at the address; says once why that fails, and tries until it does not.
fn listen(runtime: &Runtime, address: SocketAddr) -> TcpListener {
    let mut last = String::new();
    loop {
        match runtime.block_on(TcpListener::bind(address)) {
            Ok(listener) => return listener,
            Err(error) => {
                let error = error.to_string();
                if error != last {
                    log!("citus_fleet: cannot listen at {address}, to be repeated: {error}");
                }
                last = error;
                signals::sleep(RETRY);
                signals::attend();
            }
        }
    }
}
