//! `fleet.remove_worker` and `fleet.enroll_worker`: a worker leaves with all of its rows moved away,
//! whatever ends the call on the way; it leaves nothing behind, and stays out until it is let in.

use crate::lifecycle::{FIRST, distribute_items, node_id, wait_for_node_state, with_items};
use crate::suite::{Test, suite};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::server::SqlError;
use citus_fleet_tests::wait::{throughout, within};
use citus_fleet_tests::writer::assert_exact;
use citus_fleet_tests::{Cluster, Need, Server, Shutdown, Writer, run, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("removal", &[Need::Fleet, Need::Citus, Need::Vector];
        a_worker_leaves_while_clients_search_and_insert,
        a_removal_that_is_killed_in_the_middle_goes_on,
        a_removal_that_is_rolled_back_leaves_the_worker_in,
        a_removed_server_is_clean_and_stays_out_until_it_is_enrolled,
        a_removed_server_that_is_added_by_hand_is_in,
        a_worker_that_was_added_and_removed_at_once_stays_out,
        every_shard_can_move_again_after_a_removal,
        a_dead_worker_goes_and_does_not_come_back,
        clients_of_the_worker_do_not_hold_up_the_cluster,
        a_removal_and_a_rebalance_keep_out_of_each_others_way,
        what_would_be_lost_is_refused,
        one_session_at_a_time_and_none_while_paused,
        what_cannot_be_meant_is_refused,
    )
}

/// How long draining a few small shards may take on a slow machine.
const DRAINED: Duration = Duration::from_secs(120);

pub fn call(worker: &Server) -> String {
    format!("SELECT fleet.remove_worker('{}', {})", worker.address, worker.port)
}

/// A session that removes a worker; its end is the outcome.
fn remove_in_background(
    cluster: &Cluster,
    worker: &Server,
) -> (u32, JoinHandle<Result<(), SqlError>>) {
    let mut session = cluster.coordinator.session();
    let (pid, sql, test) = (session.pid(), call(worker), run::current_test());
    let thread = thread::spawn(move || {
        run::join_test(test);
        session.try_rows(&sql).map(drop)
    });
    (pid, thread)
}

/// Shards that a node still holds, replicated ones left out.
#[track_caller]
fn shards_on(cluster: &Cluster, nodeid: &str) -> u64 {
    let sql = format!(
        "SELECT count(*) FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)
         JOIN pg_dist_partition USING (logicalrelid) JOIN pg_dist_node USING (groupid)
         WHERE nodeid = {nodeid} AND repmodel <> 't'"
    );
    cluster.coordinator.session().value(&sql).parse().expect("a count")
}

/// Waits until some of a node's shards, but not all, have moved away.
#[track_caller]
fn wait_until_half_way(cluster: &Cluster, nodeid: &str) {
    let all = shards_on(cluster, nodeid);
    until("some shards have moved", DRAINED, || match shards_on(cluster, nodeid) {
        0 => panic!("all {all} shards had moved before anybody looked"),
        left if left < all => Ok(()),
        left => Err(format!("{left} of {all} are left")),
    });
}

#[track_caller]
fn assert_gone(cluster: &Cluster, nodeid: &str) {
    let sql = format!("SELECT count(*) FROM pg_dist_node WHERE nodeid = {nodeid}");
    for server in cluster.workers.iter().chain([&cluster.coordinator]) {
        assert_eq!(server.session().value(&sql), "0", "{}", server.name);
    }
}

/// What is left of the cluster on a server: relations of users, and Citus's metadata.
pub fn traces(server: &Server) -> Result<(), String> {
    let sql = "
        SELECT 'relation ' || c.oid::regclass AS trace FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
        UNION ALL SELECT 'node ' || nodename FROM pg_dist_node
        UNION ALL SELECT 'table ' || logicalrelid FROM pg_dist_partition
        UNION ALL SELECT 'placement ' || shardid FROM pg_dist_placement
        UNION ALL SELECT 'group ' || groupid FROM pg_dist_local_group WHERE groupid <> 0";
    let rows = server.try_rows(sql).map_err(|error| error.to_string())?;
    if rows.is_empty() { Ok(()) } else { Err(format!("{rows:?}")) }
}

