//! Owns what SQL sees of recall: its arguments, its privileges and its rows.
//! Must not measure: a node does, for its own placements.

use crate::decide::recall::ask::Ask;
use crate::decide::recall::result::Measured;
use crate::error::Error;
use crate::observe::recall;
use pgrx::prelude::*;

#[pg_schema]
pub mod fleet {
    use super::measure_here;
    use crate::error::Error;
    use pgrx::Json;
    use pgrx::prelude::*;

    /// Measures the recall of every hnsw and ivfflat index of tables of this server, given by
    /// qualified names: one JSON object for each. `fleet.vector_recall` asks every node for it.
    ///
    /// Reads only. A table that cannot be measured is an object with a `note`, not an error; it
    /// takes SELECT on each table, and no row-level policy in between. `budget_ms` holds for all of
    /// them together.
    ///
    /// Errors: 22023 for arguments that make no sense.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn shard_recall(relations: Vec<String>, k: i32, sample: i32, budget_ms: i64) -> Json {
        let measured = measure_here(&relations, k, sample, budget_ms)
            .unwrap_or_else(|error: Error| error.raise());
        Json(serde_json::json!(measured))
    }
}

/// What a node answers for some of its relations.
fn measure_here(
    relations: &[String],
    k: i32,
    sample: i32,
    budget_ms: i64,
) -> Result<Vec<Measured>, Error> {
    let ask = Ask::new(k, sample, budget_ms.saturating_mul(1000))?;
    Ok(recall::measure(relations, &ask))
}
