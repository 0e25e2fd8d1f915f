//! Owns how a node of the cluster is named: what every room calls it by.
//! Must not know anything else of it.

use serde::Deserialize;

/// A node as `pg_dist_node` names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Node {
    pub nodeid: i32,
    pub nodename: String,
    pub nodeport: u16,
}
