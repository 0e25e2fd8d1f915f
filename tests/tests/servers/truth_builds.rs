//! Index builds over real embeddings, those under way and those to come: what is predicted of them is what
//! pgvector then does.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::{Need, Server};

pub const CHECKS: &[&str] =
    &["build_running", "build_stalled", "build_spill", "ivf_build_mem", "vacuum_stuck"];

pub fn suite() -> Vec<Test> {
    suite!("truth_builds", &[Need::Fleet, Need::Citus, Need::Vector];
        builds_go_as_they_were_predicted,
    )
}

fn builds_go_as_they_were_predicted() {
    let mut witness = Witness::with_items(plan(2), 6000);
    witness.coordinator.run("CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)");
    witness.is_well();
    a_graph_that_spills(&mut witness);
    a_training_that_fails(&mut witness);
    a_build_that_waits(&mut witness);
    a_vacuum_that_is_stuck(&mut witness);
    witness.attests(CHECKS);
}

/// Rebuilds an index and says how often pgvector's log then has the notice that the graph did not fit.
fn spills(worker: &Server, index: &str) -> usize {
    let notices = || worker.log().matches("no longer fits into maintenance_work_mem").count();
    let before = notices();
    let mut session = worker.session();
    session.run("SET log_min_messages = notice; SET max_parallel_maintenance_workers = 0");
    session.run(&format!("REINDEX INDEX public.{index}"));
    notices() - before
}

fn a_graph_that_spills(witness: &mut Witness) {
    let (_, id) = witness.workers[0].shard_of("items");
    let index = format!("items_idx_{id}");
    let wanted = "SELECT ceil(max(build_bytes) / 1048576) FROM fleet.vector_indexes";
    let wanted: u32 = witness.coordinator.value(wanted).parse().expect("megabytes");
    let give = |witness: &Witness, megabytes: u32| {
        witness.workers[0].set("maintenance_work_mem", &format!("{megabytes}MB"));
    };
    give(witness, wanted - 1);
    let found = witness.speaks("build_spill", "yellow");
    assert!(found.remedy.contains("maintenance_work_mem"), "{found:?}");
    let worker = &witness.workers[0];
    assert_eq!(spills(worker, &index), 1);
    // One megabyte more is enough.
    give(witness, wanted);
    witness.is_silent("build_spill");
    assert_eq!(spills(&witness.workers[0], &index), 0);
    give(witness, wanted - 1);
    witness.mends("build_spill");
    assert_eq!(spills(&witness.workers[0], &index), 0);
}

fn a_training_that_fails(witness: &mut Witness) {
    witness.workers[0].reset("maintenance_work_mem");
    witness
        .coordinator
        .run("CREATE INDEX lists_idx ON items USING ivfflat (v vector_l2_ops) WITH (lists = 2)");
    let worker = &witness.workers[0];
    let (_, id) = worker.shard_of("items");
    let rebuild = format!("REINDEX INDEX public.lists_idx_{id}");
    worker.set("maintenance_work_mem", "12MB");
    witness.speaks("ivf_build_mem", "yellow");
    let error = witness.workers[0].session().error(&rebuild);
    assert!(error.message.contains("memory required"), "{error}");
    witness.workers[0].set("maintenance_work_mem", "16MB");
    witness.is_silent("ivf_build_mem");
    witness.workers[0].session().run(&rebuild);
    witness.workers[0].set("maintenance_work_mem", "12MB");
    witness.mends("ivf_build_mem");
    witness.workers[0].session().run(&rebuild);
    witness.coordinator.run("DROP INDEX lists_idx");
    witness.is_well();
}

fn a_build_that_waits(witness: &mut Witness) {
    let worker = &witness.workers[0];
    let (shard, id) = worker.shard_of("items");
    let mut writer = worker.shard_session();
    writer.run(&format!(
        "BEGIN; UPDATE {shard} SET category = 'held' WHERE id = (SELECT min(id) FROM {shard})"
    ));
    let mut builder = worker.shard_session();
    let rebuild = format!("REINDEX INDEX CONCURRENTLY items_idx_{id}");
    let waits = std::thread::spawn(move || builder.error(&rebuild));
    let found = witness.speaks("build_running", "yellow");
    assert!(found.affected.contains(&id.to_string()), "{found:?}");
    let progress = witness.coordinator.rows("SELECT * FROM fleet.vector_progress");
    assert_eq!(
        (&progress[0]["activity"], &progress[0]["shardid"], &progress[0]["table_name"]),
        ("build", &*id.to_string(), "public.items")
    );
    witness.is_silent("ccnew_leftover");
    // It waits, but not for long.
    witness.is_silent("build_stalled");
    witness.coordinator.run("SET citus_fleet.stalled_after = 0");
    let found = witness.speaks("build_stalled", "red");
    witness.falls_silent("build_running");
    witness.remedy(&found);
    assert_eq!(waits.join().expect("the session answers").state, "57014");
    witness.falls_silent("build_stalled");
    writer.run("ROLLBACK");
    witness.coordinator.run("RESET citus_fleet.stalled_after");
    witness.mends("ccnew_leftover");
    witness.is_well();
}

fn a_vacuum_that_is_stuck(witness: &mut Witness) {
    let (shard, _) = witness.workers[0].shard_of("items");
    witness.coordinator.run("DELETE FROM items WHERE id % 2 = 0");
    let mut vacuum = witness.workers[0].shard_session();
    let stuck = std::thread::spawn(move || {
        vacuum.run("SET vacuum_cost_delay = 3; SET vacuum_cost_limit = 1");
        vacuum.error(&format!("VACUUM {shard}"))
    });
    witness.coordinator.run("SET citus_fleet.stalled_after = 0");
    let found = witness.speaks("vacuum_stuck", "yellow");
    let progress = witness.coordinator.rows("SELECT * FROM fleet.vector_progress");
    assert_eq!((&progress[0]["activity"], &progress[0]["table_name"]), ("vacuum", "public.items"));
    // An hour at the indexes is stuck; a moment is not.
    witness.coordinator.run("SET citus_fleet.stalled_after = '1h'");
    witness.is_silent("vacuum_stuck");
    witness.remedy(&found);
    assert_eq!(stuck.join().expect("the session answers").state, "57014");
    witness.coordinator.run("SET citus_fleet.stalled_after = 0");
    witness.falls_silent("vacuum_stuck");
}
