//! Owns talking to a Kubernetes cluster that is for tests: the targets of k8s/Makefile, kubectl, and SQL
//! on the coordinator. The cluster is the one that `$CITUS_FLEET_KUBECONFIG` describes, and no other: a
//! KUBECONFIG that happens to be set may lead to one that matters.
//! Must not write to the source tree: `make` runs in a copy of it.

use crate::run;
use crate::wait::until;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub const VARIABLE: &str = "CITUS_FLEET_KUBECONFIG";

/// How long pods may take to stop, start, and take over from each other on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct Kubernetes {
    mode: &'static str,
    pub namespace: String,
    copy: PathBuf,
}

impl Kubernetes {
    /// A namespace of its own for a cluster of this MODE. It is removed at the end, with what is in it.
    pub fn new(mode: &'static str) -> Kubernetes {
        let copy = run::directory().join(format!("kubernetes-{}", run::unique()));
        run::make_directory(&copy);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut cp = Command::new("cp");
        cp.arg("-r").arg(root.join("k8s")).arg(root.join("scripts")).arg(&copy);
        output(cp).expect("the manifests can be copied");
        let namespace = format!("citus-fleet-test-{mode}-{}", std::process::id());
        Kubernetes { mode, namespace, copy }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", env::var_os(VARIABLE).unwrap_or_default());
        command.env_remove("MAKEFLAGS").stdin(Stdio::null());
        command
    }

    /// Runs a target of k8s/Makefile; what it says is the error when it fails.
    pub fn try_make(&self, target: &str, variables: &[&str]) -> Result<String, String> {
        let mut make = self.command("make");
        make.arg("-C").arg(self.copy.join("k8s")).arg(target).args(variables);
        make.arg(format!("MODE={}", self.mode)).arg(format!("NAMESPACE={}", self.namespace));
        // Small requests: one machine is the whole cluster.
        make.args(["CPU_REQUEST=20m", "MEMORY_REQUEST=128Mi", "TIMEOUT=400"]);
        output(make)
    }

    #[track_caller]
    pub fn make(&self, target: &str, variables: &[&str]) -> String {
        self.try_make(target, variables).unwrap_or_else(|said| panic!("make {target}: {said}"))
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut kubectl = self.command("kubectl");
        kubectl.args(["-n", &self.namespace]).args(arguments);
        output(kubectl)
    }

    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"))
    }

    /// The pod that leads a cluster of the operator, or the coordinator's only one.
    pub fn primary(&self, cluster: &str) -> Result<String, String> {
        if self.mode == "simple" {
            return Ok(format!("{cluster}-0"));
        }
        let label = format!("cluster-name={cluster},spilo-role=master");
        let pods = self.try_kubectl(&["get", "pods", "-l", &label, "-o", "name"])?;
        let first = pods.lines().next().ok_or("nobody leads")?;
        Ok(first.trim_start_matches("pod/").to_string())
    }

    /// Bare values, from the coordinator.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let pod = self.primary("citus-coordinator")?;
        let psql =
            ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-U", "postgres"];
        let mut arguments = vec!["exec", &pod, "-c", "postgres", "--request-timeout=30s", "--"];
        arguments.extend(psql);
        arguments.extend(["-c", "SET statement_timeout = '20s'", "-c", sql]);
        self.try_kubectl(&arguments).map(|said| said.trim().to_string())
    }

    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|said| panic!("{sql}: {said}"))
    }

    #[track_caller]
    pub fn wait_until_active(&self, workers: usize) {
        until(&format!("{workers} workers are active"), PATIENCE, || {
            let sql = "SELECT count(*) FILTER (WHERE state = 'active'), string_agg(nodename || ' ' || state, ', ') FROM fleet.workers";
            let found = self.try_sql(sql)?;
            if found.starts_with(&format!("{workers}|")) { Ok(()) } else { Err(found) }
        });
    }

    /// Deletes pods as a machine that loses power does: without a farewell.
    #[track_caller]
    pub fn kill(&self, pods: &[&str]) {
        let mut arguments = vec!["delete", "pod", "--force", "--grace-period=0"];
        arguments.extend(pods);
        self.kubectl(&arguments);
    }

    /// Whether a pod that has gone may come back: as long as not, its machine is lost to all appearance.
    /// By a taint, because the operator moves primaries away from a machine that is cordoned.
    pub fn allow_new_pods(&self, allowed: bool) -> Result<String, String> {
        let taint = if allowed { "citus-fleet-test-" } else { "citus-fleet-test=lost:NoSchedule" };
        self.try_kubectl(&["taint", "nodes", "--all", taint])
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.allow_new_pods(true);
            let pods = self.try_kubectl(&["get", "pods", "-o", "wide"]);
            eprintln!(
                "{}: left behind, to be looked at\n{}",
                self.namespace,
                pods.unwrap_or_default()
            );
            return;
        }
        self.make("clean", &["DATA=delete"]);
    }
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// Inserts one row after another, from `first` on, until told to stop; every row counts once the server
/// has said that it is in.
pub struct Inserts {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    last: Arc<AtomicU64>,
}

impl Inserts {
    /// `insert` puts in one row, or says why it could not; "23505" means that it is there.
    pub fn start(
        first: u64,
        insert: impl Fn(u64) -> Result<(), String> + Send + 'static,
    ) -> Inserts {
        let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(first - 1)));
        let (stopped, done, test) = (stop.clone(), last.clone(), run::current_test());
        let thread = thread::spawn(move || {
            run::join_test(test);
            while !stopped.load(Ordering::Relaxed) {
                let id = done.load(Ordering::Relaxed) + 1;
                let mut tried = false;
                until(&format!("row {id} gets in"), PATIENCE, || match insert(id) {
                    Err(error) if tried && error.contains("23505") => Ok(()),
                    other => {
                        tried = true;
                        other
                    }
                });
                done.store(id, Ordering::Relaxed);
            }
        });
        Inserts { thread: Some(thread), stop, last }
    }

    #[track_caller]
    pub fn wait_for_more(&self) {
        let wanted = self.last.load(Ordering::Relaxed) + 5;
        until("rows get in", PATIENCE, || match self.last.load(Ordering::Relaxed) {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        });
    }

    /// The last row that is in.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("not finished yet").join().expect("every row gets in at last");
        self.last.load(Ordering::Relaxed)
    }
}

impl Drop for Inserts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
