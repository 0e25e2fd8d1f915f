//! Owns one libpq connection without blocking: connect, one query at a time, close.
//! Must not touch PostgreSQL's own machinery: it runs inside the async runtime, where an ERROR
//! could not unwind.

use super::helpers::{self, Errand};
use crate::error::one_line;
use decide::login::{LoginFailure, LoginFailureKind};
use pq_sys as pq;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The value of `require_auth` that keeps a password from being sent as it is.
pub const NO_CLEARTEXT: &str = "!password";

/// The value of `require_auth` with which nothing is proved, except by a certificate.
pub const NO_PROOF: &str = "none";

/// More than this from a server in one login is not an answer to what a probe asks.
const MOST_BYTES: usize = 1 << 20;

type Result<T> = std::result::Result<T, LoginFailure>;

/// A connection that is closed when it goes out of scope.
pub struct Login {
    connection: *mut pq::PGconn,
    /// What the server may still send.
    allowance: usize,
}

// SAFETY: libpq lets any thread use a connection, as long as only one does; whoever owns this is the one.
unsafe impl Send for Login {}

impl Login {
    /// Logs in with libpq keywords and values; the caller bounds the time by dropping the future.
    pub async fn connect(parameters: &[(String, String)], errand: Errand) -> Result<Self> {
        use pq::PostgresPollingStatusType as Poll;
        let parameters = parameters.to_vec();
        let begun = helpers::perform(errand, move || Self::begin(&parameters)).await;
        let mut login = begun.map_err(no_helper)??;
        let mut wanted = Poll::PGRES_POLLING_WRITING;
        while wanted != Poll::PGRES_POLLING_OK {
            if wanted == Poll::PGRES_POLLING_READING {
                login.ready(Interest::READABLE).await?;
                login.spend()?;
            } else {
                login.ready(Interest::WRITABLE).await?;
            }
            let taken = helpers::perform(errand, move || login.step()).await;
            (login, wanted) = taken.map_err(no_helper)??;
        }
        // SAFETY: the connection is valid until `drop`.
        unsafe { pq::PQsetnonblocking(login.connection, 1) };
        Ok(login)
    }

    /// On a helper, as every step of a login.
    fn begin(parameters: &[(String, String)]) -> Result<Self> {
        let texts: Vec<(CString, CString)> = parameters
            .iter()
            .map(|(key, value)| Ok((c_string(key)?, c_string(value)?)))
            .collect::<Result<_>>()?;
        let end = std::iter::once(std::ptr::null());
        let keys: Vec<*const c_char> =
            texts.iter().map(|(key, _)| key.as_ptr()).chain(end.clone()).collect();
        let values: Vec<*const c_char> =
            texts.iter().map(|(_, value)| value.as_ptr()).chain(end).collect();
        // SAFETY: two null-terminated arrays of strings that outlive the call, which copies them.
        let connection = unsafe { pq::PQconnectStartParams(keys.as_ptr(), values.as_ptr(), 0) };
        if connection.is_null() {
            return Err(failure(LoginFailureKind::Other, "out of memory"));
        }
        let login = Self { connection, allowance: MOST_BYTES };
        // SAFETY: the connection is valid until `drop`.
        unsafe {
            // The SQLSTATE of a refused login is in the message only at this verbosity.
            pq::PQsetErrorVerbosity(connection, pq::PGVerbosity::PQERRORS_VERBOSE);
            // By default whatever a stranger has to say would end up in our server's log.
            pq::PQsetNoticeReceiver(connection, Some(ignore), std::ptr::null_mut());
        }
        match login.status() {
            pq::ConnStatusType::CONNECTION_BAD => Err(login.failed_in(login.status())),
            _ => Ok(login),
        }
    }

    /// Goes on with the login, which is ready for it, and says what it wants next.
    fn step(self) -> Result<(Self, pq::PostgresPollingStatusType)> {
        // When polling fails the status is BAD: the phase that failed is the one before.
        let phase = self.status();
        // SAFETY: the connection is valid until `drop`, and polled only when its socket is ready.
        match unsafe { pq::PQconnectPoll(self.connection) } {
            pq::PostgresPollingStatusType::PGRES_POLLING_FAILED => Err(self.failed_in(phase)),
            wanted => Ok((self, wanted)),
        }
    }

