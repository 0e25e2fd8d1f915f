//! Owns the controller's signals: what has come, and waiting for one.
//! Must not do anything about them, except let PostgreSQL handle its own.

use pgrx::pg_sys;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32};
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
    fn RegisterTimeout(id: i32, handler: unsafe extern "C-unwind" fn()) -> i32;
    fn enable_timeout_every(id: i32, first: pg_sys::TimestampTz, delay_ms: i32);
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

/// At least `USER_TIMEOUT` of PostgreSQL 16, 17 and 18: any such number asks for a free one.
const USER_TIMEOUT: i32 = 13;

/// How often a watch looks.
const TICK_MS: i32 = 250;

/// How many more times it looks before what was cancelled is cut off.
const GRACE_TICKS: u32 = 4;

/// The timeout of this process that watches are made of; 0 while it is not registered.
static TIMEOUT: AtomicI32 = AtomicI32::new(0);
static LAST_TOUCHED: AtomicI64 = AtomicI64::new(0);
static IDLE_TICKS: AtomicU32 = AtomicU32::new(0);
static MOST_IDLE_TICKS: AtomicU32 = AtomicU32::new(0);

/// A deadline for a statement that may take long as long as it gets on: it is cancelled once this process
/// has touched no page for a while. Citus reads the catalogs for each table whose metadata it sends, and
/// nothing while it waits for an answer that does not come.
///
/// A cancel is not enough: Citus tells the other node of it, and waits deaf to signals for a node that has
/// stopped, with all its locks (`ShutdownConnection`: "currently is not interruptible"). So what does not
/// end then loses its connections.
pub struct Watch;

impl Watch {
    pub fn start(patience: Duration) -> Self {
        let ticks = patience.as_millis() / TICK_MS as u128;
        MOST_IDLE_TICKS.store(u32::try_from(ticks).unwrap_or(u32::MAX), Relaxed);
        IDLE_TICKS.store(0, Relaxed);
        // SAFETY: registered once in this process, which has connected; the handler only does what a
        // handler may.
        unsafe {
            if TIMEOUT.load(Relaxed) == 0 {
                TIMEOUT.store(RegisterTimeout(USER_TIMEOUT, look), Relaxed);
            }
            let first = pg_sys::GetCurrentTimestamp() + i64::from(TICK_MS) * 1000;
            enable_timeout_every(TIMEOUT.load(Relaxed), first, TICK_MS);
        }
        Self
    }

    /// Whether it was this that ended the statement.
    pub fn has_fired(&self) -> bool {
        IDLE_TICKS.load(Relaxed) >= MOST_IDLE_TICKS.load(Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: as for the deadline.
        unsafe {
            disable_timeout(TIMEOUT.load(Relaxed), false);
            pg_sys::QueryCancelPending = 0;
        }
    }
}

/// Runs in the handler of SIGALRM.
unsafe extern "C-unwind" fn look() {
    // SAFETY: counters that this process alone writes.
    let touched = unsafe {
        let usage = &raw const pg_sys::pgBufferUsage;
        (*usage).shared_blks_hit + (*usage).shared_blks_read
    };
    let (idle, most) = (IDLE_TICKS.load(Relaxed), MOST_IDLE_TICKS.load(Relaxed));
    // What has been cancelled does not get on by cleaning up.
    if LAST_TOUCHED.swap(touched, Relaxed) != touched && idle < most {
        IDLE_TICKS.store(0, Relaxed);
        return;
    }
    let idle = idle.saturating_add(1);
    IDLE_TICKS.store(idle, Relaxed);
    if idle == most {
        // SAFETY: as statement_timeout ends a statement.
        unsafe { libc::kill(pg_sys::MyProcPid, libc::SIGINT) };
    } else if idle >= most.saturating_add(GRACE_TICKS) {
        cut_connections();
    }
}

/// Ends every TCP connection of this process, whose owners see that the other side is gone. Which are
/// Citus's it does not say; what else asks another server in this process has long been late by now.
/// Calls nothing that a signal handler may not.
fn cut_connections() {
    // Finding no file costs 0.1 us.
    const FILES: i32 = 1 << 16;
    for file in 0..FILES {
        // SAFETY: the address is written to a variable of this function, as long as it says.
        unsafe {
            let mut address: libc::sockaddr_storage = std::mem::zeroed();
            let mut length = size_of_val(&address) as libc::socklen_t;
            let is_socket = libc::getsockname(file, (&raw mut address).cast(), &mut length) == 0;
            if is_socket && [libc::AF_INET, libc::AF_INET6].contains(&address.ss_family.into()) {
                libc::shutdown(file, libc::SHUT_RDWR);
            }
        }
    }
}
