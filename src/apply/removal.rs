//! Owns taking a worker out of the cluster, step by step, in the session of the operator who asked
//! for it: `sql_api::removal` puts the steps together.
//! Must not take anything out that still holds a shard, nor wait without a deadline for what others
//! hold a lock on meanwhile.

use super::{identities, pause};
use crate::backend::catalog::{self, read_one};
use crate::backend::signals::{self, StatementDeadline};
use crate::error::Error;
use crate::observe::{coordinator, holders};
use decide::configuration::cleanup::Leftovers;
use decide::membership::cause::{Cause, Holder, describe};
use decide::membership::coordinator::DistNode;
use decide::node::Node;
use pgrx::PgTryBuilder;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use serde::Deserialize;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// A worker, and what its removal depends on.
#[derive(Debug)]
pub struct Leaving {
    pub nodeid: i32,
    pub nodename: String,
    pub nodeport: u16,
    pub groupid: i32,
    /// Another active node takes shards.
    pub has_elsewhere: bool,
    /// A background job of Citus has not ended: it may be moving shards to the node.
    pub is_job_running: bool,
}

/// Shards of one table.
#[derive(Debug, Deserialize)]
pub struct Held {
    pub table: String,
    pub shards: u64,
}

/// The primary worker of that name and port.
pub fn find(nodename: &str, nodeport: i32) -> Result<Option<Leaving>, Error> {
    let (coordinator, _) = as_it_is_now(|| coordinator::read(false))?;
    let mut workers = coordinator.worker_rows();
    let row = workers.find(|row| row.nodename == nodename && row.nodeport == nodeport);
    let takes_shards =
        |other: &DistNode| other.is_primary && other.isactive && other.shouldhaveshards;
    Ok(row.map(|row| Leaving {
        nodeid: row.nodeid,
        nodename: row.nodename.clone(),
        nodeport: row.port().unwrap_or_default(),
        groupid: row.groupid,
        has_elsewhere: coordinator
            .nodes()
            .iter()
            .any(|other| other.groupid != row.groupid && takes_shards(other)),
        is_job_running: coordinator.citus.as_ref().is_some_and(|citus| citus.is_job_running),
    }))
}

/// Those of these nodes that Citus sends every change of the metadata to, and whose servers are known.
pub fn with_metadata(nodeids: Vec<i32>) -> Result<Vec<i32>, Error> {
    let statement = "SELECT COALESCE(pg_catalog.json_agg(d.nodeid), '[]')::pg_catalog.text
         FROM pg_catalog.pg_dist_node d
         JOIN fleet.identities i ON i.nodeid OPERATOR(pg_catalog.=) d.nodeid
         WHERE d.isactive AND d.hasmetadata AND d.nodeid OPERATOR(pg_catalog.=) ANY ($1)";
    as_it_is_now(|| catalog::value(statement, &[nodeids.into()]))
}

/// What a node holds, apart from reference tables, which every node has.
///
/// Copies of shards that other nodes have too count: `citus_remove_node` deletes their placements by
/// placement id, and after a move the workers know them by other ids than the coordinator (Citus
/// 13.2: queries on the workers then fail with "there is a shard placement in node group …").
pub fn held(groupid: i32) -> Result<Vec<Held>, Error> {
    let statement = "SELECT COALESCE(pg_catalog.json_agg(h), '[]')::pg_catalog.text FROM (
           SELECT s.logicalrelid::pg_catalog.text AS \"table\", pg_catalog.count(*) AS shards
           FROM pg_catalog.pg_dist_placement p
           JOIN pg_catalog.pg_dist_shard s ON s.shardid OPERATOR(pg_catalog.=) p.shardid
           JOIN pg_catalog.pg_dist_partition t ON t.logicalrelid OPERATOR(pg_catalog.=) s.logicalrelid
           WHERE p.groupid OPERATOR(pg_catalog.=) $1 AND t.repmodel OPERATOR(pg_catalog.<>) 't'
           GROUP BY s.logicalrelid ORDER BY 1) h";
    as_it_is_now(|| catalog::value(statement, &[groupid.into()]))
}

