//! Owns what a plan can want done, each a call of one Citus function or one visit to a server.
//! Must not do any of it.

use super::cause::Cause;
use super::lineage::{Lineage, Lsn};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A change that was not made, and when it may be tried again.
#[derive(Clone, Debug)]
pub struct ChangeFailure {
    /// What was to be done.
    pub what: String,
    pub reason: String,
    pub cause: Cause,
    /// Of the same kind, one after another: those that hung, or those that did not.
    pub attempts: u32,
    pub failed_at: Duration,
    pub retry_at: Duration,
}

impl ChangeFailure {
    pub fn has_hung(&self) -> bool {
        self.cause.is_hang()
    }

    /// The same, for somebody who wants another attempt now.
    pub fn forgiven(self) -> Self {
        Self { retry_at: Duration::ZERO, ..self }
    }

    pub fn is_forgiven(&self) -> bool {
        self.retry_at.is_zero()
    }
}

impl fmt::Display for ChangeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed, to be repeated: {}: {}", self.what, self.reason)
    }
}

/// What the plan wants done, each a call of one Citus function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    SetCoordinatorHost {
        nodename: String,
        nodeport: u16,
    },
    Register {
        nodename: String,
        nodeport: u16,
        endpoint: SocketAddr,
        lineage: Lineage,
    },
    /// The worker's server lives elsewhere now: its row follows, with the same nodeid.
    UpdateAddress {
        nodeid: i32,
        from: (String, i32),
        nodename: String,
        nodeport: u16,
        endpoint: SocketAddr,
        lineage: Lineage,
        /// How many bytes of WAL that were seen are not on it.
        lacks: u64,
        /// Where it was promoted, where it was.
        switch: Option<Lsn>,
        /// How far the worker had been seen to come.
        last_seen: Option<Lsn>,
        /// The mark that it is known by until then.
        known_mark: Option<String>,
    },
    /// A worker has no mark of the coordinator, or was promoted since it got one.
    Mark {
        nodeid: i32,
        nodename: String,
        endpoint: SocketAddr,
        system_identifier: i64,
    },
    /// A worker that the fleet has disabled is back.
    Reactivate {
        nodeid: i32,
        nodename: String,
        nodeport: u16,
    },
    /// A worker is absent, and the operator wants such workers disabled.
    Disable {
        nodeid: i32,
        nodename: String,
        nodeport: u16,
    },
    /// A removed server still has relations that Citus has left on it.
    Clean {
        /// What a certificate of the server there is checked against.
        nodename: String,
        endpoint: SocketAddr,
        system_identifier: i64,
        relations: Vec<String>,
    },
    /// Workers have joined and hold no shards yet.
    Rebalance,
}

/// What a change is about: the coordinator's own row, the shards of all nodes, a server that has no
/// row, or a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Coordinator,
    Shards,
    Endpoint(SocketAddr),
    Node(i32),
}

impl Change {
    pub fn subject(&self) -> Subject {
        match self {
            Self::SetCoordinatorHost { .. } => Subject::Coordinator,
            Self::Rebalance => Subject::Shards,
            Self::Register { endpoint, .. } | Self::Clean { endpoint, .. } => {
                Subject::Endpoint(*endpoint)
            }
            Self::UpdateAddress { nodeid, .. }
            | Self::Mark { nodeid, .. }
            | Self::Reactivate { nodeid, .. }
            | Self::Disable { nodeid, .. } => Subject::Node(*nodeid),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetCoordinatorHost { nodename, nodeport } => {
                write!(f, "set the coordinator's address to {nodename}:{nodeport}")
            }
            Self::Register { nodename, nodeport, .. } => {
                write!(f, "register {nodename}:{nodeport}")
            }
            Self::UpdateAddress { nodeid, from: (name, port), nodename, nodeport, .. } => {
                write!(f, "move node {nodeid} from {name}:{port} to {nodename}:{nodeport}")
            }
            Self::Mark { nodeid, endpoint, .. } => {
                write!(f, "mark the data of node {nodeid} at {endpoint}")
            }
            Self::Reactivate { nodeid, nodename, nodeport } => {
                write!(f, "reactivate node {nodeid}, {nodename}:{nodeport}")
            }
            Self::Disable { nodeid, nodename, nodeport } => {
                write!(f, "disable node {nodeid}, {nodename}:{nodeport}")
            }
            Self::Clean { endpoint, relations, .. } => {
                write!(f, "drop what was left on {endpoint}: {} relations", relations.len())
            }
            Self::Rebalance => write!(f, "start the rebalancer for the workers that have joined"),
        }
    }
}
