//! Owns what a process of PostgreSQL can do, told in Rust: connect, run a transaction, attend to signals,
//! hold a lock, read its own catalogs.
//! Must not know what this extension is for.

pub mod catalog;
pub mod connection;
pub mod encoding;
pub mod guc;
pub mod locks;
pub mod relation;
pub mod signals;
pub mod transaction;
