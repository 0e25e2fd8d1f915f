//! Owns what SQL sees of vector-shard health: evidence in, JSON for the views out.
//! Must not judge: `decide::vector` does.

use crate::error::Error;
use crate::observe::vector::node;

/// The answer of `fleet.vector_evidence()`.
pub fn evidence() -> Result<serde_json::Value, Error> {
    Ok(serde_json::to_value(node::collect()?)?)
}
