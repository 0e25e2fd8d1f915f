//! Owns the list of checks: what each one looks for, what it does to users, and why it comes about.
//! Must not hold a threshold or a formula: those stand with the functions that use them.
//!
//! A new check is one more function and one more entry here, and a section of docs/vector-health.md,
//! which a test compares with this list.

mod builds;
mod columns;
mod each;
mod extensions;
mod indexes;
mod lists;
pub mod nodes;
mod operators;
mod recall;
mod settings;
mod shape;
mod spread;
#[cfg(test)]
pub mod tests;
pub mod upkeep;

use super::finding::Finding;
use super::fleet::Fleet;
use super::model::Silence;
use crate::condition::Condition;

/// One thing that can be wrong.
pub struct Check {
    /// Stable: alerts, documents and tests refer to it.
    pub id: &'static str,
    /// Which indicator of `fleet.vector_health()` it belongs to.
    pub indicator: &'static str,
    /// What it does to users, in a sentence.
    pub impact: &'static str,
    /// Why it comes about.
    pub cause: &'static str,
    /// What an operator does about it; the statements are with the finding.
    pub action: &'static str,
    pub find: fn(&Fleet<'_>) -> Vec<Finding>,
}

impl Check {
    /// Whether what it finds is about tables, so that it can be silenced for one.
    pub fn is_of_tables(&self) -> bool {
        const OTHERS: [&str; 2] = ["disk_for_rebuild", "job_failed"];
        let is_of_nodes =
            ["nodes", "settings"].contains(&self.indicator) && self.id != "placement_missing";
        !is_of_nodes && !OTHERS.contains(&self.id)
    }
}

/// A check and what it has found.
pub struct Found<'a> {
    pub check: &'static Check,
    pub finding: Finding,
    /// By whom and why it is meant to be so, if it is.
    pub silence: Option<&'a Silence>,
}

impl Found<'_> {
    /// Whether it makes anything worse than green.
    pub fn counts(&self) -> bool {
        self.silence.is_none() && self.finding.status != Condition::Green
    }
}

/// Runs every check. The same evidence gives the same findings in the same order.
pub fn run<'a>(fleet: &Fleet<'a>) -> Vec<Found<'a>> {
    CHECKS
        .iter()
        .flat_map(|check| {
            (check.find)(fleet).into_iter().map(move |finding| {
                let silence = fleet.silence(check.id, finding.subject.table.as_deref());
                Found { check, finding, silence }
            })
        })
        .collect()
}

/// The indicators of `fleet.vector_health()`, each with its symptom when nothing is wrong.
pub const INDICATORS: [(&str, &str); 7] = [
    ("nodes", "Every node answers, and all of them run the same versions."),
    ("settings", "Searches run with the same settings on every node."),
    ("indexes", "Every vector column that needs an index has a valid one, as it was declared."),
    ("builds", "Index builds and rebuilds fit into the memory and the disks of their nodes."),
    ("upkeep", "Indexes and statistics are as good as their last build."),
    ("recall", "No recall that was measured is too low, and none that has to be known is unknown."),
    ("distribution", "Rows and indexes are spread evenly, and nothing is under way between nodes."),
];

