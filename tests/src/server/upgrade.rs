//! Owns moving a server to a new data directory as an upgrade of PostgreSQL or a dump does.
//! Must not know what is in the databases.

use super::process::{program, run_for_output, run_program};
use super::{Data, Server, Shutdown, template};
use crate::install::install;
use std::fs;

impl Server {
    /// pg_upgrade, as to a new major version; the programs are the same. The server has stopped for it, and
    /// runs again with another system identifier.
    #[track_caller]
    pub fn upgrade(&self) {
        self.stop(Shutdown::Fast);
        let (old, new) = (self.data(), self.directory.join("new"));
        template::fresh(Data::Bare, &new);
        self.spec.write(&self.directory, &new);
        let mut upgrade = program("pg_upgrade");
        upgrade.arg("-b").arg(&install().bin).arg("-B").arg(&install().bin);
        upgrade.arg("-d").arg(&old).arg("-D").arg(&new).args(["-U", "postgres", "--no-sync"]);
        // Its sockets go there, and their paths may not be long.
        run_program({
            upgrade.current_dir(&self.directory);
            upgrade
        });
        fs::rename(&old, self.directory.join("old")).expect("the old data can be put aside");
        fs::rename(&new, &old).expect("the new data can be put in place");
        self.begin();
    }

    /// What pg_dump says of database postgres goes into a database of another server.
    #[track_caller]
    pub fn dump_into(&self, other: &Server, database: &str) {
        let mut dump = program("pg_dump");
        dump.args(["-h", &self.directory.to_string_lossy(), "-p", &self.port.to_string()]);
        dump.args(["-U", "postgres", "postgres"]);
        let file = other.directory.join("dump.sql");
        fs::write(&file, run_for_output(dump)).expect("the dump can be written");
        let mut restore = program("psql");
        restore.args(["-h", &other.directory.to_string_lossy(), "-p", &other.port.to_string()]);
        restore.args(["-U", "postgres", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]);
        restore.arg("-f").arg(&file);
        run_program(restore);
    }
}
