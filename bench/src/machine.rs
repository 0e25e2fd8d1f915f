//! Owns the description of where the figures come from: the machine and what is installed on it.
//! Must not name the machine or a path of it.

use citus_fleet_tests::install::install;
use citus_fleet_tests::server::process::program;
use std::process::Command;
use std::{fs, thread};

/// A release build of the extension is a few MiB; a debug build carries its symbols with it.
const LARGEST_RELEASE: u64 = 40 << 20;

pub struct Machine {
    pub moment: String,
    description: String,
    pub warnings: Vec<String>,
}

impl Machine {
    pub fn look() -> Machine {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let memory = field("/proc/meminfo", "MemTotal:")
            .and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok())
            .map_or(0.0, |kib| kib / 1024.0 / 1024.0);
        let system = field("/etc/os-release", "PRETTY_NAME=").unwrap_or_default();
        let processor = field("/proc/cpuinfo", "model name").unwrap_or_default();
        let postgres = output(program("postgres").arg("--version"));
        let postgres = postgres.trim_start_matches("postgres (PostgreSQL) ");
        let postgres = postgres.split(' ').next().unwrap_or_default();
        let description = format!(
            "{cores} cores ({}), {memory:.0} GiB, {}, PostgreSQL {postgres}, Citus {}, pgvector {}, all servers on one machine with fsync off",
            processor.trim_start_matches([' ', '\t', ':']),
            system.trim_matches('"'),
            version_of("citus"),
            version_of("vector"),
        );
        Machine {
            moment: output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M:%S"])),
            description,
            warnings: warnings(cores),
        }
    }

    pub fn line(&self) -> String {
        format!("{} UTC: {}", self.moment, self.description)
    }
}

fn warnings(cores: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let library = install().library.join("citus_fleet.so");
    let size = fs::metadata(library).map_or(0, |found| found.len());
    if size > LARGEST_RELEASE {
        warnings.push(format!(
            "the installed citus_fleet.so has {} MiB, so it is probably a debug build: run make install first",
            size >> 20
        ));
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().unwrap_or_default().parse().unwrap_or(0.0);
    if load > 0.5 * cores as f64 {
        warnings.push(format!(
            "the load average was {load} when the run began: the machine was not quiet"
        ));
    }
    warnings
}

/// The version that CREATE EXTENSION would install.
fn version_of(extension: &str) -> String {
    let control = install().share.join("extension").join(format!("{extension}.control"));
    field(&control.to_string_lossy(), "default_version")
        .map(|text| text.trim_matches([' ', '=', '\'']).to_string())
        .unwrap_or_else(|| "not installed".to_string())
}

/// The rest of the first line that begins with `key`.
fn field(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(rest.trim().to_string())
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout);
    String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_string()
}
