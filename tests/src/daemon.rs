//! Owns a program that runs beside the servers for as long as it is wanted: its log and its end.
//! Must not know what the program does.

use crate::server::process::{forget, send, spawn, tail};
use crate::wait::until;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program in a process group of its own. `farewell` is what ends it when this process
    /// ends; its output is appended to `log`.
    #[track_caller]
    pub fn spawn(mut command: Command, log: &Path, farewell: i32) -> Daemon {
        let output = File::options().create(true).append(true).open(log).expect("the log opens");
        let what = format!("{command:?}");
        command.process_group(0);
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        let child = spawn(command, farewell).unwrap_or_else(|error| panic!("{what}: {error}"));
        Daemon { child, log: log.to_path_buf() }
    }

    /// Panics with the end of its log when it does not run any more.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("it ended with {status}:\n{}", tail(&self.log));
        }
    }

    /// SIGKILL for it and for what it started in its process group.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let pid = self.child.id();
        // SAFETY: kill has no memory preconditions; a group that is gone gives ESRCH.
        unsafe { libc::kill(-(pid as i32), libc::SIGKILL) };
        send(pid, libc::SIGKILL);
        until("a killed program ends", Duration::from_secs(10), || match self.child.try_wait() {
            Ok(None) => Err("still there"),
            // An error means that it has been waited for already.
            Ok(Some(_)) | Err(_) => Ok(()),
        });
        forget(pid);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}
