//! Owns what lasts as long as the process: its temporary directory, the user that servers run as,
//! addresses and the port, and the name of the test that a thread is running.
//! Must leave nothing behind, however the process ends.

use std::cell::RefCell;
use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{fs, io, process};

const PREFIX: &str = "citus_fleet-";

#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// The unprivileged account for servers when this process is root; `None` otherwise.
pub fn account() -> Option<Account> {
    static ACCOUNT: OnceLock<Option<Account>> = OnceLock::new();
    *ACCOUNT.get_or_init(|| {
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        ["postgres", "nobody"].into_iter().find_map(|name| {
            let name = CString::new(name).ok()?;
            // SAFETY: `name` is NUL-terminated; the entry is copied before the next call.
            let entry = unsafe { libc::getpwnam(name.as_ptr()).as_ref() }?;
            Some(Account { uid: entry.pw_uid, gid: entry.pw_gid })
        })
    })
}

/// The directory that everything of this process lives in.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        sweep();
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", process::id()));
        fs::create_dir_all(&path).expect("the temporary directory can be made");
        open_to_servers(&path);
        // Normal ends, failures of assertions and signals all come by here; SIGKILL is left to
        // PR_SET_PDEATHSIG for the servers and to the next run's sweep for the files.
        // SAFETY: the function registered neither unwinds nor touches thread-local state.
        unsafe { libc::atexit(at_exit) };
        let _ = ctrlc::set_handler(|| process::exit(130));
        path
    })
}

extern "C" fn at_exit() {
    crate::server::kill_all();
    let directory = std::env::temp_dir().join(format!("{PREFIX}{}", process::id()));
    // After a signal the tests' threads still run, and may be removing their parts of it.
    for _ in 0..50 {
        if fs::remove_dir_all(&directory).is_ok() || !directory.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Removes the directories of earlier processes that were killed outright.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Removing the files ends a server only when it looks at them the next time.
            crate::server::process::end_postmasters_in(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes a directory of the run that the servers' account owns.
pub fn make_directory(path: &Path) {
    fs::create_dir_all(path).expect("a directory can be made");
    open_to_servers(path);
}

fn open_to_servers(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    give_to_servers(path);
}

pub fn give_to_servers(path: &Path) {
    if let Some(account) = account() {
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid)).expect("chown");
    }
}

/// A number that no other caller in this process gets.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// One port for every server of the process: servers differ by address, so that A records suffice.
pub fn port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        // Below the ephemeral range, so that no outgoing connection takes it.
        let start = 20_000 + (process::id() % 10_000) as u16;
        (start..32_000)
            .chain(20_000..start)
            .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
            .expect("a free port")
    })
}

/// A /24 of loopback addresses for one cluster.
#[derive(Debug)]
pub struct Subnet {
    base: [u8; 3],
    next: AtomicU16,
}

impl Subnet {
    #[allow(clippy::new_without_default)] // each is another subnet
    pub fn new() -> Subnet {
        let number = unique() % (250 * 250);
        Subnet {
            base: [127, (number / 250) as u8, (number % 250) as u8 + 1],
            next: AtomicU16::new(1),
        }
    }

    pub fn address(&self) -> Ipv4Addr {
        let host = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(host < 255, "a subnet has 254 addresses");
        Ipv4Addr::new(self.base[0], self.base[1], self.base[2], host as u8)
    }

    pub fn cidr(&self) -> String {
        format!("{}.{}.{}.0/24", self.base[0], self.base[1], self.base[2])
    }
}

/// The IPv6 loopback address, of which there is one: for one test at a time.
pub fn ipv6() -> (IpAddr, MutexGuard<'static, ()>) {
    static TAKEN: Mutex<()> = Mutex::new(());
    let guard = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    (IpAddr::V6(Ipv6Addr::LOCALHOST), guard)
}

thread_local! {
    static TEST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Says which test this thread runs; the logs of an earlier failure of it are removed.
pub fn enter_test(name: &str) {
    TEST.set(Some(name.to_string()));
    let _ = fs::remove_dir_all(logs_of(name));
}

/// For a thread that works for another thread's test.
pub fn join_test(name: Option<String>) {
    TEST.set(name);
}

pub fn current_test() -> Option<String> {
    TEST.with_borrow(Clone::clone)
}

fn logs_of(test: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("logs").join(test.replace("::", "/"))
}

/// Keeps a file of a failing test.
pub fn keep_log(file: &Path, kept_as: &str) {
    let test = current_test().unwrap_or_else(|| "unnamed".to_string());
    let directory = logs_of(&test);
    let kept: io::Result<_> =
        fs::create_dir_all(&directory).and_then(|()| fs::copy(file, directory.join(kept_as)));
    if let Err(error) = kept {
        eprintln!("{}: not kept: {error}", file.display());
    }
}
