//! Owns recall measured by schedule: a process of its own that the controller starts when it is due,
//! which takes one table after another and ends by itself.
//! Must not run beside another of its kind, nor hold a snapshot for longer than one table of this
//! server takes.

pub mod start;

use crate::backend::locks::try_mark_sampling;
use crate::backend::transaction::{transaction, transaction_within};
use crate::backend::{connection, signals};
use crate::error::Error;
use crate::observe::recall::cluster;
use crate::recall_results;
use crate::settings::{self, Settings};
use decide::search::recall::ask::Ask;
use pgrx::prelude::*;
use std::time::Duration;

/// Room for what surrounds the measuring in a transaction.
const GRACE: Duration = Duration::from_secs(10);

/// The entry point of the process. It ends with 0, so that the postmaster forgets it.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn citus_fleet_sampler(_argument: pg_sys::Datum) {
    signals::install();
    connection::connect_as_controller(Some(&settings::database()));
    if let Err(error) = run() {
        log!("citus_fleet: recall could not be measured: {error}");
    }
}

fn run() -> Result<(), Error> {
    // A controller that has just been restarted does not know of one that is still at work.
    if !try_mark_sampling() {
        return Ok(());
    }
    for relation in transaction(recall_results::due)? {
        if let Err(error) = sample(relation) {
            log!("citus_fleet: the recall of table {relation:?} could not be measured: {error}");
        }
    }
    transaction(recall_results::forget_dropped)
}

/// Measures one table: what this server has in a transaction, what other nodes have without one.
fn sample(relation: pg_sys::Oid) -> Result<(), Error> {
    let ask = Ask::DEFAULT;
    let survey = transaction(|| cluster::survey(relation))?;
    let mut rows = transaction_within(ask.budget + GRACE, || Ok(survey.measure_here(&ask)))?;
    if survey.is_distributed() {
        let credentials = transaction(cluster::credentials)?;
        let settings = Settings::current().map_err(Error::Internal)?;
        rows.extend(survey.measure_elsewhere(&ask, &credentials, settings.probe_timeout)?);
    }
    transaction(|| recall_results::store(relation, &ask, &rows))
}
