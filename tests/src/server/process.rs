//! Owns operating-system processes: the account they run as, postmasters, and the promise that none
//! of them outlives this process.
//! Must not know SQL or configuration.

use crate::install::install;
use crate::run;
use crate::wait::until;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// What runs now, with the signal that ends it at once, and whether anything may still be started.
#[derive(Default)]
struct Live {
    pids: BTreeMap<u32, i32>,
    ending: bool,
}

static LIVE: Mutex<Live> = Mutex::new(Live { pids: BTreeMap::new(), ending: false });

fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For the end of the process: stops everything, waits a moment, and lets nothing start any more.
pub fn kill_all() {
    let pids = {
        let mut live = live();
        live.ending = true;
        std::mem::take(&mut live.pids)
    };
    for (&pid, &farewell) in &pids {
        send(pid, libc::SIGCONT);
        send(pid, farewell);
    }
    for &pid in pids.keys() {
        for _ in 0..300 {
            // SAFETY: only reaps a child of ours that is about to be forgotten anyway.
            if unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), libc::WNOHANG) } != 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        send(pid, libc::SIGKILL);
    }
    end_postmasters_in(run::directory());
}

/// Ends servers that are nobody's child any more, because what had started them (Patroni) is gone.
pub fn end_postmasters_in(run: &Path) {
    let directories = fs::read_dir(run).into_iter().flatten().flatten();
    for pid in directories.filter_map(|entry| postmaster_of(&entry.path().join("data"))) {
        send(pid, libc::SIGCONT);
        send(pid, libc::SIGQUIT);
    }
}

/// The process id of the server that runs on a data directory, whoever has started it.
pub fn postmaster_of(data: &Path) -> Option<u32> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = file.lines().next()?.trim().parse().ok()?;
    // A file that a killed server left behind may name what is another process by now.
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (directory == data).then_some(pid)
}

pub fn send(pid: u32, signal: i32) {
    // SAFETY: kill has no memory preconditions; a process that is gone gives ESRCH.
    unsafe { libc::kill(pid as i32, signal) };
}

pub fn is_alive(pid: u32) -> bool {
    // A zombie has ended: only its entry waits for its parent.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

pub fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                let mut after_name = stat.rsplit(')').next().unwrap_or("").split_whitespace();
                after_name.nth(1) == Some(parent.to_string().as_str())
            })
        })
        .collect()
}

/// A program of the installation, to be run as the servers' account with a clean environment.
pub fn program(name: &str) -> Command {
    as_servers(install().program(name))
}

/// Any program, to be run as the servers' account with a clean environment.
pub fn as_servers(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(account) = run::account() {
        command.uid(account.uid).gid(account.gid);
    }
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
    {
        command.env_remove(name);
    }
    command
        .current_dir(run::directory())
        // libpq looks for certificates and passwords there.
        .env("HOME", run::directory())
        .stdin(Stdio::null());
    command
}

/// What a server sees of its host otherwise than everybody else; takes root.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// In the place of /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
    /// In the place of /proc/meminfo.
    pub meminfo: Option<PathBuf>,
    /// Bytes of a file system of its own for the data directory. It begins with what is there, and what
    /// is written to it is gone when the server ends.
    pub disk: Option<u64>,
    /// Bytes of /dev/shm.
    pub shared_memory: Option<u64>,
}

impl Host {
    /// The commands that make it so for themselves and what they start.
    fn mounts(&self, data: &Path) -> Vec<String> {
        let files = [(&self.resolv_conf, "/etc/resolv.conf"), (&self.meminfo, "/proc/meminfo")];
        let mut mounts: Vec<String> = files
            .iter()
            .filter_map(|(file, place)| Some((file.as_ref()?, place)))
            .map(|(file, place)| format!("mount --bind '{}' {place}", file.display()))
            .collect();
        let shared = |bytes| format!("mount -t tmpfs -o size={bytes} tmpfs /dev/shm");
        mounts.extend(self.shared_memory.map(shared));
        mounts.extend(self.disk.map(|bytes| {
            let (data, room) = (data.display(), data.with_extension("room"));
            let room = room.display();
            format!(
                "mkdir -p '{room}' && mount -t tmpfs -o size={bytes} tmpfs '{room}' && \
                 cp -a '{data}/.' '{room}' && mount --move '{room}' '{data}'"
            )
        }));
        mounts
    }

    /// A program on this host, which gives up root before it runs.
    fn program(&self, program: &Path, data: &Path) -> Command {
        let account = run::account().expect("only root may mount");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg(format!(
            "{} && exec setpriv --reuid={} --regid={} --clear-groups --pdeathsig=QUIT \"$@\"",
            self.mounts(data).join(" && "),
            account.uid,
            account.gid
        ));
        command.arg("sh").arg(program);
        command.current_dir(run::directory()).env("HOME", run::directory()).stdin(Stdio::null());
        command
    }
}

