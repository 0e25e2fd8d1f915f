//! Owns the words of what is under way on a node as plain data: builds, vacuums, slots of moves.
//! Must not judge anything.

use super::figure;
use serde::{Deserialize, Serialize};

/// A CREATE INDEX or REINDEX under way, from `pg_stat_progress_create_index`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Build {
    pub pid: i32,
    pub relation: u32,
    /// 0 while the new index is not in the catalogs yet.
    pub index: u32,
    pub phase: String,
    #[serde(deserialize_with = "figure::count")]
    pub blocks_done: u64,
    #[serde(deserialize_with = "figure::count")]
    pub blocks_total: u64,
    #[serde(deserialize_with = "figure::count")]
    pub tuples_done: u64,
    #[serde(deserialize_with = "figure::count")]
    pub tuples_total: u64,
    pub started: f64,
    /// Since when it has been waiting for a lock, if it is.
    pub waiting_since: Option<f64>,
}

/// A VACUUM under way, from `pg_stat_progress_vacuum`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Vacuum {
    pub pid: i32,
    pub relation: u32,
    pub phase: String,
    #[serde(deserialize_with = "figure::count")]
    pub blocks_total: u64,
    #[serde(deserialize_with = "figure::count")]
    pub blocks_scanned: u64,
    #[serde(deserialize_with = "figure::count")]
    pub blocks_vacuumed: u64,
    pub started: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    pub active: bool,
    /// Bytes of WAL that it keeps from being removed.
    #[serde(default, deserialize_with = "figure::known_count")]
    pub retained: Option<u64>,
}
