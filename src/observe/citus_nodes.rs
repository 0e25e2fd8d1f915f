//! Owns reading the coordinator's own catalogs: who it is, what Citus has registered, how its
//! connections log in. Runs inside a transaction that the caller has opened.
//! Must not connect to anything.

use super::credentials::Credentials;
use crate::decide::model::{CitusFacts, Coordinator};
use crate::error::Error;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::collections::BTreeMap;
use std::ffi::CStr;

/// The coordinator as its catalogs show it, and how Citus's connections log in to its workers. With
/// `rebalance_on_join`, workers that hold no shards are looked for too.
pub fn read(rebalance_on_join: bool) -> Result<(Coordinator, Credentials), Error> {
    let mut coordinator: Coordinator = value(include_str!("coordinator.sql"), &[])?;
    if is_installed(c"citus") {
        coordinator.citus =
            Some(value::<CitusFacts>(include_str!("citus.sql"), &[rebalance_on_join.into()])?);
    }
    Ok((coordinator, credentials()?))
}

/// How connections to other nodes log in: as the bootstrap superuser, which the controller runs as,
/// whoever calls. So only functions that decide themselves who may call them may use this.
pub fn credentials() -> Result<Credentials, Error> {
    // SAFETY: the bootstrap superuser always exists; the name is copied.
    let user = unsafe {
        let name =
            pg_sys::GetUserNameFromId(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), false);
        CStr::from_ptr(name).to_string_lossy().into_owned()
    };
    let authinfo: BTreeMap<i32, String> = if is_installed(c"citus") {
        value(
            "SELECT COALESCE(pg_catalog.json_object_agg(a.nodeid, a.authinfo), '{}')::pg_catalog.text
             FROM pg_catalog.pg_dist_authinfo a
             WHERE a.rolename OPERATOR(pg_catalog.=) $1::pg_catalog.name",
            &[user.as_str().into()],
        )?
    } else {
        BTreeMap::new()
    };
    Ok(Credentials {
        database: current_database(),
        node_conninfo: setting(c"citus.node_conninfo"),
        authinfo,
        user,
    })
}

/// The JSON value that a statement gives as text.
pub fn value<T: serde::de::DeserializeOwned>(
    statement: &str,
    parameters: &[DatumWithOid<'_>],
) -> Result<T, Error> {
    let text: Option<String> = read_one(statement, parameters)?;
    Ok(serde_json::from_str(&text.unwrap_or_default())?)
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
