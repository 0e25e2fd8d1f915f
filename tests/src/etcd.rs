//! Owns one etcd, in which the members of Patroni clusters agree who leads.
//! Must not be asked for where `Need::Patroni` is not stated.

use crate::daemon::Daemon;
use crate::http;
use crate::run::{self, Subnet, port};
use crate::wait::until;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

pub struct Etcd {
    pub address: SocketAddr,
    directory: PathBuf,
    // Dropped last, so that nothing is written any more when the directory goes.
    _daemon: Daemon,
}

impl Etcd {
    #[track_caller]
    pub fn start(subnet: &Subnet) -> Etcd {
        let directory = run::directory().join(format!("{}-etcd", run::unique()));
        run::make_directory(&directory);
        let address = SocketAddr::from((subnet.address(), port()));
        let clients = format!("http://{address}");
        // Nobody else joins, but it insists on an address for others.
        let peers = format!("http://{}:{}", subnet.address(), port());
        let members = format!("only={peers}");
        let data = directory.join("data").display().to_string();
        let arguments = [
            ("--name", "only"),
            ("--data-dir", data.as_str()),
            ("--listen-client-urls", &clients),
            ("--advertise-client-urls", &clients),
            ("--listen-peer-urls", &peers),
            ("--initial-advertise-peer-urls", &peers),
            ("--initial-cluster", &members),
        ];
        // As ourselves: the program may lie where the servers' account may not look.
        let mut command = Command::new("etcd");
        command.args(arguments.iter().flat_map(|(name, value)| [*name, value]));
        let mut daemon = Daemon::spawn(command, &directory.join("log"), libc::SIGKILL);
        until("etcd is healthy", Duration::from_secs(30), || {
            daemon.assert_runs();
            let answer = http::get(address, "/health").map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        Etcd { address, directory, _daemon: daemon }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if thread::panicking() {
            run::keep_log(&self.directory.join("log"), "etcd.log");
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
