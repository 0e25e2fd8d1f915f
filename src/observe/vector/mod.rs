//! Owns collecting the evidence of vector-shard health: what this node says of itself, and what all
//! nodes of the cluster say. Must not read a row of a user's table and must not judge.

pub mod collect;
mod metapage;
pub mod node;
mod searches;
