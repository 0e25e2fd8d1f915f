//! Owns the marks that the coordinator leaves in a worker's data: written before the row of
//! `pg_dist_node` leads there, so that whatever clients write by way of it comes after.
//! Must not mark another server than the one that is meant.

use crate::error::Error;
use crate::net::ask::{self, Bounds};
use crate::net::credentials::Credentials;
use decide::membership::lineage::Mark;
use std::net::SocketAddr;
use std::time::Duration;

const BOUNDS: Bounds = Bounds { login: Duration::from_secs(3), deadline: Duration::from_secs(10) };

/// The recorded one is looked for until the row has followed, which a lock may hold up for as many attempts as
/// it likes; of the others, a coordinator that lags behind may know one of the newest.
const TIDY: &str =
    "DELETE FROM fleet.marks m WHERE m.mark::pg_catalog.text OPERATOR(pg_catalog.<>) $1
    AND m.position OPERATOR(pg_catalog.<) ANY (
      SELECT k.position FROM fleet.marks k ORDER BY k.position DESC OFFSET 15 LIMIT 1)";

/// Nothing is written where the server is another one by now, or a standby.
const WRITE: &str = "WITH written AS (
      INSERT INTO fleet.marks (mark)
      SELECT pg_catalog.gen_random_uuid() FROM pg_catalog.pg_control_system() s
      WHERE s.system_identifier OPERATOR(pg_catalog.=) $1::pg_catalog.int8
      RETURNING mark, position)
    SELECT pg_catalog.json_build_object('id', w.mark, 'position', w.position)::pg_catalog.text
    FROM written w";

/// Leaves a mark in the data of a server, beside the one that it is `known` by.
pub async fn leave(
    credentials: &Credentials,
    nodename: &str,
    endpoint: SocketAddr,
    system_identifier: i64,
    known: Option<&str>,
) -> Result<Mark, Error> {
    let marking = async {
        let mut login = ask::visit(nodename, endpoint, None, BOUNDS, credentials).await?;
        // A standby that is to confirm commits may be gone with the primary that was replaced.
        login.command("SET synchronous_commit = local", &[]).await?;
        login.command(TIDY, &[known.unwrap_or_default()]).await?;
        let mark = login.value(WRITE, &[&system_identifier.to_string()]).await?;
        Ok(serde_json::from_str(&mark)?)
    };
    tokio::time::timeout(BOUNDS.deadline, marking)
        .await
        .unwrap_or_else(|_| Err(ask::late(BOUNDS.deadline).into()))
}
