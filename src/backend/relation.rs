//! Owns what kind of relation an oid is.
//! Must not open one.

use crate::error::Error;
use pgrx::pg_sys;

/// Errors: 42809 for what has no rows of its own.
pub fn require_table(relation: pg_sys::Oid) -> Result<(), Error> {
    // SAFETY: a lookup in the cache; the caller holds the relation open.
    let kind = unsafe { pg_sys::get_rel_relkind(relation) } as u8;
    match kind {
        pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE | pg_sys::RELKIND_MATVIEW => {
            Ok(())
        }
        pg_sys::RELKIND_VIEW => Err(Error::NotATable("a view")),
        pg_sys::RELKIND_FOREIGN_TABLE => Err(Error::NotATable("a foreign table")),
        pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX => {
            Err(Error::NotATable("an index"))
        }
        _ => Err(Error::NotATable("not a table")),
    }
}
