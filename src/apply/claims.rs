//! Owns the claim on a server that is about to be added: two coordinators that found it empty at the same
//! time must not both add it.
//! Must not add anything.

use crate::error::Error;
use crate::net::ask::{self, Bounds};
use crate::net::login::Login;
use crate::observe::network::Answered;
use crate::observe::probe::Prober;
use std::net::SocketAddr;
use std::time::Duration;

const BOUNDS: Bounds = Bounds { login: Duration::from_secs(3), deadline: Duration::from_secs(10) };

/// An advisory lock of the login's database: `flee`, as all locks of this extension (`backend::locks`).
const CLAIM: &str =
    "SELECT pg_catalog.pg_try_advisory_lock(1718379877::pg_catalog.int8)::pg_catalog.text";

/// Claims a server for as long as the login lives, and looks at it once more under the claim: between the
/// probe and now it may have joined a cluster, or got a table that would be dropped.
pub async fn claim(
    prober: &Prober,
    nodename: &str,
    endpoint: SocketAddr,
) -> Result<(Login, Answered), Error> {
    let claiming = async {
        let mut login = ask::visit(nodename, endpoint, None, BOUNDS, &prober.credentials).await?;
        if login.value(CLAIM, &[]).await? != "true" {
            return Err(Error::Internal("another coordinator is adding it at this moment".into()));
        }
        let answer = prober.examine(&mut login, true).await;
        Ok((login, Answered::just_now(endpoint, answer)))
    };
    tokio::time::timeout(BOUNDS.deadline, claiming)
        .await
        .unwrap_or_else(|_| Err(ask::late(BOUNDS.deadline).into()))
}
