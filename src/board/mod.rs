//! Owns the shared memory between the controller and the sessions: what the controller last saw, the
//! request that a session makes of it, and the answer. Both texts are JSON.
//! Must not hold its lock across anything that can wait or fail.

pub mod report;

use crate::error::Error;
use crate::settings::MOST_WORKERS;
use pgrx::pg_sys;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

/// Room for the JSON. A worker takes less than 2 KiB, since names and texts are bounded; memory
/// that is never written to is never resident.
const CAPACITY: usize = MOST_WORKERS as usize * 2048;

#[repr(C)]
struct Board {
    lock: *mut pg_sys::LWLock,
    /// Wakes sessions that wait for an answer.
    answered: pg_sys::ConditionVariable,
    /// The controller's latch while it runs, else null.
    controller: *mut pg_sys::Latch,
    controller_pid: i32,
    database: pg_sys::Oid,
    /// The newest request, and the newest that was answered.
    requested: u64,
    served: u64,
    dry_run: bool,
    /// The controller has ended because its database did not exist.
    database_missing: bool,
    snapshot: Text,
    answer: Text,
}

#[repr(C)]
struct Text {
    length: usize,
    bytes: [u8; CAPACITY],
}

impl Text {
    fn write(&mut self, text: &str) -> Result<(), Error> {
        let room = self.bytes.get_mut(..text.len()).ok_or_else(|| {
            Error::Internal(format!("{} bytes of JSON do not fit into shared memory", text.len()))
        })?;
        room.copy_from_slice(text.as_bytes());
        self.length = text.len();
        Ok(())
    }

    fn read(&self) -> Option<String> {
        (self.length > 0).then(|| String::from_utf8_lossy(&self.bytes[..self.length]).into_owned())
    }
}

/// A session's request for one full pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub ticket: u64,
    pub dry_run: bool,
}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(null_mut());
static mut PREVIOUS_REQUEST_HOOK: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP_HOOK: pg_sys::shmem_startup_hook_type = None;
const TRANCHE: &std::ffi::CStr = c"citus_fleet";

/// Asks for the shared memory. Called while the postmaster loads the library.
pub fn reserve() {
    // SAFETY: the postmaster is single-threaded, and hooks are chained as PostgreSQL asks for.
    unsafe {
        PREVIOUS_REQUEST_HOOK = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request_memory);
        PREVIOUS_STARTUP_HOOK = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(attach_memory);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request_memory() {
    // SAFETY: called once by the postmaster, at the time when memory may be requested.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST_HOOK {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(size_of::<Board>());
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 1);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn attach_memory() {
    // SAFETY: called when shared memory exists; a new segment is zeroed and set up here before
    // anybody else can see it.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP_HOOK {
            previous();
        }
        let mut found = false;
        let board = pg_sys::ShmemInitStruct(TRANCHE.as_ptr(), size_of::<Board>(), &mut found)
            .cast::<Board>();
        if !found {
            board.cast::<u8>().write_bytes(0, std::mem::offset_of!(Board, snapshot));
            (*board).snapshot.length = 0;
            (*board).answer.length = 0;
            (*board).lock = &raw mut (*pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr())).lock;
            pg_sys::ConditionVariableInit(&raw mut (*board).answered);
        }
        BOARD.store(board, Ordering::Relaxed);
    }
}

/// The board with its lock held. PostgreSQL itself releases the lock when an ERROR passes by.
struct Locked(*mut Board);

impl Locked {
    fn with(mode: pg_sys::LWLockMode::Type) -> Result<Self, Error> {
        let board = BOARD.load(Ordering::Relaxed);
        if board.is_null() {
            return Err(Error::NotPreloaded);
        }
        // SAFETY: the board lives as long as the server.
        unsafe { pg_sys::LWLockAcquire((*board).lock, mode) };
        Ok(Self(board))
    }

    fn shared() -> Result<Self, Error> {
        Self::with(pg_sys::LWLockMode::LW_SHARED)
    }

    fn exclusive() -> Result<Self, Error> {
        Self::with(pg_sys::LWLockMode::LW_EXCLUSIVE)
    }
}

