//! Owns what SQL sees of silences: who may call, and where.
//! Must not know what a silence does.

use crate::backend::catalog;
use crate::error::Error;
use crate::session;
use pgrx::prelude::*;

#[pg_schema]
pub mod fleet {
    use super::allowed;
    use crate::error::{Error, given};
    use crate::silences;
    use pgrx::PgRelation;
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::prelude::*;

    /// Says that what a check of vector-shard health finds is meant to be so: of one table with its
    /// partitions, or, where `relation` is NULL, of the whole cluster. Until then its findings make nothing
    /// worse than green; the report shows them as silenced, by whom and why. A silence of the same is replaced.
    ///
    /// Errors: 42501 unless superuser; 25006 on a standby; 55000 on a worker; 22004 for a NULL; 22023 for a check
    /// that there is not, for an end that has passed or never comes, and without a why.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn silence(
        check: Option<&str>,
        relation: Option<PgRelation>,
        until: Option<TimestampWithTimeZone>,
        why: Option<&str>,
    ) {
        let (check, until, why) = (given(check, "check"), given(until, "until"), given(why, "why"));
        let relation = relation.map(|relation| relation.oid());
        allowed("fleet.silence()")
            .and_then(|()| silences::add(check, relation, until, why))
            .unwrap_or_else(|error: Error| error.raise());
    }

    /// Ends a silence before its time.
    ///
    /// Errors: 42501 unless superuser; 25006 on a standby; 55000 on a worker; 22023 for a check that there is
    /// not; 42704 where it is not silenced.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn unsilence(check: Option<&str>, relation: default!(Option<PgRelation>, "NULL")) {
        let check = given(check, "check");
        let relation = relation.map(|relation| relation.oid());
        allowed("fleet.unsilence()")
            .and_then(|()| silences::remove(check, relation))
            .unwrap_or_else(|error: Error| error.raise());
    }
}

fn allowed(function: &'static str) -> Result<(), Error> {
    session::require_superuser(function)?;
    session::require_primary(function)?;
    catalog::require_no_worker()
}
