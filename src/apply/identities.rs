//! Owns `fleet.identities`: who each registered worker is, in the transaction of the change it goes with.
//! Must not overwrite an identity by itself: whether another server is the worker is for an operator to say.

use crate::backend::catalog::read_one;
use crate::error::Error;
use decide::membership::lineage::{Lineage, Lsn, Mark};
use pgrx::prelude::*;

/// Records whose server a node is, once, and where it has come to since: after a promotion, how much of
/// what had been seen `lacks` on it, and the `mark` that it has; without one it is to be marked anew. A
/// server that was removed and that somebody has added by hand is in again.
pub fn record(
    nodeid: i32,
    lineage: &Lineage,
    mark: Option<&Mark>,
    lacks: u64,
) -> Result<(), Error> {
    // Not one that is only promoted: its source, of which it was a clone, may be the removed one.
    Spi::run_with_args(
        "DELETE FROM fleet.removed WHERE system_identifier OPERATOR(pg_catalog.=) $1
         AND NOT EXISTS (SELECT FROM fleet.identities i WHERE i.nodeid OPERATOR(pg_catalog.=) $2)",
        &[lineage.system_identifier.into(), nodeid.into()],
    )?;
    Ok(Spi::run_with_args(
        "INSERT INTO fleet.identities AS known
           (nodeid, system_identifier, timeline, history, position, mark, mark_position)
         VALUES ($1, $2, $3, $4, $5::pg_catalog.pg_lsn, $6::pg_catalog.uuid, $7::pg_catalog.pg_lsn)
         ON CONFLICT (nodeid) DO UPDATE SET
           timeline = EXCLUDED.timeline, history = EXCLUDED.history, position = EXCLUDED.position,
           mark = CASE WHEN EXCLUDED.mark IS NULL AND known.timeline OPERATOR(pg_catalog.=) EXCLUDED.timeline
                  THEN known.mark ELSE EXCLUDED.mark END,
           mark_position = CASE WHEN EXCLUDED.mark IS NULL AND known.timeline OPERATOR(pg_catalog.=) EXCLUDED.timeline
                           THEN known.mark_position ELSE EXCLUDED.mark_position END,
           lost_wal = known.lost_wal OPERATOR(pg_catalog.+) $8
         WHERE known.system_identifier OPERATOR(pg_catalog.=) EXCLUDED.system_identifier
           AND known.timeline OPERATOR(pg_catalog.<=) EXCLUDED.timeline",
        &[
            nodeid.into(),
            lineage.system_identifier.into(),
            lineage.timeline.into(),
            lineage.history.as_ref().map(ToString::to_string).into(),
            lineage.position.to_string().into(),
            mark.map(|mark| mark.id.clone()).into(),
            mark.map(|mark| mark.position.to_string()).into(),
            i64::try_from(lacks).unwrap_or(i64::MAX).into(),
        ],
    )?)
}

/// From now on this is the node's server, whatever was known of it: an operator has said so.
pub fn accept(nodeid: i32, lineage: &Lineage, mark: Option<&Mark>) -> Result<(), Error> {
    let disabled = "SELECT i.disabled_by_fleet FROM fleet.identities i WHERE i.nodeid OPERATOR(pg_catalog.=) $1";
    let disabled: Option<bool> = read_one(disabled, &[nodeid.into()])?;
    forget(nodeid)?;
    record(nodeid, lineage, mark, 0)?;
    Ok(Spi::run_with_args(
        "UPDATE fleet.identities SET disabled_by_fleet = $2, to_be_synced = true
         WHERE nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into(), (disabled == Some(true)).into()],
    )?)
}

/// Notes the mark that a node's server has got.
pub fn set_mark(nodeid: i32, mark: &Mark) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        "UPDATE fleet.identities SET mark = $2::pg_catalog.uuid, mark_position = $3::pg_catalog.pg_lsn
         WHERE nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into(), mark.id.as_str().into(), mark.position.to_string().into()],
    )?)
}

/// The record that was read: another session may have accepted another server since.
const IS_IT: &str = "i.nodeid OPERATOR(pg_catalog.=) $1
    AND (EXTRACT(epoch FROM i.recorded_at) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 OPERATOR(pg_catalog.=) $2";

/// Notes how far a node's server, recorded at that time, was seen to have come.
pub fn set_position(nodeid: i32, recorded_us: i64, position: Lsn) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        &format!("UPDATE fleet.identities i SET position = $3::pg_catalog.pg_lsn WHERE {IS_IT}"),
        &[nodeid.into(), recorded_us.into(), position.to_string().into()],
    )?)
}

/// Notes that another server was seen running as a node beside its own: the first one stays.
pub fn set_rival(nodeid: i32, recorded_us: i64, rival: &str) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        &format!("UPDATE fleet.identities i SET rival = $3 WHERE {IS_IT} AND i.rival IS NULL"),
        &[nodeid.into(), recorded_us.into(), rival.into()],
    )?)
}

/// Notes that Citus has activated a node: it is not disabled, and has the metadata of now.
pub fn set_activated(nodeid: i32) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        "UPDATE fleet.identities SET disabled_by_fleet = false, to_be_synced = false
         WHERE nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into()],
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