    fn failed_in(&self, phase: pq::ConnStatusType) -> LoginFailure {
        classify(phase, self.wants_password(), &self.message())
    }

    /// Lets the server send this many bytes more than a probe needs.
    pub fn allow(&mut self, bytes: usize) {
        self.allowance = self.allowance.saturating_add(bytes);
    }

    /// Whether the server let this side in by a password.
    pub fn used_password(&self) -> bool {
        // SAFETY: the connection is valid until `drop`.
        unsafe { pq::PQconnectionUsedPassword(self.connection) == 1 }
    }

    /// Runs one statement and returns its first column of its first row.
    pub async fn value(&mut self, statement: &str, parameters: &[&str]) -> Result<String> {
        self.run(statement, parameters)
            .await?
            .ok_or_else(|| failure(LoginFailureKind::Protocol, "the query brought no answer"))
    }

    /// Runs one statement that returns no rows.
    pub async fn command(&mut self, statement: &str, parameters: &[&str]) -> Result<()> {
        self.run(statement, parameters).await.map(drop)
    }

    async fn run(&mut self, statement: &str, parameters: &[&str]) -> Result<Option<String>> {
        let statement = c_string(statement)?;
        let parameters: Vec<CString> =
            parameters.iter().map(|value| c_string(value)).collect::<Result<_>>()?;
        let values: Vec<*const c_char> = parameters.iter().map(|value| value.as_ptr()).collect();
        // SAFETY: text parameters in text format, all alive during the call, which copies them.
        let sent = unsafe {
            pq::PQsendQueryParams(
                self.connection,
                statement.as_ptr(),
                c_int::try_from(values.len()).unwrap_or_default(),
                std::ptr::null(),
                values.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                0,
            )
        };
        if sent == 0 {
            return Err(self.broken());
        }
        self.flush().await?;
        let mut value = None;
        while let Some(answer) = self.answer().await? {
            value = answer?;
        }
        Ok(value)
    }

    async fn flush(&mut self) -> Result<()> {
        loop {
            // SAFETY: the connection is valid until `drop`.
            match unsafe { pq::PQflush(self.connection) } {
                0 => return Ok(()),
                1 => {
                    self.ready(Interest::READABLE | Interest::WRITABLE).await?;
                    // A server that talks instead of listening is heard, or it would be a busy wait.
                    self.spend()?;
                    // SAFETY: as above.
                    if unsafe { pq::PQconsumeInput(self.connection) } == 0 {
                        return Err(self.broken());
                    }
                }
                _ => return Err(self.broken()),
            }
        }
    }

    /// The next result of the statement, with its value where it has one; none after the last.
    async fn answer(&mut self) -> Result<Option<Result<Option<String>>>> {
        // SAFETY: the connection is valid until `drop`.
        while unsafe { pq::PQisBusy(self.connection) } == 1 {
            self.ready(Interest::READABLE).await?;
            self.spend()?;
            // SAFETY: as above.
            if unsafe { pq::PQconsumeInput(self.connection) } == 0 {
                return Err(self.broken());
            }
        }
        // SAFETY: not busy, so this does not block; the result is cleared below.
        let result = unsafe { pq::PQgetResult(self.connection) };
        if result.is_null() {
            return Ok(None);
        }
        // SAFETY: a valid result, its strings copied before it is cleared.
        let value = unsafe {
            let value = match pq::PQresultStatus(result) {
                pq::ExecStatusType::PGRES_TUPLES_OK if pq::PQntuples(result) == 1 => {
                    Ok(Some(text(pq::PQgetvalue(result, 0, 0))))
                }
                pq::ExecStatusType::PGRES_COMMAND_OK => Ok(None),
                _ => Err(failure(LoginFailureKind::Other, &text(pq::PQresultErrorMessage(result)))),
            };
            pq::PQclear(result);
            value
        };
        Ok(Some(value))
    }

