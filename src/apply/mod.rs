//! Owns the changes: the only code that writes Citus's metadata or changes another server.
//! Owns the changes: the only code that writes Citus's metadata and settings of databases.
//! Must not decide what to change, nor wait without a deadline.

pub mod citus_nodes;
pub mod identities;
pub mod leftovers;
pub mod removal;
pub mod search_options;
