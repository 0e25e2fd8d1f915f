//! Owns finding out who keeps a change from being made: the holders of the locks that it needs. Runs inside a
//! transaction that the caller has opened.
//! Must not wait for any of those locks.

use crate::backend::catalog::{self, read_one};
use crate::error::{Error, one_line};
use crate::net::ask::{Bounds, Question, ask};
use crate::observe::coordinator::credentials;
use decide::membership::cause::{Block, Cause, Holder};
use decide::node::Node;
use pgrx::pg_sys;
use serde::Deserialize;
use std::time::Duration;

/// Whoever keeps Citus's metadata, or the shards of these nodes, from being changed at this moment; with
/// `reads_tables`, also from sending how all tables are defined to a node.
pub fn cause(nodeids: &[i32], reads_tables: bool) -> Result<Cause, Error> {
    // SAFETY: forgets what this transaction has read of other processes before.
    unsafe { pg_sys::pgstat_clear_snapshot() };
    match block()? {
        Some(block) => Ok(Cause::Blocked(block)),
        None => Ok(Cause::Locked(holders(nodeids, reads_tables)?)),
    }
}

/// Those that hold such a lock; else those that wait for one in front of others.
fn holders(nodeids: &[i32], reads_tables: bool) -> Result<Vec<Holder>, Error> {
    #[derive(Deserialize)]
    struct Row {
        has_it: bool,
        #[serde(flatten)]
        holder: Holder,
    }
    let rows: Vec<Row> = catalog::value(
        include_str!("holders.sql"),
        &[nodeids.to_vec().into(), reads_tables.into()],
    )?;
    let has_any = rows.iter().any(|row| row.has_it);
    Ok(rows
        .into_iter()
        .filter(|row| row.has_it || !has_any)
        .map(|Row { holder, .. }| in_one_line(holder))
        .collect())
}

/// Anybody may call his session anything.
fn in_one_line(holder: Holder) -> Holder {
    Holder { application: one_line(&holder.application), ..holder }
}

/// Those whose locks on a worker keep its part of the metadata from being taken away, and have for a
/// second. A worker that does not say is not waited for.
pub fn on_worker(node: Node) -> Result<Vec<Holder>, Error> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let question = Question {
        statement: include_str!("holders_on_worker.sql"),
        bounds: Bounds { login: DEADLINE, deadline: DEADLINE },
        most_bytes: 1 << 16,
    };
    let answers = ask(&[(node, Vec::new())], &question, &credentials()?)?;
    let said = answers.into_iter().next().and_then(Result::ok);
    let holders: Vec<Holder> = said.map_or(Ok(Vec::new()), |said| serde_json::from_str(&said))?;
    Ok(holders.into_iter().map(in_one_line).collect())
}

/// Whether an operator has blocked changes of the cluster, which Citus can from 15 on.
fn block() -> Result<Option<Block>, Error> {
    let can_block: Option<bool> = read_one(
        "SELECT pg_catalog.to_regprocedure('pg_catalog.citus_cluster_changes_block_status()') IS NOT NULL",
        &[],
    )?;
    if can_block != Some(true) {
        return Ok(None);
    }
    let block: Option<String> = read_one(
        "SELECT pg_catalog.json_build_object(
           'until', pg_catalog.date_trunc('second', s.block_start_time OPERATOR(pg_catalog.+)
             pg_catalog.make_interval(secs => s.timeout_ms OPERATOR(pg_catalog./) 1000.0))::pg_catalog.text,
           'by', COALESCE(
             (SELECT pg_catalog.format('process %s (application %s, role %s)', a.pid, a.application_name, a.usename)
              FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) s.requestor_pid),
             pg_catalog.format('process %s, which has ended', s.requestor_pid)))::pg_catalog.text
         FROM pg_catalog.citus_cluster_changes_block_status() s
         WHERE s.state OPERATOR(pg_catalog.=) 'active'",
        &[],
    )?;
    let block: Option<Block> = block.map(|block| serde_json::from_str(&block)).transpose()?;
    Ok(block.map(|block| Block { by: one_line(&block.by), ..block }))
}
