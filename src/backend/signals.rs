//! Owns the controller's signals: what has come, and waiting for one.
//! Must not do anything about them, except let PostgreSQL handle its own.

use pgrx::pg_sys;
use std::time::Duration;

/// Installs the handlers: SIGTERM ends the process as it ends a backend, also in the middle of a
/// query; SIGINT cancels a statement (a statement timeout sends it); SIGHUP sets a flag.
pub fn install() {
    #[cfg(any(feature = "pg16", feature = "pg17"))]
    use pg_sys::pqsignal;
    #[cfg(feature = "pg18")]
    use pg_sys::pqsignal_be as pqsignal;
    // SAFETY: PostgreSQL's own handlers, installed before signals are unblocked.
    unsafe {
        pqsignal(pg_sys::SIGTERM as i32, Some(die));
        pqsignal(pg_sys::SIGINT as i32, Some(StatementCancelHandler));
        pqsignal(pg_sys::SIGHUP as i32, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Whether `check_for_interrupts!` has something to do. A session reloads its configuration only
/// between two statements, so within one that is no reason to stop.
pub fn interrupt_pending() -> bool {
    // SAFETY: a flag that signal handlers of this process set.
    unsafe { pg_sys::InterruptPending != 0 }
}

/// Whether PostgreSQL wants attention: an end, a cancel, a barrier or a reload.
pub fn interrupted() -> bool {
    // SAFETY: a flag that a signal handler of this process sets.
    interrupt_pending() || unsafe { pg_sys::ConfigReloadPending != 0 }
}

/// Whether anybody wants attention, a session that called `citus_autoregister()` included.
pub fn woken() -> bool {
    // SAFETY: the latch of this process, valid as long as it lives.
    interrupted() || unsafe { (*pg_sys::MyLatch).is_set != 0 }
}

/// Sleeps until the time is over, or somebody wants attention, or the postmaster is gone.
pub fn sleep(time: Duration) {
    let wanted = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    // SAFETY: the latch of this process; a dead postmaster ends the process inside the call.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, wanted as i32, millis, pg_sys::PG_WAIT_EXTENSION);
    }
}

/// Handles what has come: ends the process, or reloads the configuration. A cancel is for a
/// statement, and none is running.
pub fn attend() {
    // Notices a dead postmaster also where the waiting was done by the network.
    sleep(Duration::ZERO);
    // SAFETY: called from the main loop, where no transaction is open and no lock is held.
    unsafe {
        pg_sys::ResetLatch(pg_sys::MyLatch);
        pg_sys::QueryCancelPending = 0;
        pgrx::check_for_interrupts!();
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Keeps every signal away from the calling thread, and from those that it starts meanwhile for good.
pub struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub fn all() -> Self {
        // SAFETY: both sets are this function's own, and are filled in before they are read.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self { before }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the mask that this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

// pgrx wraps the handlers into Rust functions, which a signal cannot call, and leaves out
// utils/timeout.h.
unsafe extern "C-unwind" {
    fn die(signal: i32);
    fn StatementCancelHandler(signal: i32);
    fn SignalHandlerForConfigReload(signal: i32);
    fn enable_timeout_after(id: i32, delay_ms: i32);
    fn disable_timeout(id: i32, keep_indicator: bool);
}

/// `STATEMENT_TIMEOUT` of `enum TimeoutId`, the same in PostgreSQL 16, 17 and 18.
const STATEMENT_TIMEOUT: i32 = 3;

/// A deadline for the statements of a background worker, for which `statement_timeout` is not
/// enforced: at its end the statement is cancelled as by that setting.
pub struct StatementDeadline;

impl StatementDeadline {
    pub fn start(time: Duration) -> Self {
        let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the timeout is registered in every process that has connected to a database.
        unsafe { enable_timeout_after(STATEMENT_TIMEOUT, millis) };
        Self
    }
}

impl Drop for StatementDeadline {
    fn drop(&mut self) {
        // SAFETY: as above; disabling a timeout that has fired or was disabled does nothing, and a
        // cancel is for the statement that has just ended.
        unsafe {
            disable_timeout(STATEMENT_TIMEOUT, false);
            // It may have fired just now, for nothing.
            pg_sys::QueryCancelPending = 0;
        }
    }
}
