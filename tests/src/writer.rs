//! Owns a client that inserts one row after another for as long as a test lasts, whatever happens to
//! the servers, and the comparison of what it was promised with what is there.
//! Must not hide a loss: a row counts once the server has said that it is in, and is never sent again.

use crate::run;
use crate::server::{Server, Session, SqlError};
use crate::wait::until;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long one row may be refused before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The table that writers write to; rows are `(n, '[n,0,1]')` with n from 1 on, without gaps.
pub const ITEMS: &str = "CREATE TABLE items (id bigint PRIMARY KEY, v vector(3))";

/// Puts the rows from 1 to `last` into `items`.
#[track_caller]
pub fn fill(server: &Server, last: u64) {
    server.run(&format!(
        "INSERT INTO items SELECT n, format('[%s,0,1]', n)::vector FROM generate_series(1, {last}) n"
    ));
}

/// Checks that `items` holds the rows from 1 to `last`, each once, and no other.
#[track_caller]
pub fn assert_exact(server: &Server, last: u64) {
    let rows = server.session().rows("SELECT id, v FROM items ORDER BY id");
    let found: Vec<(String, String)> =
        rows.iter().map(|row| (row["id"].to_string(), row["v"].to_string())).collect();
    let wanted: Vec<(String, String)> =
        (1..=last).map(|n| (n.to_string(), format!("[{n},0,1]"))).collect();
    if found == wanted {
        return;
    }
    let missing = |rows: &[(String, String)], from: &[(String, String)]| -> Vec<String> {
        let from: BTreeSet<_> = from.iter().collect();
        rows.iter().filter(|row| !from.contains(row)).take(10).map(|row| row.0.clone()).collect()
    };
    panic!(
        "{} rows instead of {last}; lost: {:?}; not ours: {:?}",
        found.len(),
        missing(&wanted, &found),
        missing(&found, &wanted)
    );
}

pub struct Writer {
    thread: Option<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    /// Begins to insert the rows after `last`, through the server's socket.
    #[track_caller]
    pub fn start(server: &Server, last: u64) -> Writer {
        Writer::through(&[server], last)
    }

    /// The same through whichever of several servers accepts writes, as libpq does that is given
    /// several hosts and `target_session_attrs=read-write`.
    #[track_caller]
    pub fn through(servers: &[&Server], last: u64) -> Writer {
        let stopped = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(last));
        let sockets = servers.iter().map(|server| server.directory().to_path_buf()).collect();
        let mut client = Client { sockets, port: servers[0].port, session: None };
        let (stop, done, test) = (stopped.clone(), acknowledged.clone(), run::current_test());
        let thread = thread::spawn(move || {
            run::join_test(test);
            while !stop.load(Ordering::Relaxed) {
                client.insert(done.load(Ordering::Relaxed) + 1);
                done.fetch_add(1, Ordering::Relaxed);
                // Not as fast as it can: the servers have other things to do.
                thread::park_timeout(Duration::from_millis(3));
            }
        });
        Writer { thread: Some(thread), stopped, acknowledged }
    }

    /// The last row that is in.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until enough further rows are in to have met every shard.
    #[track_caller]
    pub fn wait_for_more(&self) {
        let wanted = self.acknowledged() + 100;
        until("the client's rows get in", PATIENCE, || match self.acknowledged() {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        });
    }

    /// Ends with the row that is on its way, and says which is the last one that is in.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it has not finished yet");
        thread.join().expect("every row gets in at last");
        self.acknowledged()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

struct Client {
    /// The first one is in use; after an error it is another one's turn.
    sockets: Vec<PathBuf>,
    port: u16,
    session: Option<Session>,
}

impl Client {
    /// Inserts a row as an application does: an error is retried, and "it is there already" then
    /// means that the attempt before had succeeded unheard.
    fn insert(&mut self, id: u64) {
        let mut failed = false;
        until(&format!("row {id} gets in"), PATIENCE, || match self.try_insert(id) {
            Ok(()) => Ok(()),
            Err(error) if failed && error.state == "23505" => Ok(()),
            Err(error) => {
                failed = true;
                if self.sockets.len() > 1 {
                    self.sockets.rotate_left(1);
                    self.session = None;
                }
                Err(error)
            }
        });
    }

    fn try_insert(&mut self, id: u64) -> Result<(), SqlError> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            let mut session =
                Session::connect(&self.sockets[0], self.port, "postgres", "postgres")?;
            session.try_rows("SET statement_timeout = '5s'")?;
            self.session = Some(session);
        }
        let session = self.session.as_mut().expect("just set");
        session.try_rows(&format!("INSERT INTO items VALUES ({id}, '[{id},0,1]')")).map(drop)
    }
}
