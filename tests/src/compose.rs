//! Owns one Compose project: its image, its containers, the commands said to them, and their end.
//! Must leave no container, volume or network behind, and knows nothing of what a cluster should do.

use crate::run;
use crate::server::Session;
use crate::server::SqlError;
use crate::wait::until;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// What the tests run: an image that is there already, or the base that the project's own is built on.
const IMAGE: &str = "CITUS_FLEET_TEST_IMAGE";
const BASE: &str = "CITUS_FLEET_TEST_BASE";
/// The image that the Rust toolchain is taken from, where the default cannot be pulled.
const RUST: &str = "CITUS_FLEET_TEST_RUST";

pub const PASSWORD: &str = r"a:canary\ $ecret";

/// How long containers may take to become what they should be.
pub const SLOW: Duration = Duration::from_secs(180);

/// Why no Compose cluster can be started here, or `None`.
pub fn missing() -> Option<String> {
    let says = |arguments: &[&str]| docker(arguments).output().is_ok_and(|o| o.status.success());
    if !says(&["info"]) {
        return Some("no Docker engine answers".to_string());
    }
    if !says(&["compose", "version"]) || !says(&["buildx", "version"]) {
        return Some("docker has no compose and buildx plugins".to_string());
    }
    [IMAGE, BASE]
        .iter()
        .all(|name| std::env::var_os(name).is_none())
        .then(|| format!("neither {IMAGE} nor {BASE} names an image (see docker/README.md)"))
}

fn docker(arguments: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    docker.args(arguments).current_dir(root()).stdin(Stdio::null());
    docker
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// What a program said, both ways; panics when it fails.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = said(&output);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The image under test. Where a base is given it is built once; the engine's cache makes that quick
/// when nothing has changed.
pub fn image() -> &'static str {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(|| {
        std::env::var(IMAGE).unwrap_or_else(|_| {
            let tag = "citus_fleet:tests";
            let base = std::env::var(BASE).unwrap_or_default();
            let mut build = docker(&["build", "--quiet", "--file", "docker/Dockerfile"]);
            build.args(["--tag", tag, "--build-arg", &format!("BASE={base}")]);
            if let Ok(rust) = std::env::var(RUST) {
                build.args(["--build-arg", &format!("RUST={rust}")]);
            }
            succeed(build.arg("."));
            tag.to_string()
        })
    })
}

/// The image without some of its files; removed with the value.
pub struct Image(pub String);

impl Image {
    #[track_caller]
    pub fn without(files: &str) -> Image {
        let tag = format!("citus_fleet:tests-{}-{}", std::process::id(), run::unique());
        let directory = run::directory().join(tag.replace(':', "-"));
        fs::create_dir_all(&directory).expect("a directory can be made");
        let dockerfile = format!("FROM {}\nUSER 0\nRUN rm -r {files}\nUSER 999\n", image());
        fs::write(directory.join("Dockerfile"), dockerfile).expect("a file can be written");
        succeed(docker(&["build", "--quiet", "--tag", &tag, "."]).current_dir(&directory));
        Image(tag)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = docker(&["image", "rm", "--force", &self.0]).output();
    }
}

/// A project with a name, a port and settings of its own, in a copy of compose/.
pub struct Compose {
    pub project: String,
    pub port: u16,
    directory: PathBuf,
}

impl Compose {
    /// Writes the settings; starts nothing. `settings` are lines of `.env`, the last of a name counts.
    pub fn new(settings: &[&str]) -> Compose {
        let project = format!("citus-fleet-test-{}-{}", std::process::id(), run::unique());
        let port = free_port();
        let directory = run::directory().join(&project);
        fs::create_dir_all(&directory).expect("a directory can be made");
        for file in ["docker-compose.yml", "scale-down"] {
            fs::copy(root().join("compose").join(file), directory.join(file))
                .expect("compose/ is there");
        }
        fs::write(directory.join("password"), PASSWORD).expect("a password can be written");
        let mut lines = vec![
            format!("COMPOSE_PROJECT_NAME={project}"),
            format!("COORDINATOR_EXTERNAL_PORT={port}"),
            format!("IMAGE={}", image()),
            "POSTGRES_PASSWORD_FILE=./password".to_string(),
            "SHARED_BUFFERS=32MB".to_string(),
        ];
        lines.extend(settings.iter().map(ToString::to_string));
        fs::write(directory.join(".env"), lines.join("\n")).expect("settings can be written");
        Compose { project, port, directory }
    }

