//! Owns the life of one PostgreSQL server: made, started, hurt, asked and removed.
//! Must not know what a cluster is.

mod clock;
mod configure;
pub mod process;
pub mod session;
pub(crate) mod spec;
pub(crate) mod template;
mod upgrade;

pub use process::{Shutdown, kill_all};
pub use session::{Row, Session, SqlError};
pub use spec::{Spec, trust};
pub use template::Data;

use crate::run;
use crate::tls::Certificate;
use process::{Host, Postmaster, children_of, program, run_program, send};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub struct Server {
    pub name: String,
    pub address: IpAddr,
    pub port: u16,
    spec: Spec,
    directory: PathBuf,
    postmaster: Mutex<Option<Postmaster>>,
    session: Mutex<Option<Session>>,
}

/// The name of a server's own resolv.conf.
const RESOLV_CONF: &str = "resolv.conf";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// A running server with a new data directory and an identity of its own.
    #[track_caller]
    pub fn start(spec: Spec) -> Server {
        let server = Server::prepare(spec);
        template::fresh(server.spec.data, &server.data());
        server.begin();
        if server.spec.data == Data::Citus {
            server.run(template::RENEW_SERVER_ID);
        }
        server
    }

    /// Several at the same time.
    #[track_caller]
    pub fn start_all(specs: Vec<Spec>) -> Vec<Server> {
        let test = run::current_test();
        thread::scope(|scope| {
            let started: Vec<_> = specs
                .into_iter()
                .map(|spec| {
                    let test = test.clone();
                    scope.spawn(move || {
                        run::join_test(test);
                        Server::start(spec)
                    })
                })
                .collect();
            started.into_iter().map(|server| server.join().expect("the server starts")).collect()
        })
    }

    /// A streaming standby of a running server.
    #[track_caller]
    pub fn standby_of(primary: &Server, spec: Spec) -> Server {
        Server::copy_of(primary, spec, &["-R"])
    }

    /// A primary with the data, the system identifier and Citus's server_id of a running server.
    #[track_caller]
    pub fn clone_of(original: &Server, spec: Spec) -> Server {
        Server::copy_of(original, spec, &[])
    }

    #[track_caller]
    fn copy_of(original: &Server, spec: Spec, options: &[&str]) -> Server {
        let server = Server::prepare(spec);
        let mut backup = program("pg_basebackup");
        backup.arg("-D").arg(server.data()).arg("-h").arg(&original.directory);
        backup.args(["-p", &original.port.to_string(), "-U", "postgres"]);
        backup.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"]).args(options);
        run_program(backup);
        server.begin();
        server
    }

    /// A server that something else makes, starts and stops, in the directory that is made here; it is
    /// asked and looked at like any other.
    pub(crate) fn run_by_another(spec: Spec) -> Server {
        Server::prepare(spec)
    }

    fn prepare(spec: Spec) -> Server {
        let directory = run::directory().join(format!("{}-{}", run::unique(), spec.name));
        run::make_directory(&directory);
        Server {
            name: spec.name.clone(),
            address: spec.addresses[0],
            port: spec.port,
            spec,
            directory,
            postmaster: Mutex::new(None),
            session: Mutex::new(None),
        }
    }

    /// Starts the server and waits until it accepts connections.
    #[track_caller]
    pub fn begin(&self) {
        self.begin_without_waiting();
        let mut postmaster = lock(&self.postmaster);
        postmaster.as_mut().expect("a postmaster").wait_until_ready();
    }

    pub fn begin_without_waiting(&self) {
        self.spec.write(&self.directory, &self.data());
        let host = self.host();
        let started = Postmaster::spawn(
            &self.data(),
            &self.log_file(),
            &self.spec.environment,
            host.as_ref(),
        );
        *lock(&self.postmaster) = Some(started);
    }

    /// What it is to see of its host otherwise than others do, if anything.
    fn host(&self) -> Option<Host> {
        let Spec { resolvers, memory, disk, shared_memory, .. } = &self.spec;
        if resolvers.is_none() && memory.or(*disk).or(*shared_memory).is_none() {
            return None;
        }
        let resolv_conf = resolvers.as_ref().map(|resolvers| {
            self.resolve_by(resolvers);
            self.directory.join(RESOLV_CONF)
        });
        let meminfo = memory.map(|bytes| {
            let file = self.directory.join("meminfo");
            fs::write(&file, format!("MemTotal: {} kB\n", bytes / 1024))
                .expect("a file is written");
            file
        });
        Some(Host { resolv_conf, meminfo, disk: *disk, shared_memory: *shared_memory })
    }

    /// Writes the resolv.conf of a server that has one of its own, from now on with these servers.
    pub fn resolve_by(&self, resolvers: &[IpAddr]) {
        let lines: String = resolvers.iter().map(|ip| format!("nameserver {ip}\n")).collect();
        // In its place: the file is mounted.
        fs::write(self.directory.join(RESOLV_CONF), lines).expect("resolv.conf can be written");
    }

    /// Stops the server, and says how long that took.
    #[track_caller]
    pub fn stop(&self, how: Shutdown) -> Duration {
        let started = Instant::now();
        *lock(&self.session) = None;
        let postmaster = lock(&self.postmaster).take();
        if let Some(postmaster) = postmaster {
            postmaster.stop(how);
        }
        started.elapsed()
    }

    #[track_caller]
    pub fn restart(&self) {
        self.stop(Shutdown::Fast);
        self.begin();
    }

    /// SIGKILL for every process of the server.
    pub fn kill(&self) {
        *lock(&self.session) = None;
        let postmaster = lock(&self.postmaster).take();
        if let Some(postmaster) = postmaster {
            postmaster.kill();
        }
    }

    /// SIGSTOP for every process: connections are still accepted by the kernel, nobody answers.
    pub fn freeze(&self) {
        self.signal_all(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal_all(libc::SIGCONT);
    }

    fn signal_all(&self, signal: i32) {
        let pid = self.pid();
        send(pid, signal);
        for child in children_of(pid) {
            send(child, signal);
        }
    }

    /// Gives a server that is stopped another address, with the same data directory.
    #[track_caller]
    pub fn move_to(&mut self, address: impl Into<IpAddr>) {
        assert!(lock(&self.postmaster).is_none(), "{} runs", self.name);
        self.address = address.into();
        self.spec.addresses = vec![self.address];
    }

    /// Gives a server another time, from its next start on; false where that cannot be done here.
    pub fn shift_clock(&mut self, seconds: i64) -> bool {
        assert!(lock(&self.postmaster).is_none(), "{} runs", self.name);
        let Some(variables) = clock::shifted(seconds) else { return false };
        self.spec.environment.retain(|(name, _)| variables.iter().all(|(other, _)| name != other));
        self.spec.environment.extend(variables);
        true
    }

    /// Gives a server another certificate, from its next start on.
    pub fn certify(&mut self, certificate: &Certificate) {
        self.spec.certificate = Some(certificate.clone());
    }

    /// The description of a server with the same settings at another address: of a standby.
    pub fn twin(&self, name: &str, address: impl Into<IpAddr>) -> Spec {
        let addresses = vec![address.into()];
        Spec { name: name.to_string(), addresses, ..self.spec.clone() }
    }

    /// The postmaster's process id.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        lock(&self.postmaster).as_ref().expect("the server runs").pid()
    }

    /// Ends recovery and waits until the server writes.
    #[track_caller]
    pub fn promote(&self) {
        self.run("SELECT pg_catalog.pg_promote()");
        crate::until("the standby writes", Duration::from_secs(20), || {
            match self.value("SELECT pg_catalog.pg_is_in_recovery()").as_str() {
                "f" => Ok(()),
                _ => Err("still in recovery"),
            }
        });
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    // Asking ----------------------------------------------------------------------------------

    /// A connection of its own to database postgres, as the superuser postgres.
    #[track_caller]
    pub fn session(&self) -> Session {
        self.session_as("postgres", "postgres")
    }

    #[track_caller]
    pub fn session_as(&self, user: &str, database: &str) -> Session {
        self.try_session(user, database)
            .unwrap_or_else(|error| panic!("{}: {user}@{database}: {error}", self.name))
    }

    pub fn try_session(&self, user: &str, database: &str) -> Result<Session, SqlError> {
        Session::connect(&self.directory, self.port, user, database)
    }

    /// Through a connection that is kept until it breaks; for what need not run beside anything.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Row>, SqlError> {
        let mut kept = lock(&self.session);
        if kept.as_ref().is_none_or(Session::is_closed) {
            *kept = Some(self.try_session("postgres", "postgres")?);
        }
        kept.as_mut().expect("just set").try_rows(sql)
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{}: {sql}\n  {error}", self.name))
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.rows(sql);
    }

    /// The first column of the only row.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        self.try_value(sql).unwrap_or_else(|error| panic!("{}: {sql}\n  {error}", self.name))
    }

    pub fn try_value(&self, sql: &str) -> Result<String, String> {
        match self.try_rows(sql).map_err(|error| error.to_string())?.as_slice() {
            [row] => Ok(row.first().to_string()),
            rows => Err(format!("{} rows instead of one: {rows:?}", rows.len())),
        }
    }

    #[track_caller]
    pub fn error(&self, sql: &str) -> SqlError {
        match self.try_rows(sql) {
            Err(error) => error,
            Ok(rows) => panic!("{}: {sql}\n  should have failed, and gave {rows:?}", self.name),
        }
    }

    /// Closes the connection that is kept, so that nothing of the harness is connected.
    pub fn forget_session(&self) {
        *lock(&self.session) = None;
    }

    pub fn system_identifier(&self) -> String {
        self.value("SELECT system_identifier FROM pg_catalog.pg_control_system()")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            run::keep_log(&self.log_file(), &format!("{}.log", self.name));
        }
        *lock(&self.session) = None;
        if let Some(postmaster) = lock(&self.postmaster).take() {
            postmaster.stop(Shutdown::Immediate);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
