//! Owns talking SQL to a server, in text both ways, with errors taken apart for assertions.
//! Must not retry: what a statement did once is what the test sees.

use postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use std::fmt;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// One row of text; NULL reads as the empty string.
pub struct Row(SimpleQueryRow);

impl std::ops::Index<&str> for Row {
    type Output = str;

    #[track_caller]
    fn index(&self, column: &str) -> &str {
        match self.0.try_get(column) {
            Ok(value) => value.unwrap_or(""),
            Err(_) => panic!("there is no column {column} in {self:?}"),
        }
    }
}

impl Row {
    pub fn first(&self) -> &str {
        self.0.get(0).unwrap_or("")
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.0.columns().iter().enumerate();
        f.debug_map()
            .entries(values.map(|(n, c)| (c.name(), self.0.get(n).unwrap_or("∅"))))
            .finish()
    }
}

/// What the server, or the way to it, answered instead of rows.
#[derive(Debug, Clone, Default)]
pub struct SqlError {
    /// The SQLSTATE; empty when the connection itself failed.
    pub state: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.state, self.message)?;
        for (label, text) in [("DETAIL", &self.detail), ("HINT", &self.hint)] {
            if !text.is_empty() {
                write!(f, " {label}: {text}")?;
            }
        }
        Ok(())
    }
}

impl From<postgres::Error> for SqlError {
    fn from(error: postgres::Error) -> SqlError {
        match error.as_db_error() {
            Some(db) => SqlError {
                state: db.code().code().to_string(),
                message: db.message().to_string(),
                detail: db.detail().unwrap_or_default().to_string(),
                hint: db.hint().unwrap_or_default().to_string(),
            },
            None => {
                let mut message = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    message = format!("{message}: {inner}");
                    cause = inner.source();
                }
                SqlError {
                    state: String::new(),
                    message,
                    detail: String::new(),
                    hint: String::new(),
                }
            }
        }
    }
}

/// One connection: through the server's socket, and so past whatever pg_hba.conf says of hosts, unless it
/// is opened otherwise.
pub struct Session {
    client: Client,
    cancel: postgres::CancelToken,
}

impl Session {
    pub fn connect(
        socket: &Path,
        port: u16,
        user: &str,
        database: &str,
    ) -> Result<Session, SqlError> {
        Session::open(Config::new().host_path(socket), port, user, database)
    }

    /// The same over TCP, without TLS, for a server that asks for a password.
    pub fn connect_by_password(
        address: Ipv4Addr,
        port: u16,
        user: &str,
        database: &str,
        password: &str,
    ) -> Result<Session, SqlError> {
        let mut config = Config::new();
        Session::open(config.host(&address.to_string()).password(password), port, user, database)
    }

    fn open(
        config: &mut Config,
        port: u16,
        user: &str,
        database: &str,
    ) -> Result<Session, SqlError> {
        let client = config
            .port(port)
            .user(user)
            .dbname(database)
            .application_name("citus_fleet_tests")
            .connect_timeout(Duration::from_secs(10))
            // So that a statement that hangs fails its test instead of the whole run.
            .options("-c statement_timeout=60s")
            .connect(NoTls)?;
        let cancel = client.cancel_token();
        Ok(Session { client, cancel })
    }

    /// The rows of the last statement in `sql` that gave any.
    pub fn try_rows(&mut self, sql: &str) -> Result<Vec<Row>, SqlError> {
        let messages = self.client.simple_query(sql)?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(Row(row)),
                _ => None,
            })
            .collect())
    }

    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<Row> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{sql}\n  {error}"))
    }

    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        self.rows(sql);
    }

    /// Runs a `COPY … FROM STDIN` with these lines.
    #[track_caller]
    pub fn copy(&mut self, sql: &str, mut lines: impl Iterator<Item = String>) {
        let mut copied = || -> Result<u64, SqlError> {
            let mut writer = self.client.copy_in(sql)?;
            // Why a line is not taken is told at the end.
            let _ = lines.try_for_each(|line| writer.write_all(line.as_bytes()));
            Ok(writer.finish()?)
        };
        copied().unwrap_or_else(|error| panic!("{sql}\n  {error}"));
    }

    /// The first column of the only row.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        match self.rows(sql).as_slice() {
            [row] => row.first().to_string(),
            rows => panic!("{sql}\n  gave {} rows instead of one: {rows:?}", rows.len()),
        }
    }

    #[track_caller]
    pub fn error(&mut self, sql: &str) -> SqlError {
        match self.try_rows(sql) {
            Err(error) => error,
            Ok(rows) => panic!("{sql}\n  should have failed, and gave {rows:?}"),
        }
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub fn pid(&mut self) -> u32 {
        self.value("SELECT pg_catalog.pg_backend_pid()").parse().expect("a process id")
    }

    pub fn canceller(&self) -> postgres::CancelToken {
        self.cancel.clone()
    }
}
