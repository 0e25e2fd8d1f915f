//! Owns clients that insert and read back while anything may happen, and what they were promised: each
//! key that was acknowledged, and each that a later read did not find.
//! Must not retry a key: one whose answer was an error counts for nothing.

use crate::random::Random;
use crate::run;
use crate::server::{Server, Session, SqlError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Between two rows of one client.
const PACE: Duration = Duration::from_millis(15);
/// Between two attempts of a client whose server does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// A read that did not find an acknowledged key.
#[derive(Clone, Copy, Debug)]
pub struct Miss {
    pub key: u64,
    pub at: SystemTime,
}

/// What one client has seen; times are this host's, as those of the servers are.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub acknowledged: BTreeMap<u64, SystemTime>,
    pub misses: Vec<Miss>,
    pub errors: u64,
    pub last_error: String,
}

/// Where clients find the coordinator, whichever server it is.
#[derive(Clone)]
pub struct Target {
    socket: Arc<Mutex<PathBuf>>,
    port: u16,
}

impl Target {
    pub fn new(server: &Server) -> Target {
        Target { socket: Arc::new(Mutex::new(server.directory().to_path_buf())), port: server.port }
    }

    /// For everyone who connects from now on.
    pub fn lead_to(&self, server: &Server) {
        *lock(&self.socket) = server.directory().to_path_buf();
    }
}

/// Inserts its keys one after another into `items (id, v)`, and reads an earlier one after each.
pub struct Client {
    thread: Option<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    pub fn start(target: &Target, keys: Vec<u64>, seed: u64) -> Client {
        let stopped = Arc::new(AtomicBool::new(false));
        let history = Arc::new(Mutex::new(History::default()));
        let (stop, seen, test) = (stopped.clone(), history.clone(), run::current_test());
        let mut connection = Connection { target: target.clone(), session: None };
        let thread = thread::spawn(move || {
            run::join_test(test);
            let mut random = Random::new(seed);
            let mut told = Vec::new();
            for key in keys {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let insert = format!("INSERT INTO items VALUES ({key}, '[{key},0,1]')");
                let mut pause = PACE;
                match connection.rows(&insert) {
                    Ok(_) => {
                        told.push(key);
                        lock(&seen).acknowledged.insert(key, SystemTime::now());
                    }
                    Err(error) => {
                        let mut seen = lock(&seen);
                        seen.errors += 1;
                        seen.last_error = error.to_string();
                        pause = PAUSE;
                    }
                }
                if let Some(key) = random.pick(&told)
                    && let Ok(0) =
                        connection.rows(&format!("SELECT id FROM items WHERE id = {key}"))
                {
                    lock(&seen).misses.push(Miss { key, at: SystemTime::now() });
                }
                thread::park_timeout(pause);
            }
        });
        Client { thread: Some(thread), stopped, history }
    }

    pub fn acknowledged(&self) -> usize {
        lock(&self.history).acknowledged.len()
    }

    pub fn last_error(&self) -> String {
        lock(&self.history).last_error.clone()
    }

    /// Ends with the row that is on its way.
    pub fn finish(mut self) -> History {
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it has not finished yet");
        thread.join().expect("a client does not panic");
        lock(&self.history).clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

struct Connection {
    target: Target,
    session: Option<Session>,
}

impl Connection {
    fn rows(&mut self, sql: &str) -> Result<usize, SqlError> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            let socket = lock(&self.target.socket).clone();
            let mut session = Session::connect(&socket, self.target.port, "postgres", "postgres")?;
            session.try_rows("SET statement_timeout = '3s'")?;
            self.session = Some(session);
        }
        self.session.as_mut().expect("just set").try_rows(sql).map(|rows| rows.len())
    }
}
