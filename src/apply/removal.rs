//! Owns taking a worker out of the cluster, step by step, in the session of the operator who asked
//! for it: `sql_api::removal` puts the steps together.
//! Must not take anything out whose only copy is there: Citus refuses that too, at the last step.

use crate::error::Error;
use crate::observe::citus_nodes::read_one;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use serde::Deserialize;

/// A worker's row of `pg_dist_node`.
#[derive(Debug, Deserialize)]
pub struct Node {
    pub nodeid: i32,
    pub groupid: i32,
    /// Another active node takes shards.
    pub has_elsewhere: bool,
}

/// Shards of one table.
#[derive(Debug, Deserialize)]
pub struct Held {
    pub table: String,
    pub shards: u64,
}

/// The primary worker of that name and port.
pub fn find(nodename: &str, nodeport: i32) -> Result<Option<Node>, Error> {
    let node: Option<String> = look_up(
        "SELECT pg_catalog.json_build_object('nodeid', d.nodeid, 'groupid', d.groupid,
           'has_elsewhere', EXISTS (
             SELECT FROM pg_catalog.pg_dist_node o
             WHERE o.groupid OPERATOR(pg_catalog.<>) d.groupid AND o.shouldhaveshards AND o.isactive
               AND o.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'))::pg_catalog.text
         FROM pg_catalog.pg_dist_node d
         WHERE d.nodename OPERATOR(pg_catalog.=) $1 AND d.nodeport OPERATOR(pg_catalog.=) $2
           AND d.groupid OPERATOR(pg_catalog.<>) 0
           AND d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'",
        &[nodename.into(), nodeport.into()],
    )?;
    Ok(node.map(|node| serde_json::from_str(&node)).transpose()?)
}

/// What no other active node has a copy of.
pub fn held_alone(groupid: i32) -> Result<Vec<Held>, Error> {
    let held: Option<String> = look_up(
        "SELECT pg_catalog.json_agg(h)::pg_catalog.text FROM (
           SELECT s.logicalrelid::pg_catalog.text AS \"table\", pg_catalog.count(*) AS shards
           FROM pg_catalog.pg_dist_placement p
           JOIN pg_catalog.pg_dist_shard s ON s.shardid OPERATOR(pg_catalog.=) p.shardid
           WHERE p.groupid OPERATOR(pg_catalog.=) $1 AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_dist_placement o
             JOIN pg_catalog.pg_dist_node d ON d.groupid OPERATOR(pg_catalog.=) o.groupid
             WHERE o.shardid OPERATOR(pg_catalog.=) p.shardid
               AND o.groupid OPERATOR(pg_catalog.<>) p.groupid
               AND o.shardstate OPERATOR(pg_catalog.=) 1 AND d.isactive
               AND d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary')
           GROUP BY s.logicalrelid ORDER BY 1) h",
        &[groupid.into()],
    )?;
    held.map_or(Ok(Vec::new()), |held| Ok(serde_json::from_str(&held)?))
}

/// Moves every shard away. Citus commits each move on its own, and the first thing it does is to
/// let the node have no new shards: what has been done stays done, whatever ends the call.
pub fn drain(nodename: &str, nodeport: i32, shard_transfer_mode: &str) -> Result<(), Error> {
    look_up::<String>(
        "SELECT pg_catalog.citus_drain_node($1, $2, $3::citus.shard_transfer_mode)::pg_catalog.text",
        &[nodename.into(), nodeport.into(), shard_transfer_mode.into()],
    )
    .map(drop)
}

/// Takes the node out of the metadata and records it as removed, in the caller's transaction. Its
/// own metadata is taken away only where `answers`: the server at its address is known to be it.
pub fn remove(node: &Node, nodename: &str, nodeport: i32, answers: bool) -> Result<(), Error> {
    Spi::run_with_args(
        include_str!("record_removed.sql"),
        &[
            node.nodeid.into(),
            node.groupid.into(),
            nodename.into(),
            nodeport.into(),
            answers.into(),
        ],
    )?;
    Spi::run_with_args(
        "SELECT pg_catalog.stop_metadata_sync_to_node($1, $2, $3)",
        &[nodename.into(), nodeport.into(), answers.into()],
    )?;
    Ok(Spi::run_with_args(
        "SELECT pg_catalog.citus_remove_node($1, $2)",
        &[nodename.into(), nodeport.into()],
    )?)
}

/// Lets a removed server join again; none where there is no such server, false while it is not clean.
pub fn enroll(nodename: &str, nodeport: i32) -> Result<Option<bool>, Error> {
    let is_meant =
        "((r.nodename OPERATOR(pg_catalog.=) $1 AND r.nodeport OPERATOR(pg_catalog.=) $2)
        OR r.system_identifier OPERATOR(pg_catalog.=) ANY (
          SELECT w.system_identifier FROM fleet.workers w
          WHERE w.nodename OPERATOR(pg_catalog.=) $1 AND w.nodeport OPERATOR(pg_catalog.=) $2))";
    let arguments = [nodename.into(), nodeport.into()];
    let is_clean: Option<bool> = look_up(
        &format!(
            "SELECT pg_catalog.bool_and(r.cleaned_at IS NOT NULL) FROM fleet.removed r WHERE {is_meant}"
        ),
        &arguments,
    )?;
    if is_clean == Some(true) {
        Spi::run_with_args(&format!("DELETE FROM fleet.removed r WHERE {is_meant}"), &arguments)?;
    }
    Ok(is_clean)
}

/// The first column of the first row, as everybody sees it now: draining takes long, and what it
/// changes is committed by others. It assigns no transaction id, which whoever creates a replication
/// slot would wait for.
pub fn look_up<T: FromDatum + IntoDatum>(
    statement: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<T>, Error> {
    // SAFETY: pushed and popped here; an ERROR in between ends the transaction and with it the stack.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let value = read_one(statement, arguments);
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
    value
}
