//! Owns dropping what Citus leaves on a server that was removed: shards of reference tables, and
//! shards that it had moved away and not dropped yet (citusdata/citus#8855). They would be in the
//! way if the server ever joined again.
//! Must not drop anything unless the server is that one and in no cluster, in the same transaction.

use crate::error::Error;
use crate::net::ask::{self, Bounds};
use crate::net::credentials::Credentials;
use decide::membership::change::Change;
use pgrx::prelude::*;
use std::time::Duration;

/// How long the other server may take in all.
const DEADLINE: Duration = Duration::from_secs(10);

/// Makes a `Change::Clean`; gives back the system identifier of the server that is clean now.
pub async fn drop_relations(credentials: &Credentials, change: &Change) -> Result<i64, Error> {
    let Change::Clean { nodename, endpoint, system_identifier, relations } = change else {
        return Err(Error::Internal("not a change of another server".into()));
    };
    let dropping = async {
        let bounds = Bounds { login: DEADLINE, deadline: DEADLINE };
        let mut login = ask::visit(nodename, *endpoint, None, bounds, credentials).await?;
        login.command("BEGIN", &[]).await?;
        login.command("SET LOCAL lock_timeout = '2s'", &[]).await?;
        // Without its Citus, nothing of Citus is left on it.
        let is_without_citus = login
            .value(
                "SELECT (s.system_identifier OPERATOR(pg_catalog.=) $1::pg_catalog.int8
                         AND pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NULL)::pg_catalog.text
                 FROM pg_catalog.pg_control_system() s",
                &[&system_identifier.to_string()],
            )
            .await?;
        if is_without_citus == "true" {
            return Ok(*system_identifier);
        }
        // Joining a cluster writes this table: nobody can add the server meanwhile.
        login.command("LOCK TABLE pg_catalog.pg_dist_local_group IN SHARE MODE", &[]).await?;
        let is_it = login
            .value(
                "SELECT (s.system_identifier OPERATOR(pg_catalog.=) $1::pg_catalog.int8
                         AND g.groupid OPERATOR(pg_catalog.=) 0
                         AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_node))::pg_catalog.text
                 FROM pg_catalog.pg_control_system() s, pg_catalog.pg_dist_local_group g",
                &[&system_identifier.to_string()],
            )
            .await?;
        if is_it != "true" {
            return Err(Error::Internal("the server there is another one by now".into()));
        }
        if !relations.is_empty() {
            login.command(&format!("DROP TABLE IF EXISTS {}", relations.join(", ")), &[]).await?;
        }
        // With rows there, the next schema that is created would make the server a coordinator.
        login.command("DELETE FROM pg_catalog.pg_dist_schema", &[]).await?;
        login.command("COMMIT", &[]).await?;
        Ok(*system_identifier)
    };
    tokio::time::timeout(DEADLINE, dropping)
        .await
        .unwrap_or_else(|_| Err(Error::Internal(format!("nothing within {DEADLINE:?}"))))
}

/// Notes that nothing is left on a removed server.
pub fn set_clean(system_identifier: i64) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        "UPDATE fleet.removed SET cleaned_at = pg_catalog.now()
         WHERE system_identifier OPERATOR(pg_catalog.=) $1",
        &[system_identifier.into()],
    )?)
}
