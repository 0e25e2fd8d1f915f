//! Owns the calls of Citus's node functions, several to a transaction where that is safe or needed.
//! Must not change a node that `decide` has not passed: Citus itself checks too little.

use super::{identities, pause};
use crate::backend::catalog::read_one;
use crate::backend::transaction::{show_activity, transaction, transaction_while};
use crate::error::Error;
use crate::observe::holders;
use decide::membership::cause::{Cause, Hang, describe};
use decide::membership::change::Change;
use decide::membership::lineage::Mark;
use decide::membership::schedule::{sync_batch, sync_bounds};
use pgrx::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// What was seen this long ago is looked at again before it is acted upon.
const LONG: Duration = Duration::from_secs(10);

/// An attempt that has come to nothing after so long, with nobody else's lock in the way, has kept the cluster
/// waiting, however much there was to send.
const HANGS: Duration = Duration::from_secs(2);

/// A change and what became of it: the node id, or why it was not made.
pub struct Outcome {
    pub change: Change,
    pub result: Result<Option<i32>, Failure>,
    /// The mark that was left in the data of the server that it is about.
    pub mark: Option<Mark>,
}

/// Why a change was not made, and what kept it from being made.
pub struct Failure {
    pub error: Error,
    pub cause: Cause,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, cause: Cause::Refused }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Locked(holders) if !holders.is_empty() => {
                write!(f, "{}: held by {}", self.error, describe(holders).0)
            }
            Cause::Blocked(block) => {
                write!(f, "{}: blocked until {} by {}", self.error, block.until, block.by)
            }
            _ => self.error.fmt(f),
        }
    }
}

impl Outcome {
    pub fn new(change: Change, result: Result<Option<i32>, Failure>) -> Self {
        Self { change, result, mark: None }
    }
}

/// The marks that were left in the data of nodes that are about to move.
pub type Marks = BTreeMap<i32, Mark>;

/// Makes changes, moves first. One that fails costs the others nothing, but that once a server has hung while
/// it was added, the others are left for the next cycle, which follows first. `tables` are sent to each node
/// that is activated; where that takes long, what is left is for the next cycle, too.
pub fn apply(changes: &[Change], marks: &Marks, tables: u64) -> Vec<Outcome> {
    let mut alone = Vec::new();
    let mut moves = Vec::new();
    let mut adds = Vec::new();
    for change in changes {
        match change {
            Change::Register { .. } => adds.push(change),
            Change::UpdateAddress { .. } => join(&mut moves, change),
            _ => alone.push(vec![change]),
        }
    }
    let groups = moves.into_iter().chain(alone);
    let mut outcomes: Vec<Outcome> = groups.flat_map(|group| make(&group, marks, tables)).collect();
    outcomes.extend(until_one_hangs(adds.chunks(sync_batch(tables)), marks, tables));
    name_holders(&mut outcomes);
    outcomes
}

/// Makes one group of changes after another, up to the first in which a server hangs.
fn until_one_hangs<'a>(
    groups: impl Iterator<Item = &'a [&'a Change]>,
    marks: &Marks,
    tables: u64,
) -> Vec<Outcome> {
    let has_hung = |outcome: &Outcome| {
        outcome.result.as_ref().is_err_and(|failure| matches!(failure.cause, Cause::Hung(_)))
    };
    let (started, mut outcomes) = (Instant::now(), Vec::new());
    for group in groups {
        outcomes.extend(make(group, marks, tables));
        if outcomes.iter().any(has_hung) || started.elapsed() > LONG {
            break;
        }
    }
    outcomes
}

/// Has those that waited for a lock in vain say for whose.
fn name_holders(outcomes: &mut [Outcome]) {
    let mut reads_tables = false;
    let mut waited: Vec<(i32, &mut Failure)> = outcomes
        .iter_mut()
        .filter_map(|Outcome { change, result, .. }| {
            let failure = result.as_mut().err().filter(|failure| is_lock_wait(&failure.error))?;
            reads_tables |= activates(change);
            let nodeid = match change {
                Change::UpdateAddress { nodeid, .. } => *nodeid,
                _ => 0,
            };
            Some((nodeid, failure))
        })
        .collect();
    if waited.is_empty() {
        return;
    }
    let nodeids: Vec<i32> = waited.iter().map(|(nodeid, _)| *nodeid).collect();
    match transaction(|| holders::cause(&nodeids, reads_tables)) {
        Ok(cause) => waited.iter_mut().for_each(|(_, failure)| failure.cause = cause.clone()),
        Err(error) => log!("citus_fleet: who holds the lock could not be found out: {error}"),
    }
}

