//! Owns which searches there were, as pg_stat_statements of this node tells: of which relation, by which
//! operator, how often. Must not parse SQL: it recognizes what Citus writes for a shard, and what a search
//! usually looks like.

use crate::backend::catalog::{is_installed, read_one, value};
use crate::error::Error;
use decide::search::vector::model::Search;

/// Searches by relation and operator; none where pg_stat_statements is not there.
pub fn collect() -> Result<Vec<Search>, Error> {
    // It may be installed without having been preloaded, and raises then; of what nobody has defined,
    // pg_settings shows nothing.
    let is_loaded = "SELECT EXISTS (SELECT FROM pg_catalog.pg_settings s
        WHERE s.name OPERATOR(pg_catalog.=) 'pg_stat_statements.max')";
    if !is_installed(c"pg_stat_statements") || read_one(is_loaded, &[])? != Some(true) {
        return Ok(Vec::new());
    }
    let schema: Option<String> = read_one(
        "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
         WHERE e.extname OPERATOR(pg_catalog.=) 'pg_stat_statements'",
        &[],
    )?;
    let statements = format!("{}.pg_stat_statements(true)", schema.unwrap_or_default());
    value(&include_str!("searches.sql").replace("pg_stat_statements(true)", &statements), &[])
}
