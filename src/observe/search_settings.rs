//! Owns what searches of this database go by where neither a role nor a session says otherwise.
//! Must not take the caller's own settings for it.

use crate::backend::catalog::{is_installed, value};
use crate::error::Error;
use pgrx::pg_sys;
use std::collections::BTreeMap;

/// Values by name: those of pgvector, where it is installed, and `enable_indexscan`.
///
/// Errors: 58P01 where the library of pgvector is not there.
pub fn of_database() -> Result<BTreeMap<String, String>, Error> {
    if is_installed(c"vector") {
        // The settings of searches exist only where the library has been loaded.
        // SAFETY: what the extension itself was created from; an ERROR where the file is gone.
        unsafe { pg_sys::load_file(c"$libdir/vector".as_ptr(), false) };
    }
    value(include_str!("search_settings.sql"), &[])
}