fn is_lock_wait(error: &Error) -> bool {
    matches!(error, Error::Raised { sqlstate: PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, .. })
}

/// Puts a move to those that go where it comes from, or come from where it goes: they exchange
/// addresses, which only one transaction can do.
fn join<'a>(groups: &mut Vec<Vec<&'a Change>>, change: &'a Change) {
    let (linked, others): (Vec<_>, Vec<_>) =
        std::mem::take(groups).into_iter().partition(|group| {
            group.iter().any(|other| follows(change, other) || follows(other, change))
        });
    *groups = others;
    groups.push(linked.into_iter().flatten().chain([change]).collect());
}

/// Whether one move goes where the other comes from.
fn follows(one: &Change, other: &Change) -> bool {
    match (one, other) {
        (
            Change::UpdateAddress { nodename, nodeport, .. },
            Change::UpdateAddress { from: (name, port), .. },
        ) => nodename == name && i32::from(*nodeport) == *port,
        _ => false,
    }
}

/// Makes changes in one transaction, which for adds is several times as fast as one each. Where that
/// fails, each gets its own: a failed call of Citus cannot be caught inside a transaction.
fn make(changes: &[&Change], marks: &Marks, tables: u64) -> Vec<Outcome> {
    let started = Instant::now();
    // The change that is being made, none during the commit; and since when.
    let step: Cell<(Option<usize>, Instant)> = Cell::new((None, started));
    let result = transact(changes, tables, || {
        park(changes)?;
        let made = changes.iter().enumerate().map(|(number, change)| {
            step.set((Some(number), Instant::now()));
            call(change, marks)
        });
        let ids = made.collect::<Result<Vec<_>, Error>>();
        step.set((step.get().0.filter(|_| ids.is_err()), Instant::now()));
        ids
    });
    let (number, since) = step.get();
    let outcome = |change: &&Change, result| Outcome::new((*change).clone(), result);
    let error = match result {
        Ok(ids) => {
            return changes.iter().zip(ids).map(|(it, id)| outcome(it, Ok(id))).collect();
        }
        Err(error) => explain(error, tables),
    };
    let failed = |change, cause| outcome(change, Err(Failure { error: error.clone(), cause }));
    if changes.iter().all(|it| activates(it)) && has_waited(&error, since) {
        let hung = |is_known| Cause::Hung(Hang { took: started.elapsed(), is_known });
        return match number.filter(|_| since.elapsed() >= HANGS) {
            Some(number) => vec![failed(&changes[number], hung(true))],
            None => changes.iter().map(|it| failed(it, hung(changes.len() == 1))).collect(),
        };
    }
    if changes.len() > 1 && !concerns_all(&error, changes) {
        return until_one_hangs(changes.chunks(1), marks, tables);
    }
    changes.iter().map(|change| failed(change, Cause::Refused)).collect()
}

/// Whether it took long, or as long as it may, and for no lock of the coordinator's.
fn has_waited(error: &Error, since: Instant) -> bool {
    let is_late =
        matches!(error, Error::Raised { sqlstate: PgSqlErrorCode::ERRCODE_QUERY_CANCELED, .. });
    !is_lock_wait(error) && (is_late || since.elapsed() >= HANGS)
}

/// What Citus says, with what it leaves out: it reports the end of a connection in place of what the node
/// has said.
fn explain(error: Error, tables: u64) -> Error {
    const SILENT: &str = "connection marked as essential";
    const MANY: u64 = 500;
    match error {
        Error::Raised { message, .. } if tables >= MANY && message.contains(SILENT) => {
            Error::Internal(format!(
                "{message} (its log says why: for {tables} tables, max_locks_per_transaction is often too small there)"
            ))
        }
        other => other,
    }
}

/// Whether every change would fail the same way after the same wait, or cannot be made alone.
fn concerns_all(error: &Error, changes: &[&Change]) -> bool {
    let is_exchange = changes.iter().any(|change| matches!(change, Change::UpdateAddress { .. }));
    is_exchange || is_lock_wait(error) || matches!(error, Error::Paused)
}

/// Gives nodes that exchange addresses names of their own for the time of the transaction: Citus
/// lets no two rows have the same. RFC 2606 reserves the suffix, and nobody ever sees it.
fn park(changes: &[&Change]) -> Result<(), Error> {
    for change in changes.iter().filter(|_| changes.len() > 1) {
        if let Change::UpdateAddress { nodeid, nodeport, .. } = change {
            update_node(*nodeid, &format!("node-{nodeid}.citus-fleet.invalid"), *nodeport)?;
        }
    }
    Ok(())
}

