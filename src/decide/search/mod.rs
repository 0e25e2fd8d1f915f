//! Owns what vector search on the shards is like: evidence, checks, health, recall, search options.
//! Must not know how nodes become members.

pub mod options;
pub mod recall;
pub mod vector;