/// Searches all the time, and fails when an answer is not the one there is.
struct Searcher {
    stop: Arc<AtomicBool>,
    searches: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Searcher {
    fn start(cluster: &Cluster) -> Searcher {
        let (stop, searches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut session = cluster.coordinator.session();
        let (stopped, count, test) = (stop.clone(), searches.clone(), run::current_test());
        let thread = thread::spawn(move || {
            run::join_test(test);
            while !stopped.load(Ordering::Relaxed) {
                let n = count.load(Ordering::Relaxed) as u64 % FIRST + 1;
                let sql = format!("SELECT id FROM items ORDER BY v <-> '[{n},0,1]' LIMIT 1");
                assert_eq!(session.value(&sql), n.to_string(), "the nearest neighbour of {n}");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Searcher { stop, searches, thread }
    }

    /// How many searches were right.
    #[track_caller]
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every search finds the nearest row");
        self.searches.load(Ordering::Relaxed)
    }
}

fn a_worker_leaves_while_clients_search_and_insert() {
    let cluster = with_items(Plan::workers(3));
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    let leaving = &cluster.workers[2];
    let nodeid = node_id(&cluster, leaving);
    let all = shards_on(&cluster, &nodeid);
    assert!(all >= 2, "{all} shards are too few to see them go");
    let (writer, searcher) =
        (Writer::start(&cluster.coordinator, FIRST), Searcher::start(&cluster));
    let (_, removal) = remove_in_background(&cluster, leaving);
    let row = wait_for_node_state(&cluster, &nodeid, "removing");
    assert!(row["reason"].contains("shard"), "{row:?}");
    removal.join().unwrap().expect("the worker is removed");
    writer.wait_for_more();
    let (last, searches) = (writer.finish(), searcher.finish());
    assert!(searches > 10, "{searches} searches");
    assert_exact(&cluster.coordinator, last);
    assert_gone(&cluster, &nodeid);
    cluster.wait_for_state(leaving.address, "removed");
    // The moved shards have their index, and are found by it.
    let sql = "SELECT result FROM run_command_on_shards('items', $$
        SELECT count(*) FROM pg_index WHERE indrelid = '%s'::regclass AND indisvalid
          AND pg_get_indexdef(indexrelid) LIKE '%%USING hnsw%%'$$)";
    let indexes = cluster.coordinator.rows(sql);
    assert_eq!(indexes.len(), 6);
    assert!(indexes.iter().all(|row| row.first() == "1"), "{indexes:?}");
}

fn a_removal_that_is_killed_in_the_middle_goes_on() {
    let cluster = with_items(Plan::workers(3));
    cluster.coordinator.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    let leaving = &cluster.workers[0];
    let nodeid = node_id(&cluster, leaving);
    let writer = Writer::start(&cluster.coordinator, FIRST);
    let (pid, removal) = remove_in_background(&cluster, leaving);
    wait_until_half_way(&cluster, &nodeid);
    let killed = cluster.coordinator.value(&format!("SELECT pg_terminate_backend({pid}, 20000)"));
    assert_eq!(killed, "t");
    assert!(removal.join().unwrap().is_err());
    // What was done stays done, it takes nothing new, and how to go on is said.
    let left = shards_on(&cluster, &nodeid);
    assert!(left > 0);
    let row = until("the worker says what has become of it", SOON, || {
        let row = wait_for_node_state(&cluster, &nodeid, "active");
        let says = row["reason"].contains("shouldhaveshards");
        if says { Ok(row) } else { Err(format!("{row:?}")) }
    });
    assert!(row["remedy"].contains("fleet.remove_worker("), "{row:?}");
    writer.wait_for_more();
    cluster.coordinator.session().run(&call(leaving));
    writer.wait_for_more();
    assert_exact(&cluster.coordinator, writer.finish());
    assert_gone(&cluster, &nodeid);
    cluster.wait_for_state(leaving.address, "removed");
    until("nothing is left on it", DRAINED, || traces(leaving));
}

fn a_removal_that_is_rolled_back_leaves_the_worker_in() {
    let cluster = with_items(Plan::workers(2));
    let leaving = &cluster.workers[1];
    let nodeid = node_id(&cluster, leaving);
    cluster.coordinator.session().run(&format!("BEGIN; {}; ROLLBACK", call(leaving)));
    assert_eq!(shards_on(&cluster, &nodeid), 0, "moves are committed one by one");
    assert_eq!(cluster.coordinator.value("SELECT count(*) FROM fleet.removed"), "0");
    wait_for_node_state(&cluster, &nodeid, "active");
    // It is a worker with everything that makes one.
    cluster.coordinator.run(&format!(
        "SELECT citus_set_node_property('{}', {}, 'shouldhaveshards', true)",
        leaving.address, leaving.port
    ));
    cluster.coordinator.run("SELECT rebalance_table_shards(shard_transfer_mode := 'block_writes')");
    assert!(shards_on(&cluster, &nodeid) > 0);
    assert_eq!(leaving.value("SELECT count(*) FROM items"), FIRST.to_string());
}

fn a_removed_server_is_clean_and_stays_out_until_it_is_enrolled() {
    let cluster = with_items(Plan::workers(2));
    cluster.coordinator.run(
        "CREATE SCHEMA \"it's; odd\";
         CREATE TABLE \"it's; odd\".\"Labels, too\" (id int PRIMARY KEY, v vector(3));
         SELECT create_reference_table('\"it''s; odd\".\"Labels, too\"');
         INSERT INTO \"it's; odd\".\"Labels, too\" SELECT n, '[1,2,3]' FROM generate_series(1, 9) n",
    );
    let leaving = &cluster.workers[1];
    let nodeid = node_id(&cluster, leaving);
    cluster.coordinator.session().run(&call(leaving));
    cluster.wait_for_state(leaving.address, "removed");
    let relations = "SELECT relations::text FROM fleet.removed";
    assert!(cluster.coordinator.value(relations).contains("Labels, too_"));
    let odd = "SELECT count(*) FROM pg_class WHERE relnamespace = '\"it''s; odd\"'::regnamespace";
    until("nothing is left on it", SOON, || {
        traces(leaving)?;
        match leaving.try_value(odd)?.as_str() {
            "0" => Ok(()),
            count => Err(format!("{count} relations")),
        }
    });
    // A restart of it, or of the controller, brings it no nearer.
    leaving.restart();
    cluster.coordinator.restart();
    cluster.wait_for_state(leaving.address, "removed");
    cluster.wait_for_cycles(3);
    assert_gone(&cluster, &nodeid);
    // As when its machine is given back while DNS still has its name.
    leaving.stop(Shutdown::Fast);
    until("nobody answers there", SOON, || {
        let row = cluster.worker_at(leaving.address)?;
        let is_silent = &row["state"] == "removed" && row["reason"].contains("refused");
        if is_silent { Ok(()) } else { Err(format!("{row:?}")) }
    });
    leaving.begin();

    let enroll = format!("SELECT fleet.enroll_worker('{}', {})", leaving.address, leaving.port);
    until("it is clean for the controller too", SOON, || {
        cluster.coordinator.try_rows(&enroll).map(drop).map_err(|error| error.to_string())
    });
    cluster.wait_for_state(leaving.address, "active");
    let labels = "SELECT count(*) FROM \"it's; odd\".\"Labels, too\"";
    cluster.coordinator.run("SELECT rebalance_table_shards(shard_transfer_mode := 'block_writes')");
    assert_eq!(leaving.session().value(labels), "9");
    assert_exact(&cluster.coordinator, FIRST);
    let again = cluster.coordinator.error(&enroll);
    assert_eq!(again.state, "42704", "{again}");
}

fn a_removed_server_that_is_added_by_hand_is_in() {
    let cluster = with_items(Plan::workers(2));
    let leaving = &cluster.workers[1];
    cluster.coordinator.session().run(&call(leaving));
    until("nothing is left on it", DRAINED, || traces(leaving));
    cluster.add_by_hand(leaving);
    cluster.wait_for_state(leaving.address, "active");
    until("it is not recorded as removed any more", SOON, || {
        match cluster.coordinator.try_value("SELECT count(*) FROM fleet.removed")?.as_str() {
            "0" => Ok(()),
            count => Err(format!("{count} rows")),
        }
    });
}

fn a_dead_worker_goes_and_does_not_come_back() {
    let cluster = Plan::workers(2).start();
    cluster.wait_until_all_active();
    let dead = &cluster.workers[1];
    let nodeid = node_id(&cluster, dead);
    cluster.coordinator.run(&format!(
        "SELECT citus_set_node_property('{}', {}, 'shouldhaveshards', false)",
        dead.address, dead.port
    ));
    distribute_items(&cluster);
    dead.stop(Shutdown::Immediate);
    wait_for_node_state(&cluster, &nodeid, "unreachable");
    let error = cluster.coordinator.session().error(&call(dead));
    assert_eq!(error.state, "55000", "it may not be drained: {error}");
    let place = format!("'{}', {}", dead.address, dead.port);
    cluster.coordinator.session().run(&format!("SELECT fleet.remove_worker({place}, false)"));
    dead.begin();
    let row = cluster.wait_for_state(dead.address, "removed");
    assert!(row["reason"].contains("still takes itself for a worker"), "{row:?}");
    assert!(row["remedy"].contains("initdb"), "{row:?}");
    // What it has is not touched, and it is not let in, whoever asks for it.
    cluster.wait_for_cycles(3);
    assert!(traces(dead).is_err());
    let refusal = cluster.coordinator.error(&format!("SELECT fleet.enroll_worker({place})"));
    assert_eq!(refusal.state, "55000");
    assert!(refusal.hint.contains("initdb"), "{refusal:?}");
    cluster.wait_for_state(dead.address, "removed");
    assert_eq!(cluster.nodes().len(), 1);
    assert_exact(&cluster.coordinator, FIRST);
}

fn a_worker_that_was_added_and_removed_at_once_stays_out() {
    let cluster = Plan::workers(1).unannounced().start();
    let worker = &cluster.workers[0];
    cluster.add_by_hand(worker);
    cluster.coordinator.session().run(&call(worker));
    cluster.announce_all();
    cluster.wait_for_state(worker.address, "removed");
    cluster.wait_for_cycles(3);
    assert_eq!(cluster.nodes().len(), 0);
}

fn every_shard_can_move_again_after_a_removal() {
    // Nothing of what was moved away is dropped before the removal.
    let cluster = with_items(Plan::workers(3).set("citus.defer_shard_delete_interval", "-1"));
    let leaving = &cluster.workers[2];
    cluster.coordinator.session().run(&call(leaving));
    assert_eq!(cluster.coordinator.value("SELECT count(*) FROM pg_dist_cleanup"), "0");
    until("nothing is left on it", DRAINED, || traces(leaving));
    let [one, other, _] = &cluster.workers[..] else { unreachable!() };
    let shards = cluster
        .coordinator
        .rows("SELECT shardid, nodename FROM citus_shards WHERE table_name = 'items'::regclass");
    assert_eq!(shards.len(), 6);
    for shard in shards {
        let (from, to) = match shard["nodename"] == one.address.to_string() {
            true => (one, other),
            false => (other, one),
        };
        cluster.coordinator.session().run(&format!(
            "SELECT citus_move_shard_placement({}, '{}', {}, '{}', {}, 'block_writes')",
            &shard["shardid"], from.address, from.port, to.address, to.port
        ));
    }
    assert_exact(&cluster.coordinator, FIRST);
}

fn clients_of_the_worker_do_not_hold_up_the_cluster() {
    let cluster = with_items(Plan::workers(2));
    let leaving = &cluster.workers[1];
    let nodeid = node_id(&cluster, leaving);
    let mut client = leaving.session();
    client.run("BEGIN; SELECT count(*) FROM items");
    let (error, taken) = within("a removal that is held up", Duration::from_secs(60), || {
        cluster.coordinator.session().error(&call(leaving))
    });
    assert_eq!(error.state, "55P03", "after {taken:?}: {error}");
    wait_for_node_state(&cluster, &nodeid, "active");
    assert_eq!(cluster.coordinator.value("SELECT count(*) FROM fleet.removed"), "0");
    client.run("ROLLBACK");
    cluster.coordinator.session().run(&call(leaving));
    assert_gone(&cluster, &nodeid);
    assert_exact(&cluster.coordinator, FIRST);
}

fn a_removal_and_a_rebalance_keep_out_of_each_others_way() {
    let cluster = with_items(Plan::workers(2));
    let leaving = &cluster.workers[1];
    cluster.coordinator.run(
        "INSERT INTO pg_dist_background_job (job_type, description) VALUES ('rebalance', 'of a test')",
    );
    let error = cluster.coordinator.session().error(&call(leaving));
    assert_eq!(error.state, "55006", "{error}");
    assert!(error.hint.contains("citus_job_wait"), "{error}");
    cluster.coordinator.run("DELETE FROM pg_dist_background_job");
    // And a fleet that is to be paused waits for a removal that has begun its last step.
    let mut first = cluster.coordinator.session();
    first.run(&format!("BEGIN; {}", call(leaving)));
    let error =
        cluster.coordinator.session().error("SET lock_timeout = '300ms'; SELECT fleet.pause()");
    assert_eq!(error.state, "55P03", "{error}");
    first.run("COMMIT");
}

fn what_would_be_lost_is_refused() {
    let cluster = with_items(Plan::workers(2));
    let [stays, leaving] = &cluster.workers[..] else { unreachable!() };
    let nodeid = node_id(&cluster, leaving);
    let all = shards_on(&cluster, &nodeid);
    let place = format!("'{}', {}", leaving.address, leaving.port);

    let without_drain = format!("SELECT fleet.remove_worker({place}, drain => false)");
    let error = cluster.coordinator.error(&without_drain);
    assert_eq!(
        (error.state.as_str(), error.detail.as_str()),
        ("55000", format!("items: {all} shards").as_str())
    );

    // Citus's own words for a table that it cannot move as asked.
    cluster.coordinator.run(
        "CREATE TABLE logs (line text);
         SELECT create_distributed_table('logs', 'line', shard_count := 4)",
    );
    let error = cluster.coordinator.session().error(&call(leaving));
    assert!(error.message.contains("logs"), "{error}");
    let blocking =
        format!("SELECT fleet.remove_worker({place}, shard_transfer_mode => 'as_you_like')");
    assert_eq!(cluster.coordinator.error(&blocking).state, "22P02");

    leaving.stop(Shutdown::Immediate);
    let error = cluster.coordinator.session().error(&call(leaving));
    assert_eq!(error.state, "55000", "{error}");
    assert!(error.message.contains("unreachable"), "{error}");
    leaving.begin();
    wait_for_node_state(&cluster, &nodeid, "active");

    cluster.coordinator.session().run(&format!(
        "SELECT citus_set_node_property('{}', {}, 'shouldhaveshards', false)",
        stays.address, stays.port
    ));
    let error = cluster.coordinator.session().error(&call(leaving));
    assert!(error.message.contains("no other node takes shards"), "{error}");
    assert_exact(&cluster.coordinator, FIRST);
    assert_eq!(cluster.nodes().len(), 2);
}

fn one_session_at_a_time_and_none_while_paused() {
    let cluster = with_items(Plan::workers(2));
    let leaving = &cluster.workers[1];
    let nodeid = node_id(&cluster, leaving);
    cluster.coordinator.run("SELECT fleet.pause()");
    assert_eq!(cluster.coordinator.error(&call(leaving)).state, "55000");
    throughout("nothing moves", Duration::from_secs(1), || match shards_on(&cluster, &nodeid) {
        3 => Ok(()),
        count => Err(format!("{count} shards")),
    });
    cluster.coordinator.run("SELECT fleet.resume()");
    let mut first = cluster.coordinator.session();
    first.run(&format!("BEGIN; {}", call(leaving)));
    let error = cluster.coordinator.error(&call(leaving));
    assert_eq!(error.state, "55006", "{error}");
    first.run("COMMIT");
    assert_gone(&cluster, &nodeid);
}

fn what_cannot_be_meant_is_refused() {
    let cluster = Cluster::with_workers(1);
    cluster.wait_until_all_active();
    let own = &cluster.coordinator;
    for (sql, code) in [
        ("SELECT fleet.remove_worker('nobody', 5432)".to_string(), "42704"),
        ("SELECT fleet.remove_worker('', -1)".to_string(), "42704"),
        (call(own), "42704"),
        ("SELECT fleet.enroll_worker('nobody', 5432)".to_string(), "42704"),
    ] {
        let error = own.error(&sql);
        assert_eq!(error.state, code, "{sql}: {error}");
        assert!(!error.hint.is_empty(), "{sql}");
    }
    own.run("CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher");
    for function in ["remove_worker", "enroll_worker"] {
        let sql = format!("SELECT fleet.{function}('nobody', 5432)");
        assert_eq!(own.session_as("watcher", "postgres").error(&sql).state, "42501");
    }
    let worker = &cluster.workers[0];
    let error = worker.error(&call(worker));
    assert_eq!(error.state, "55000", "{error}");
}
