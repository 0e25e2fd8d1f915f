//! Owns the threads on which libpq takes the steps of a login. The other side says how long a step takes:
//! SCRAM's iteration count is its choice, up to 2^31, and libpq computes without a pause. This process's
//! own thread has signals to answer meanwhile, so it waits for a helper only as long as it wants to.
//! Must not let a helper call PostgreSQL, and must not wait for one at the end of the process.

use crate::backend::signals::Blocked;
use decide::login::LoginFailureKind;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use tokio::sync::oneshot::{self, Receiver};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Steps of strangers that are taken at the same time. Those of registered workers have room of their own:
/// strangers cannot keep them waiting.
static STRANGERS: Semaphore = Semaphore::const_new(8);
static MEMBERS: Semaphore = Semaphore::const_new(16);

/// With so many computations that nobody waits for any more, no more strangers are logged in to.
const MOST_ABANDONED: usize = 4;

/// Of a stranger's steps: below the server's own work where the processors are busy. Registered workers are
/// to be asked in time just then.
#[cfg(target_os = "linux")]
const NICENESS: c_int = 10;

/// TLS and SCRAM need a tenth of it.
const STACK: usize = 512 * 1024;

/// Threads that may still run.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// The endpoints whose steps are taken still, and nobody waits for.
static ABANDONED: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());

/// Whose login a step belongs to.
#[derive(Clone, Copy)]
pub struct Errand {
    pub at: SocketAddr,
    /// It is no registered worker.
    pub is_stranger: bool,
}

/// Prepares for the end of this process, once. Called before the first helper, where an ERROR may be raised.
pub fn prepare() {
    static IS_PREPARED: AtomicBool = AtomicBool::new(false);
    if !IS_PREPARED.swap(true, Ordering::Relaxed) {
        // SAFETY: the callback lives as long as the library, which is never unloaded.
        unsafe { pg_sys::on_proc_exit(Some(leave), pg_sys::Datum::from(0)) };
    }
}

/// What speaks against logging in there now: a computation that it has caused, or too many of them.
pub fn objection(errand: Errand) -> Option<(LoginFailureKind, String)> {
    let abandoned = lock(&ABANDONED);
    if abandoned.contains(&errand.at) {
        let what = "the computation for its last login goes on";
        return Some((LoginFailureKind::Computing, what.to_owned()));
    }
    if errand.is_stranger && abandoned.len() >= MOST_ABANDONED {
        let what = format!("{} computations for other logins go on", abandoned.len());
        return Some((LoginFailureKind::Crowded, what));
    }
    None
}

/// Does the work on a helper, and gives what came of it. When the future is dropped before, the helper is
/// abandoned: it goes on alone, and drops by itself what comes of its work.
pub async fn perform<T: Send + 'static>(
    errand: Errand,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let lane = if errand.is_stranger { &STRANGERS } else { &MEMBERS };
    let permit = lane.acquire().await.map_err(io::Error::other)?;
    let (sender, receiver) = oneshot::channel();
    start(permit, move || {
        settle(errand);
        if let Err(unwanted) = sender.send(work()) {
            drop(unwanted);
            let mut abandoned = lock(&ABANDONED);
            let place = abandoned.iter().position(|at| *at == errand.at);
            place.map(|place| abandoned.swap_remove(place));
        }
    })?;
    let mut waiting = Waiting { at: errand.at, receiver, is_over: false };
    let result = (&mut waiting.receiver).await;
    waiting.is_over = true;
    result.map_err(io::Error::other)
}

/// Whoever waits for a helper.
struct Waiting<T> {
    at: SocketAddr,
    receiver: Receiver<T>,
    is_over: bool,
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // Held until it is noted: the helper that finds nobody waiting strikes it out.
        let mut abandoned = lock(&ABANDONED);
        self.receiver.close();
        if self.receiver.try_recv().is_err() {
            abandoned.push(self.at);
        }
    }
}

fn start(permit: SemaphorePermit<'static>, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut threads = lock(&THREADS);
    for thread in threads.extract_if(.., |thread| thread.is_finished()) {
        // It has nothing left to do but to end.
        drop(thread.join());
    }
    // The new thread inherits the mask: PostgreSQL's signal handlers must run on no other than this one.
    let _blocked = Blocked::all();
    let thread = Builder::new().name("login".into()).stack_size(STACK).spawn(move || {
        work();
        drop(permit);
    })?;
    threads.push(thread);
    Ok(())
}

/// Makes a thread a helper: polite for a stranger, and with libpq's words in one language for whoever compares
/// them.
fn settle(errand: Errand) {
    // SAFETY: both concern the calling thread alone; the locale C is static and is never freed.
    unsafe {
        #[cfg(target_os = "linux")]
        if errand.is_stranger {
            libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
        }
        let locale = libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), std::ptr::null_mut());
        if !locale.is_null() {
            libc::uselocale(locale);
        }
    }
}

/// After PostgreSQL's own clean-up comes that of the libraries: OpenSSL's would pull the ground from under a
/// helper that computes, and a process that crashes restarts the whole server. So it is left out then.
unsafe extern "C-unwind" fn leave(code: c_int, _: pg_sys::Datum) {
    for thread in std::mem::take(&mut *lock(&THREADS)) {
        if !thread.is_finished() {
            // SAFETY: ends the process, whose shared memory has been left already.
            unsafe { libc::_exit(code) };
        }
        drop(thread.join());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::runtime::Builder as Runtime;

    /// Runs a test's future as the crowd does.
    fn run<T>(work: impl Future<Output = T>) -> T {
        Runtime::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    fn stranger(port: u16) -> Errand {
        Errand { at: SocketAddr::from(([10, 0, 0, 9], port)), is_stranger: true }
    }

    #[test]
    fn a_helper_that_is_not_waited_for_bars_its_endpoint_until_it_is_done() {
        let errand = stranger(1);
        assert_eq!(run(perform(errand, || 7)).unwrap(), 7);
        assert!(objection(errand).is_none());
        let (finish, computing) = mpsc::channel::<()>();
        let work = perform(errand, move || computing.recv());
        let patience = Duration::from_millis(20);
        assert!(run(async { tokio::time::timeout(patience, work).await }).is_err());
        let kind = objection(errand).map(|(kind, _)| kind);
        assert_eq!(kind, Some(LoginFailureKind::Computing));
        assert!(objection(stranger(2)).is_none());
        finish.send(()).unwrap();
        while objection(errand).is_some() {
            std::thread::yield_now();
        }
    }
}