/// Runs a program to its end and panics with what it printed when it fails.
#[track_caller]
pub fn run_program(command: Command) {
    run_for_output(command);
}

/// The same for a program whose output counts.
#[track_caller]
pub fn run_for_output(mut command: Command) -> String {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let child = spawn(command, libc::SIGQUIT).unwrap_or_else(|error| panic!("{what}: {error}"));
    let pid = child.id();
    let output = child.wait_with_output().expect("a child can be waited for");
    forget(pid);
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

/// Starts a child that ends with this process, however that ends, by the signal `farewell`. One
/// thread that never ends does it, because PR_SET_PDEATHSIG follows the thread that spawned.
pub(crate) fn spawn(mut command: Command, farewell: i32) -> io::Result<Child> {
    type Order = (Command, i32, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, farewell, reply) in inbox {
                    let mut live = live();
                    if live.ending {
                        break;
                    }
                    let child = command.spawn();
                    live.pids.extend(child.as_ref().map(|child| (child.id(), farewell)));
                    let _ = reply.send(child);
                }
                // The process is about to end; whoever waits for a child need not hear of it.
                loop {
                    thread::park();
                }
            })
            .expect("a thread can be started");
        Mutex::new(orders)
    });
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, farewell);
            Ok(())
        });
    }
    let (reply, answer) = mpsc::channel();
    let orders = spawner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    orders.send((command, farewell, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// For a child that has been waited for: its number may become another process's.
pub(crate) fn forget(pid: u32) {
    live().pids.remove(&pid);
}

/// SIGKILL for a postmaster and all that it started. Until the last one has let go of the shared memory, nobody
/// can start there.
pub(crate) fn kill_postmaster(pid: u32) {
    send(pid, libc::SIGSTOP);
    let children = children_of(pid);
    for process in children.iter().copied().chain([pid]) {
        send(process, libc::SIGKILL);
    }
    until("the server's processes have ended", Duration::from_secs(10), || {
        match children.iter().find(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            Some(pid) => Err(*pid),
            None => Ok(()),
        }
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    Smart,
    Fast,
    Immediate,
}

/// A running postmaster, whose data directory is `data` and whose output goes to `log`.
pub struct Postmaster {
    child: Child,
    log: PathBuf,
    data: PathBuf,
}

impl Postmaster {
    /// Starts the server without waiting for it to accept connections.
    pub(super) fn spawn(
        data: &Path,
        log: &Path,
        environment: &[(String, String)],
        host: Option<&Host>,
    ) -> Postmaster {
        let output = File::options().create(true).append(true).open(log).expect("the log opens");
        let mut command = match host {
            Some(host) => host.program(&install().program("postgres"), data),
            None => program("postgres"),
        };
        command.arg("-D").arg(data);
        command.envs(environment.iter().cloned());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        command.process_group(0);
        let child = spawn(command, libc::SIGQUIT).expect("postgres can be started");
        Postmaster { child, log: log.to_path_buf(), data: data.to_path_buf() }
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let pid = self.child.id().to_string();
        until("the server accepts connections", Duration::from_secs(30), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the server ended with {status}:\n{}", tail(&self.log));
            }
            // As the server sees it, which may have a file system of its own there.
            let own = format!("/proc/{pid}/root{}/postmaster.pid", self.data.display());
            let file = fs::read_to_string(own)
                .or_else(|_| fs::read_to_string(self.data.join("postmaster.pid")))
                .unwrap_or_default();
            let lines: Vec<&str> = file.lines().map(str::trim).collect();
            match (lines.first(), lines.get(7)) {
                // "standby" is a server in recovery that lets nobody in, for good.
                (Some(first), Some(&("ready" | "standby"))) if *first == pid => Ok(()),
                (_, status) => Err(format!("{status:?}")),
            }
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the server and waits for it. A frozen one is thawed first.
    #[track_caller]
    pub fn stop(mut self, how: Shutdown) {
        let pid = self.child.id();
        for process in children_of(pid).into_iter().chain([pid]) {
            send(process, libc::SIGCONT);
        }
        send(
            pid,
            match how {
                Shutdown::Smart => libc::SIGTERM,
                Shutdown::Fast => libc::SIGINT,
                Shutdown::Immediate => libc::SIGQUIT,
            },
        );
        let ended = self.wait_for_end(Duration::from_secs(if how == Shutdown::Immediate {
            10
        } else {
            30
        }));
        if !ended {
            let log = tail(&self.log);
            self.kill();
            assert!(thread::panicking(), "the server did not stop ({how:?}):\n{log}");
        }
    }

    /// SIGKILL for the postmaster and all that it started, as the OOM killer or a power cut would.
    pub fn kill(mut self) {
        kill_postmaster(self.child.id());
        self.wait_for_end(Duration::from_secs(10));
    }

    fn wait_for_end(&mut self, limit: Duration) -> bool {
        let started = std::time::Instant::now();
        loop {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                forget(self.child.id());
                return true;
            }
            if started.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
