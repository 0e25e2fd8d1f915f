//! Owns the functions that SQL calls: they check who calls and where, and pass on.
//! Must not change the cluster by itself: a session asks the controller, which does. The functions of
//! vector-shard health ask the nodes themselves, and change nothing.

mod acceptance;
mod doctor;
pub mod recall;
mod removal;
pub mod search_options;
pub mod silence;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod vector;

use crate::board::report::Report;
use crate::error::Error;
use crate::session::{autoregister, set_paused, snapshot_json, snapshot_of_now, status_json};
use pgrx::prelude::*;

#[pg_schema]
pub mod pg_catalog {
    use super::{Error, Report, autoregister};
    use crate::backend::encoding::Text;
    use crate::error::given;
    use pgrx::prelude::*;

    /// Runs one full pass now: asks every source, probes every server, and registers the workers
    /// that pass preflight; with `dry_run`, only says what it would do.
    ///
    /// The pass is the controller's own, in transactions of its own: nothing talks to the network
    /// while the caller's transaction is held up, one worker that fails does not take the others
    /// with it, and a ROLLBACK of the caller undoes nothing. It may be cancelled at any moment; the
    /// controller makes the pass all the same: it has begun, or would come anyway.
    ///
    /// Errors: 42501 unless superuser; 25006 on a standby; 55000 on a worker, without Citus, in
    /// another database than the controller's, or when the library is not preloaded.
    // pgrx reads the columns from the signature itself and knows no alias.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn citus_autoregister(
        dry_run: default!(Option<bool>, false),
    ) -> TableIterator<
        'static,
        (
            name!(nodename, Text),
            name!(nodeport, i32),
            name!(nodeid, Option<i32>),
            name!(action, String),
            name!(outcome, String),
            name!(reason, Option<Text>),
        ),
    > {
        let dry_run = given(dry_run, "dry_run");
        let report: Report = autoregister(dry_run).unwrap_or_else(|error: Error| error.raise());
        TableIterator::new(report.rows.into_iter().map(|row| {
            let action = match serde_json::to_value(row.action) {
                Ok(serde_json::Value::String(word)) => word,
                _ => String::new(),
            };
            (
                Text(row.nodename),
                row.nodeport,
                row.nodeid,
                action,
                row.outcome.as_str().to_owned(),
                row.reason.map(Text),
            )
        }))
    }
}

#[pg_schema]
pub mod fleet {
    use super::{
        Error, acceptance, doctor, metrics_text, removal, set_paused, snapshot_of_now, status_json,
        vector,
    };
    use crate::backend::encoding::{Json, JsonB, Text};
    use crate::error::given;
    use decide::membership::situations::described;
    use pgrx::prelude::*;

