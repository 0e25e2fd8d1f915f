//! Owns what `fleet.accept_server` writes down: from now on another server, or the same with another
//! history, is a node's server. Must not decide whether it may be.

use super::identities;
use crate::backend::catalog::read_one;
use crate::error::Error;
use decide::membership::lineage::{Lineage, Mark};
use pgrx::prelude::*;

/// Shards of a group that have to be there, qualified and quoted, as its own database knows them.
pub fn shards(groupid: i32) -> Result<Vec<String>, Error> {
    let names: Option<Vec<String>> = read_one(
        "SELECT pg_catalog.array_agg(
             -- shard_name() leaves the schema public out, and only that.
             CASE WHEN n.nspname OPERATOR(pg_catalog.=) 'public' THEN 'public.' ELSE '' END
               OPERATOR(pg_catalog.||) pg_catalog.shard_name(s.logicalrelid, s.shardid))
         FROM pg_catalog.pg_dist_placement p
         JOIN pg_catalog.pg_dist_shard s ON s.shardid OPERATOR(pg_catalog.=) p.shardid
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.logicalrelid::pg_catalog.oid
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE p.groupid OPERATOR(pg_catalog.=) $1",
        &[groupid.into()],
    )?;
    Ok(names.unwrap_or_default())
}

/// Records the server, and that somebody has accepted it.
pub fn accept(
    nodeid: i32,
    (nodename, nodeport): (&str, i32),
    lineage: &Lineage,
    mark: Option<&Mark>,
    missing: &[String],
) -> Result<(), Error> {
    let detail = serde_json::json!({
        "system_identifier": lineage.system_identifier.to_string(),
        "timeline": lineage.timeline,
        "missing_shards": missing,
    });
    identities::accept(nodeid, lineage, mark)?;
    Ok(Spi::run_with_args(
        "INSERT INTO fleet.events (nodename, nodeport, nodeid, event, code, detail)
         VALUES ($1, $2, $3, 'accepted', 'accepted',
                 $4 OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('by', SESSION_USER))",
        &[nodename.into(), nodeport.into(), nodeid.into(), pgrx::JsonB(detail).into()],
    )?)
}
