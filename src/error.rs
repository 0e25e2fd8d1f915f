//! Owns the errors a caller can meet, each with its SQLSTATE and a hint that says what to do.
//! Must not carry secrets: messages of libpq and of the server pass through `one_line` first.

use decide::login::LoginFailure;
use decide::search::recall::ask::BadAsk;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiError;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

#[derive(Clone, Debug, Error)]
pub enum Error {
    #[error("the argument {0} may not be NULL")]
    NullArgument(&'static str),
    #[error("permission denied for {0}")]
    NotSuperuser(&'static str),
    #[error("cannot execute {0} during recovery")]
    InRecovery(&'static str),
    #[error("citus_fleet is not loaded by the server")]
    NotPreloaded,
    #[error("the controller of citus_fleet looks after database {controlled:?}, not this one")]
    OtherDatabase { controlled: String },
    #[error("the controller of citus_fleet is not running")]
    NoController,
    #[error("the controller of citus_fleet has not answered within {seconds} s")]
    NoAnswer { seconds: u64 },
    #[error("the extension citus is not installed in this database")]
    NoCitus,
    #[error("this node is a worker of group {group}, not the coordinator")]
    NotCoordinator { group: i32 },
    #[error("the controller could not make the pass: {0}")]
    PassFailed(String),
    #[error("there is no view {0:?} of vector-shard health")]
    NoSuchView(String),
    #[error("there is no check {0:?} of vector-shard health")]
    NoSuchCheck(String),
    #[error("check {0} is about nodes or the cluster, not about tables")]
    NotOfTables(&'static str),
    #[error("a silence has to end, at a moment that is to come within ten years")]
    SilenceWithoutEnd,
    #[error("a silence needs a reason")]
    SilencedWithoutWhy,
    #[error("check {0} is not silenced there")]
    NotSilenced(String),
    #[error("the fleet is paused")]
    Paused,
    #[error("there is no worker {0}")]
    NoSuchWorker(String),
    #[error("{0} is being removed by another session")]
    BeingRemoved(String),
    #[error("{node} cannot be drained: it is {state}")]
    NotInOrder { node: String, state: String, reason: String },
    #[error("{0} cannot be drained: no other node takes shards")]
    NowhereToGo(String),
    #[error("{node} still holds shards")]
    HoldsData { node: String, held: String },
    #[error("something of an interrupted shard move is left on {0}")]
    HoldsRemains(String),
    #[error("a background job of Citus is running")]
    JobRunning,
    #[error("the worker could not be taken out within {} s", .time.as_secs())]
    StillUsed { time: Duration, by: Option<String>, hint: String },
    #[error("no running primary was found that could be the worker {0}")]
    NobodyToAccept(String),
    #[error("more than one server answers for {node}: {servers}")]
    SeveralToAccept { node: String, servers: String },
    #[error("the server runs PostgreSQL {theirs}, the coordinator PostgreSQL {ours}")]
    OtherMajor { theirs: u32, ours: u32 },
    #[error("the server that answers for {node} lacks shards of it")]
    ShardsMissing { node: String, shards: String },
    #[error("the server that answers for {node} belongs to another cluster, or is another node")]
    OtherClusters { node: String, owner: String },
    #[error("the worker {node} is in order, at {own}, and the server at {other} is another one")]
    InOrder { node: String, own: SocketAddr, other: SocketAddr },
    #[error("this server is not known to be at the coordinator's address")]
    Disputed(String),
    #[error("no server that was removed is known as {0}")]
    NotRemoved(String),
    #[error("{0} has not been cleaned yet")]
    NotClean(String),
    #[error("{0} still takes itself for a worker of this cluster")]
    Unaware(String),
    #[error("the relation is {0}, which has no rows of its own")]
    NotATable(&'static str),
    #[error("permission denied for the table")]
    MayNotRead(&'static str),
    #[error("the table has no column of type vector, halfvec, sparsevec or bit")]
    NoVectors,
    #[error("the table has no hnsw or ivfflat index")]
    NoAnnIndex { lacks_dimensions: bool },
    #[error("{0:?} is not an option of vector searches or index builds")]
    NoSuchOption(String),
    #[error("node {node} does not take the setting: {message}")]
    NodeDeclines { node: String, message: String },
    #[error("{0}")]
    BadAsk(#[from] BadAsk),
    /// An ERROR raised inside a transaction of the controller.
    #[error("{message}")]
    Raised { sqlstate: PgSqlErrorCode, message: String, hint: Option<String> },
    #[error("{0}")]
    Internal(String),
}

impl Error {
    fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            Self::NotSuperuser(_) => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::NullArgument(_) => PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Self::InRecovery(_) => PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            Self::NotPreloaded
            | Self::OtherDatabase { .. }
            | Self::NoController
            | Self::NoCitus
            | Self::Paused
            | Self::NotInOrder { .. }
            | Self::NowhereToGo(_)
            | Self::HoldsData { .. }
            | Self::HoldsRemains(_)
            | Self::NotClean(_)
            | Self::Unaware(_)
            | Self::NobodyToAccept(_)
            | Self::SeveralToAccept { .. }
            | Self::OtherMajor { .. }
            | Self::ShardsMissing { .. }
            | Self::OtherClusters { .. }
            | Self::InOrder { .. }
            | Self::Disputed(_)
            | Self::NotCoordinator { .. } => {
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::NoSuchWorker(_) | Self::NotRemoved(_) | Self::NotSilenced(_) => {
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT
            }
            Self::BeingRemoved(_) | Self::JobRunning => PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            Self::StillUsed { .. } => PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            Self::NotATable(_) | Self::NoVectors => PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            Self::MayNotRead(_) => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::NoAnnIndex { .. } => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::NodeDeclines { .. } => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::NoSuchView(_)
            | Self::NoSuchCheck(_)
            | Self::NotOfTables(_)
            | Self::SilenceWithoutEnd
            | Self::SilencedWithoutWhy
            | Self::NoSuchOption(_)
            | Self::BadAsk(_) => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::NoAnswer { .. } => PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            Self::PassFailed(_) | Self::Internal(_) => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            Self::Raised { sqlstate, .. } => *sqlstate,
        }
    }

    fn hint(&self) -> Option<&str> {
        Some(match self {
            Self::NotSuperuser(_) => {
                "Run the command as a superuser: it changes the cluster's metadata."
            }
            Self::NullArgument(_) => {
                "Give it a value; an argument that has a default can be left out."
            }
            Self::InRecovery(_) => {
                "Run it on the primary coordinator; this server takes over when it is promoted."
            }
            Self::NotPreloaded => {
                "Set shared_preload_libraries = 'citus,citus_fleet' and restart the server."
            }
            Self::OtherDatabase { .. } => {
                "Connect to that database, or set citus_fleet.database and restart the server."
            }
            Self::NoController => {
                "It restarts within a second of a crash; if it does not, see the server log and max_worker_processes."
            }
            Self::NoAnswer { .. } => {
                "SELECT fleet.status() says what it is doing; the server log says more."
            }
            Self::NoCitus => {
                "Run CREATE EXTENSION citus; citus belongs into shared_preload_libraries before citus_fleet."
            }
            Self::NotCoordinator { .. } => {
                "Connect to the coordinator: it alone looks after the cluster."
            }
            Self::NoSuchView(_) => {
                "It is one of shards, indexes, tables, nodes, recalls, findings and progress."
            }
            Self::NoSuchCheck(_) => {
                "SELECT fleet.vector_health(true) -> 'details' -> 'checks'; lists them, docs/vector-health.md describes them."
            }
            Self::NotOfTables(_) => "Silence it for the whole cluster: relation => NULL.",
            Self::SilenceWithoutEnd => "Give it one, such as now() + '90 days'; it can be renewed.",
            Self::SilencedWithoutWhy => {
                "Say why it is meant to be so: whoever reads the report next has to know."
            }
            Self::NotSilenced(_) => {
                "SELECT * FROM fleet.silences; lists what is, by check and relation."
            }
            Self::NotATable(_) => "It takes a table, a partitioned table or a materialized view.",
            Self::MayNotRead(why) => why,
            Self::NoVectors => "Recall is measured on columns with a vector index.",
            Self::NoAnnIndex { lacks_dimensions: true } => {
                "An index needs dimensions: ALTER TABLE ... ALTER COLUMN ... TYPE vector(n), or index ((column::vector(n)) vector_cosine_ops)."
            }
            Self::NoAnnIndex { .. } => {
                "Without one every search is exact. CREATE INDEX ON ... USING hnsw (column vector_cosine_ops);"
            }
            Self::NoSuchOption(_) => {
                "Options are hnsw.ef_search, hnsw.iterative_scan, hnsw.max_scan_tuples, hnsw.scan_mem_multiplier, ivfflat.probes, ivfflat.max_probes, ivfflat.iterative_scan, maintenance_work_mem and max_parallel_maintenance_workers."
            }
            Self::NodeDeclines { .. } => {
                "Nothing has been changed on any node. A node that is down has to be back, or be disabled with citus_disable_node()."
            }
            Self::BadAsk(_) => {
                "The defaults are 10 neighbours of 100 rows within 30 s; a sample larger than the table is all of it."
            }
            Self::Paused => "SELECT fleet.resume();",
            Self::NoSuchWorker(_) => {
                "SELECT nodename, nodeport FROM fleet.workers WHERE nodeid IS NOT NULL; lists them."
            }
            Self::BeingRemoved(_) => {
                "Wait for that session, or end it: a call goes on where the last one ended."
            }
            Self::NotInOrder { .. } => {
                "Bring it back first. With drain => false it is removed as it is, where it holds no shards."
            }
            Self::NowhereToGo(_) => {
                "Register another worker, or let a node take shards: SELECT citus_set_node_property('<name>', <port>, 'shouldhaveshards', true);"
            }
            Self::HoldsData { .. } => "Move the shards away (drain => true), or drop the tables.",
            Self::HoldsRemains(_) => "CALL citus_cleanup_orphaned_resources(); and call again.",
            Self::JobRunning => {
                "It may be moving shards to the worker. SELECT citus_job_wait(<job_id>); or SELECT citus_rebalance_stop();"
            }
            Self::StillUsed { hint, .. } => hint,
            Self::NotRemoved(_) => {
                "SELECT nodename, nodeport, removed_at FROM fleet.removed; lists them."
            }
            Self::Unaware(_) => {
                "It could not be told when it was removed. Empty its data directory and run initdb: it joins as a new worker by itself."
            }
            Self::NotClean(_) => {
                "The controller drops what Citus has left there as soon as it answers; fleet.workers says what keeps it."
            }
            Self::NobodyToAccept(_) => {
                "It has to run, be promoted, take itself for a worker of that group, and be at the address of the node's row or named by a source; SELECT * FROM fleet.workers; says what is there."
            }
            Self::SeveralToAccept { .. } => {
                "Stop those that are not to be it, or name the one: SELECT fleet.accept_server('<its address>', <its port>);"
            }
            Self::OtherMajor { .. } => "Run the same major version on all nodes.",
            Self::ShardsMissing { .. } => {
                "Find the server that has them. With force => true this one is accepted without: the shards stay in the metadata, and queries that need them fail."
            }
            Self::OtherClusters { .. } => {
                "Name the server that is this worker. With force => true the row is led to this one all the same."
            }
            Self::InOrder { .. } => {
                "If the other one is to be it, stop the one that runs, and save its rows first. With force => true the row is led to the other one all the same."
            }
            Self::Disputed(_) => {
                "There may be another coordinator, so nothing is changed here. On the one that is: citus_fleet.coordinator_host has to lead to it. Stop the other, or take citus_fleet.workers out of its configuration."
            }
            Self::Raised { hint, .. } => return hint.as_deref(),
            Self::PassFailed(_) | Self::Internal(_) => return None,
        })
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::NotInOrder { reason, .. } => Some(reason),
            Self::HoldsData { held, .. } => Some(held),
            Self::ShardsMissing { shards, .. } => Some(shards),
            Self::OtherClusters { owner, .. } => Some(owner),
            Self::Disputed(reason) => Some(reason),
            Self::StillUsed { by, .. } => by.as_deref(),
            _ => None,
        }
    }

    /// Raises the error as PostgreSQL's own.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.sqlstate(), self.to_string(), "citus_fleet");
        if let Some(detail) = self.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint() {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

/// An argument that may not be NULL. PostgreSQL does not even call a function that is STRICT, and whoever
/// calls it takes the silence for a success.
pub fn given<T>(argument: Option<T>, name: &'static str) -> T {
    argument.unwrap_or_else(|| Error::NullArgument(name).raise())
}

impl From<SpiError> for Error {
    fn from(error: SpiError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// What another server, or libpq, says; in one line already.
impl From<LoginFailure> for Error {
    fn from(failure: LoginFailure) -> Self {
        Self::Internal(failure.message)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(format!("unexpected JSON: {error}"))
    }
}

/// Foreign text as one line of bounded length, without control characters: fit for a log, a table
/// and a metric label.
pub fn one_line(text: &str) -> String {
    const MOST_CHARS: usize = 300;
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c == ' ').filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn foreign_text_becomes_one_bounded_line() {
        assert_eq!(one_line("a\n\tb\u{1b}[31m  c\r\n"), "a b [31m c");
        assert_eq!(one_line(&"é".repeat(1000)).chars().count(), 301);
    }
}
