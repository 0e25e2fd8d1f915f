//! Owns the calls of Citus's node functions, several to a transaction where that is safe.
//! Must not add a node that `decide` has not passed: Citus itself checks too little.

use crate::decide::model::Change;
use crate::error::Error;
use crate::worker::containment::transaction;
use crate::worker::signals::StatementDeadline;
use pgrx::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;

/// Nodes to a transaction. `citus_add_node` holds ExclusiveLock on `pg_dist_node` until the commit:
/// 32 nodes take about a second (docs/benchmarks.md), and other adds and DDL wait for it.
const BATCH: usize = 32;

/// How long a change waits for somebody else's lock before it gives way and is tried again.
const LOCK_TIMEOUT: &str = "2s";

/// How long one transaction may take in all. Connecting to a node that has just died takes Citus
/// `citus.node_connection_timeout`, 30 s by default, with the lock held.
const DEADLINE: Duration = Duration::from_secs(15);

/// What became of one registration: the node id, or why there is none.
pub struct Registration {
    pub endpoint: SocketAddr,
    pub result: Result<i32, Error>,
}

/// What became of all changes.
#[derive(Default)]
pub struct Outcome {
    pub registrations: Vec<Registration>,
    pub coordinator_host: Option<Result<(), Error>>,
}

struct Node<'a> {
    nodename: &'a str,
    nodeport: u16,
    endpoint: SocketAddr,
}

/// Makes the changes of a plan. One that fails costs the others nothing.
pub fn apply(changes: &[Change]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut nodes = Vec::new();
    for change in changes {
        match change {
            Change::SetCoordinatorHost { nodename, nodeport } => {
                outcome.coordinator_host = Some(set_coordinator_host(nodename, *nodeport));
            }
            Change::Register { nodename, nodeport, endpoint } => {
                nodes.push(Node { nodename, nodeport: *nodeport, endpoint: *endpoint });
            }
        }
    }
    outcome.registrations = nodes.chunks(BATCH).flat_map(register).collect();
    outcome
}

/// Adds nodes in one transaction, which is several times as fast as one each; where that fails, in
/// one each, since a failed add cannot be caught inside a transaction.
fn register(nodes: &[Node<'_>]) -> Vec<Registration> {
    match change(|| nodes.iter().map(add).collect::<Result<Vec<i32>, Error>>()) {
        Ok(ids) => nodes
            .iter()
            .zip(ids)
            .map(|(node, nodeid)| Registration { endpoint: node.endpoint, result: Ok(nodeid) })
            .collect(),
        Err(error) if nodes.len() == 1 || concerns_all(&error) => {
            let message = error.to_string();
            nodes
                .iter()
                .map(|node| Registration {
                    endpoint: node.endpoint,
                    result: Err(Error::Internal(message.clone())),
                })
                .collect()
        }
        Err(_) => nodes.chunks(1).flat_map(register).collect(),
    }
}

/// Whether every other node would fail the same way after the same wait.
fn concerns_all(error: &Error) -> bool {
    use PgSqlErrorCode as Code;
    matches!(
        error,
        Error::Raised {
            sqlstate: Code::ERRCODE_LOCK_NOT_AVAILABLE | Code::ERRCODE_QUERY_CANCELED,
            ..
        } | Error::Paused
    )
}

fn add(node: &Node<'_>) -> Result<i32, Error> {
    let nodeid = Spi::get_one_with_args(
        "SELECT pg_catalog.citus_add_node($1, $2)",
        &[node.nodename.into(), i32::from(node.nodeport).into()],
    )?;
    nodeid.ok_or_else(|| Error::Internal("citus_add_node returned no node id".into()))
}

fn set_coordinator_host(nodename: &str, nodeport: u16) -> Result<(), Error> {
    change(|| {
        Spi::run_with_args(
            "SELECT pg_catalog.citus_set_coordinator_host($1, $2)",
            &[nodename.into(), i32::from(nodeport).into()],
        )?;
        Ok(())
    })
}

/// Runs a change in a transaction that waits for no lock longer than `LOCK_TIMEOUT`, ends after
/// `DEADLINE`, and does not begin once `fleet.pause()` has been committed.
fn change<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    transaction(|| {
        let _deadline = StatementDeadline::start(DEADLINE);
        Spi::run(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))?;
        // Citus refuses its other mode inside a transaction.
        Spi::run("SET LOCAL citus.metadata_sync_mode = 'transactional'")?;
        // The lock makes fleet.pause() wait for a change that has begun.
        let paused: Option<bool> = Spi::get_one("SELECT c.paused FROM fleet.control c FOR SHARE")?;
        if paused != Some(false) {
            return Err(Error::Paused);
        }
        body()
    })
}
