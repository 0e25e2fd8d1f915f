//! Owns running PostgreSQL's client programs the way an operator's script does.
//! Must not be used for what a session can ask: starting a program is part of what it measures.

use citus_fleet_tests::Server;
use citus_fleet_tests::install::install;
use citus_fleet_tests::server::process::program;
use std::process::Command;
use std::time::{Duration, Instant};

/// Why a client program cannot be used, or `None` when it can.
pub fn missing(name: &str) -> Option<String> {
    let path = install().program(name);
    (!path.exists()).then(|| format!("the program {name} is not beside the server's programs"))
}

/// `psql -c`, through the server's socket.
pub fn psql(server: &Server, sql: &str) -> Command {
    let mut command = at(server, "psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, "postgres"]);
    command
}

/// A client program that connects through the server's socket.
pub fn at(server: &Server, name: &str) -> Command {
    let mut command = program(name);
    command.arg("-h").arg(server.directory());
    command.args(["-p", &server.port.to_string(), "-U", "postgres"]);
    command
}

/// A shell script in which `$PSQL` is psql and `$PGHOST`, `$PGPORT` and so on lead to the server.
pub fn script(server: &Server, text: &str, arguments: &[String]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text, "sh"]).args(arguments);
    command
        .env("PSQL", install().program("psql"))
        .env("PGHOST", server.directory())
        .env("PGPORT", server.port.to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres");
    command
}

/// Runs a program to its end; what it printed, and how long it took.
#[track_caller]
pub fn run(mut command: Command) -> (String, Duration) {
    let started = Instant::now();
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let taken = started.elapsed();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    (text, taken)
}