    /// Waits for the socket, which libpq may have exchanged since the last time.
    async fn ready(&self, interest: Interest) -> Result<()> {
        // SAFETY: the connection is valid until `drop`.
        let socket = unsafe { pq::PQsocket(self.connection) };
        if socket < 0 {
            return Err(self.broken());
        }
        // SAFETY: libpq closes the socket in its own calls only, and the watch ends before the next.
        let watched = unsafe { AsyncFd::register_with_interest(socket, interest) }
            .map_err(|error| failure(LoginFailureKind::Other, &error.to_string()))?;
        watched
            .ready(interest)
            .await
            .map(drop)
            .map_err(|error| failure(LoginFailureKind::Other, &error.to_string()))
    }

    /// Counts what has arrived, so that an endless answer ends before it fills the memory.
    fn spend(&mut self) -> Result<()> {
        let mut arrived: c_int = 0;
        // SAFETY: FIONREAD writes one int; the socket is the connection's own.
        unsafe { libc::ioctl(pq::PQsocket(self.connection), libc::FIONREAD, &mut arrived) };
        self.allowance =
            self.allowance
                .checked_sub(usize::try_from(arrived).unwrap_or_default())
                .ok_or_else(|| failure(LoginFailureKind::Protocol, "the answer is too large"))?;
        Ok(())
    }

    fn status(&self) -> pq::ConnStatusType {
        // SAFETY: the connection is valid until `drop`.
        unsafe { pq::PQstatus(self.connection) }
    }

    /// Whether the login ended because the server asked for a password that nobody has set.
    fn wants_password(&self) -> bool {
        // SAFETY: as above.
        unsafe { pq::PQconnectionNeedsPassword(self.connection) == 1 }
    }

    fn message(&self) -> String {
        // SAFETY: as above; the text is copied.
        unsafe { text(pq::PQerrorMessage(self.connection)) }
    }

    fn broken(&self) -> LoginFailure {
        failure(LoginFailureKind::Protocol, &self.message())
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        // SAFETY: the connection was made by `connect` and is finished once.
        unsafe { pq::PQfinish(self.connection) };
    }
}

unsafe extern "C" fn ignore(_: *mut std::ffi::c_void, _: *const pq::PGresult) {}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| failure(LoginFailureKind::Other, "a parameter has a zero byte"))
}

unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: libpq hands out NUL-terminated strings.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn no_helper(error: io::Error) -> LoginFailure {
    failure(LoginFailureKind::Other, &format!("no thread to log in on: {error}"))
}

fn failure(kind: LoginFailureKind, message: &str) -> LoginFailure {
    LoginFailure { kind, message: one_line(message) }
}

/// What a failed login means. The server's texts are in its own language, so its refusal is known by its
/// SQLSTATE. A failed system call has the text that strerror(3) gives; for helpers, on which this runs, that
/// is English, and so are libpq's own words. The rest follows from the phase that failed.
fn classify(phase: pq::ConnStatusType, wants_password: bool, message: &str) -> LoginFailure {
    use LoginFailureKind as Kind;
    if let Some((sqlstate, words)) = server_refusal(message) {
        let kind = match sqlstate {
            "28P01" => Kind::WrongPassword,
            "28000" => Kind::NotPermitted,
            "3D000" => Kind::DatabaseMissing,
            "57P03" => Kind::StartingUp,
            "53300" => Kind::TooManyConnections,
            _ => Kind::Other,
        };
        return failure(kind, words);
    }
    let says = |errno| message.contains(&strerror(errno));
    // libpq quotes the requirement that the server's demand would break.
    let breaks = |required| message.contains(&format!("requirement \"{required}\""));
    let kind = match phase {
        _ if says(libc::ECONNREFUSED) => Kind::Refused,
        _ if [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ENETDOWN, libc::EHOSTDOWN]
            .into_iter()
            .any(says) =>
        {
            Kind::NoRoute
        }
        _ if says(libc::ETIMEDOUT) => Kind::Timeout,
        pq::ConnStatusType::CONNECTION_SSL_STARTUP => Kind::Tls,
        // Whatever a server asks for, it got nothing: another way to log in may be tried.
        _ if message.contains("channel binding") || breaks(NO_PROOF) => Kind::PasswordNotBound,
        _ if wants_password || breaks(NO_CLEARTEXT) => Kind::WrongPassword,
        pq::ConnStatusType::CONNECTION_STARTED | pq::ConnStatusType::CONNECTION_BAD => Kind::Other,
        _ => Kind::Protocol,
    };
    failure(kind, first_line(message))
}