/// Whether something of an interrupted move is left on the node that is not a table: a replication
/// slot, a publication, a subscription, a role. Citus cleans that up only while it has the node.
pub fn has_remains(groupid: i32) -> Result<bool, Error> {
    let any: Option<bool> = look_up(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_cleanup c
           WHERE c.node_group_id OPERATOR(pg_catalog.=) $1 AND c.object_type OPERATOR(pg_catalog.<>) 1)",
        &[groupid.into()],
    )?;
    Ok(any == Some(true))
}

/// Moves every shard away. Citus commits each move on its own, and the first thing it does is to
/// let the node have no new shards: what has been done stays done, whatever ends the call.
pub fn drain(nodename: &str, nodeport: i32, shard_transfer_mode: &str) -> Result<(), Error> {
    look_up::<String>(
        "SELECT pg_catalog.citus_drain_node($1, $2, $3::citus.shard_transfer_mode)::pg_catalog.text",
        &[nodename.into(), nodeport.into(), shard_transfer_mode.into()],
    )
    .map(drop)
}

/// How long the node, and whoever holds locks there, may keep everybody waiting: the lock on
/// `pg_dist_node` is held meanwhile.
const DEADLINE: Duration = Duration::from_secs(15);

/// Waits, with no lock held, until whoever holds a lock that the removal has to take has let go of it.
/// `answers`: the worker is asked too.
///
/// Errors: 55P03 where they have not after the deadline; it names them.
pub fn wait_for_others(node: &Leaving, answers: bool) -> Result<(), Error> {
    let started = Instant::now();
    // SAFETY: a setting of this session.
    let own = Duration::from_millis(unsafe { pg_sys::LockTimeout }.unsigned_abs().into());
    let patience = if own.is_zero() { DEADLINE } else { own.min(DEADLINE) };
    let mut before: Option<Vec<InTheWay>> = None;
    loop {
        let mut now = in_the_way(node, answers)?;
        // Others may have come meanwhile: in the queue for the lock it is the removal's turn then.
        now.retain(|it| before.as_ref().is_none_or(|before| before.contains(it)));
        if now.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= patience {
            return Err(still_used(patience, Some(&now)));
        }
        before = Some(now);
        signals::sleep(Duration::from_millis(200));
        // SAFETY: the latch of this session; a cancel is raised here.
        unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        pgrx::check_for_interrupts!();
    }
}

/// Who holds a lock, and on which server.
#[derive(PartialEq)]
struct InTheWay {
    server: String,
    by: String,
    ending: String,
}

fn in_the_way(node: &Leaving, answers: bool) -> Result<Vec<InTheWay>, Error> {
    let at = |server: &str, holders: Vec<Holder>| -> Vec<InTheWay> {
        let each = holders.into_iter().map(|holder| describe(&[holder]));
        each.map(|(by, ending)| InTheWay { server: server.to_owned(), by, ending }).collect()
    };
    let here = match holders::cause(&[], false)? {
        Cause::Locked(holders) => at("the coordinator", holders),
        Cause::Blocked(block) => vec![InTheWay {
            server: "the coordinator".to_owned(),
            by: format!("{}, until {}", block.by, block.until),
            ending: "SELECT citus_cluster_changes_unblock();".to_owned(),
        }],
        Cause::Refused | Cause::Hung(_) => Vec::new(),
    };
    if !answers {
        return Ok(here);
    }
    let Leaving { nodeid, nodename, nodeport, .. } = node;
    let there = holders::on_worker(Node {
        nodeid: *nodeid,
        nodename: nodename.clone(),
        nodeport: *nodeport,
    })?;
    Ok(here.into_iter().chain(at(&format!("{nodename}:{nodeport}"), there)).collect())
}

