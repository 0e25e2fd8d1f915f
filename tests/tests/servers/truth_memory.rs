//! Real indexes on a host that is too small for them: memory, builds at the same time, and disk. The host is
//! what its server is shown; nothing else is pretended.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::Need;

pub const CHECKS: &[&str] = &["memory_fit", "build_oom", "disk_for_rebuild"];

pub fn suite() -> Vec<Test> {
    suite!("truth_memory", &[Need::Fleet, Need::Citus, Need::Vector, Need::Mounts];
        a_host_is_too_small,
    )
}

const MEMORY: u64 = 12 << 20;
const DISK: u64 = 512 << 20;

fn a_host_is_too_small() {
    let mut witness = Witness::with_items(plan(1).worker_host(MEMORY, DISK), 4000);
    witness.coordinator.run("CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)");
    // By default the planner is told of 4 GB, which this host has not; what it has suffices.
    witness.is_silent("memory_fit");
    witness.is_silent("build_oom");
    witness.is_silent("disk_for_rebuild");
    witness.is_well();

    witness.fill("items", 4000..6250);
    let found = witness.speaks("memory_fit", "red");
    assert!(found.remedy.is_empty(), "no statement makes memory: {found:?}");
    let found = witness.speaks("build_oom", "red");
    assert!(found.remedy.contains("max_adaptive_executor_pool_size"), "{found:?}");
    witness.mends("build_oom");

    // Halves take half of it.
    witness.coordinator.script(
        "CREATE INDEX halves_idx ON items USING hnsw ((v::halfvec(384)) halfvec_l2_ops);
         DROP INDEX items_idx;
         ANALYZE items",
    );
    witness.falls_silent("memory_fit");
    witness.is_well();
    a_hint_that_is_too_low(&mut witness);
    a_disk_that_is_nearly_full(&mut witness);
    witness.attests(CHECKS);
}

fn a_hint_that_is_too_low(witness: &mut Witness) {
    witness.workers[0].set("effective_cache_size", "4MB");
    let found = witness.speaks("memory_fit", "yellow");
    assert!(found.remedy.contains("effective_cache_size"), "{found:?}");
    witness.mends("memory_fit");
}

fn a_disk_that_is_nearly_full(witness: &mut Witness) {
    let number = |sql: &str| -> f64 { witness.coordinator.value(sql).parse().expect("a number") };
    // What is written from here on is no WAL.
    witness.workers[0].run("CHECKPOINT");
    let address = witness.workers[0].address;
    let free = number(&format!(
        "SELECT disk_free_bytes FROM fleet.vector_nodes WHERE nodename = '{address}'"
    ));
    let largest = number("SELECT max(index_bytes) FROM fleet.vector_indexes");
    // Something else on the node's disk grows, until there is room for three of the largest index, and
    // then for one.
    grow(witness, "filler_1", free - 3.0 * largest);
    witness.is_silent("disk_for_rebuild");
    grow(witness, "filler_2", 2.0 * largest);
    witness.speaks("disk_for_rebuild", "red");
    let files = witness.workers[0].data().join("filler");
    witness.workers[0].run(&format!("COPY (SELECT 1) TO PROGRAM 'rm {}_*'", files.display()));
    witness.falls_silent("disk_for_rebuild");
}

/// Writes a file of so many bytes to the worker's disk.
fn grow(witness: &Witness, name: &str, bytes: f64) {
    let file = witness.workers[0].data().join(name);
    witness.workers[0].run(&format!(
        // In the list, for FROM would keep the numbers in a file of their own.
        "COPY (SELECT repeat('x', 1023 + 0 * generate_series(1, {}))) TO '{}'",
        bytes as u64 / 1024,
        file.display()
    ));
}
