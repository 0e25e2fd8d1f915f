//! Owns the list of checks that have told the truth on real load: one state of a cluster on which each must
//! speak, and one much like it on which it must not; and the witness that both were seen.
//! Must not hold such a state: `truth_*` do.

use crate::suite::{Test, suite};
use crate::vector_indexes::ready;
use crate::{
    truth_builds, truth_columns, truth_healthy, truth_indexes, truth_lists, truth_memory,
    truth_nodes, truth_recall, truth_settings, truth_shared_memory, truth_spread, truth_upkeep,
};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::vector::{Diagnosis, all_diagnoses};
use citus_fleet_tests::{Cluster, until};
use decide::search::vector::checks::CHECKS;
use std::collections::BTreeSet;
use std::ops::Deref;

/// What each test has to have seen by its end.
const PAIRS: [&[&str]; 11] = [
    truth_builds::CHECKS,
    truth_columns::CHECKS,
    truth_indexes::CHECKS,
    truth_lists::CHECKS,
    truth_memory::CHECKS,
    truth_nodes::CHECKS,
    truth_recall::CHECKS,
    truth_settings::CHECKS,
    truth_shared_memory::CHECKS,
    truth_spread::CHECKS,
    truth_upkeep::CHECKS,
];

/// Checks that take what a test cannot have: another package of pgvector on the same machine. The tables of
/// `decide` have their pairs.
const ELSEWHERE: [&str; 1] = ["ext_library"];

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("truth", &[]; every_check_has_a_pair);
    tests.extend(truth_builds::suite());
    tests.extend(truth_columns::suite());
    tests.extend(truth_healthy::suite());
    tests.extend(truth_indexes::suite());
    tests.extend(truth_lists::suite());
    tests.extend(truth_memory::suite());
    tests.extend(truth_nodes::suite());
    tests.extend(truth_recall::suite());
    tests.extend(truth_settings::suite());
    tests.extend(truth_shared_memory::suite());
    tests.extend(truth_spread::suite());
    tests.extend(truth_upkeep::suite());
    tests
}

fn every_check_has_a_pair() {
    let here = PAIRS.iter().copied().flatten().copied();
    let mut paired: Vec<&str> = here.chain(ELSEWHERE).collect();
    paired.sort_unstable();
    let mut checks: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    checks.sort_unstable();
    assert_eq!(paired, checks, "a check without a pair of states, or one with two");
}

/// A shard with fewer rows needs no index: real embeddings are bulky, and a test has few of them.
pub const MIN_ROWS: usize = 500;

/// Workers as they are set up by default, autovacuum included, which does nothing within a test.
pub fn plan(workers: usize) -> Plan {
    Plan::workers(workers)
        .set("citus_fleet.index_min_rows", &MIN_ROWS.to_string())
        .set("autovacuum", "on")
        .set("autovacuum_naptime", "1h")
        .worker_set("autovacuum", "on")
        .worker_set("autovacuum_naptime", "1h")
}

/// A cluster, and which checks have spoken and been silent on it.
pub struct Witness {
    cluster: Cluster,
    spoke: BTreeSet<&'static str>,
    silent: BTreeSet<&'static str>,
}

impl Deref for Witness {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Witness {
    pub fn of(plan: Plan) -> Witness {
        Witness { cluster: ready(plan), spoke: BTreeSet::new(), silent: BTreeSet::new() }
    }

    /// `items (id, category, v vector(384))` in four shards, with so many real rows, analyzed. What is
    /// created with it decides about the index.
    pub fn with_items(plan: Plan, rows: usize) -> Witness {
        let witness = Witness::of(plan);
        witness.coordinator.script(
            "CREATE TABLE items (id int PRIMARY KEY, category text, v vector(384));
             SELECT create_distributed_table('items', 'id', shard_count := 4)",
        );
        witness.fill("items", 0..rows);
        witness.coordinator.run("ANALYZE items");
        witness
    }

