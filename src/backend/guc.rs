//! Owns settings of this session that hold for a while: set, and put back whatever happens.
//! Must not know what a setting is for.

use pgrx::{PgLogLevel, pg_sys};
use std::ffi::CString;

/// Runs `body` with settings that end with it, or with the subtransaction. A value that a setting does not take
/// leaves it as it is, as the server does with what is stored for a database.
pub fn with_settings<T>(settings: &[(&str, String)], body: impl FnOnce() -> T) -> T {
    // SAFETY: the nest level is closed again here, or by the abort that an ERROR brings.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in settings {
            let name = CString::new(*name).unwrap_or_default();
            let value = CString::new(value.as_str()).unwrap_or_default();
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                // Whoever asked has been checked, and need not be one who may set it.
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                PgLogLevel::DEBUG1 as i32,
                false,
            );
        }
        let result = body();
        pg_sys::AtEOXact_GUC(true, level);
        result
    }
}
