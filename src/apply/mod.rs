//! Owns the changes: the only code that writes Citus's metadata, each in a short transaction.
//! Must not decide what to change, nor wait without a deadline.

pub mod citus_nodes;
pub mod identities;
