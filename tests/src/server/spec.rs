//! Owns the description of a server, and turning it into postgresql.conf and pg_hba.conf.
//! Must not start anything.

use super::template::Data;
use crate::run;
use crate::tls::Certificate;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Cheap, quiet and reproducible; nothing here changes what the extension may rely on.
const BASE: &str = "\
fsync = off
full_page_writes = off
autovacuum = off
jit = off
max_wal_size = '64MB'
min_wal_size = '32MB'
shared_buffers = '16MB'
max_connections = 60
superuser_reserved_connections = 3
max_worker_processes = 24
max_prepared_transactions = 150
max_locks_per_transaction = 128
max_wal_senders = 8
wal_level = logical
hot_standby = on
wal_receiver_status_interval = '1s'
logging_collector = off
log_line_prefix = '%m [%p] %b '
log_checkpoints = off
timezone = 'UTC'
";

#[derive(Clone, Debug)]
pub struct Passwords {
    /// Of `postgres`.
    pub superuser: String,
    /// Of `standby`, which there is only with passwords.
    pub replication: String,
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub data: Data,
    pub preload: Vec<String>,
    pub settings: Vec<(String, String)>,
    /// The `host…` lines of pg_hba.conf.
    pub hba: Vec<String>,
    pub certificate: Option<Certificate>,
    /// Of the roles that Patroni makes and logs in with; without them it needs none.
    pub passwords: Option<Passwords>,
    pub environment: Vec<(String, String)>,
    /// The name servers of a resolv.conf of its own, which takes `Need::Mounts`, as do the next two.
    pub resolvers: Option<Vec<IpAddr>>,
    /// Bytes of memory that its host seems to have.
    pub memory: Option<u64>,
    /// Bytes of a file system of its own, until the server ends.
    pub disk: Option<u64>,
    /// Bytes of /dev/shm.
    pub shared_memory: Option<u64>,
}

impl Spec {
    /// A plain server at `address`, on the process's common port, that trusts loopback.
    pub fn new(name: &str, address: impl Into<IpAddr>) -> Spec {
        Spec {
            name: name.to_string(),
            addresses: vec![address.into()],
            port: run::port(),
            data: Data::Bare,
            preload: Vec::new(),
            settings: Vec::new(),
            hba: trust(),
            certificate: None,
            passwords: None,
            environment: Vec::new(),
            resolvers: None,
            memory: None,
            disk: None,
            shared_memory: None,
        }
    }

    /// With Citus preloaded, and the extensions citus and vector in database postgres.
    pub fn citus(mut self) -> Spec {
        self.data = Data::Citus;
        self.preload.insert(0, "citus".to_string());
        self.set("citus.node_conninfo", "sslmode=prefer")
            .set("citus.enable_statistics_collection", "off")
    }

    pub fn preload(mut self, library: &str) -> Spec {
        self.preload.push(library.to_string());
        self
    }

    pub fn set(mut self, name: &str, value: &str) -> Spec {
        self.settings.push((name.to_string(), value.to_string()));
        self
    }

    /// One more address for the same server.
    pub fn also_at(mut self, address: impl Into<IpAddr>) -> Spec {
        self.addresses.push(address.into());
        self
    }

    pub fn hba<S: Into<String>>(mut self, lines: impl IntoIterator<Item = S>) -> Spec {
        self.hba = lines.into_iter().map(Into::into).collect();
        self
    }

    pub fn certificate(mut self, certificate: &Certificate) -> Spec {
        self.certificate = Some(certificate.clone());
        self
    }

    pub fn passwords(mut self, superuser: &str, replication: &str) -> Spec {
        self.passwords =
            Some(Passwords { superuser: superuser.into(), replication: replication.into() });
        self
    }

    /// An environment variable of the server process.
    pub fn env(mut self, name: &str, value: &str) -> Spec {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    pub(super) fn write(&self, directory: &Path, data: &Path) {
        write_for_server(&data.join("postgresql.conf"), &self.conf(directory));
        write_hba(data, &self.hba);
    }

    /// The text of postgresql.conf for a server that lives in `directory`.
    pub(crate) fn conf(&self, directory: &Path) -> String {
        let mut conf = BASE.to_string();
        let listen: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let mut put = |name: &str, value: &str| {
            let _ = writeln!(conf, "{name} = '{}'", value.replace('\'', "''"));
        };
        put("listen_addresses", &listen.join(","));
        put("port", &self.port.to_string());
        put("unix_socket_directories", &directory.to_string_lossy());
        put("cluster_name", &self.name);
        put("shared_preload_libraries", &self.preload.join(","));
        if self.data == Data::Citus {
            // Citus moves shards over connections to its own server.
            put("citus.local_hostname", &directory.to_string_lossy());
        }
        if let Some(certificate) = &self.certificate {
            let (certificate, key) = certificate.copy_to(directory);
            put("ssl", "on");
            put("ssl_cert_file", &certificate.to_string_lossy());
            put("ssl_key_file", &key.to_string_lossy());
        }
        for (name, value) in &self.settings {
            put(name, value);
        }
        conf
    }
}

pub fn trust() -> Vec<String> {
    ["127.0.0.0/8", "::1/128"]
        .iter()
        .flat_map(|net| {
            [format!("host all all {net} trust"), format!("host replication all {net} trust")]
        })
        .collect()
}

pub(super) fn write_hba(data: &Path, lines: &[String]) {
    let text = format!("{}\n{}\n", LOCAL.join("\n"), lines.join("\n"));
    write_for_server(&data.join("pg_hba.conf"), &text);
}

/// The lines of pg_hba.conf that let the harness in, whatever a test writes below them.
pub(crate) const LOCAL: [&str; 2] = ["local all all trust", "local replication all trust"];

pub(crate) fn write_for_server(path: &Path, text: &str) {
    fs::write(path, text).expect("a configuration file can be written");
    run::give_to_servers(path);
}
