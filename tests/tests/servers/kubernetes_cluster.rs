//! The manifests on a real Kubernetes cluster, with the images that k8s/README.md tells how to build: both
//! ways deployed, grown, hurt and shrunk through the targets of k8s/Makefile, while a client inserts.

use crate::suite::{Test, suite};
use citus_fleet_tests::kubernetes::{Inserts, Kubernetes, PATIENCE};
use citus_fleet_tests::{Need, until};
use std::sync::Arc;

pub fn suite() -> Vec<Test> {
    suite!("kubernetes_cluster", &[Need::Kubectl, Need::Kubernetes];
        the_simple_way_grows_suffers_and_shrinks,
        the_operators_clusters_fail_over_and_grow,
    )
}

/// Rows that are there before anything happens.
const FIRST: u64 = 500;

const NODES_WITH_SHARDS: &str = "SELECT count(DISTINCT nodename) FROM citus_shards";

/// Spreads the shards over all workers, as an operator does after adding some.
#[track_caller]
fn rebalance(cluster: &Kubernetes) {
    cluster.sql("SELECT citus_rebalance_start()");
    until("the shards are spread", PATIENCE, || {
        let states = cluster
            .try_sql("SELECT string_agg(DISTINCT state::text, ', ') FROM pg_dist_background_job")?;
        if states == "finished" { Ok(()) } else { Err(states) }
    });
}

#[track_caller]
fn fill(cluster: &Kubernetes) {
    for sql in [
        "CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(3) NOT NULL)",
        "SELECT create_distributed_table('items', 'id', shard_count => 12)",
        &format!(
            "INSERT INTO items SELECT n, ARRAY[n, 0, 1]::vector FROM generate_series(1, {FIRST}) n"
        ),
        "CREATE INDEX ON items USING hnsw (embedding vector_l2_ops)",
    ] {
        cluster.sql(sql);
    }
}

/// Without one, nobody may take over.
#[track_caller]
fn wait_for_synchronous_standby(cluster: &Kubernetes, name: &str) {
    until(&format!("{name} has a standby that confirms commits"), PATIENCE, || {
        let primary = cluster.primary(name)?;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let psql =
            ["exec", &primary, "-c", "postgres", "--", "psql", "-XAtU", "postgres", "-c", sql];
        match cluster.try_kubectl(&psql)?.trim() {
            "1" => Ok(()),
            other => Err(format!("{other} of {primary}")),
        }
    });
}

fn inserts(cluster: &Arc<Kubernetes>) -> Inserts {
    let cluster = cluster.clone();
    Inserts::start(FIRST + 1, move |id| {
        cluster.try_sql(&format!("INSERT INTO items VALUES ({id}, '[{id},0,1]')")).map(drop)
    })
}

/// Every row from 1 to `last`, once, and no other; and the index finds what is nearest.
#[track_caller]
fn assert_exact(cluster: &Kubernetes, last: u64) {
    let counts = "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM items WHERE embedding = ARRAY[id::int, 0, 1]::vector";
    let wanted = format!("{last}|{last}|1|{last}");
    until("every shard answers", PATIENCE, || cluster.try_sql(counts));
    assert_eq!(cluster.sql(counts), wanted);
    let nearest = "SELECT id FROM items ORDER BY embedding <-> '[77,0,1]' LIMIT 1";
    assert_eq!(cluster.sql(nearest), "77");
}

#[track_caller]
fn comes_back_from_a_backup(cluster: &Kubernetes, last: u64) {
    let backup = format!("/tmp/citus-fleet-backup-{}", cluster.namespace);
    cluster.make("backup", &[&format!("TO={backup}")]);
    cluster.sql("DROP TABLE items");
    cluster.make("restore", &[&format!("FROM={backup}")]);
    let _ = std::fs::remove_dir_all(backup);
    assert_exact(cluster, last);
}

