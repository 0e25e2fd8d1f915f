//! Owns the locks that this extension takes: in a class that PostgreSQL leaves to extensions, so that
//! waiting for them obeys `lock_timeout` and cancels, and an end releases them.
//! Must not be held across anything but what its name says.

use pgrx::pg_sys;

/// `flee`, which `observe/citus.sql` looks for as `classid`.
const CLASS: u32 = 0x666c_6565;

fn tag(object: u32, kind: u16) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: CLASS,
        locktag_field3: object,
        locktag_field4: kind,
        locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// One session's turn to make a request: the board has room for one.
pub struct Turn(pg_sys::LOCKTAG);

impl Turn {
    pub fn take() -> Self {
        let tag = tag(0, 0);
        // SAFETY: a lock of the transaction; an ERROR while it waits unwinds.
        unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false) };
        Self(tag)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // SAFETY: the lock that `take` has acquired; an ERROR unwinds through here before the abort.
        unsafe { pg_sys::LockRelease(&self.0, pg_sys::ExclusiveLock as i32, false) };
    }
}

/// Marks a node as being removed until the end of the transaction; false where another session has.
pub fn try_mark_removing(nodeid: i32) -> bool {
    let tag = tag(nodeid.unsigned_abs(), 1);
    // SAFETY: a lock of the transaction, which is not waited for.
    let taken = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, true) };
    taken != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Marks this process as the one that samples recall until it ends; false where another one is.
pub fn try_mark_sampling() -> bool {
    let tag = tag(0, 2);
    // SAFETY: a lock of the process, which is not waited for.
    let taken = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, true, true) };
    taken != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}