/// Takes `…FATAL:  28P01: password authentication failed…` apart; the severity may be translated.
fn server_refusal(message: &str) -> Option<(&str, &str)> {
    message.lines().find_map(|line| {
        line.match_indices(":  ").find_map(|(at, mark)| {
            let rest = &line[at + mark.len()..];
            let (sqlstate, words) = rest.split_once(": ")?;
            let is_sqlstate = sqlstate.len() == 5
                && sqlstate.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
            is_sqlstate.then_some((sqlstate, words))
        })
    })
}

fn first_line(message: &str) -> &str {
    message.lines().find(|line| !line.trim().is_empty()).unwrap_or("connection failed")
}

fn strerror(errno: c_int) -> String {
    let mut buffer = [0 as c_char; 128];
    // SAFETY: the buffer's length is passed with it, and the XSI function always terminates it.
    unsafe {
        libc::strerror_r(errno, buffer.as_mut_ptr(), buffer.len());
        text(buffer.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pq::ConnStatusType::*;

    #[test]
    fn a_refusal_is_known_by_its_sqlstate_in_any_language() {
        for (message, kind) in [
            (
                "connection to server at \"h\" (10.0.0.1), port 1 failed: FATAL:  28P01: password authentication failed for user \"p\"\nLOCATION:  auth_failed, auth.c:319",
                LoginFailureKind::WrongPassword,
            ),
            (
                "connection failed: SCHWERWIEGEND:  3D000: Datenbank „x“ existiert nicht",
                LoginFailureKind::DatabaseMissing,
            ),
            ("x: FATAL:  57P03: the database system is starting up", LoginFailureKind::StartingUp),
            (
                "x: FATAL:  53300: sorry, too many clients already",
                LoginFailureKind::TooManyConnections,
            ),
            ("x: FATAL:  28000: no pg_hba.conf entry", LoginFailureKind::NotPermitted),
        ] {
            assert_eq!(
                classify(CONNECTION_AWAITING_RESPONSE, false, message).kind,
                kind,
                "{message}"
            );
        }
    }

    #[test]
    fn the_rest_is_known_by_errno_and_phase() {
        let refused = format!(
            "connection to server failed: {}\n\tIs the server running?",
            strerror(libc::ECONNREFUSED)
        );
        let kind = |phase, wants_password, message| classify(phase, wants_password, message).kind;
        assert_eq!(kind(CONNECTION_STARTED, false, &refused), LoginFailureKind::Refused);
        assert_eq!(
            kind(CONNECTION_SSL_STARTUP, false, "certificate verify failed"),
            LoginFailureKind::Tls
        );
        assert_eq!(
            kind(CONNECTION_AWAITING_RESPONSE, true, "no password supplied"),
            LoginFailureKind::WrongPassword
        );
        let demanded = "authentication method requirement \"!password\" failed: server requested a cleartext password";
        assert_eq!(
            kind(CONNECTION_AWAITING_RESPONSE, false, demanded),
            LoginFailureKind::WrongPassword
        );
        for unbound in [
            "authentication method requirement \"none\" failed: server requested SASL authentication",
            "channel binding required, but SSL not in use",
            "channel binding required, but server authenticated client without channel binding",
            "channel binding required but not supported by server's authentication request",
            "channel binding is required, but server did not offer an authentication method that supports channel binding",
        ] {
            assert_eq!(
                kind(CONNECTION_AWAITING_RESPONSE, true, unbound),
                LoginFailureKind::PasswordNotBound
            );
        }
        assert_eq!(
            kind(CONNECTION_AWAITING_RESPONSE, false, "expected authentication request, got x"),
            LoginFailureKind::Protocol
        );
        assert_eq!(
            kind(CONNECTION_MADE, false, "server closed the connection"),
            LoginFailureKind::Protocol
        );
    }
}