    /// The same project with one more file beside docker-compose.yml.
    pub fn with_file(self, name: &str, content: &str) -> Compose {
        fs::write(self.directory.join(name), content).expect("a file can be written");
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut compose = docker(&["compose"]);
        compose.current_dir(&self.directory).args(arguments);
        compose
    }

    /// `docker compose ARGUMENTS`, which has to succeed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    /// `docker compose ARGUMENTS`, which has to fail; what it says.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("docker runs");
        assert!(!output.status.success(), "{arguments:?} should have failed:\n{}", said(&output));
        said(&output)
    }

    /// Starts with so many workers, and waits until every health check is content.
    #[track_caller]
    pub fn up(&self, workers: u32) {
        let scale = format!("worker={workers}");
        self.run(&["up", "--detach", "--wait", "--wait-timeout", "180", "--scale", &scale]);
    }

    /// A program of compose/, which has to succeed.
    #[track_caller]
    pub fn program(&self, name: &str) -> String {
        succeed(Command::new(self.directory.join(name)).stdin(Stdio::null()))
    }

    /// The container of a worker.
    pub fn worker(&self, number: u32) -> String {
        format!("{}-worker-{number}", self.project)
    }

    pub fn coordinator(&self) -> String {
        format!("{}-coordinator-1", self.project)
    }

    /// The name that a worker is registered by.
    pub fn node(&self, number: u32) -> String {
        format!("{}.{}_default", self.worker(number), self.project)
    }

    /// `docker ARGUMENTS`, which has to succeed.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        succeed(&mut docker(arguments))
    }

    /// The containers of the project in this state.
    #[track_caller]
    pub fn containers(&self, state: &str) -> Vec<String> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let status = format!("status={state}");
        self.docker(&[
            "ps",
            "--all",
            "--filter",
            &label,
            "--filter",
            &status,
            "--format",
            "{{.Names}}",
        ])
        .lines()
        .map(str::to_string)
        .collect()
    }

    #[track_caller]
    pub fn address(&self, container: &str) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.docker(&["inspect", "--format", format, container]).trim().to_string()
    }

    #[track_caller]
    pub fn health(&self, container: &str) -> String {
        let format = "{{.State.Health.Status}}";
        self.docker(&["inspect", "--format", format, container]).trim().to_string()
    }

    /// A client on the host, through the published port, with the password.
    pub fn try_session(&self) -> Result<Session, SqlError> {
        Session::connect_by_password(
            Ipv4Addr::LOCALHOST,
            self.port,
            "postgres",
            "postgres",
            PASSWORD,
        )
    }

    #[track_caller]
    pub fn session(&self) -> Session {
        until("a client on the host gets in", SLOW, || self.try_session())
    }

    /// Waits until exactly these workers, by the numbers of their containers, are active.
    #[track_caller]
    pub fn wait_until_active(&self, numbers: &[u32]) {
        let mut wanted: Vec<String> =
            numbers.iter().map(|number| format!("{}=active", self.node(*number))).collect();
        wanted.sort();
        self.wait_for_workers(&wanted.join(", "));
    }

    /// Waits until `fleet.workers` reads like this: `NODENAME=STATE, ...`.
    #[track_caller]
    pub fn wait_for_workers(&self, wanted: &str) {
        let seen = "SELECT string_agg(nodename || '=' || state, ', ' ORDER BY nodename) FROM fleet.workers";
        until(&format!("the workers are {wanted}"), SLOW, || {
            let row =
                self.try_session()?.try_rows(seen)?.first().map(|row| row.first().to_string());
            match row.unwrap_or_default() {
                row if row == wanted => Ok(()),
                row => Err(SqlError { message: row, ..SqlError::default() }),
            }
        });
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.directory.join("log");
            let said = self.command(&["logs", "--no-color"]).output().map(|output| said(&output));
            if fs::write(&log, said.unwrap_or_default()).is_ok() {
                run::keep_log(&log, "compose.log");
            }
        }
        // What it says to be somebody else's would be left.
        let _ = fs::remove_file(self.directory.join("docker-compose.override.yml"));
        let _ = self.command(&["down", "--volumes", "--timeout", "5"]).output();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
