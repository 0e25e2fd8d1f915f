//! Owns what the fleet shows over HTTP (`citus_fleet.http_listen`): a background worker of its own,
//! the server in it, whom that lets in, and what it serves.
//! Must not change anything, nor read anything that a member of `pg_monitor` may not.

mod documents;
pub mod gate;
mod list;
mod query;
mod report;
mod server;
mod shelf;
pub mod worker;
