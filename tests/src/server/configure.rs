//! Owns changing a running server: settings, pg_hba.conf, reload.
//! Must not return before the server has taken the change.

use super::spec::write_hba;
use super::{Server, SqlError};
use crate::wait::until;
use std::time::Duration;

impl Server {
    /// ALTER SYSTEM and reload.
    #[track_caller]
    pub fn set(&self, name: &str, value: &str) {
        self.set_all(&[(name, value)]);
    }

    #[track_caller]
    pub fn set_all(&self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.try_alter_system(name, value)
                .unwrap_or_else(|error| panic!("{}: {name} = {value:?}: {error}", self.name));
        }
        self.reload();
    }

    /// ALTER SYSTEM alone: for values that should be refused.
    pub fn try_alter_system(&self, name: &str, value: &str) -> Result<(), SqlError> {
        let value = value.replace('\'', "''");
        self.try_rows(&format!("ALTER SYSTEM SET {name} = '{value}'")).map(drop)
    }

    #[track_caller]
    pub fn reset(&self, name: &str) {
        self.run(&format!("ALTER SYSTEM RESET {name}"));
        self.reload();
    }

    /// Replaces the `host…` lines of pg_hba.conf.
    #[track_caller]
    pub fn set_hba(&self, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
        write_hba(&self.data(), &lines);
        self.reload();
    }

    #[track_caller]
    pub fn reload(&self) {
        let loaded = || self.session().value("SELECT pg_catalog.pg_conf_load_time()");
        let before = loaded();
        self.run("SELECT pg_catalog.pg_reload_conf()");
        until("the configuration is loaded again", Duration::from_secs(10), || {
            let now = loaded();
            if now == before { Err(now) } else { Ok(()) }
        });
    }
}
