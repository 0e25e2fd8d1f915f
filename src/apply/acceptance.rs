//! Owns what `fleet.accept_server` asks of a server and writes down: from now on it, or the same with another
//! history, is a node's server. Must not decide whether it may be.

use super::{identities, marks};
use crate::backend::catalog::read_one;
use crate::error::Error;
use crate::net::ask::{self, Bounds};
use crate::net::crowd::in_session;
use crate::observe::probe::{Prober, Visit};
use decide::membership::coordinator::Identity;
use decide::membership::lineage::{Lineage, Mark};
use decide::membership::server::Server;
use pgrx::prelude::*;
use std::time::Duration;

/// The parameter is a JSON array of names; those that lead to no relation come back.
const MISSING: &str = "SELECT COALESCE(pg_catalog.json_agg(n.name), '[]')::pg_catalog.text
    FROM pg_catalog.json_array_elements_text($1::pg_catalog.json) n (name)
    WHERE pg_catalog.to_regclass(n.name) IS NULL";

/// Shards that the coordinator has placed on a group and that the server does not have.
pub fn missing(groupid: i32, visit: &Visit, prober: &Prober) -> Result<Vec<String>, Error> {
    let shards = serde_json::to_string(&shards(groupid)?)?;
    let bounds = Bounds { login: prober.deadline, deadline: Duration::from_secs(60) };
    let asking = async {
        let mut login =
            ask::visit(&visit.name, visit.at, visit.nodeid, bounds, &prober.credentials).await?;
        login.allow(64 << 20);
        login.value(MISSING, &[&shards]).await
    };
    let answer = in_session(async {
        tokio::time::timeout(bounds.deadline, asking)
            .await
            .unwrap_or_else(|_| Err(ask::late(bounds.deadline)))
    })??;
    Ok(serde_json::from_str(&answer)?)
}

/// Leaves a mark in the data of the server, where it has a table for it.
pub fn mark(
    server: &Server,
    visit: &Visit,
    known: Option<&Identity>,
    prober: &Prober,
) -> Result<Option<Mark>, Error> {
    if server.marks.is_none() {
        return Ok(None);
    }
    let identifier = server.system_identifier;
    let known = known.and_then(|known| Some(known.record.mark.as_ref()?.id.as_str()));
    in_session(marks::leave(&prober.credentials, &visit.name, visit.at, identifier, known))?
        .map(Some)
}

/// Shards of a group that have to be there, qualified and quoted, as its own database knows them.
fn shards(groupid: i32) -> Result<Vec<String>, Error> {
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

/// A server that is to be a node's from now on.
pub struct Accepted {
    pub lineage: Lineage,
    pub mark: Option<Mark>,
    /// Shards that it should have and has not.
    pub missing: Vec<String>,
}

/// Records the server, that somebody has accepted it, and what of the `known` one it lacks, as far as that
/// can be told of two servers.
pub fn accept(
    nodeid: i32,
    (nodename, nodeport): (&str, i32),
    accepted: &Accepted,
    known: Option<&Identity>,
) -> Result<(), Error> {
    let Accepted { lineage, mark, missing } = accepted;
    // What was lost before is accepted by it, too.
    let before = known.map(|known| known.lost_wal).filter(|lost| *lost > 0);
    let now = known.and_then(|known| known.record.lost_by(lineage));
    let lost_bytes = now.map_or(before, |now| Some(now.saturating_add(before.unwrap_or(0))));
    let detail = serde_json::json!({
        "system_identifier": lineage.system_identifier.to_string(),
        "timeline": lineage.timeline,
        "last_seen": known.and_then(|known| known.record.position).map(|at| at.to_string()),
        "lost_bytes": lost_bytes,
        "missing_shards": missing,
    });
    identities::accept(nodeid, lineage, mark.as_ref())?;
    Ok(Spi::run_with_args(
        "INSERT INTO fleet.events (nodename, nodeport, nodeid, event, code, detail)
         VALUES ($1, $2, $3, 'accepted', 'accepted',
                 $4 OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('by', SESSION_USER))",
        &[nodename.into(), nodeport.into(), nodeid.into(), pgrx::JsonB(detail).into()],
    )?)
}
