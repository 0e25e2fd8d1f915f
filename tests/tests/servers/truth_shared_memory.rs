//! Builds of real indexes on a host whose /dev/shm is a container's: all shards of a node at the same time, as
//! Citus builds them.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::Need;

pub const CHECKS: &[&str] = &["build_shm"];

pub fn suite() -> Vec<Test> {
    suite!("truth_shared_memory", &[Need::Fleet, Need::Citus, Need::Vector, Need::Mounts];
        parallel_builds_do_not_fit_into_a_containers_shared_memory,
    )
}

/// What a container has where nobody has said otherwise.
const ROOM: u64 = 64 << 20;
const CREATE: &str = "CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)";

fn parallel_builds_do_not_fit_into_a_containers_shared_memory() {
    let host = plan(1)
        .worker_shared_memory(ROOM)
        .worker_set("maintenance_work_mem", "64MB")
        .worker_set("min_parallel_table_scan_size", "1MB");
    let mut witness = Witness::with_items(host, 1500);
    // Four shards of less than a megabyte are built by one process each.
    witness.is_silent("build_shm");
    witness.fill("items", 1500..6000);
    let found = witness.speaks("build_shm", "yellow");
    assert!(found.symptom.contains("64.0 MB"), "{found:?}");
    let error = witness.coordinator.error(CREATE);
    assert!(error.message.contains("could not resize shared memory segment"), "{error}");
    witness.mends("build_shm");
    witness.coordinator.run(CREATE);
    witness.is_silent("build_shm");
    witness.attests(CHECKS);
}
