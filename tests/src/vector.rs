//! Owns reading vector-shard health and running the remedies that it offers, as an operator would.
//! Must not judge what it says: suites do.

use crate::cluster::Cluster;
use crate::server::{Row, Server};
use crate::wait::until;
use std::time::Duration;

/// One diagnosis of `fleet.vector_health(true)`.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    pub id: String,
    pub status: String,
    pub symptom: String,
    pub run_on: String,
    pub remedy: String,
    pub affected: String,
}

impl Cluster {
    /// All diagnoses with this id, what is only worth knowing included.
    #[track_caller]
    pub fn diagnoses(&self, id: &str) -> Vec<Diagnosis> {
        diagnoses(&self.coordinator, id)
    }

    /// The only diagnosis with this id, which must have this status.
    #[track_caller]
    pub fn diagnosis(&self, id: &str, status: &str) -> Diagnosis {
        match self.diagnoses(id).as_slice() {
            [one] if one.status == status => one.clone(),
            other => panic!("{id} should be there once and {status}: {other:#?}"),
        }
    }

    /// Runs a remedy where it says, statement by statement.
    #[track_caller]
    pub fn remedy(&self, diagnosis: &Diagnosis) {
        assert!(!diagnosis.remedy.is_empty(), "{diagnosis:?} has no remedy");
        let mut session = self.node(&diagnosis.run_on).session();
        for statement in diagnosis.remedy.trim_end_matches(';').split(";\n") {
            session.run(statement);
        }
    }

    /// Runs all remedies of an id, and waits until it is gone: statistics arrive a little later.
    #[track_caller]
    pub fn mend(&self, id: &str) {
        for diagnosis in self.diagnoses(id) {
            self.remedy(&diagnosis);
        }
        self.wait_until_well(id);
    }

    #[track_caller]
    pub fn wait_until_well(&self, id: &str) {
        until(&format!("{id} is gone"), Duration::from_secs(20), || {
            match self.diagnoses(id).as_slice() {
                [] => Ok(()),
                left => Err(format!("{left:#?}")),
            }
        });
    }

    /// The server that a remedy names.
    #[track_caller]
    pub fn node(&self, run_on: &str) -> &Server {
        let named = |server: &&Server| format!("{}:{}", server.address, server.port) == run_on;
        match run_on {
            "coordinator" => &self.coordinator,
            other => {
                self.workers.iter().find(named).unwrap_or_else(|| panic!("{other} is no node"))
            }
        }
    }

    /// The rows of `fleet.vector_shards` for a table.
    #[track_caller]
    pub fn vector_shards(&self, table: &str) -> Vec<Row> {
        self.coordinator.rows(&format!(
            "SELECT * FROM fleet.vector_shards WHERE table_name = '{}' ORDER BY shardid, nodename",
            table.replace('\'', "''")
        ))
    }
}

#[track_caller]
pub fn diagnoses(coordinator: &Server, id: &str) -> Vec<Diagnosis> {
    all_diagnoses(coordinator).into_iter().filter(|one| one.id == id).collect()
}

#[track_caller]
pub fn all_diagnoses(coordinator: &Server) -> Vec<Diagnosis> {
    let rows = coordinator.rows(
        "SELECT d->>'id' AS id, d->>'status' AS status, d->>'symptom' AS symptom,
                d->>'run_on' AS run_on, d->>'remedy_sql' AS remedy, d->>'affected_resources' AS affected
         FROM jsonb_path_query(fleet.vector_health(true), '$.indicators.*.diagnosis[*]') d",
    );
    let text = |row: &Row, column: &str| row[column].to_string();
    rows.iter()
        .map(|row| Diagnosis {
            id: text(row, "id"),
            status: text(row, "status"),
            symptom: text(row, "symptom"),
            run_on: text(row, "run_on"),
            remedy: text(row, "remedy"),
            affected: text(row, "affected"),
        })
        .collect()
}

impl Server {
    /// Runs statements one by one, each in a transaction of its own: Citus refuses some mixtures in
    /// one. A line that ends with a semicolon ends a statement.
    #[track_caller]
    pub fn script(&self, sql: &str) {
        let mut session = self.session();
        sql.split(";\n")
            .filter(|statement| !statement.trim().is_empty())
            .for_each(|s| session.run(s));
    }

    /// The name of the shard that this node has of a table, and its id.
    #[track_caller]
    pub fn shard_of(&self, table: &str) -> (String, i64) {
        let mut session = self.shard_session();
        let name = session.value(&format!(
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r'
             AND c.relname ~ '^{table}_[0-9]+$' ORDER BY c.relname LIMIT 1"
        ));
        let id = name.rsplit('_').next().and_then(|id| id.parse().ok()).expect("a shard's name");
        (name, id)
    }

    /// A session that sees shards and may change them, as no user should.
    #[track_caller]
    pub fn shard_session(&self) -> crate::server::Session {
        let mut session = self.session();
        session.run(
            "SET citus.show_shards_for_app_name_prefixes = '*';
             SET citus.enable_manual_changes_to_shards = on;
             SET citus.enable_ddl_propagation = off",
        );
        session
    }
}
