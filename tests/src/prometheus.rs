//! Owns one Prometheus that scrapes a coordinator and evaluates the project's alert rules.
//! Must not be asked for where `Need::Prometheus` is not stated.

use crate::daemon::Daemon;
use crate::http;
use crate::run::{self, Subnet, port};
use crate::wait::until;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub struct Prometheus {
    address: SocketAddr,
    directory: PathBuf,
    _daemon: Daemon,
}

impl Prometheus {
    #[track_caller]
    pub fn start(subnet: &Subnet, target: SocketAddr, rules: &Path) -> Prometheus {
        let directory = run::directory().join(format!("{}-prometheus", run::unique()));
        run::make_directory(&directory);
        let address = SocketAddr::from((subnet.address(), port()));
        let configuration = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: ['{}']\n\
             scrape_configs:\n  - job_name: citus_fleet\n    static_configs:\n      - targets: ['{target}']\n",
            rules.display()
        );
        fs::write(directory.join("prometheus.yml"), configuration).expect("it can be written");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let mut daemon = Daemon::spawn(command, &directory.join("log"), libc::SIGKILL);
        until("Prometheus is ready", Duration::from_secs(30), || {
            daemon.assert_runs();
            let answer = http::get(address, "/-/ready").map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        Prometheus { address, directory, _daemon: daemon }
    }

    /// The answer of its API, as JSON.
    pub fn api(&self, path: &str) -> Result<String, String> {
        let answer = http::get(self.address, path).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
