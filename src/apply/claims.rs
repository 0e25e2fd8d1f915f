//! Owns the claim on a server that is about to be added: two coordinators that found it empty at the same
//! time must not both add it.
//! Must not add anything.

use crate::error::Error;
use crate::net::ask::{self, Bounds};
use crate::net::credentials::Credentials;
use crate::net::login::Login;
use std::net::SocketAddr;
use std::time::Duration;

const BOUNDS: Bounds = Bounds { login: Duration::from_secs(3), deadline: Duration::from_secs(10) };

/// An advisory lock of the login's database: `flee`, as all locks of this extension (`backend::locks`).
const CLAIM: &str =
    "SELECT pg_catalog.pg_try_advisory_lock(1718379877::pg_catalog.int8)::pg_catalog.text";

/// Whether the server still belongs to nobody.
const IS_FREE: &str = "SELECT (
      NOT EXISTS (SELECT FROM pg_catalog.pg_dist_local_group g WHERE g.groupid OPERATOR(pg_catalog.<>) 0)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_node)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition))::pg_catalog.text";

/// Claims a server for as long as the login lives, and looks once more under the claim.
pub async fn claim(
    credentials: &Credentials,
    nodename: &str,
    endpoint: SocketAddr,
) -> Result<Login, Error> {
    let claiming = async {
        let mut login = ask::visit(nodename, endpoint, None, BOUNDS, credentials).await?;
        if login.value(CLAIM, &[]).await? != "true" {
            return Err(Error::Internal("another coordinator is adding it at this moment".into()));
        }
        if login.value(IS_FREE, &[]).await? != "true" {
            return Err(Error::Internal("it has joined a cluster since it was probed".into()));
        }
        Ok(login)
    };
    tokio::time::timeout(BOUNDS.deadline, claiming)
        .await
        .unwrap_or_else(|_| Err(ask::late(BOUNDS.deadline).into()))
}
