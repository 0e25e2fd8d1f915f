//! Owns what keeps a change from being made, once it has been tried: who holds the lock that it needs, above all.
//! Must not look for anybody; whoever tries the change does.

use serde::Deserialize;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Citus did not accept it, or something failed.
    Refused,
    /// Others hold a lock that it needs.
    Locked(Vec<Holder>),
    /// An operator keeps the cluster from changing, for a backup.
    Blocked(Block),
    /// A server let the cluster wait while it was to join it.
    Hung(Hang),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hang {
    /// How long, in which nobody else could change the cluster.
    pub took: Duration,
    /// It was this one; else it may have been another one of the same transaction.
    pub is_known: bool,
}

/// Whoever holds a lock: a process, or a transaction that was prepared and belongs to none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Holder {
    pub pid: Option<i32>,
    pub gid: Option<String>,
    pub application: String,
    pub role: String,
    pub since: String,
}

/// `citus_cluster_changes_block()`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Block {
    pub until: String,
    pub by: String,
}

impl Cause {
    pub fn is_hang(&self) -> bool {
        matches!(self, Self::Hung(_))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, gid, application, role, since } = self;
        match (pid, gid) {
            (Some(pid), _) => {
                write!(f, "process {pid} (application {application:?}, role {role}, since {since})")
            }
            (None, gid) => {
                let gid = gid.as_deref().unwrap_or_default();
                write!(f, "the prepared transaction {gid:?} (role {role}, since {since})")
            }
        }
    }
}

impl Holder {
    /// The statement that ends it. What Citus has prepared is for Citus to end: whether to commit it is
    /// known to the node that began it alone.
    pub fn ending(&self) -> String {
        match (self.pid, &self.gid) {
            (Some(pid), _) => format!("SELECT pg_terminate_backend({pid});"),
            (None, Some(gid)) if gid.starts_with("citus_") => {
                "SELECT recover_prepared_transactions(); on the node that began it.".to_owned()
            }
            (None, gid) => {
                let gid = gid.as_deref().unwrap_or_default().replace('\'', "''");
                format!("ROLLBACK PREPARED '{gid}';")
            }
        }
    }
}

/// All of them, and the statements that end them.
pub fn describe(holders: &[Holder]) -> (String, String) {
    let join = |texts: Vec<String>, by| texts.join(by);
    (
        join(holders.iter().map(Holder::to_string).collect(), ", "),
        join(holders.iter().map(Holder::ending).collect(), " "),
    )
}
