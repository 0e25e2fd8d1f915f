//! Owns patroni.yml: what all members of a cluster share, and what one of them has of its own.
//! Must not start anything.

use crate::install::install;
use crate::server::Spec;
use crate::server::spec::LOCAL;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// Settings that Patroni takes from etcd alone and passes on the command line, over whatever
/// postgresql.conf says.
const SHARED: [&str; 8] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "track_commit_timestamp",
    "wal_level",
];

/// What the members of one cluster have in common.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    pub scope: String,
    pub etcd: SocketAddr,
    pub citus_group: Option<u32>,
}

impl Configuration {
    /// patroni.yml for a server that lives in `directory` and whose member answers at `api`.
    pub fn yaml(&self, spec: &Spec, directory: &Path, api: SocketAddr) -> String {
        let conf = spec.conf(directory);
        let shared: Vec<(&str, &str)> =
            SHARED.iter().filter_map(|name| Some((*name, last_value(&conf, name)?))).collect();
        let (address, port) = (spec.addresses[0], spec.port);
        let directory = directory.display();
        // A leader that is gone is missed after `ttl`; one that has lost etcd gives up before that.
        let mut yaml = format!(
            "scope: {scope}
name: {name}
log:
  dir: {directory}
restapi:
  listen: {api}
  connect_address: {api}
etcd3:
  host: {etcd}
bootstrap:
  dcs:
    ttl: 6
    loop_wait: 1
    retry_timeout: 2
    maximum_lag_on_failover: 1048576
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters:{shared}
  method: copy
  copy:
    command: mv {directory}/bootstrap {directory}/data
    no_params: true
postgresql:
  listen: {address}:{port}
  connect_address: {address}:{port}
  data_dir: {directory}/data
  bin_dir: {bin}
  pgpass: {directory}/pgpass
  use_unix_socket: true
  custom_conf: {directory}/base.conf
  remove_data_directory_on_rewind_failure: true
  basebackup:
  - checkpoint: fast
  - no-sync
  authentication:{authentication}
  parameters:
    unix_socket_directories: {directory}
    # pg_rewind needs whole pages.
    full_page_writes: 'on'
    # A new standby asks for its slot before Patroni has made it.
    wal_retrieve_retry_interval: '200ms'
  pg_hba:{hba}
",
            scope = self.scope,
            name = spec.name,
            etcd = self.etcd,
            bin = install().bin.display(),
            authentication = authentication(spec),
            shared = list(8, shared.iter().map(|(name, value)| format!("{name}: '{value}'"))),
            hba = list(
                2,
                LOCAL
                    .iter()
                    .copied()
                    .chain(spec.hba.iter().map(String::as_str))
                    .map(|line| format!("- {line}"))
            ),
        );
        if let Some(group) = self.citus_group {
            let _ = write!(yaml, "citus:\n  database: postgres\n  group: {group}\n");
        }
        yaml
    }
}

/// Who Patroni is to the servers: as whom it asks them, copies from them and rewinds them.
fn authentication(spec: &Spec) -> String {
    let passwords = spec.passwords.as_ref();
    let (replicator, replication) = match passwords {
        Some(passwords) => ("standby", Some(passwords.replication.as_str())),
        None => ("postgres", None),
    };
    let superuser = passwords.map(|passwords| passwords.superuser.as_str());
    let roles = [
        ("superuser", "postgres", superuser),
        ("replication", replicator, replication),
        ("rewind", "postgres", superuser),
    ];
    let lines = roles.iter().map(|(role, name, password)| {
        let password = password.map(|password| format!(", password: '{password}'"));
        format!("{role}: {{username: {name}{}}}", password.unwrap_or_default())
    });
    list(4, lines)
}

/// Lines of a YAML list or map, indented, each on a line of its own.
fn list(indent: usize, lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| format!("{text}\n{:indent$}{line}", ""))
}

/// What postgresql.conf gives a setting: the last line counts.
fn last_value<'a>(conf: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = conf.lines().rev().filter_map(|line| line.split_once(" = "));
    lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('\''))
}
