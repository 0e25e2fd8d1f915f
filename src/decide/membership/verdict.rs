//! Owns the shape of a judgement: a state, the fact that led to it, and what an operator can do.
//! Must not look at evidence; `preflight` and `membership` do and call the constructors here.

use super::model::State;
use crate::login::{LoginFailure, LoginFailureKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub reason: Option<String>,
    pub remedy: Option<String>,
}

impl Verdict {
    pub fn active() -> Self {
        Self { state: State::Active, reason: None, remedy: None }
    }

    pub fn new(state: State, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state, reason: Some(reason.into()), remedy: Some(remedy.into()) }
    }

    pub fn without_remedy(state: State, reason: impl Into<String>) -> Self {
        Self { state, reason: Some(reason.into()), remedy: None }
    }

    pub fn refused(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(State::Refused, reason, remedy)
    }

    pub fn ready(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(State::Ready, reason, remedy)
    }

    /// A server that could not be logged in to: the kind chooses the remedy, the words are its own.
    pub fn unreachable(failure: &LoginFailure) -> Self {
        use LoginFailureKind as Kind;
        let (what, remedy) = match failure.kind {
            Kind::Unresolvable => (
                "its name does not resolve",
                "Check the name in pg_dist_node against DNS as this host's resolver sees it.",
            ),
            Kind::NoRoute => {
                ("no route to it", "Check the network between the coordinator and it.")
            }
            Kind::Refused => (
                "connection refused",
                "Start PostgreSQL there, and check its port and listen_addresses.",
            ),
            Kind::Timeout => (
                "no answer in time",
                "Check that it runs and that no firewall drops packets; citus_fleet.probe_timeout is the deadline.",
            ),
            Kind::Tls => (
                "TLS failed",
                "Check sslmode and sslrootcert in citus.node_conninfo against its certificate and its ssl setting.",
            ),
            Kind::WrongPassword => (
                "authentication failed",
                "Put the right password into pg_dist_authinfo (or the password file) and use scram-sha-256 in its pg_hba.conf.",
            ),
            Kind::NotPermitted => (
                "it does not let the coordinator in",
                "Add the coordinator's address and role to its pg_hba.conf and reload it.",
            ),
            Kind::DatabaseMissing => (
                "the database does not exist there",
                "Create the database there, and the extension citus in it.",
            ),
            Kind::StartingUp => {
                ("it is starting up or shutting down", "Wait: it is tried again by itself.")
            }
            Kind::TooManyConnections => {
                ("it has no connection slot left", "Raise max_connections there or close sessions.")
            }
            Kind::Protocol => (
                "what answers there is not a working PostgreSQL server",
                "Check the address and the port of the source.",
            ),
            Kind::Other => ("the login failed", "Look into its log."),
        };
        Self::new(State::Unreachable, format!("{what}: {}", failure.message), remedy)
    }
}
