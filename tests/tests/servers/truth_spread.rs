//! Real rows across nodes: tenants of equal and of unequal size, replicas, shards that move, rebalances.

use crate::suite::{Test, suite};
use crate::truth::{Witness, plan};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::{Need, Server, embeddings, until};
use std::time::Duration;

pub const CHECKS: &[&str] = &["skew", "replica_divergence", "move_in_flight", "job_failed"];

pub fn suite() -> Vec<Test> {
    suite!("truth_spread", &[Need::Fleet, Need::Citus, Need::Vector];
        tenants_are_uneven,
        shards_and_replicas_part,
    )
}

/// A table of tenants with an index, which `tenant` gives to each row.
fn with_tenants(witness: &Witness, table: &str, shards: u32) {
    witness.coordinator.script(&format!(
        "CREATE TABLE {table} (tenant int, id int, v vector(384), PRIMARY KEY (tenant, id));
         SELECT create_distributed_table('{table}', 'tenant', shard_count := {shards},
                                         colocate_with := 'none');
         CREATE INDEX {table}_idx ON {table} USING hnsw (v vector_l2_ops)"
    ));
}

fn fill(witness: &Witness, table: &str, ids: std::ops::Range<usize>, tenant: fn(usize) -> usize) {
    let into = format!("{table} (tenant, id, v)");
    witness.coordinator.load(&into, ids, |id| format!("{}\t{id}", tenant(id)));
    witness.coordinator.run(&format!("ANALYZE {table}"));
}

fn tenants_are_uneven() {
    let mut witness = Witness::of(plan(2));
    // Fewer tenants than shards: some shards are empty, some have several.
    with_tenants(&witness, "equal", 32);
    fill(&witness, "equal", 0..3000, |id| id % 12);
    let most = "SELECT max(rows) FROM fleet.vector_shards WHERE table_name = 'public.equal'";
    until("two tenants share a shard", SOON, || match witness.coordinator.value(most).parse() {
        Ok(500..) => Ok(()),
        _ => Err(witness.coordinator.value(most)),
    });
    witness.is_silent("skew");
    witness.is_well();

    with_tenants(&witness, "docs", 4);
    fill(&witness, "docs", 0..1200, |id| id % 60);
    witness.is_silent("skew");
    fill(&witness, "docs", 1200..3600, |_| 7);
    let found = witness.speaks_of("skew", "public.docs", "yellow");
    assert!(found.remedy.contains("isolate_tenant_to_new_shard"), "{found:?}");
    witness.remedy(&found);
    witness.falls_silent("skew");
    let rows = "SELECT count(*) FROM docs WHERE tenant = 7";
    assert_eq!(witness.coordinator.value(rows), "2420");
    witness.attests(&["skew"]);
}

fn shards_and_replicas_part() {
    let mut witness = Witness::with_items(plan(2), 4000);
    witness.coordinator.run("CREATE INDEX items_idx ON items USING hnsw (v vector_l2_ops)");
    witness.is_well();
    replicas_that_differ(&mut witness);
    a_shard_on_its_way(&mut witness);
    a_node_that_joins_late(&mut witness);
    witness.attests(CHECKS);
}

fn replicas_that_differ(witness: &mut Witness) {
    witness.coordinator.script(
        "CREATE TABLE tags (id int PRIMARY KEY, category text, v vector(384));
         SELECT create_reference_table('tags');
         CREATE INDEX tags_idx ON tags USING hnsw (v vector_l2_ops)",
    );
    witness.fill("tags", 0..600);
    // Emptied, and filled again everywhere: only one node has counted since.
    let (shard, id) = witness.workers[0].shard_of("tags");
    witness.coordinator.script("DELETE FROM tags;\nVACUUM tags");
    let columns = |id: usize| format!("{id}\t{}", embeddings::category(id));
    witness.coordinator.load("tags (id, category, v)", 0..600, columns);
    let mut session = witness.workers[0].shard_session();
    session.run(&format!("ANALYZE {shard}"));
    let counted =
        format!("SELECT bool_or(rows = 600) FROM fleet.vector_shards WHERE shardid = {id}");
    until("the rows are counted", SOON, || match witness.coordinator.try_value(&counted)? {
        text if text == "t" => Ok(()),
        text => Err(text),
    });
    witness.is_silent("replica_divergence");

    session.run(&format!("DELETE FROM {shard} WHERE id >= 400"));
    witness.coordinator.run("ANALYZE tags");
    let found = witness.speaks("replica_divergence", "yellow");
    assert!(found.symptom.contains("400") && found.symptom.contains("600"), "{found:?}");
    // It empties nothing: it counts.
    let counted = witness.coordinator.rows(found.remedy.trim_end_matches(';'));
    let mut rows: Vec<&str> = counted.iter().map(|row| &row["rows"]).collect();
    rows.sort_unstable();
    assert_eq!(rows, ["400", "600", "600"]);
    witness.coordinator.run("DROP TABLE tags");
    witness.falls_silent("replica_divergence");
}

