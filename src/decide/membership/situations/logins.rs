//! Owns the situations of whoever cannot be logged in to: the kind chooses the row, the words are the
//! server's or libpq's own. Must not tell a candidate from a worker.

use super::row::WayOut::{self, Do, Tell};
use super::row::When::{self, Login};
use super::row::{Facts, ROW, Row};
use crate::login::{LoginFailure, LoginFailureKind as Kind};
use crate::membership::state::State;
use crate::membership::verdict::Verdict;

/// Each is a row of one shape: nobody is registered or followed on the strength of a failed login.
const fn row(
    code: &'static str,
    when: &'static [When],
    reason: &'static str,
    cause: &'static str,
    way_out: WayOut,
) -> Row {
    Row { code, state: State::Unreachable, when, reason, cause, way_out, ..ROW }
}

pub(super) const TABLE: &[Row] = &[
    row(
        "name_unresolved",
        &[Login(Kind::Unresolvable)],
        "its name does not resolve: {message}",
        "DNS says that the name of its row does not exist, or the name is none.",
        Do("Check the name in pg_dist_node against DNS as this host's resolver sees it."),
    ),
    row(
        "no_route",
        &[Login(Kind::NoRoute)],
        "no route to it: {message}",
        "The network does not lead there.",
        Do("Check the network between the coordinator and it."),
    ),
    row(
        "connection_refused",
        &[Login(Kind::Refused)],
        "connection refused: {message}",
        "The host is there, and nobody listens at the port.",
        Do("Start PostgreSQL there, and check its port and listen_addresses."),
    ),
    row(
        "no_answer",
        &[Login(Kind::Timeout)],
        "no answer in time: {message}",
        "The host is down, a firewall drops packets, or the server hangs.",
        Do(
            "Check that it runs and that no firewall drops packets; citus_fleet.probe_timeout is the deadline.",
        ),
    ),
    row(
        "tls_failed",
        &[Login(Kind::Tls)],
        "TLS failed: {message}",
        "The two sides do not agree on TLS, or the certificate is not for that name. Citus turns ssl on where it is created: a server without the extension usually has none.",
        Do(
            "On a server without Citus: CREATE EXTENSION citus; in its database, which makes a certificate and turns ssl on. Else check sslmode and sslrootcert in citus.node_conninfo against its certificate and its ssl setting.",
        ),
    ),
    row(
        "wrong_password",
        &[Login(Kind::WrongPassword)],
        "authentication failed: {message}",
        "The password that Citus would use is not the one of the role there, or would be sent in the clear.",
        Do(
            "Put the right password into pg_dist_authinfo (or the password file) and use scram-sha-256 in its pg_hba.conf.",
        ),
    ),
    row(
        "password_not_bound",
        &[Login(Kind::PasswordNotBound)],
        "it asks for a proof of the password that whoever gets it could pass on: {message}",
        "It is no registered worker, and wants a password without TLS, or by another method than scram-sha-256. No proof was sent.",
        Do(
            "Set ssl = on and scram-sha-256 in pg_hba.conf there, and sslmode=require or better in citus.node_conninfo. Where the network and DNS are trusted, set citus_fleet.unbound_passwords = on instead.",
        ),
    ),
    row(
        "not_permitted",
        &[Login(Kind::NotPermitted)],
        "it does not let the coordinator in: {message}",
        "Its pg_hba.conf has no line for the coordinator, or the role may not log in.",
        Do("Add the coordinator's address and role to its pg_hba.conf and reload it."),
    ),
    row(
        "database_missing",
        &[Login(Kind::DatabaseMissing)],
        "the database does not exist there: {message}",
        "Citus uses a database of one name on all nodes.",
        Do("Create the database there, and the extension citus in it."),
    ),
    row(
        "starting_up",
        &[Login(Kind::StartingUp)],
        "it is starting up or shutting down: {message}",
        "The server is there and lets nobody in yet.",
        Tell("Wait: it is tried again by itself."),
    ),
    row(
        "too_many_connections",
        &[Login(Kind::TooManyConnections)],
        "it has no connection slot left: {message}",
        "max_connections is reached there.",
        Do("Raise max_connections there or close sessions."),
    ),
    row(
        "login_computing",
        &[Login(Kind::Computing)],
        "what it wants to be proved takes too long to compute: {message}",
        "It asked for more iterations of SCRAM than can be computed within citus_fleet.probe_timeout. It is asked again when the computation is over.",
        Do(
            "Give the role there a password that was set with the usual scram_iterations; take the endpoint out of the sources if it is not yours.",
        ),
    ),
    row(
        "logins_crowded",
        &[Login(Kind::Crowded)],
        "it is not asked for now: {message}",
        "Too many endpoints have kept this server computing (login_computing). Registered workers are asked all the same.",
        Do(
            "Take the endpoints that are login_computing in fleet.workers out of the sources; it is asked when their computations are over.",
        ),
    ),
    row(
        "not_postgresql",
        &[Login(Kind::Protocol)],
        "what answers there is not a working PostgreSQL server: {message}",
        "Something else listens at the port, or its answers make no sense.",
        Do("Check the address and the port of the source."),
    ),
    OTHER,
];

/// What no other row knows.
pub(super) const OTHER: Row = row(
    "login_failed",
    &[Login(Kind::Other)],
    "the login failed: {message}",
    "A failure that has no word of its own.",
    Do("Look into its log."),
);

/// What is said of a login that failed.
pub fn of_login(failure: &LoginFailure) -> Verdict {
    let is_it = |row: &&Row| matches!(row.when, [Login(kind)] if *kind == failure.kind);
    TABLE.iter().find(is_it).unwrap_or(&OTHER).verdict(&facts(failure))
}

pub(super) fn of_kind(kind: Kind, failure: &LoginFailure) -> Option<Facts> {
    (kind == failure.kind).then(|| facts(failure))
}

fn facts(failure: &LoginFailure) -> Facts {
    vec![("message", failure.message.clone())]
}
