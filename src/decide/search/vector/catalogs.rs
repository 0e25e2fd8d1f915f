//! Owns the words of the coordinator's Citus catalogs as plain data: nodes, tables, shards, placements.
//! Must not judge anything.

use crate::node::any_port;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What the coordinator's Citus catalogs say of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Catalogs {
    pub nodes: Vec<CatalogNode>,
    pub tables: Vec<CatalogTable>,
    pub shards: Vec<CatalogShard>,
    pub placements: Vec<CatalogPlacement>,
    /// The newest background job, where there is one.
    pub job: Option<Job>,
    pub cleanups: Vec<Cleanup>,
}

/// A primary of `pg_dist_node`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct CatalogNode {
    pub nodeid: i32,
    pub groupid: i32,
    pub nodename: String,
    #[serde(deserialize_with = "any_port")]
    pub nodeport: u16,
    pub isactive: bool,
    pub shouldhaveshards: bool,
}

/// A row of `pg_dist_partition` whose table has vectors.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct CatalogTable {
    /// Of the shell table on the coordinator.
    pub relation: u32,
    /// `distributed`, `reference`, `schema` (schema-based or single-shard) or `local`.
    pub kind: String,
    pub distribution_column: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct CatalogShard {
    pub shardid: i64,
    /// Of the shell table.
    pub relation: u32,
    /// The range of hash values; none for tables that are not hash-distributed.
    pub minimum: Option<i64>,
    pub maximum: Option<i64>,
    /// What the shard is called on its nodes.
    pub name: String,
    /// What the shard's indexes are called, by the oid of the shell's index.
    pub indexes: BTreeMap<u32, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct CatalogPlacement {
    pub shardid: i64,
    pub groupid: i32,
    /// 1 = healthy.
    pub state: i32,
}

/// A row of `pg_dist_background_job`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Job {
    pub id: i64,
    pub state: String,
    pub description: String,
    /// What its first failed task said.
    pub message: Option<String>,
}

/// A row of `pg_dist_cleanup`: what a move or split leaves to be removed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Cleanup {
    pub groupid: i32,
    pub object: String,
    /// 0 always, 1 on failure, 2 deferred until after success.
    pub policy: i32,
}
