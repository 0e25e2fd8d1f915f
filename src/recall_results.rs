//! Owns `fleet.recall_results`: the last figures of every index of every placement, written and read.
//! Must not let a placement that could not be measured take the place of one that was.

use crate::backend::catalog::{self, is_installed, read_one};
use crate::backend::encoding::JsonB;
use crate::error::Error;
use decide::search::recall::ask::Ask;
use decide::search::recall::result::Placed;
use decide::search::vector::model::RecallResult;
use pgrx::prelude::*;
use std::time::Duration;

/// Keeps the figures of a relation, and forgets those of its placements and indexes that are gone.
pub fn store(relation: pg_sys::Oid, ask: &Ask, rows: &[Placed]) -> Result<(), Error> {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            let mut object = serde_json::json!(row.measured);
            object["nodename"] = row.node.nodename.as_str().into();
            object["nodeport"] = row.node.nodeport.into();
            object["shardid"] = row.shardid.into();
            object
        })
        .collect();
    let rows = || JsonB(serde_json::json!(rows));
    // A node that did not answer names no index, but its placements are not gone.
    Spi::run_with_args(
        "DELETE FROM fleet.recall_results r
         WHERE r.relation::pg_catalog.oid OPERATOR(pg_catalog.=) $1 AND NOT EXISTS (
           SELECT FROM pg_catalog.jsonb_to_recordset($2)
             AS n (nodename text, nodeport integer, relation text, index text)
           WHERE n.nodename OPERATOR(pg_catalog.=) r.nodename
             AND n.nodeport OPERATOR(pg_catalog.=) r.nodeport
             AND n.relation OPERATOR(pg_catalog.=) r.placement
             AND (n.index IS NULL OR n.index OPERATOR(pg_catalog.=) r.index))",
        &[relation.into(), rows().into()],
    )?;
    let k = i32::try_from(ask.k).unwrap_or(i32::MAX);
    Ok(Spi::run_with_args(
        "INSERT INTO fleet.recall_results AS r
         SELECT $1::pg_catalog.regclass, n.nodename, n.nodeport, n.shardid, n.relation, n.index,
                n.filenode, COALESCE(n.settings, ''), $3, n.queries, n.recall, n.deviation, n.ci_low,
                n.ci_high, n.p10, n.returned_ratio, n.rows, n.written, n.counted_since,
                pg_catalog.make_interval(secs => n.duration_ms OPERATOR(pg_catalog./) 1000), n.note,
                pg_catalog.now()
         FROM pg_catalog.jsonb_to_recordset($2) AS n (
           nodename text, nodeport integer, shardid bigint, relation text, index text,
           filenode bigint, settings text, queries integer, recall double precision,
           deviation double precision, ci_low double precision, ci_high double precision, p10 double precision,
           returned_ratio double precision, rows bigint, written bigint, counted_since double precision, duration_ms double precision,
           note text)
         WHERE n.recall IS NOT NULL
         ON CONFLICT (nodename, nodeport, placement, index) DO UPDATE SET
           relation = EXCLUDED.relation, shardid = EXCLUDED.shardid, filenode = EXCLUDED.filenode,
           settings = EXCLUDED.settings, k = EXCLUDED.k, queries = EXCLUDED.queries,
           recall = EXCLUDED.recall, deviation = EXCLUDED.deviation, ci_low = EXCLUDED.ci_low, ci_high = EXCLUDED.ci_high,
           p10 = EXCLUDED.p10, returned_ratio = EXCLUDED.returned_ratio,
           rows = EXCLUDED.rows, written = EXCLUDED.written, counted_since = EXCLUDED.counted_since,
           duration = EXCLUDED.duration, note = EXCLUDED.note, measured_at = EXCLUDED.measured_at",
        &[relation.into(), rows().into(), k.into()],
    )?)
}

/// Tables with a vector index, those first whose results are oldest; partitions go by their root,
/// shards by their table.
pub fn due() -> Result<Vec<pg_sys::Oid>, Error> {
    let own = match is_installed(c"citus") {
        true => "NOT pg_catalog.relation_is_a_known_shard(i.indrelid::pg_catalog.regclass)",
        false => "true",
    };
    let tables: Option<Vec<pg_sys::Oid>> = read_one(
        &format!(
            "SELECT pg_catalog.array_agg(t.root ORDER BY t.measured_at NULLS FIRST, t.root)
             FROM (
               SELECT i.root, (
                 SELECT pg_catalog.min(r.measured_at) FROM fleet.recall_results r
                 WHERE r.relation::pg_catalog.oid OPERATOR(pg_catalog.=) i.root) AS measured_at
               FROM (
                 SELECT DISTINCT COALESCE(
                   pg_catalog.pg_partition_root(i.indrelid::pg_catalog.regclass)::pg_catalog.oid,
                   i.indrelid) AS root
                 FROM pg_catalog.pg_index i
                 JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
                 JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) c.relam
                 WHERE m.amname OPERATOR(pg_catalog.=) ANY (ARRAY['hnsw', 'ivfflat']::pg_catalog.name[])
                   AND c.relpersistence OPERATOR(pg_catalog.<>) 't' AND {own}) i) t"
        ),
        &[],
    )?;
    Ok(tables.unwrap_or_default())
}

/// How long ago the last results were written; none where there are none.
pub fn age() -> Result<Option<Duration>, Error> {
    let seconds: Option<f64> = read_one(
        "SELECT EXTRACT(epoch FROM pg_catalog.now() OPERATOR(pg_catalog.-)
                pg_catalog.max(r.measured_at))::pg_catalog.float8
         FROM fleet.recall_results r",
        &[],
    )?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Forgets tables that have been dropped.
pub fn forget_dropped() -> Result<(), Error> {
    Ok(Spi::run(
        "DELETE FROM fleet.recall_results r
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c
                           WHERE c.oid OPERATOR(pg_catalog.=) r.relation::pg_catalog.oid)",
    )?)
}

/// What was last measured, for health to judge.
pub fn latest() -> Result<Vec<RecallResult>, Error> {
    catalog::value(
        "SELECT COALESCE(pg_catalog.json_agg(r), '[]')::pg_catalog.text
         FROM (SELECT r.nodename, r.nodeport, r.placement, r.index, r.filenode, r.settings, r.k,
                      r.queries, r.recall, r.deviation, r.returned_ratio, r.rows, r.written, r.counted_since,
                      EXTRACT(epoch FROM r.measured_at) AS measured_at
               FROM fleet.recall_results r) r",
        &[],
    )
}
