//! Owns how a background worker connects: as whom, and with which settings of its session.
//! Must not wait for a database that does not exist: the server ends the process with FATAL.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Connects once in the life of the process: without a database, to the shared catalogs alone;
/// without a role, as the bootstrap superuser. No setting of the database or the role holds; the search
/// path is one that nobody else can plant operators in.
pub fn connect(database: Option<&CStr>, role: Option<&CStr>) {
    let pointer = |name: Option<&CStr>| name.map_or(std::ptr::null(), CStr::as_ptr);
    // PostgreSQL 16 knows no way to be a role that cannot log in.
    #[cfg(not(feature = "pg16"))]
    let flags = if role.is_some() { pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK } else { 0 };
    #[cfg(feature = "pg16")]
    let flags = 0;
    // SAFETY: the names are NUL-terminated and outlive the call.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(pointer(database), pointer(role), flags);
    }
    for (name, value) in OUR_OWN {
        set(name, value);
    }
    // An owner's transaction_timeout ends background workers too, and with FATAL.
    #[cfg(not(feature = "pg16"))]
    set(c"transaction_timeout", c"0");
}

/// What an owner of the database or of the role may have set otherwise, for clients.
const OUR_OWN: [(&CStr, &CStr); 9] = [
    (c"role", c"none"),
    (c"search_path", c"pg_catalog"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    (c"row_security", c"on"),
    (c"statement_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
];

/// Connects as whoever works by itself, and waits for nobody's lock for long: it gives way and tries
/// again.
pub fn connect_as_controller(database: Option<&CStr>) {
    connect(database, None);
    set(c"lock_timeout", c"2s");
}

/// Sets an option for the rest of the session.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: NUL-terminated strings, which the server copies.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}