fn a_shard_on_its_way(witness: &mut Witness) {
    let (shard, id) = witness.workers[0].shard_of("items");
    // The replication slot of the move waits for transactions that have begun to write.
    let mut holder = witness.workers[0].session();
    holder.run("BEGIN; SELECT pg_current_xact_id()");
    let [from, to] = &witness.workers[..] else { unreachable!() };
    let call = format!(
        "SELECT citus_move_shard_placement({id}, '{}', {p}, '{}', {p}, 'force_logical')",
        from.address,
        to.address,
        p = from.port
    );
    let mut mover = witness.coordinator.session();
    let moved = std::thread::spawn(move || mover.try_rows(&call).map(drop));
    let found = witness.speaks_of("move_in_flight", &id.to_string(), "yellow");
    assert!(found.symptom.contains(&shard), "{found:?}");
    let progress =
        witness.coordinator.rows("SELECT * FROM fleet.vector_progress WHERE activity = 'move'");
    assert_eq!(progress.len(), 1, "{progress:?}");
    assert_eq!(progress[0]["nodename"], witness.workers[1].address.to_string());
    holder.run("ROLLBACK");
    moved.join().expect("the session answers").expect("the shard is moved");
    // What it leaves behind is about to be removed, and no more than worth knowing.
    witness.falls_silent("move_in_flight");
    witness.is_well();
}

/// Shards are not moved by themselves to a node that joins, and a rebalance may fail.
fn a_node_that_joins_late(witness: &mut Witness) {
    witness.is_silent("skew");
    let late = Server::start(witness.worker_spec("late"));
    witness.announce_with(&[late.address]);
    witness.wait_for_state(late.address, "active");
    let uneven = witness.speaks("skew", "yellow");
    assert!(uneven.remedy.contains("citus_rebalance_start"), "{uneven:?}");

    witness.is_silent("job_failed");
    late.set("default_transaction_read_only", "on");
    witness.remedy(&uneven);
    let tried = "SELECT count(*) FROM pg_dist_background_task WHERE retry_count > 0";
    until("a move has failed", Duration::from_secs(60), || {
        match witness.coordinator.try_value(tried)?.as_str() {
            "0" => Err("none".to_string()),
            _ => Ok(()),
        }
    });
    witness.is_silent("job_failed");
    // Citus tries for hours before it gives up: only that time is taken away.
    witness.coordinator.run(
        "UPDATE pg_dist_background_task SET retry_count = 32, not_before = now()
         WHERE retry_count > 0",
    );
    until("the job has ended", Duration::from_secs(60), || {
        let states = "SELECT string_agg(state::text, ' ') FROM pg_dist_background_job";
        match witness.coordinator.try_value(states)?.as_str() {
            states if states.contains("fail") => Ok(()),
            states => Err(states.to_string()),
        }
    });
    let failed = witness.speaks("job_failed", "yellow");
    assert!(failed.symptom.contains("shard"), "{failed:?}");
    late.reset("default_transaction_read_only");
    witness.remedy(&failed);
    witness.falls_silent("job_failed");
    until("the shards are spread evenly", Duration::from_secs(60), || {
        match witness.diagnoses("skew").as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
}
