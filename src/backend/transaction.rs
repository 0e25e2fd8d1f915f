//! Owns transactions of the controller: each is committed whole or leaves nothing, and an ERROR in
//! it comes back as a value instead of ending the loop.
//! Must not decide what an error means.

use super::signals::{StatementDeadline, Watch};
use crate::error::{Error, one_line};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// How long one transaction may take in all. Connecting to a node that has just died takes Citus
/// `citus.node_connection_timeout`, 30 s by default, with the lock on `pg_dist_node` held.
const DEADLINE: Duration = Duration::from_secs(15);

/// Runs `body` in a transaction with a snapshot. An `Err`, an ERROR, a panic or the deadline aborts
/// it. A request to end the process ends it.
pub fn transaction<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    transaction_within(DEADLINE, body)
}

/// The same with another deadline.
pub fn transaction_within<T>(
    deadline: Duration,
    body: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    PgTryBuilder::new(AssertUnwindSafe(|| {
        // Until after the commit, in which Citus waits for the other nodes.
        let _deadline = StatementDeadline::start(deadline);
        // SAFETY: no transaction is open; the snapshot is popped before the commit.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        match body() {
            Ok(value) => {
                // SAFETY: the snapshot pushed above; the transaction is in progress.
                unsafe {
                    pg_sys::PopActiveSnapshot();
                    pg_sys::CommitTransactionCommand();
                    // A background worker has to report what it wrote, or no vacuum ever comes.
                    pg_sys::pgstat_report_stat(true);
                }
                Ok(value)
            }
            Err(error) => {
                abort();
                Err(error)
            }
        }
    }))
    .catch_others(|cause| {
        abort();
        Err(describe(cause))
    })
    .catch_rust_panic(|cause| {
        abort();
        Err(describe(cause))
    })
    .execute()
}

/// The same for what may take long as long as it gets on: it ends after `patience` without that, too.
pub fn transaction_while<T>(
    deadline: Duration,
    patience: Duration,
    body: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let watch = Watch::start(patience);
    let result = transaction_within(deadline, body);
    if result.is_err() && watch.has_fired() {
        let message = format!("nothing has come of it for {} s", patience.as_secs());
        let sqlstate = PgSqlErrorCode::ERRCODE_QUERY_CANCELED;
        return Err(Error::Raised { sqlstate, message, hint: None });
    }
    result
}

/// Shows what this process is at, to whoever looks at who keeps them waiting, and for how long.
pub fn show_activity(what: Option<&str>) {
    let state = match what {
        Some(_) => pg_sys::BackendState::STATE_RUNNING,
        None => pg_sys::BackendState::STATE_IDLE,
    };
    let text = CString::new(what.unwrap_or_default()).unwrap_or_default();
    // SAFETY: a NUL-terminated string, which is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
}

/// Runs `body` in a subtransaction: an `Err`, an ERROR or a panic undoes it, releases what it held
/// and comes back as a value. A cancel, of which `statement_timeout` is one, is raised again.
pub fn contained<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // SAFETY: a transaction is open; both are put back when the subtransaction ends.
    let (memory, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let end = |commit: bool| {
        // SAFETY: ends the subtransaction begun below, once.
        unsafe {
            if commit {
                pg_sys::ReleaseCurrentSubTransaction();
            } else {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
            pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    // SAFETY: as above.
    unsafe { pg_sys::BeginInternalSubTransaction(std::ptr::null()) };
    let fail = |cause| {
        end(false);
        describe(cause)
    };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let result = body();
        end(result.is_ok());
        result
    }))
    .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |cause| {
        end(false);
        cause.rethrow()
    })
    .catch_others(|cause| Err(fail(cause)))
    .catch_rust_panic(|cause| Err(fail(cause)))
    .execute()
}

/// Runs `body` with the rights of a role, and puts the caller's back; after an ERROR the abort does.
pub fn as_role<T>(role: pg_sys::Oid, context: i32, body: impl FnOnce() -> T) -> T {
    let (mut user, mut before) = (pg_sys::InvalidOid, 0);
    // SAFETY: what was read is what is put back.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut before);
        pg_sys::SetUserIdAndSecContext(role, before | context);
        let result = body();
        pg_sys::SetUserIdAndSecContext(user, before);
        result
    }
}

/// Runs `body` as the bootstrap superuser, whoever calls: only for what the caller's own arguments
/// do not reach.
pub fn as_superuser<T>(body: impl FnOnce() -> T) -> T {
    let context = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
    as_role(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), context, body)
}

fn abort() {
    // SAFETY: ends the transaction whatever its state, and releases what it held.
    unsafe { pg_sys::AbortCurrentTransaction() };
}

fn describe(cause: CaughtError) -> Error {
    match cause {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => Error::Raised {
            sqlstate: report.sql_error_code(),
            message: one_line(report.message()),
            hint: report.hint().map(one_line),
        },
        CaughtError::RustPanic { ereport, .. } => Error::Internal(one_line(ereport.message())),
    }
}
