//! Owns reading the coordinator's own catalogs: who it is, what Citus has registered, how its
//! connections log in. Runs inside a transaction that the caller has opened.
//! Must not connect to anything.

use crate::backend::catalog::{current_database, is_installed, setting, value};
use crate::backend::encoding::Text;
use crate::error::Error;
use crate::net::credentials::Credentials;
use crate::settings;
use decide::membership::coordinator::{CitusFacts, Coordinator};
use decide::membership::server::Relation;
use pgrx::pg_sys;
use std::collections::{BTreeMap, BTreeSet};
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

/// Those of the relations of candidates that are distributed tables here: a new worker would lose them.
pub fn clashes<'a>(
    relations: impl Iterator<Item = &'a Relation>,
) -> Result<BTreeSet<Relation>, Error> {
    let (schemas, names): (Vec<Text>, Vec<Text>) =
        relations.map(|it| (Text(it.schema.clone()), Text(it.name.clone()))).unzip();
    value(include_str!("clashes.sql"), &[schemas.into(), names.into()])
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
        unbound_passwords: settings::unbound_passwords(),
        user,
    })
}
