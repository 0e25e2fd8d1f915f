//! Owns finding what there is to measure: whether the caller may read it, the relation by its name,
//! its ANN indexes; and opening one as the owner of the table, as an index build does.
//! Must not run anything of the table's owner with the caller's rights.

use super::index::AnnIndex;
use crate::backend::catalog::{read_one, setting};
use crate::backend::guc::with_settings;
use crate::backend::transaction::as_role;
use crate::error::Error;
use pgrx::{PgList, pg_sys};
use std::ffi::{CStr, CString};

const HNSW: &[&CStr] = &[
    c"hnsw.ef_search",
    c"hnsw.iterative_scan",
    c"hnsw.max_scan_tuples",
    c"hnsw.scan_mem_multiplier",
];
const IVFFLAT: &[&CStr] = &[c"ivfflat.probes", c"ivfflat.iterative_scan", c"ivfflat.max_probes"];

const SHARE: i32 = pg_sys::AccessShareLock as i32;

/// An ANN index of a relation.
pub struct Target {
    heap: pg_sys::Oid,
    index: pg_sys::Oid,
    pub index_name: String,
    options: &'static [&'static CStr],
}

impl Target {
    /// The settings of a search that are in effect, as far as this pgvector has them.
    pub fn settings(&self) -> String {
        let known = self.options.iter().map(|name| (name, setting(name)));
        let words = known.filter(|(_, value)| !value.is_empty());
        let words: Vec<String> =
            words.map(|(name, value)| format!("{}={value}", name.to_string_lossy())).collect();
        words.join(" ")
    }

    /// Entries ever written to the indexes of the table: `Relation::written` of this moment.
    pub fn written(&self) -> u64 {
        // SAFETY: the statistics of a table, copied by the server; null where there are none.
        let counts = unsafe { pg_sys::pgstat_fetch_stat_tabentry(self.heap).as_ref() };
        let of = |counts: &pg_sys::PgStat_StatTabEntry| {
            let new_entries = counts.tuples_updated - counts.tuples_hot_updated;
            counts.tuples_inserted + new_entries + counts.tuples_deleted
        };
        counts.map_or(0, of).try_into().unwrap_or_default()
    }

    /// Opens the index and runs `body` with the rights of the table's owner in a
    /// security-restricted operation, because what an index expression calls is the owner's.
    pub fn open<T>(&self, body: impl FnOnce(&AnnIndex) -> Result<T, Error>) -> Result<T, Error> {
        // SAFETY: an ERROR aborts the caller's subtransaction, which closes, frees and restores
        // everything that is taken here.
        unsafe {
            let heap = pg_sys::relation_open(self.heap, SHARE);
            let restricted = pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            let result = as_role((*(*heap).rd_rel).relowner, restricted, || {
                with_settings(&[("search_path", "pg_catalog, pg_temp".into())], || {
                    let index = AnnIndex::open(heap, self.index)?;
                    let result = body(&index);
                    index.close();
                    result
                })
            });
            pg_sys::relation_close(heap, SHARE);
            result
        }
    }
}

/// The ANN indexes of a relation, given by its qualified name; an index that is not valid counts as
/// an error, since it answers no query.
pub fn find(relation: &str) -> Result<Vec<Target>, Error> {
    let name = CString::new(relation).map_err(|_| Error::Internal("a zero byte".into()))?;
    // SAFETY: catalog lookups in the caller's subtransaction, which an ERROR aborts.
    unsafe {
        let names = pg_sys::stringToQualifiedNameList(name.as_ptr(), std::ptr::null_mut());
        let range = pg_sys::makeRangeVarFromNameList(names);
        let oid = pg_sys::RangeVarGetRelidExtended(
            range,
            SHARE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        if oid == pg_sys::InvalidOid {
            return Err(Error::Internal("there is no such relation on the node".into()));
        }
        let heap = pg_sys::relation_open(oid, pg_sys::NoLock as i32);
        let found = indexes(heap);
        pg_sys::relation_close(heap, SHARE);
        found
    }
}

/// Since when the server has counted what is written, in seconds since 1970: a reset, of all statistics or of a
/// single table's, moves it, and so does a crash, which loses them.
pub fn counted_since() -> Result<Option<f64>, Error> {
    read_one(include_str!("../counted_since.sql"), &[])
}

/// Whether the caller may read all rows of a table: whoever may not must not learn from distances
/// either.
///
/// Errors: 42501, with what it takes.
pub fn may_read(relation: pg_sys::Oid) -> Result<(), Error> {
    // SAFETY: lookups in the caches; a table that is gone raises.
    let (granted, security) = unsafe {
        let select = u64::from(pg_sys::ACL_SELECT);
        (
            pg_sys::pg_class_aclcheck(relation, pg_sys::GetUserId(), select),
            pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, true),
        )
    };
    if granted != pg_sys::AclResult::ACLCHECK_OK {
        return Err(Error::MayNotRead("It takes SELECT on the table."));
    }
    if security == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
        return Err(Error::MayNotRead("A row-level policy hides rows from this role."));
    }
    Ok(())
}

unsafe fn indexes(heap: pg_sys::Relation) -> Result<Vec<Target>, Error> {
    // SAFETY: an open relation.
    let kind = unsafe { (*(*heap).rd_rel).relkind as u8 };
    if kind != pg_sys::RELKIND_RELATION && kind != pg_sys::RELKIND_MATVIEW {
        return Err(Error::Internal("it is not a table".into()));
    }
    let mut found = Vec::new();
    // SAFETY: an open relation; its list of indexes is a copy.
    unsafe {
        let list = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(heap));
        for oid in list.iter_oid() {
            let index = pg_sys::index_open(oid, SHARE);
            let method = pg_sys::get_am_name((*(*index).rd_rel).relam);
            let options = match CStr::from_ptr(method).to_bytes() {
                b"hnsw" => Some(HNSW),
                b"ivfflat" => Some(IVFFLAT),
                _ => None,
            };
            let is_valid = (*(*index).rd_index).indisvalid;
            let name = (*(*index).rd_rel).relname;
            let index_name = CStr::from_ptr(name.data.as_ptr()).to_string_lossy().into_owned();
            pg_sys::index_close(index, SHARE);
            if let Some(options) = options.filter(|_| is_valid) {
                found.push(Target { heap: (*heap).rd_id, index: oid, index_name, options });
            }
        }
    }
    Ok(found)
}
