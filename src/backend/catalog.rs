//! Owns reading what this server's own catalogs and settings say. Runs inside a transaction that the
//! caller has opened.
//! Must not connect to anything, and must not know what is looked for.

use super::encoding::Text;
use crate::error::Error;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;

/// The JSON value that a statement gives as text.
pub fn value<T: serde::de::DeserializeOwned>(
    statement: &str,
    parameters: &[DatumWithOid<'_>],
) -> Result<T, Error> {
    let text: Option<Text> = read_one(statement, parameters)?;
    Ok(serde_json::from_str(&text.map(|text| text.0).unwrap_or_default())?)
}

/// The first column of the first row, if there is one. Unlike `Spi::get_one` it assigns no transaction id, so a
/// cycle that only reads leaves nothing in the WAL.
pub fn read_one<T: FromDatum + IntoDatum>(
    statement: &str,
    parameters: &[DatumWithOid<'_>],
) -> Result<Option<T>, Error> {
    Ok(Spi::connect(|client| {
        let rows = client.select(statement, Some(1), parameters)?;
        if rows.is_empty() { Ok(None) } else { rows.first().get_one() }
    })?)
}

/// Whether an extension is installed in this database.
pub fn is_installed(extension: &CStr) -> bool {
    // SAFETY: a catalog lookup inside a transaction; the name is NUL-terminated.
    unsafe { pg_sys::get_extension_oid(extension.as_ptr(), true) != pg_sys::InvalidOid }
}

/// The group of this node, or none where Citus is not installed: 0 is the coordinator.
pub fn own_group() -> Result<Option<i32>, Error> {
    if !is_installed(c"citus") {
        return Ok(None);
    }
    read_one("SELECT g.groupid FROM pg_catalog.pg_dist_local_group g LIMIT 1", &[])
}

/// Errors: 55000 on a worker. A server without Citus is none.
pub fn require_no_worker() -> Result<(), Error> {
    match own_group()?.filter(|group| *group != 0) {
        Some(group) => Err(Error::NotCoordinator { group }),
        None => Ok(()),
    }
}

/// A setting's value, or nothing where no library has defined it.
pub fn setting(name: &CStr) -> String {
    // SAFETY: with missing_ok the call returns null instead of raising; the text is copied.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() {
            String::new()
        } else {
            CStr::from_ptr(value).to_string_lossy().into_owned()
        }
    }
}

/// The name of the database that this process is connected to.
pub fn current_database() -> String {
    // SAFETY: a catalog lookup inside a transaction; null only for a database that is gone.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() {
            String::new()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}
