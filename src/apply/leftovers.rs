//! Owns dropping what Citus leaves on a server that was removed: shards of reference tables, and
//! shards that it had moved away and not dropped yet (citusdata/citus#8855). They would be in the
//! way if the server ever joined again.
//! Must not drop anything unless the server is that one and in no cluster, in the same transaction.

use crate::error::Error;
use crate::observe::credentials::Credentials;
use crate::observe::login::Login;
use pgrx::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the other server may take in all.
const DEADLINE: Duration = Duration::from_secs(10);

/// `relations` are quoted and qualified, as `apply::removal` has recorded them.
pub async fn drop_relations(
    credentials: &Credentials,
    (nodename, endpoint): (&str, SocketAddr),
    system_identifier: i64,
    relations: &[String],
) -> Result<(), Error> {
    let dropping = async {
        let parameters =
            credentials.parameters(nodename, endpoint, None).map_err(Error::Internal)?;
        let mut login = Login::connect(&parameters).await?;
        login.command("BEGIN").await?;
        login.command("SET LOCAL lock_timeout = '2s'").await?;
        login.command(&format!("SET LOCAL statement_timeout = {}", DEADLINE.as_millis())).await?;
        // Joining a cluster writes this table: nobody can add the server meanwhile.
        login.command("LOCK TABLE pg_catalog.pg_dist_local_group IN SHARE MODE").await?;
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
            login.command(&format!("DROP TABLE IF EXISTS {}", relations.join(", "))).await?;
        }
        Ok(login.command("COMMIT").await?)
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
