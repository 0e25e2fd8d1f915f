//! Owns the changes: the only code that writes Citus's metadata, sets what holds for a database, or
//! changes another server.
//! Must not decide what to change, nor wait without a deadline.

pub mod acceptance;
pub mod claims;
pub mod identities;
pub mod leftovers;
pub mod marks;
pub mod nodes;
pub mod pause;
pub mod removal;
pub mod search_options;
