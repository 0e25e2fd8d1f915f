//! Owns `fleet.events`: writes a row where a worker's state has changed, reads back where each stood,
//! and removes what is older than `citus_fleet.event_retention`.
//! Must not write anything while nothing changes.

use super::memory::Standing;
use crate::backend::catalog::{read_one, value};
use crate::backend::encoding::{JsonB, Text};
use crate::error::Error;
use decide::membership::lineage::Lsn;
use decide::membership::plan::Worker;
use decide::membership::state::State;
use pgrx::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A state that a worker has entered.
pub struct Entered<'a> {
    pub worker: &'a Worker,
    pub before: Option<State>,
}

/// The workers whose state is not the one they last stood in.
pub fn changed<'a>(
    workers: &'a [Worker],
    standings: &BTreeMap<(String, i32), Standing>,
) -> Vec<Entered<'a>> {
    workers
        .iter()
        .filter_map(|worker| {
            let before =
                standings.get(&(worker.nodename.clone(), worker.nodeport)).map(|(state, _)| *state);
            (before != Some(worker.state)).then_some(Entered { worker, before })
        })
        .collect()
}

/// Writes one row for each, in the caller's transaction.
pub fn write(entered: &[Entered<'_>]) -> Result<(), Error> {
    for Entered { worker, before } in entered {
        let detail = serde_json::json!({
            "from": before.map(State::as_str),
            "reason": worker.reason,
            "address": worker.endpoint.map(|endpoint| endpoint.ip()),
            "source": worker.source,
        });
        Spi::run_with_args(
            "INSERT INTO fleet.events (nodename, nodeport, nodeid, event, code, detail)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                Text(worker.nodename.clone()).into(),
                worker.nodeport.into(),
                worker.nodeid.into(),
                worker.state.as_str().into(),
                worker.code.into(),
                JsonB(detail).into(),
            ],
        )?;
    }
    Ok(())
}

/// A worker whose row leads to another server now, or whose server was promoted, in the caller's
/// transaction: where it was promoted, what had been seen before, and how much of that is not there.
pub struct Follow {
    pub nodename: String,
    pub nodeport: i32,
    pub nodeid: i32,
    pub from: String,
    pub timeline: i32,
    pub switch_point: Option<Lsn>,
    pub last_seen: Option<Lsn>,
    pub lost_bytes: u64,
}

pub fn write_follow(follow: &Follow) -> Result<(), Error> {
    let detail = serde_json::json!({
        "from": follow.from,
        "timeline": follow.timeline,
        "switch_point": follow.switch_point.map(|at| at.to_string()),
        "last_seen": follow.last_seen.map(|at| at.to_string()),
        "lost_bytes": follow.lost_bytes,
    });
    Ok(Spi::run_with_args(
        "INSERT INTO fleet.events (nodename, nodeport, nodeid, event, code, detail)
         VALUES ($1, $2, $3, 'followed', 'followed', $4)",
        &[
            follow.nodename.as_str().into(),
            follow.nodeport.into(),
            follow.nodeid.into(),
            JsonB(detail).into(),
        ],
    )?)
}

/// Where every worker stood when the last row about it was written.
pub fn last_standings() -> Result<BTreeMap<(String, i32), Standing>, Error> {
    #[derive(Deserialize)]
    struct Row {
        nodename: String,
        nodeport: i32,
        event: State,
        at_us: i64,
    }
    // A row about a follow is about no state.
    let states: Vec<String> = State::ALL.iter().map(ToString::to_string).collect();
    let rows: Vec<Row> = value(
        "SELECT COALESCE(pg_catalog.json_agg(e), '[]')::pg_catalog.text FROM (
           SELECT DISTINCT ON (e.nodename, e.nodeport) e.nodename, e.nodeport, e.event,
                  (EXTRACT(epoch FROM e.at) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 AS at_us
           FROM fleet.events e
           WHERE e.event OPERATOR(pg_catalog.=) ANY ($1)
           ORDER BY e.nodename, e.nodeport, e.id DESC) e",
        &[states.into()],
    )?;
    Ok(rows.into_iter().map(|row| ((row.nodename, row.nodeport), (row.event, row.at_us))).collect())
}

/// Removes rows older than the retention; looks first, so that nothing old costs no write.
pub fn expire(retention: Duration) -> Result<(), Error> {
    let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    // Operators that are written so all have one precedence. The newest event of a worker says since when
    // it is what it is, and stays.
    let old = "e.at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $1))
         AND EXISTS (SELECT FROM fleet.events n
                     WHERE n.nodename OPERATOR(pg_catalog.=) e.nodename
                       AND n.nodeport OPERATOR(pg_catalog.=) e.nodeport
                       AND n.id OPERATOR(pg_catalog.>) e.id)";
    let any: Option<bool> = read_one(
        &format!("SELECT EXISTS (SELECT FROM fleet.events e WHERE {old})"),
        &[(seconds as f64).into()],
    )?;
    if any == Some(true) {
        Spi::run_with_args(
            &format!("DELETE FROM fleet.events e WHERE {old}"),
            &[(seconds as f64).into()],
        )?;
    }
    Ok(())
}