/// 55P03, with those who were found to hold a lock.
fn still_used(time: Duration, by: Option<&[InTheWay]>) -> Error {
    let list =
        |of: fn(&InTheWay) -> String| by.map(|by| by.iter().map(of).collect::<Vec<_>>().join("; "));
    let hint = match list(|it| format!("on {}: {}", it.server, it.ending)) {
        Some(endings) => format!("Wait, or end them, and call again; nothing has been removed: {endings}"),
        None => "Clients that are connected to it, or another change of the cluster, hold locks: end them, and call again. Nothing has been removed.".to_owned(),
    };
    let by = list(|it| format!("A lock on {} is held by {}", it.server, it.by));
    Error::StillUsed { time, by, hint }
}

/// Takes the node out of the metadata and records it as removed, in the caller's transaction; false
/// where its identity was never known, so that nothing could be recorded. Its own metadata is taken
/// away only where `answers`: the server at its address is known to be it. Nor is anything sent to other
/// workers that do not answer as themselves: they get all metadata anew once they do.
///
/// Errors: 55000 once the fleet is paused; 42704 when the node is gone; 55P03 after the deadline.
pub fn remove(node: &Leaving, answers: bool, silent: &[i32]) -> Result<bool, Error> {
    let started = Instant::now();
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let _deadline = StatementDeadline::start(DEADLINE);
        take_out(node, answers, silent)
    }))
    .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |cause| {
        if started.elapsed() >= DEADLINE {
            Err(still_used(DEADLINE, None))
        } else {
            cause.rethrow()
        }
    })
    .execute()
}

fn take_out(node: &Leaving, answers: bool, silent: &[i32]) -> Result<bool, Error> {
    pause::hold_off()?;
    // The node may have moved since it was looked up: nobody moves it now.
    Spi::run("LOCK TABLE pg_catalog.pg_dist_node IN EXCLUSIVE MODE")?;
    let (nodename, nodeport) = Spi::get_two_with_args::<String, i32>(
        "SELECT pg_catalog.min(d.nodename), pg_catalog.min(d.nodeport) FROM pg_catalog.pg_dist_node d
         WHERE d.nodeid OPERATOR(pg_catalog.=) $1",
        &[node.nodeid.into()],
    )?;
    let nodename =
        nodename.ok_or_else(|| Error::NoSuchWorker(format!("with nodeid {}", node.nodeid)))?;
    let is_recorded: Option<bool> = Spi::get_one_with_args(
        include_str!("record_removed.sql"),
        &[
            node.nodeid.into(),
            node.groupid.into(),
            nodename.as_str().into(),
            nodeport.into(),
            answers.into(),
        ],
    )?;
    // Citus would never look at these again, and refuse to move the shards that they name for ever.
    Spi::run_with_args(
        "DELETE FROM pg_catalog.pg_dist_cleanup c WHERE c.node_group_id OPERATOR(pg_catalog.=) $1",
        &[node.groupid.into()],
    )?;
    for nodeid in silent {
        leave_out(*nodeid)?;
    }
    let nodeport = if answers {
        Spi::run_with_args(
            "SELECT pg_catalog.stop_metadata_sync_to_node($1, $2, true)",
            &[nodename.as_str().into(), nodeport.into()],
        )?;
        nodeport
    } else {
        unreach(node.nodeid)?;
        Some(UNREACHABLE_PORT)
    };
    Spi::run_with_args(
        "SELECT pg_catalog.citus_remove_node($1, $2)",
        &[nodename.as_str().into(), nodeport.into()],
    )?;
    Ok(is_recorded == Some(true))
}

/// libpq refuses it without a question to DNS or to the network.
const UNREACHABLE_PORT: i32 = 0;

/// Gives a node that is about to go a port at which nobody can be: Citus 14.1 and later tell whoever
/// answers at its address that it is no worker any more, and wait for one that does not.
fn unreach(nodeid: i32) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        "UPDATE pg_catalog.pg_dist_node SET nodeport = $2, hasmetadata = false, metadatasynced = false
         WHERE nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into(), UNREACHABLE_PORT.into()],
    )?)
}

