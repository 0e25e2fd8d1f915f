//! Owns what searches and builds of this database go by where neither a role nor a session says otherwise.
//! Must not take the caller's own settings for it.

use crate::backend::catalog::{is_installed, setting, value};
use crate::backend::guc::with_settings;
use crate::error::Error;
use decide::search::options::is_of_search;
use pgrx::pg_sys;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::CString;

/// What new sessions start with, as it was typed.
#[derive(Deserialize)]
pub struct Stored {
    /// What is set for the database.
    pub own: Option<String>,
    /// What would be there without it.
    pub beneath: String,
}

/// Every setting that is an option of searches or builds, and `enable_indexscan`, by name.
pub fn stored() -> Result<BTreeMap<String, Stored>, Error> {
    value(include_str!("search_settings.sql"), &[])
}

/// What searches go by, as the server writes it: the settings of pgvector, where it is installed, and
/// `enable_indexscan`.
///
/// Errors: 58P01 where the library of pgvector is not there.
pub fn of_database() -> Result<BTreeMap<String, String>, Error> {
    if is_installed(c"vector") {
        // The settings of searches exist only where the library has been loaded.
        // SAFETY: what the extension itself was created from; an ERROR where the file is gone.
        unsafe { pg_sys::load_file(c"$libdir/vector".as_ptr(), false) };
    }
    let mut stored = stored()?;
    stored.retain(|name, _| is_of_search(name) || name == "enable_indexscan");
    let typed: Vec<(&str, String)> = stored
        .iter()
        .map(|(name, it)| (name.as_str(), it.own.as_ref().unwrap_or(&it.beneath).clone()))
        .collect();
    let read = |name: &str| setting(&CString::new(name).unwrap_or_default());
    Ok(with_settings(&typed, || {
        typed.iter().map(|(name, _)| ((*name).to_owned(), read(name))).collect()
    }))
}
