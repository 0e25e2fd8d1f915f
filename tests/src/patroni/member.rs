//! Owns one member of a Patroni cluster: the Patroni process and the server that it runs.
//! Must leave starting and stopping PostgreSQL to Patroni, unless it is to die.

use super::configuration::Configuration;
use crate::daemon::Daemon;
use crate::http;
use crate::run::{self, Subnet, port};
use crate::server::process::{as_servers, is_alive, kill_postmaster, postmaster_of, send};
use crate::server::spec::write_for_server;
use crate::server::{Data, Server, Spec, template};
use crate::wait::until;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub struct Member {
    /// To be asked; Patroni starts and stops it.
    pub server: Server,
    /// Where Patroni's REST API listens.
    pub api: SocketAddr,
    data: Data,
    patroni: Mutex<Option<Daemon>>,
}

impl Member {
    pub(super) fn prepare(spec: Spec, subnet: &Subnet, configuration: &Configuration) -> Member {
        let api = SocketAddr::from((subnet.address(), port()));
        let server = Server::run_by_another(spec.clone());
        let directory = server.directory();
        write_for_server(&directory.join("base.conf"), &spec.conf(directory));
        let yaml = configuration.yaml(&spec, directory, api);
        write_for_server(&directory.join("patroni.yml"), &yaml);
        Member { data: spec.data, server, api, patroni: Mutex::new(None) }
    }

    /// Lays down the data directory that Patroni bootstraps the cluster with.
    pub(super) fn bootstrap(&self) {
        template::fresh(self.data, &self.server.directory().join("bootstrap"));
    }

    pub(super) fn renew_server_id(&self) {
        if self.data == Data::Citus {
            self.server.run(template::RENEW_SERVER_ID);
        }
    }

    /// patroni.yml.
    pub fn configuration(&self) -> PathBuf {
        self.server.directory().join("patroni.yml")
    }

    /// Starts Patroni, which starts the server once it knows in which role.
    #[track_caller]
    pub fn begin(&self) {
        let mut command = as_servers("patroni");
        command.arg(self.configuration());
        // When asked to end, Patroni ends its server too, which is not our child.
        let daemon = Daemon::spawn(command, &self.server.log_file(), libc::SIGTERM);
        *self.patroni.lock().unwrap_or_else(PoisonError::into_inner) = Some(daemon);
    }

    /// SIGKILL for Patroni, the server and all that they started, as when the host loses power.
    #[track_caller]
    pub fn kill(&self) {
        self.end_patroni();
        self.end_server(kill_postmaster);
    }

    /// SIGKILL for the server alone; Patroni sees it, and starts it again.
    #[track_caller]
    pub fn kill_server(&self) {
        self.server.forget_session();
        self.end_server(kill_postmaster);
    }

    fn end_patroni(&self) {
        self.server.forget_session();
        if let Some(patroni) = self.patroni.lock().unwrap_or_else(PoisonError::into_inner).take() {
            patroni.kill();
        }
    }

    fn end_server(&self, how: impl FnOnce(u32)) {
        let Some(pid) = postmaster_of(&self.server.data()) else {
            return;
        };
        how(pid);
        until("the server is gone", Duration::from_secs(10), || {
            if is_alive(pid) { Err("still there") } else { Ok(()) }
        });
    }

    /// Whether Patroni answers a health check with 200, such as `/primary` or `/replica`.
    pub fn answers_to(&self, check: &str) -> bool {
        http::get(self.api, check).is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if thread::panicking() {
            let (log, name) = (self.server.directory().join("patroni.log"), &self.server.name);
            run::keep_log(&log, &format!("{name}-patroni.log"));
        }
        self.end_patroni();
        // Unlike SIGKILL, this leaves no shared memory behind.
        self.end_server(|pid| send(pid, libc::SIGQUIT));
    }
}