fn call(change: &Change, marks: &Marks) -> Result<Option<i32>, Error> {
    match change {
        Change::SetCoordinatorHost { nodename, nodeport } => {
            run("SELECT pg_catalog.citus_set_coordinator_host($1, $2)", nodename, *nodeport)?;
            Ok(None)
        }
        Change::Register { nodename, nodeport, lineage, .. } => {
            let nodeid = Spi::get_one_with_args(
                "SELECT pg_catalog.citus_add_node($1, $2)",
                &[nodename.as_str().into(), i32::from(*nodeport).into()],
            )?;
            let nodeid = nodeid
                .ok_or_else(|| Error::Internal("citus_add_node returned no node id".into()))?;
            // Node ids start again where Citus has been created anew.
            identities::forget(nodeid)?;
            identities::record(nodeid, lineage, None, 0)?;
            Ok(Some(nodeid))
        }
        Change::UpdateAddress { nodeid, nodename, nodeport, lineage, lacks, .. } => {
            update_node(*nodeid, nodename, *nodeport)?;
            identities::record(*nodeid, lineage, marks.get(nodeid), *lacks)?;
            Ok(Some(*nodeid))
        }
        Change::Reactivate { nodeid, nodename, nodeport } => {
            run("SELECT pg_catalog.citus_activate_node($1, $2)", nodename, *nodeport)?;
            identities::set_activated(*nodeid)?;
            Ok(Some(*nodeid))
        }
        Change::Disable { nodeid, nodename, nodeport } => {
            // Citus does not let the first worker be disabled in the background.
            run(
                "SELECT pg_catalog.citus_disable_node($1, $2, synchronous => true)",
                nodename,
                *nodeport,
            )?;
            identities::set_disabled(*nodeid, true)?;
            Ok(Some(*nodeid))
        }
        Change::Rebalance => {
            // Schedules the moves; Citus's background workers make them.
            Spi::run("SELECT pg_catalog.citus_rebalance_start()")?;
            identities::set_rebalanced()?;
            Ok(None)
        }
        Change::Mark { nodeid, .. } => {
            let mark = marks.get(nodeid);
            mark.map_or(Ok(()), |mark| identities::set_mark(*nodeid, mark))?;
            Ok(Some(*nodeid))
        }
        Change::Clean { .. } => {
            Err(Error::Internal("a removed server is not cleaned by Citus".into()))
        }
    }
}

fn run(statement: &str, nodename: &str, nodeport: u16) -> Result<(), Error> {
    Ok(Spi::run_with_args(statement, &[nodename.into(), i32::from(nodeport).into()])?)
}

/// Opens no connection; waits for writers of the node's shards as long as for any lock.
fn update_node(nodeid: i32, nodename: &str, nodeport: u16) -> Result<(), Error> {
    Ok(Spi::run_with_args(
        "SELECT pg_catalog.citus_update_node($1, $2, $3)",
        &[nodeid.into(), nodename.into(), i32::from(nodeport).into()],
    )?)
}

/// Whether a change sends a node the metadata of all tables.
pub fn activates(change: &Change) -> bool {
    matches!(change, Change::Register { .. } | Change::Reactivate { .. })
}

/// How many distributed tables there are.
pub fn count_tables() -> Result<u64, Error> {
    let count: Option<i64> =
        read_one("SELECT pg_catalog.count(*) FROM pg_catalog.pg_dist_partition", &[])?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
}

/// Runs changes in a transaction, which does not begin once `fleet.pause()` has been committed.
fn transact<T>(
    changes: &[&Change],
    tables: u64,
    body: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let activated = changes.iter().filter(|change| activates(change)).count();
    let sent = if activated == 0 { 0 } else { tables };
    let (deadline, patience) = sync_bounds(sent, activated as u64);
    let what: Vec<String> = changes.iter().map(|change| change.to_string()).collect();
    let what = what.join(", ");
    show_activity(Some(&match sent {
        0 => format!("citus_fleet: {what}"),
        _ => format!("citus_fleet: {what}; the metadata of {sent} tables are sent"),
    }));
    let result = transaction_while(deadline, patience, || {
        // Citus refuses its other mode inside a transaction. And it keeps no connection afterwards, which
        // a later change could find cut off.
        Spi::run(
            "SET LOCAL citus.metadata_sync_mode = 'transactional';
             SET LOCAL citus.max_cached_conns_per_worker = 0",
        )?;
        pause::hold_off()?;
        body()
    });
    show_activity(None);
    result
}