impl std::ops::Deref for Locked {
    type Target = Board;
    fn deref(&self) -> &Board {
        // SAFETY: valid memory, and the lock is held.
        unsafe { &*self.0 }
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Board {
        // SAFETY: as above; only `exclusive` holders change anything.
        unsafe { &mut *self.0 }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: the lock was acquired in `with` and is released once.
        unsafe { pg_sys::LWLockRelease(self.lock) };
    }
}

// ---- The controller's side ----

/// Whether the controller has found before that its database does not exist.
pub fn is_database_missing() -> Result<bool, Error> {
    Ok(Locked::shared()?.database_missing)
}

pub fn set_database_missing(missing: bool) -> Result<(), Error> {
    Locked::exclusive()?.database_missing = missing;
    Ok(())
}

/// Makes this process the controller until it ends.
pub fn take_over() -> Result<(), Error> {
    // SAFETY: these globals are set in a background worker that has connected to its database.
    let (latch, pid, database) =
        unsafe { (pg_sys::MyLatch, pg_sys::MyProcPid, pg_sys::MyDatabaseId) };
    {
        let mut board = Locked::exclusive()?;
        board.controller = latch;
        board.controller_pid = pid;
        board.database = database;
        board.snapshot.length = 0;
    }
    // SAFETY: the callback has the type that the server wants and needs no argument.
    unsafe { pg_sys::before_shmem_exit(Some(step_down), pg_sys::Datum::from(0)) };
    Ok(())
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn step_down(_code: i32, _argument: pg_sys::Datum) {
    if let Ok(mut board) = Locked::exclusive() {
        board.controller = null_mut();
        board.controller_pid = 0;
        board.snapshot.length = 0;
    }
    wake_sessions();
}

/// The request that has not been answered yet.
pub fn pending_request() -> Result<Option<Request>, Error> {
    let board = Locked::shared()?;
    let pending = board.requested > board.served;
    Ok(pending.then_some(Request { ticket: board.requested, dry_run: board.dry_run }))
}

/// Shows what the controller knows.
pub fn publish(snapshot: &str) -> Result<(), Error> {
    Locked::exclusive()?.snapshot.write(snapshot)
}

/// Answers a request. The answer stays until the next one.
pub fn answer(request: Request, report: &str) -> Result<(), Error> {
    {
        let mut board = Locked::exclusive()?;
        board.answer.write(report)?;
        board.served = request.ticket;
    }
    wake_sessions();
    Ok(())
}

fn wake_sessions() {
    let board = BOARD.load(Ordering::Relaxed);
    if !board.is_null() {
        // SAFETY: a condition variable in shared memory has a lock of its own.
        unsafe { pg_sys::ConditionVariableBroadcast(&raw mut (*board).answered) };
    }
}

// ---- The sessions' side ----

/// Who the controller is.
pub struct Controller {
    pub pid: i32,
    pub database: pg_sys::Oid,
}

/// The running controller, if there is one.
pub fn controller() -> Result<Option<Controller>, Error> {
    let board = Locked::shared()?;
    let running = !board.controller.is_null();
    Ok(running.then(|| Controller { pid: board.controller_pid, database: board.database }))
}

/// The newest snapshot; none while there is no controller or it has not finished a cycle.
pub fn snapshot() -> Result<Option<String>, Error> {
    Ok(Locked::shared()?.snapshot.read())
}

/// Asks for a full pass. A request that nobody waits for any more is replaced.
pub fn request(dry_run: bool) -> Result<Request, Error> {
    let mut board = Locked::exclusive()?;
    board.requested += 1;
    board.dry_run = dry_run;
    Ok(Request { ticket: board.requested, dry_run })
}

/// Ends the controller's wait.
pub fn wake_controller() -> Result<(), Error> {
    let board = Locked::shared()?;
    if !board.controller.is_null() {
        // SAFETY: a latch in shared memory; setting one whose process has just ended is harmless.
        unsafe { pg_sys::SetLatch(board.controller) };
    }
    Ok(())
}

/// Waits for the answer to `request`; none when the time is over first. A cancel of the session's
/// statement ends the wait at once.
pub fn await_answer(request: Request, time: Duration) -> Result<Option<String>, Error> {
    let started = std::time::Instant::now();
    loop {
        {
            let board = Locked::shared()?;
            if board.served >= request.ticket {
                // SAFETY: leaves the queue that the sleep below has joined, if it has.
                unsafe { pg_sys::ConditionVariableCancelSleep() };
                return Ok(board.answer.read());
            }
        }
        if started.elapsed() > time {
            // SAFETY: as above.
            unsafe { pg_sys::ConditionVariableCancelSleep() };
            return Ok(None);
        }
        // A controller that has started only now has not been woken yet.
        wake_controller()?;
        let board = BOARD.load(Ordering::Relaxed);
        // SAFETY: the condition variable of a board that exists, as the lock above has shown.
        unsafe {
            pg_sys::ConditionVariableTimedSleep(
                &raw mut (*board).answered,
                100,
                pg_sys::PG_WAIT_EXTENSION,
            );
        }
    }
}