/// Keeps a change of the metadata from a node whose server cannot take it, or is another one. It counts as
/// disabled by the fleet, which activates it, with all metadata, when its own server is back in order.
fn leave_out(nodeid: i32) -> Result<(), Error> {
    Spi::run_with_args(
        "UPDATE pg_catalog.pg_dist_node SET hasmetadata = false, metadatasynced = false
         WHERE nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into()],
    )?;
    identities::set_disabled(nodeid, true)
}

/// Shards that were moved away from nodes other than this one and wait to be dropped there.
pub fn leftovers(groupid: i32) -> Result<Leftovers, Error> {
    let statement = "SELECT pg_catalog.json_build_object(
           'version', (SELECT e.extversion FROM pg_catalog.pg_extension e
                       WHERE e.extname OPERATOR(pg_catalog.=) 'citus'),
           'count', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_dist_cleanup c
                     WHERE c.object_type OPERATOR(pg_catalog.=) 1
                       AND c.node_group_id OPERATOR(pg_catalog.<>) $1))::pg_catalog.text";
    as_it_is_now(|| catalog::value(statement, &[groupid.into()]))
}

/// Lets a removed server join again: the one that was removed last under that name, or that
/// `fleet.workers` shows with it. None where there is no such server, false while it is to be cleaned.
pub fn enroll(nodename: &str, nodeport: i32) -> Result<Option<bool>, Error> {
    let removed: Option<i64> = read_one(
        "SELECT r.system_identifier FROM fleet.removed r
         WHERE (r.nodename OPERATOR(pg_catalog.=) $1 AND r.nodeport OPERATOR(pg_catalog.=) $2)
           OR r.system_identifier OPERATOR(pg_catalog.=) ANY (
             SELECT w.system_identifier FROM fleet.workers w
             WHERE w.nodename OPERATOR(pg_catalog.=) $1 AND w.nodeport OPERATOR(pg_catalog.=) $2)
         ORDER BY r.removed_at DESC LIMIT 1",
        &[nodename.into(), nodeport.into()],
    )?;
    let Some(system_identifier) = removed else {
        return Ok(None);
    };
    // One that did not answer when it was removed still takes itself for a worker: preflight refuses it.
    let is_let_in: Option<i64> = Spi::get_one_with_args(
        "WITH gone AS (
           DELETE FROM fleet.removed r
           WHERE r.system_identifier OPERATOR(pg_catalog.=) $1 AND (r.cleaned_at IS NOT NULL OR r.address IS NULL)
           RETURNING r.system_identifier)
         SELECT pg_catalog.max(g.system_identifier) FROM gone g",
        &[system_identifier.into()],
    )?;
    Ok(Some(is_let_in.is_some()))
}

/// Whether a removed server that is called so is seen to take itself for a worker still.
pub fn is_unaware(nodename: &str, nodeport: i32) -> Result<bool, Error> {
    let is_unaware: Option<bool> = read_one(
        "SELECT EXISTS (SELECT FROM fleet.workers w
           WHERE w.nodename OPERATOR(pg_catalog.=) $1 AND w.nodeport OPERATOR(pg_catalog.=) $2
             AND w.code OPERATOR(pg_catalog.=) 'removed_unaware')",
        &[nodename.into(), nodeport.into()],
    )?;
    Ok(is_unaware == Some(true))
}

/// The first column of the first row, [as it is now](as_it_is_now).
pub fn look_up<T: FromDatum + IntoDatum>(
    statement: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<T>, Error> {
    as_it_is_now(|| read_one(statement, arguments))
}

/// Reads what everybody sees at this moment: draining takes long, and what it changes is committed by
/// others. It assigns no transaction id, which whoever creates a replication slot would wait for.
fn as_it_is_now<T>(read: impl FnOnce() -> T) -> T {
    // SAFETY: pushed and popped here; an ERROR in between ends the transaction and with it the stack.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let value = read();
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
    value
}