    /// Loads real rows into a table (id, category, v), and waits until they are counted.
    #[track_caller]
    pub fn fill(&self, table: &str, ids: std::ops::Range<usize>) {
        let into = format!("{table} (id, category, v)");
        let columns = |id: usize| format!("{id}\t{}", citus_fleet_tests::embeddings::category(id));
        let wanted = self.inserted(table) + ids.len() as u64;
        self.coordinator.load(&into, ids, columns);
        until("the rows are counted", SOON, || match self.inserted(table) {
            rows if rows >= wanted => Ok(()),
            rows => Err(format!("{rows} of {wanted}")),
        });
    }

    /// Rows that have ever been inserted into a table, by the statistics of its nodes.
    fn inserted(&self, table: &str) -> u64 {
        let sql = format!(
            "SELECT coalesce(sum(result::bigint), 0) FROM run_command_on_shards('{table}',
               'SELECT pg_stat_get_tuples_inserted(''%s''::regclass)')"
        );
        self.coordinator.value(&sql).parse().expect("a number")
    }

    /// Waits until a check has spoken, as loud as this; the first of what it says.
    #[track_caller]
    pub fn speaks(&mut self, id: &'static str, status: &str) -> Diagnosis {
        self.spoke.insert(id);
        until(&format!("{id} is {status}"), SOON, || {
            let found = self.diagnoses(id);
            match found.first() {
                Some(first) if found.iter().all(|one| one.status == status) => Ok(first.clone()),
                _ => Err(format!("{found:#?}")),
            }
        })
    }

    /// Waits until a check has spoken of one thing, whatever else it says.
    #[track_caller]
    pub fn speaks_of(&mut self, id: &'static str, what: &str, status: &str) -> Diagnosis {
        self.spoke.insert(id);
        until(&format!("{id} of {what} is {status}"), SOON, || {
            let found = self.diagnoses(id);
            let about =
                found.iter().find(|one| one.affected.contains(what) && one.status == status);
            about.cloned().ok_or_else(|| format!("{found:#?}"))
        })
    }

    /// A check must say nothing but notes, now.
    #[track_caller]
    pub fn is_silent(&mut self, id: &'static str) {
        self.silent.insert(id);
        let alarms: Vec<Diagnosis> =
            self.diagnoses(id).into_iter().filter(|one| one.status != "green").collect();
        assert!(alarms.is_empty(), "{id}: {alarms:#?}");
    }

    /// Runs every remedy of a check where it says, and waits until nothing but notes is left.
    #[track_caller]
    pub fn mends(&mut self, id: &'static str) {
        for found in self.diagnoses(id) {
            self.remedy(&found);
        }
        self.falls_silent(id);
    }

    #[track_caller]
    pub fn falls_silent(&mut self, id: &'static str) {
        self.silent.insert(id);
        until(&format!("{id} is silent"), SOON, || {
            match self.diagnoses(id).iter().filter(|one| one.status != "green").count() {
                0 => Ok(()),
                _ => Err(format!("{:#?}", self.diagnoses(id))),
            }
        });
    }

    /// Nothing is said of the whole cluster but notes, and what is true of every one with this pgvector.
    #[track_caller]
    pub fn is_well(&self) {
        until("nothing is wrong", SOON, || {
            let alarms = alarms(&self.cluster);
            if alarms.is_empty() { Ok(()) } else { Err(format!("{alarms:#?}")) }
        });
    }

    /// Everything that the list names has spoken and been silent.
    #[track_caller]
    pub fn attests(&self, checks: &[&str]) {
        let wanted: BTreeSet<&str> = checks.iter().copied().collect();
        let missing = |seen: &BTreeSet<&str>| -> Vec<String> {
            wanted.difference(seen).map(ToString::to_string).collect()
        };
        assert_eq!(
            (missing(&self.spoke), missing(&self.silent)),
            (vec![], vec![]),
            "never spoke, never silent"
        );
    }
}

/// What the report calls wrong, save the version of pgvector that the machine has, and a recall that nobody
/// has measured.
pub fn alarms(cluster: &Cluster) -> Vec<Diagnosis> {
    let all = all_diagnoses(&cluster.coordinator).into_iter();
    let is_meant = |one: &Diagnosis| ["ext_buggy", "recall_unknown"].contains(&one.id.as_str());
    all.filter(|one| one.status != "green" && !is_meant(one)).collect()
}