#[rustfmt::skip] // A table: one check after the other, every text on one line.
pub static CHECKS: &[Check] = &[
    Check {
        id: "node_unreachable", indicator: "nodes",
        impact: "Searches that need a shard on this node fail, or its health cannot be told.",
        cause: "The server is down, cut off, disabled, or does not let the coordinator in.",
        action: "Restore the node; fleet.workers says how its last probe ended.",
        find: nodes::unreachable,
    },
    Check {
        id: "placement_missing", indicator: "nodes",
        impact: "Searches that need this placement fail.",
        cause: "The shard's table is gone from its node, or Citus has marked the placement as unhealthy.",
        action: "Recopy the placement from a healthy one, or restore the shard from a backup.",
        find: nodes::placement_missing,
    },
    Check {
        id: "ext_skew", indicator: "nodes",
        impact: "Functions, operators or index formats differ between nodes; distributed statements may fail.",
        cause: "An extension was updated on some nodes only.",
        action: "Bring every node to the coordinator's version.",
        find: extensions::skew,
    },
    Check {
        id: "ext_buggy", indicator: "nodes",
        impact: "This version of pgvector has known defects that can corrupt hnsw indexes or crash a build.",
        cause: "The package is older than 0.8.4: parallel builds overflow before 0.8.2, VACUUM corrupts before 0.8.3, and leaves graphs unrepaired before 0.8.4.",
        action: "Install a newer package of pgvector on every node, update the extension, and REINDEX hnsw indexes that were vacuumed.",
        find: extensions::buggy,
    },
    Check {
        id: "ext_library", indicator: "nodes",
        impact: "What runs is not what pg_extension says: defects that were mended are still there, or functions are missing.",
        cause: "The package of pgvector was replaced, and the server was not restarted, the extension not updated, or not all hosts got it.",
        action: "Install the same package on every host, restart servers that preload vector, and ALTER EXTENSION vector UPDATE.",
        find: extensions::library,
    },
    Check {
        id: "memory_fit", indicator: "nodes",
        impact: "Searches read the index from disk instead of memory and become slower by orders of magnitude.",
        cause: "The vector indexes on this node are larger than the memory that can cache them, or than the planner is told that there is.",
        action: "Correct effective_cache_size where there is more memory; else move shards away, or index halfvec or bit instead of vector.",
        find: nodes::memory_fit,
    },
    Check {
        id: "guc_drift", indicator: "settings",
        impact: "Shards answer with different effort: recall, or the number of rows returned, depends on where a row lives.",
        cause: "Settings of a session do not reach the workers, and ALTER SYSTEM reaches one server.",
        action: "Set the option for the database on every node.",
        find: settings::drift,
    },
    Check {
        id: "role_settings", indicator: "settings",
        impact: "This role gets fewer rows, or other rows, than what was measured says.",
        cause: "ALTER ROLE … SET overrides the database's own settings for this role.",
        action: "Reset it; fleet.set_search_option() sets it for all.",
        find: settings::roles,
    },
    Check {
        id: "index_scans_off", indicator: "settings",
        impact: "Searches read every row although there is an index.",
        cause: "enable_indexscan is off: a planner setting for tries, left behind.",
        action: "Set it on, or reset it.",
        find: settings::index_scans,
    },
    Check {
        id: "index_missing", indicator: "indexes",
        impact: "Searches read every row of the shard.",
        cause: "No index was created, or its creation failed on some shards.",
        action: "Create the index; choose the operator class of the operator that your queries order by.",
        find: columns::missing,
    },
    Check {
        id: "index_partial", indicator: "indexes",
        impact: "Searches without the condition of the index read every row of the shard.",
        cause: "The only index of the column is partial, and most rows do not meet its condition.",
        action: "Create an index without the condition, unless all searches have it.",
        find: columns::partial,
    },
    Check {
        id: "not_indexable", indicator: "indexes",
        impact: "Searches read every row, because no index can be built on this column as it is.",
        cause: "The column declares no dimensions, or more than an index can hold: 2,000 for vector, 4,000 for halfvec. Columnar tables take no vector index at all.",
        action: "Declare the dimensions, or index the column as halfvec or binary-quantized. The type of a column of a materialized view or of a domain is changed where it comes from.",
        find: columns::not_indexable,
    },
    Check {
        id: "index_invalid", indicator: "indexes",
        impact: "The index costs writes and serves no search.",
        cause: "CREATE INDEX CONCURRENTLY or REINDEX CONCURRENTLY has failed or was cancelled.",
        action: "Rebuild the index.",
        find: indexes::invalid,
    },
    Check {
        id: "ccnew_leftover", indicator: "indexes",
        impact: "The leftover costs writes and disk and serves no search.",
        cause: "REINDEX CONCURRENTLY has failed or was cancelled, and leaves what it had built so far.",
        action: "Drop the leftover.",
        find: indexes::leftover,
    },
    Check {
        id: "shell_invalid", indicator: "indexes",
        impact: "Shards that are moved, split or added get no index.",
        cause: "CREATE INDEX CONCURRENTLY has built the index on all shards, and left the coordinator's own entry invalid; or it has failed before it came to any shard.",
        action: "REINDEX CONCURRENTLY from the coordinator, which sets it right; what is on no shard is dropped.",
        find: indexes::shell_invalid,
    },
    Check {
        id: "def_drift", indicator: "indexes",
        impact: "Searches on this shard use another operator class, other options or no index, unlike all others.",
        cause: "The index was created or changed on the node directly.",
        action: "Rebuild the index of this shard as its table declares it.",
        find: shape::drift,
    },
    Check {
        id: "option_not_applied", indicator: "indexes",
        impact: "The index still has the quality and size of its old options.",
        cause: "ALTER INDEX … SET changes the declaration alone; hnsw and ivfflat read it when they are built.",
        action: "Rebuild the index.",
        find: shape::option_not_applied,
    },
    Check {
        id: "empty_graph", indicator: "indexes",
        impact: "Searches by this index find nothing.",
        cause: "The index holds no vector although the table has rows: all are NULL, or zero under the cosine distance, or the graph was lost.",
        action: "Fill the column, and rebuild the index where the rows have vectors.",
        find: shape::empty_graph,
    },
    Check {
        id: "index_unused", indicator: "indexes",
        impact: "Searches read every row although there is an index.",
        cause: "The queries order by another operator than the index's, in descending order, or without a LIMIT.",
        action: "Compare EXPLAIN of the query with the operator class of the index; drop the index if nothing needs it.",
        find: indexes::unused,
    },
    Check {
        id: "operator_unserved", indicator: "indexes",
        impact: "These searches read every row although there is an index.",
        cause: "They order by another operator than the index's operator class is for.",
        action: "Create an index with the operator class of that operator, or let the searches use the index's operator.",
        find: operators::unserved,
    },
    Check {
        id: "build_running", indicator: "builds",
        impact: "Until it ends, searches use the old index, or read every row where there is none.",
        cause: "CREATE INDEX, REINDEX or a shard move is under way.",
        action: "Wait; fleet.vector_progress says how far it is.",
        find: builds::running,
    },
    Check {
        id: "build_stalled", indicator: "builds",
        impact: "The build does not go on, and may hold locks that others wait for.",
        cause: "It waits for a lock that another session holds.",
        action: "End the session that holds the lock, or cancel the build.",
        find: builds::stalled,
    },
    Check {
        id: "build_spill", indicator: "builds",
        impact: "The next build of this index, by REINDEX or after a shard move, takes many times longer.",
        cause: "The graph does not fit into maintenance_work_mem; pgvector says so only in a NOTICE, which Citus hides.",
        action: "Raise maintenance_work_mem on the node that holds the shard.",
        find: builds::spill,
    },
    Check {
        id: "build_oom", indicator: "builds",
        impact: "Building the index on all shards at once can exhaust the memory of the node and bring the server down.",
        cause: "Citus builds up to citus.max_adaptive_executor_pool_size shards of a node at the same time, each within maintenance_work_mem.",
        action: "Lower citus.max_adaptive_executor_pool_size for the build, or maintenance_work_mem on the node.",
        find: builds::out_of_memory,
    },
    Check {
        id: "build_shm", indicator: "builds",
        impact: "Building the index on all shards fails with \"could not resize shared memory segment\".",
        cause: "A parallel build takes its memory from /dev/shm, which has 64 MB in a container unless it is given more; Citus builds several shards of a node at the same time.",
        action: "Give the container a larger /dev/shm, or let builds be serial.",
        find: builds::shared_memory,
    },
    Check {
        id: "ivf_build_mem", indicator: "builds",
        impact: "The next build of this index, by REINDEX or after a shard move, fails.",
        cause: "Training needs more memory than maintenance_work_mem allows.",
        action: "Raise maintenance_work_mem on the node that holds the shard.",
        find: builds::training_memory,
    },
    Check {
        id: "disk_for_rebuild", indicator: "builds",
        impact: "Rebuilding or receiving the largest index can fill the disk and stop the server.",
        cause: "The file system of the data directory has less room than a rebuild of the largest index takes.",
        action: "Free or add disk space, or move shards away.",
        find: builds::disk,
    },
    Check {
        id: "bloat", indicator: "upkeep",
        impact: "The index takes more memory and more reads than its rows need.",
        cause: "Deleted and updated rows leave room in the graph that is reused only by later inserts.",
        action: "Rebuild the index.",
        find: upkeep::bloat,
    },
    Check {
        id: "dead_tuples", indicator: "upkeep",
        impact: "Searches return fewer rows than asked for: dead ones use up hnsw.ef_search.",
        cause: "Rows were deleted or updated since the last VACUUM.",
        action: "Rebuild the indexes first, which makes the VACUUM short, then VACUUM.",
        find: upkeep::dead_tuples,
    },
    Check {
        id: "vacuum_stuck", indicator: "upkeep",
        impact: "Dead rows stay in the indexes, and more of them pile up.",
        cause: "VACUUM repairs an hnsw graph element by element, which takes very long after many deletions.",
        action: "Cancel it, rebuild the index, then VACUUM.",
        find: upkeep::vacuum_stuck,
    },
    Check {
        id: "recall_unknown", indicator: "recall",
        impact: "Whether searches find what they should is not known.",
        cause: "It was not measured, or so long ago, by other settings, on so few queries, or on rows or an index so different that the figure tells nothing of today.",
        action: "Measure it, with a larger budget where that ends too early; or let citus_fleet.recall_interval do it.",
        find: recall::unknown,
    },
    Check {
        id: "recall_low", indicator: "recall",
        impact: "Searches miss rows that are nearer than those they return.",
        cause: "The search tries too little for how the data lie, or the index has grown worse since it was built.",
        action: "Raise hnsw.ef_search or ivfflat.probes for the database on every node, or rebuild the index, and measure again.",
        find: recall::low,
    },
    Check {
        id: "unindexed_rows", indicator: "upkeep",
        impact: "Searches by the index do not find these rows.",
        cause: "Their vector is NULL: it has not been computed yet, or never will be.",
        action: "Compute the missing vectors, then ANALYZE.",
        find: upkeep::unindexed,
    },
    Check {
        id: "stats_stale", indicator: "upkeep",
        impact: "The planner may choose a scan of every row, or the index where a filter would be better.",
        cause: "The table has not been analyzed since much of it changed.",
        action: "ANALYZE the table.",
        find: upkeep::stale_statistics,
    },
    Check {
        id: "ivf_training", indicator: "upkeep",
        impact: "Recall is low and searches are uneven: the lists do not fit the rows.",
        cause: "The index was built when the table was empty or much smaller, and ivfflat never trains again by itself.",
        action: "Rebuild the index.",
        find: lists::training,
    },
    Check {
        id: "ivf_lists", indicator: "upkeep",
        impact: "Each search reads far more rows than it needs, or far fewer than it should.",
        cause: "The number of lists does not suit the rows of one shard.",
        action: "Declare as many lists as a shard has thousands of rows, and rebuild the index.",
        find: lists::number,
    },
    Check {
        id: "skew", indicator: "distribution",
        impact: "The largest shard or node sets the time of every search.",
        cause: "One tenant is much larger than the others, or shards were not rebalanced since nodes joined.",
        action: "Give the tenant a shard of its own, or rebalance.",
        find: spread::skew,
    },
    Check {
        id: "replica_divergence", indicator: "distribution",
        impact: "The same search gives different answers, depending on which replica it reads.",
        cause: "A replica has missed writes, or was written to directly.",
        action: "Count the rows of both: the statistics may differ where the rows do not. Where they do, find out which replica is right, and recopy the other from it.",
        find: spread::divergence,
    },
    Check {
        id: "move_in_flight", indicator: "distribution",
        impact: "The target builds the shard's indexes, and the source keeps WAL until that is done.",
        cause: "A shard is being moved or split, or a move has failed and left its copy behind.",
        action: "Wait; what a failed move has left is removed by Citus's cleanup.",
        find: spread::moving,
    },
    Check {
        id: "job_failed", indicator: "distribution",
        impact: "Shards stay where they were.",
        cause: "The newest background job of Citus, a rebalance mostly, has failed.",
        action: "Mend what its message names, and start it again.",
        find: spread::job,
    },
];
