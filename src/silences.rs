//! Owns `fleet.silences`: findings that are meant to be so, written and read.
//! Must not judge which findings those are: `decide` matches them.

use crate::backend::catalog::{self, read_one};
use crate::backend::relation::require_table;
use crate::error::Error;
use decide::search::vector::checks::{CHECKS, Check};
use decide::search::vector::model::Silence;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// Silences a check, of a table or of the whole cluster; takes the place of a silence of the same. Those that
/// have ended, or whose table is gone, are forgotten.
///
/// Errors: 22023 for a check that there is not, or that is not about tables, for an end that has passed or is more
/// than ten years away, and without a why; 42809 for what is no table.
pub fn add(
    check: &str,
    relation: Option<pg_sys::Oid>,
    until: TimestampWithTimeZone,
    why: &str,
) -> Result<(), Error> {
    let check = known(check)?;
    if let Some(relation) = relation {
        require_table(relation)?;
        if !check.is_of_tables() {
            return Err(Error::NotOfTables(check.id));
        }
    }
    if why.trim().is_empty() {
        return Err(Error::SilencedWithoutWhy);
    }
    let ends = "SELECT $1 OPERATOR(pg_catalog.>) pg_catalog.now() AND
        $1 OPERATOR(pg_catalog.<=) (pg_catalog.now() OPERATOR(pg_catalog.+) '10 years'::pg_catalog.interval)";
    if read_one(ends, &[until.into()])? != Some(true) {
        return Err(Error::SilenceWithoutEnd);
    }
    forget_ended()?;
    Ok(Spi::run_with_args(
        "INSERT INTO fleet.silences AS s (\"check\", relation, until, why)
         VALUES ($1, $2::pg_catalog.regclass, $3, $4)
         ON CONFLICT ON CONSTRAINT silences_key DO UPDATE SET
           until = EXCLUDED.until, why = EXCLUDED.why,
           silenced_by = EXCLUDED.silenced_by, silenced_at = EXCLUDED.silenced_at",
        &[check.id.into(), relation.into(), until.into(), why.into()],
    )?)
}

/// Ends a silence.
///
/// Errors: 22023 for a check that there is not; 42704 where it is not silenced.
pub fn remove(check: &str, relation: Option<pg_sys::Oid>) -> Result<(), Error> {
    known(check)?;
    forget_ended()?;
    let removed: Option<bool> = Spi::get_one_with_args(
        "WITH removed AS (
           DELETE FROM fleet.silences s
           WHERE s.\"check\" OPERATOR(pg_catalog.=) $1
             AND s.relation::pg_catalog.oid IS NOT DISTINCT FROM $2
           RETURNING true)
         SELECT EXISTS (SELECT FROM removed)",
        &[check.into(), relation.into()],
    )?;
    if removed == Some(true) { Ok(()) } else { Err(Error::NotSilenced(check.to_owned())) }
}

/// All silences that have not ended.
pub fn current() -> Result<Vec<Silence>, Error> {
    catalog::value(
        "SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
           'check', s.\"check\",
           'table_name', (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE c.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid),
           -- A partitioned table is judged as its partitions.
           'relations', ARRAY(
             SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE c.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid
                OR c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(
                     SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(s.relation) t))),
           'until', EXTRACT(epoch FROM s.until),
           'until_text', pg_catalog.to_json(s.until) OPERATOR(pg_catalog.#>>) '{}',
           'why', s.why, 'silenced_by', s.silenced_by)
           ORDER BY s.\"check\", s.relation::pg_catalog.oid), '[]')::pg_catalog.text
         FROM fleet.silences s
         WHERE s.until OPERATOR(pg_catalog.>) pg_catalog.now()
           AND (s.relation IS NULL OR EXISTS (
             SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid))",
        &[],
    )
}

fn known(check: &str) -> Result<&'static Check, Error> {
    let known = CHECKS.iter().find(|known| known.id == check);
    known.ok_or_else(|| Error::NoSuchCheck(check.to_owned()))
}

fn forget_ended() -> Result<(), Error> {
    Ok(Spi::run(
        "DELETE FROM fleet.silences s
         WHERE s.until OPERATOR(pg_catalog.<=) pg_catalog.now()
            OR (s.relation IS NOT NULL AND NOT EXISTS (
              SELECT FROM pg_catalog.pg_class c
              WHERE c.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid))",
    )?)
}
