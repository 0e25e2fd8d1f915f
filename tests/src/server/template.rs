//! Owns data directories: one initdb per kind and process, then copies with an identity of their own.
//! Must leave no two copies that PostgreSQL or Citus could take for the same server.

use super::process::{Postmaster, Shutdown, program, run_program};
use super::session::Session;
use crate::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// What a data directory holds before a test touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing but what initdb makes.
    Bare,
    /// Database postgres with the extensions citus and vector.
    Citus,
}

/// Puts a data directory of the given kind at `into`, with a system identifier of its own. Citus's
/// `server_id` can only be renewed once the server runs: see `renew_server_id`.
pub fn fresh(kind: Data, into: &Path) {
    let template = template(kind);
    let mut copy = Command::new("cp");
    copy.arg("-a").arg("--reflink=auto").arg(template).arg(into);
    run_program(copy);
    renew_system_identifier(into);
}

fn template(kind: Data) -> PathBuf {
    static BARE: Mutex<Option<PathBuf>> = Mutex::new(None);
    static CITUS: Mutex<Option<PathBuf>> = Mutex::new(None);
    let slot = match kind {
        Data::Bare => &BARE,
        Data::Citus => &CITUS,
    };
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.get_or_insert_with(|| make_template(kind)).clone()
}

fn make_template(kind: Data) -> PathBuf {
    let directory = run::directory().join(format!("template-{kind:?}"));
    run::make_directory(&directory);
    let data = directory.join("data");
    if kind == Data::Bare {
        let mut initdb = program("initdb");
        initdb.arg("-D").arg(&data);
        initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions"]);
        initdb.args(["--locale=C", "--encoding=UTF8", "--wal-segsize=1"]);
        run_program(initdb);
        return data;
    }
    fresh(Data::Bare, &data);
    let settings = data.join("postgresql.auto.conf");
    let conf = format!(
        "listen_addresses = ''\nunix_socket_directories = '{}'\nport = {}\nfsync = off\n\
         shared_preload_libraries = 'citus'\n",
        directory.display(),
        run::port()
    );
    fs::write(&settings, conf).expect("the settings can be written");
    let mut postmaster = Postmaster::spawn(&data, &directory.join("log"), &[], None);
    postmaster.wait_until_ready();
    let mut session = Session::connect(&directory, run::port(), "postgres", "postgres")
        .expect("the template accepts connections");
    session.run("CREATE EXTENSION citus");
    if crate::install::install().has_extension("vector") {
        session.run("CREATE EXTENSION vector");
    }
    drop(session);
    postmaster.stop(Shutdown::Fast);
    fs::write(&settings, "").expect("the settings can be emptied");
    data
}

/// The statement that gives a copied Citus its own identity.
pub const RENEW_SERVER_ID: &str = "UPDATE pg_catalog.pg_dist_node_metadata \
     SET metadata = metadata || jsonb_build_object('server_id', gen_random_uuid())";

/// Writes a new system identifier as pg_createsubscriber does: into the control file, then
/// pg_resetwal carries it over to the WAL.
fn renew_system_identifier(data: &Path) {
    let path = data.join("global/pg_control");
    let mut control = fs::read(&path).expect("the control file can be read");
    let crc_at = (8..1024)
        .step_by(4)
        .find(|&at| control[at..at + 4] == crc32c(&control[..at]).to_le_bytes())
        .expect("the control file holds its checksum");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970");
    // As initdb builds it: seconds, then something that differs between two of the same second.
    let identifier = now.as_secs() << 32
        | u64::from(std::process::id() & 0xffff) << 16
        | u64::from(run::unique() & 0xffff);
    control[..8].copy_from_slice(&identifier.to_le_bytes());
    let crc = crc32c(&control[..crc_at]).to_le_bytes();
    control[crc_at..crc_at + 4].copy_from_slice(&crc);
    fs::write(&path, control).expect("the control file can be written");
    let mut reset = program("pg_resetwal");
    reset.arg("-D").arg(data);
    run_program(reset);
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn crc32c_is_the_one_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