    /// What the controller saw in its last cycle, as JSON; NULL while there is none. The views of
    /// this schema read it.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn snapshot() -> Option<JsonB> {
        snapshot_of_now().unwrap_or_else(|error: Error| error.raise()).map(JsonB)
    }

    /// The controller: role, paused, last cycle, its duration, errors, counts by state.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn status() -> JsonB {
        JsonB(status_json().unwrap_or_else(|error: Error| error.raise()))
    }

    /// Every situation that `fleet.workers` can show by its code, as docs/states.md lists them: the state,
    /// whether it takes an operator to end it, and what reason, cause and remedy say, with the names of what
    /// is filled in in braces.
    #[pg_extern(immutable, parallel_safe)]
    pub fn situations() -> TableIterator<
        'static,
        (
            name!(code, String),
            name!(state, String),
            name!(needs_hands, bool),
            name!(reason, String),
            name!(cause, String),
            name!(remedy, Option<String>),
        ),
    > {
        TableIterator::new(described().map(|it| {
            (
                it.code.to_owned(),
                it.state.to_string(),
                it.needs_hands,
                it.reason.to_owned(),
                it.cause.to_owned(),
                it.remedy.map(str::to_owned),
            )
        }))
    }

    /// The configuration of this node and of the cluster, check by check: `ok`, `warning` or `error`.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn doctor() -> TableIterator<
        'static,
        (
            name!(check, String),
            name!(status, String),
            name!(finding, Text),
            name!(remedy, Option<Text>),
        ),
    > {
        let findings = doctor::examine().unwrap_or_else(|error: Error| error.raise());
        TableIterator::new(findings.into_iter().map(|finding| {
            let (text, remedy) = (Text(finding.finding), finding.remedy.map(Text));
            (finding.check.into(), finding.status.as_str().into(), text, remedy)
        }))
    }

    /// What this node says of its own vector tables: columns, indexes, sizes, statistics, settings,
    /// what is being built. Reads catalogs, statistics and the first pages of vector indexes, and no
    /// row of a table. The views of vector-shard health ask every node for it.
    #[pg_extern(volatile, parallel_unsafe)]
    #[search_path(pg_catalog, pg_temp)]
    pub fn vector_evidence() -> Json {
        Json(vector::evidence().unwrap_or_else(|error: Error| error.raise()))
    }

    /// The rows of one view of vector-shard health, as JSON: every node is asked once, at the same
    /// time, within `citus_fleet.health_timeout`. Runs with the rights of its owner, because the other
    /// nodes are logged in to as Citus does; it reads nothing but evidence.
    ///
    /// Errors: 55000 on a worker; 22023 for a view that there is not.
    #[pg_extern(volatile, parallel_unsafe, security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    pub fn vector_rows(view: Option<&str>) -> Json {
        Json(vector::rows(given(view, "view")).unwrap_or_else(|error: Error| error.raise()))
    }

    /// The metrics of the fleet and of vector-shard health in OpenMetrics, as `/metrics` serves them;
    /// with `shards`, also those of every placement. Asks every node once, as the views do.
    ///
    /// Errors: 55000 on a worker.
    #[pg_extern(volatile, parallel_unsafe, security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    pub fn metrics(shards: default!(Option<bool>, false)) -> Text {
        Text(metrics_text(given(shards, "shards")).unwrap_or_else(|error: Error| error.raise()))
    }

    /// Whether similarity search works well on every shard: status, symptoms, impacts, and diagnoses
    /// with the statements that mend what is wrong. With `verbose`, all of them and details.
    ///
    /// Errors: 55000 on a worker.
    #[pg_extern(volatile, parallel_unsafe, security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    pub fn vector_health(verbose: default!(Option<bool>, false)) -> JsonB {
        JsonB(
            vector::health(given(verbose, "verbose")).unwrap_or_else(|error: Error| error.raise()),
        )
    }

    /// Stops all changes of the cluster's metadata until `fleet.resume()`; observation goes on. Waits
    /// for a change that is under way. Survives a restart and a failover.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn pause() {
        set_paused("fleet.pause()", true).unwrap_or_else(|error: Error| error.raise());
    }

    /// Moves all shards of a worker to the others, verifies that it holds none, and removes it from the cluster and its metadata from it; the controller then drops what
    /// Citus has left on it. The server stays out until `fleet.enroll_worker()`.
    ///
    /// It may be cancelled or killed at any moment: every shard move is committed by itself, and a
    /// call made again goes on where the last one ended. Meanwhile `fleet.workers` shows the worker
    /// as `removing`, with the number of its shards. A ROLLBACK of the caller undoes the removal,
    /// not the moves. `shard_transfer_mode` is that of `citus_drain_node`.
    ///
    /// Without `drain`, a worker that holds no shards is removed as it is, also when it is dead.
    ///
    /// Errors: 42704 where there is no such worker; 55006 while another session removes it or a
    /// background job of Citus runs; 55000 where it does not answer as itself, where its shards have
    /// nowhere to go, or where it still holds some (named in the DETAIL); 55P03 when clients on the
    /// worker hold it up; what Citus raises.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn remove_worker(
        nodename: Option<&str>,
        nodeport: Option<i32>,
        drain: default!(Option<bool>, true),
        shard_transfer_mode: default!(Option<&str>, "'auto'"),
    ) {
        let (nodename, nodeport) = (given(nodename, "nodename"), given(nodeport, "nodeport"));
        let mode = given(shard_transfer_mode, "shard_transfer_mode");
        let transfer = given(drain, "drain").then_some(mode);
        removal::remove(nodename, nodeport, transfer).unwrap_or_else(|error: Error| error.raise());
    }

    /// Lets a server that `fleet.remove_worker()` has taken out join again, by the name it was
    /// removed under or the one that `fleet.workers` shows it with.
    ///
    /// Errors: 42704 where no such server was removed; 55000 while what Citus has left on it has
    /// not been dropped.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn enroll_worker(nodename: Option<&str>, nodeport: Option<i32>) {
        let (nodename, nodeport) = (given(nodename, "nodename"), given(nodeport, "nodeport"));
        removal::enroll(nodename, nodeport).unwrap_or_else(|error: Error| error.raise());
    }

    /// From now on the server that answers for this node is its server: after pg_upgrade, a restore, or a
    /// promotion that lost rows. Ends a conflict between servers with the node's identity, also one that
    /// is remembered, and accepts what is missing.
    ///
    /// `nodename` and `nodeport` are those of the node in `pg_dist_node`, or of one server that
    /// `fleet.workers` shows. The server is found where the node's row leads, or among the candidates, and
    /// has to be a running primary of the node's group, of the coordinator's major version, in its database,
    /// and to have the node's shards; with `force`, those that it lacks are named and accepted. Its identity
    /// and history are recorded and a mark is left in its data; where it is not at the node's address, the
    /// row follows as soon as nobody answers there as this worker. No data is moved or changed.
    ///
    /// Errors: 42501 unless superuser; 42704 where there is no such node; 55000 where no server, or more
    /// than one, answers for it, or one of another major version, or one that lacks shards (named in the
    /// DETAIL).
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn accept_server(
        nodename: Option<&str>,
        nodeport: Option<i32>,
        force: default!(Option<bool>, false),
    ) {
        let (nodename, nodeport) = (given(nodename, "nodename"), given(nodeport, "nodeport"));
        let force = given(force, "force");
        acceptance::accept(nodename, nodeport, force).unwrap_or_else(|error: Error| error.raise());
    }

    /// Lets changes happen again.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn resume() {
        set_paused("fleet.resume()", false).unwrap_or_else(|error: Error| error.raise());
    }
}

fn metrics_text(shards: bool) -> Result<String, Error> {
    let snapshot = snapshot_json()?.unwrap_or_default();
    let vector = vector::rows("all")?;
    Ok(crate::metrics::text(&snapshot, &vector, shards))
}
