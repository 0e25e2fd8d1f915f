//! Owns `fleet.identities`: who each registered worker is, in the transaction of the change it goes with.
//! Must not overwrite an identity: a row whose server is another one is never made to fit.

use crate::error::Error;
use decide::membership::server::Lineage;
use pgrx::prelude::*;

/// Records whose server a node is, once, and the highest timeline it has come to. A server that was
/// removed and that somebody has added by hand is in again.
pub fn record(nodeid: i32, lineage: Lineage) -> Result<(), Error> {
    Spi::run_with_args(
        "DELETE FROM fleet.removed WHERE system_identifier OPERATOR(pg_catalog.=) $1",
        &[lineage.system_identifier.into()],
    )?;
    Ok(Spi::run_with_args(
        "INSERT INTO fleet.identities AS known (nodeid, system_identifier, timeline)
         VALUES ($1, $2, $3)
         ON CONFLICT (nodeid) DO UPDATE SET timeline = EXCLUDED.timeline
         WHERE known.system_identifier OPERATOR(pg_catalog.=) EXCLUDED.system_identifier
           AND known.timeline OPERATOR(pg_catalog.<) EXCLUDED.timeline",
        &[nodeid.into(), lineage.system_identifier.into(), lineage.timeline.into()],
    )?)
}

/// Notes that the fleet, not an operator, has disabled a node, or that it has not any more.
pub fn set_disabled(nodeid: i32, disabled: bool) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        "UPDATE fleet.identities SET disabled_by_fleet = $2 WHERE nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into(), disabled.into()],
    )?)
}

/// Notes that the rebalancer has been started for every node there is.
pub fn set_rebalanced() -> Result<(), Error> {
    Ok(Spi::run(
        "UPDATE fleet.identities SET rebalanced_at = pg_catalog.now() WHERE rebalanced_at IS NULL",
    )?)
}

/// Forgets nodes that Citus does not have any more; it never uses a node id twice.
pub fn forget(nodeid: i32) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        "DELETE FROM fleet.identities WHERE nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into()],
    )?)
}
