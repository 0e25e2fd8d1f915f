//! Owns recall measured by schedule: a process of its own that the controller starts when it is due,
//! which takes one table after another and ends by itself.
//! Must not run beside another of its kind, nor hold a snapshot for longer than one table of this
//! server takes.

pub mod results;
pub mod start;

use super::containment::{transaction, transaction_within};
use super::{main_loop, signals};
use crate::decide::recall::ask::Ask;
use crate::error::Error;
use crate::observe::recall::cluster;
use crate::settings::{self, Settings};
use crate::sql_api::locks::try_mark_sampling;
use pgrx::prelude::*;
use std::time::Duration;

/// Room for what surrounds the measuring in a transaction.
const GRACE: Duration = Duration::from_secs(10);

/// The entry point of the process. It ends with 0, so that the postmaster forgets it.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn citus_fleet_sampler(_argument: pg_sys::Datum) {
    signals::install();
    main_loop::initialize(Some(&settings::database()));
    if let Err(error) = run() {
        log!("citus_fleet: recall could not be measured: {error}");
    }
}

fn run() -> Result<(), Error> {
    // A controller that has just been restarted does not know of one that is still at work.
    if !try_mark_sampling() {
        return Ok(());
    }
    for relation in transaction(results::due)? {
        if let Err(error) = sample(relation) {
            log!("citus_fleet: the recall of table {relation:?} could not be measured: {error}");
        }
    }
    transaction(results::forget_dropped)
}

/// Measures one table: what this server has in a transaction, what other nodes have without one.
fn sample(relation: pg_sys::Oid) -> Result<(), Error> {
    let ask = Ask::DEFAULT;
    let plan = transaction(|| cluster::plan(relation))?;
    let mut rows = transaction_within(ask.budget + GRACE, || Ok(plan.measure_here(&ask)))?;
    if plan.is_distributed() {
        let credentials = transaction(cluster::credentials)?;
        let settings = Settings::current().map_err(Error::Internal)?;
        rows.extend(plan.measure_elsewhere(&ask, &credentials, settings.probe_timeout)?);
    }
    transaction(|| results::store(relation, &ask, &rows))
}