fn the_simple_way_grows_suffers_and_shrinks() {
    let cluster = Arc::new(Kubernetes::new("simple"));
    cluster.make("deploy", &["WORKERS=2"]);
    cluster.make("verify", &[]);
    fill(&cluster);

    // To grow, this is all it takes.
    cluster.kubectl(&["scale", "statefulset", "citus-worker", "--replicas=4"]);
    cluster.wait_until_active(4);
    rebalance(&cluster);
    assert_eq!(cluster.sql(NODES_WITH_SHARDS), "4");

    let writer = inserts(&cluster);
    writer.wait_for_more();
    // Whoever comes back after this meets the others with new certificates.
    cluster.make("renew-certificates", &[]);
    cluster.kill(&["citus-worker-1"]);
    cluster.wait_until_active(4);
    writer.wait_for_more();
    cluster.kill(&["citus-coordinator-0"]);
    cluster.wait_until_active(4);
    writer.wait_for_more();
    cluster.kill(&["--all"]);
    cluster.wait_until_active(4);
    writer.wait_for_more();

    // Without a drain: refused; forced nevertheless, it loses nothing.
    let refused = cluster.try_kubectl(&["scale", "statefulset", "citus-worker", "--replicas=3"]);
    assert!(refused.is_err_and(|said| said.contains("make scale WORKERS=3")));
    let forced = r#"{"metadata": {"annotations": {"citus-fleet/drained": "3@test"}}, "spec": {"replicas": 3}}"#;
    cluster.kubectl(&["patch", "statefulset", "citus-worker", "--type=merge", "-p", forced]);
    cluster.kubectl(&["wait", "--for=delete", "pod/citus-worker-3", "--timeout=300s"]);
    assert_eq!(cluster.sql(NODES_WITH_SHARDS), "4");
    cluster.kubectl(&["scale", "statefulset", "citus-worker", "--replicas=4"]);
    cluster.wait_until_active(4);
    writer.wait_for_more();

    cluster.make("scale", &["WORKERS=2"]);
    assert_eq!(cluster.sql(NODES_WITH_SHARDS), "2");
    writer.wait_for_more();
    let last = writer.finish();
    assert_exact(&cluster, last);

    // A name that comes again is a new worker.
    cluster.kubectl(&["scale", "statefulset", "citus-worker", "--replicas=3"]);
    cluster.wait_until_active(3);
    comes_back_from_a_backup(&cluster, last);

    // What is kept brings all workers back, also those that `make` was not told about.
    cluster.make("clean", &[]);
    cluster.make("deploy", &["WORKERS=2"]);
    cluster.wait_until_active(3);
    assert_exact(&cluster, last);
}

fn the_operators_clusters_fail_over_and_grow() {
    let cluster = Arc::new(Kubernetes::new("ha"));
    cluster.make("install-operator", &[]);
    cluster.make("deploy", &[]);
    cluster.make("verify", &[]);
    fill(&cluster);
    let writer = inserts(&cluster);
    writer.wait_for_more();
    // Whoever takes over after this meets the others with a new certificate.
    cluster.make("renew-certificates", &[]);

    for name in ["citus-worker-1", "citus-coordinator"] {
        wait_for_synchronous_standby(&cluster, name);
        let first = cluster.primary(name).expect("somebody leads");
        cluster.allow_new_pods(false).expect("the machines are tainted");
        cluster.kill(&[&first]);
        until(&format!("{name} is led by its other instance"), PATIENCE, || {
            let now = cluster.primary(name)?;
            if now == first { Err(now) } else { Ok(()) }
        });
        cluster.allow_new_pods(true).expect("the taint is gone");
        writer.wait_for_more();
        cluster.wait_until_active(2);
    }

    // Everything at once, as when its machine goes.
    cluster.kill(&["-l", "application=spilo"]);
    cluster.wait_until_active(2);
    writer.wait_for_more();

    cluster.make("add-worker", &[]);
    cluster.wait_until_active(3);
    cluster.make("verify", &[]);
    rebalance(&cluster);
    assert_eq!(cluster.sql(NODES_WITH_SHARDS), "3");
    cluster.make("remove-worker", &["N=3"]);
    writer.wait_for_more();
    let last = writer.finish();
    assert_exact(&cluster, last);
    comes_back_from_a_backup(&cluster, last);
}
