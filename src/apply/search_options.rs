//! Owns setting an option of searches for the database, on every node in one transaction.
//! Must not set what the nodes have not been asked about.

use crate::backend::catalog;
use crate::error::Error;
use pgrx::prelude::*;

/// Sets an option for the database, or resets it, in the caller's transaction.
///
/// Citus takes the statement to every active node within its own two-phase commit, so that it holds
/// on all nodes or on none. It goes by all roles in this database, which PostgreSQL stores as it
/// stores the database's own settings, because this is what Citus also hands to every node that is
/// activated later (metadata_sync.c, `PropagateNodeWideObjectsCommandList`).
pub fn set(option: &str, value: Option<&str>) -> Result<(), Error> {
    if catalog::is_installed(c"citus") {
        for propagation in ["enable_ddl_propagation", "enable_alter_role_set_propagation"] {
            Spi::run(&format!("SET LOCAL citus.{propagation} = on"))?;
        }
    }
    let database = spi::quote_identifier(catalog::current_database());
    let change = match value {
        Some(value) => format!("SET {option} TO {}", spi::quote_literal(value)),
        None => format!("RESET {option}"),
    };
    Ok(Spi::run(&format!("ALTER ROLE ALL IN DATABASE {database} {change}"))?)
}
