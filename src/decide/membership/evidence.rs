//! Owns the evidence that the table of situations is read with: one endpoint, or one row of
//! `pg_dist_node`, with all that its situation depends on.
//! Must not say what it means: `situations` does.

use super::candidate::Candidate;
use super::cause::Cause;
use super::change::ChangeFailure;
use super::coordinator::{Coordinator, DistNode, Identity, Removed};
use super::endpoint::Endpoint;
use super::lineage::Descent;
use super::observation::Hold;
use super::server::{Membership, Server};
use super::state::State;
use super::verdict::Verdict;
use super::whereabouts::Whereabouts;
use crate::configuration::names::HostName;
use crate::configuration::policy::Policy;
use crate::login::{LoginFailure, LoginFailureKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A server that no row of `pg_dist_node` leads to.
pub struct Newcomer<'a> {
    pub at: SocketAddr,
    /// What it would be registered as.
    pub nodename: String,
    pub endpoint: Option<&'a Endpoint>,
    pub coordinator: &'a Coordinator,
    pub bar: Option<Bar>,
    /// Another server with its system identifier.
    pub twin: Option<Twin>,
    /// The row of `pg_dist_node` that has its name and port.
    pub holder: Option<i32>,
    /// The row of `pg_dist_node` by which it is a clone.
    pub clone: Option<&'a DistNode>,
    /// Looked for only where nothing else keeps it from being registered, as the next one is.
    pub hindrance: Option<Hindrance>,
    /// What it said is too old to act on.
    pub is_stale: bool,
}

/// Why an endpoint may not even be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bar {
    Name(HostName),
    Network(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// It runs at that address.
    Runs(SocketAddr),
    /// The two answers are from different times: a restart may lie between them.
    Unsure(SocketAddr),
}

/// What keeps a change that is wanted from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    NoCitus,
    /// It has neither a row of its own nor `citus_fleet.coordinator_host`.
    NoOwnAddress,
    /// The coordinator is registered as `localhost`.
    OnLocalhost,
    /// A worker keeps Citus from adding any other, and how it does.
    Worker(String),
    Held(Hold),
    /// The last attempt failed, and the next one is not due.
    Failed {
        attempts: u32,
        reason: String,
        cause: Cause,
    },
    /// So many have hung just now while they joined.
    OthersHang(usize),
    /// The coordinator's address, `name:port`, which workers would be given, leads nowhere; whether this
    /// server has been seen there since it started.
    OwnUnresolved {
        own: String,
        is_proved: bool,
    },
    OwnUnchecked,
    /// This worker, `name:port`, knows other nodes than the coordinator.
    NodesDiffer(String),
    OwnStale,
    OwnElsewhere {
        own: String,
        at: SocketAddr,
        system_identifier: i64,
        /// It has this server's own identity: one of the two is a copy of the other.
        is_twin: bool,
    },
    OwnUnreachable {
        own: String,
        failure: LoginFailure,
        is_proved: bool,
    },
}

impl Hindrance {
    /// Whether this server may not be the coordinator, so that nothing at all may be changed.
    pub fn is_about_the_coordinator(&self) -> bool {
        matches!(self, Self::OwnUnchecked | Self::NodesDiffer(_)) || self.is_about_its_address()
    }

    /// Whether this server is not known to be at the coordinator's address: then operators may not have it
    /// change anything either.
    pub fn is_about_its_address(&self) -> bool {
        match self {
            Self::NoOwnAddress | Self::OwnElsewhere { .. } => true,
            Self::OwnUnresolved { is_proved, .. } | Self::OwnUnreachable { is_proved, .. } => {
                !is_proved
            }
            _ => false,
        }
    }
}

/// A row of `pg_dist_node`, and what answers where it leads.
pub struct AtHome<'a> {
    pub row: &'a DistNode,
    pub identity: Option<&'a Identity>,
    /// Where its name leads, or last led.
    pub endpoints: &'a [SocketAddr],
    /// Its name leads nowhere any more.
    pub is_name_lost: bool,
    /// More than one server answers there.
    pub is_shared: bool,
    /// Two servers answer by turns at one of its addresses.
    pub turns_at: Option<SocketAddr>,
    pub server: Option<&'a Server>,
    /// Why nobody lets us in there.
    pub failure: Option<LoginFailure>,
    /// What its metadata should call the coordinator, `name:port`; none where it may not know yet.
    pub coordinator: Option<String>,
    /// How the nodes in its metadata differ from the coordinator's, where that has lasted.
    pub difference: Option<String>,
    /// `citus_fleet.max_lost_wal`.
    pub max_lost_wal: Option<u64>,
    /// How long no source has named it, where that is long enough, and it is silent wherever its name
    /// leads or last led.
    pub gone_for: Option<Duration>,
}

/// A registered worker.
pub struct Member<'a> {
    pub row: &'a DistNode,
    pub at_home: &'a Verdict,
    /// The server at home is the one that was recorded, and in order.
    pub is_well: bool,
    /// Unknown, too, where its row is to follow nobody.
    pub whereabouts: Whereabouts<'a>,
    /// Who it is, where that is recorded and DNS has said where its name leads.
    pub identity: Option<&'a Identity>,
    /// `citus_fleet.max_lost_wal`.
    pub max_lost_wal: Option<u64>,
    /// `citus_fleet.on_absent` is `disable`.
    pub is_disabled_when_absent: bool,
}

impl Hindrance {
    pub fn of(failure: &ChangeFailure) -> Self {
        let ChangeFailure { reason, cause, attempts, .. } = failure;
        Self::Failed { attempts: *attempts, reason: reason.clone(), cause: cause.clone() }
    }
}

/// Why an endpoint may not even be connected to, if it may not.
pub fn bar(candidate: &Candidate, coordinator: &Coordinator, policy: &Policy) -> Option<Bar> {
    if let Some(name) = candidate.given.as_ref().filter(|name| !policy.names.allows(name)) {
        return Some(Bar::Name(name.clone()));
    }
    let on_loopback = is_on_loopback(coordinator, policy);
    policy.networks.refusal(candidate.endpoint.ip(), on_loopback).map(Bar::Network)
}

fn is_on_loopback(coordinator: &Coordinator, policy: &Policy) -> bool {
    let is_loopback = |name: &str| {
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match (&policy.coordinator_host, coordinator.own_row()) {
        (Some((host, _)), _) => is_loopback(host),
        (None, Some(row)) => is_loopback(&row.nodename),
        (None, None) => false,
    }
}

impl<'a> Newcomer<'a> {
    pub fn server(&self) -> Option<&'a Server> {
        self.endpoint?.server()
    }

    pub fn failure(&self) -> Option<&'a LoginFailure> {
        self.endpoint?.failure()
    }

    fn has_answered(&self) -> bool {
        self.endpoint.is_some_and(|endpoint| endpoint.probe.is_some())
    }

    /// It may be asked and has not answered.
    pub fn is_unknown(&self) -> bool {
        !self.has_answered()
    }

    pub fn is_ours(&self) -> bool {
        self.server().is_some_and(|it| it.system_identifier == self.coordinator.system_identifier)
    }

    /// The registered worker that it has the system identifier of, and how it stands to what was recorded.
    pub fn kin(&self) -> Option<(&'a Server, &'a DistNode, &'a Identity, Descent)> {
        let server = self.server().filter(|server| !server.in_recovery && self.bar.is_none())?;
        // A source that was removed after its clone was promoted is left behind, and meant to be; a clone
        // in its promotion has a row of its own.
        if self.removed().is_some() || self.clone.is_some() {
            return None;
        }
        let is_it = |known: &Identity| known.record.system_identifier == server.system_identifier;
        let mut known = self.coordinator.identities.iter();
        let (nodeid, known) = known.find(|(_, known)| is_it(known))?;
        let row = self.coordinator.nodes().iter().find(|row| row.nodeid == *nodeid)?;
        Some((server, row, known, known.record.descent(&server.lineage())))
    }

    /// The record of its removal.
    pub fn removed(&self) -> Option<(&'a Server, &'a Removed)> {
        let server = self.server()?;
        let mut removed = self.coordinator.removed.iter();
        Some((server, removed.find(|it| it.is(server))?))
    }

    /// The record of a server that was removed at this address, where nobody answers now: its name is
    /// found for as long as DNS keeps it. Who refuses a login may be somebody new.
    pub fn removed_and_gone(&self) -> Option<(&'a LoginFailure, &'a Removed)> {
        use LoginFailureKind::{NoRoute, Refused, Timeout};
        let failure = self.failure().filter(|it| matches!(it.kind, Refused | Timeout | NoRoute))?;
        let mut removed = self.coordinator.removed.iter();
        Some((failure, removed.find(|removed| removed.endpoint() == Some(self.at))?))
    }

    /// What its Citus knows of a cluster.
    pub fn membership(&self) -> Option<&'a Membership> {
        self.server()?.membership.as_ref()
    }
}

impl AtHome<'_> {
    pub fn membership(&self) -> Option<&Membership> {
        self.server?.membership.as_ref()
    }

    /// The server there, where it is not the one that was recorded.
    pub fn stranger(&self) -> Option<(&Server, &Identity)> {
        let (server, known) = (self.server?, self.identity?);
        let expected = known.record.system_identifier;
        (expected != server.system_identifier).then_some((server, known))
    }

    /// How the server there stands to what was recorded, where it is a primary with that identity.
    pub fn descent(&self) -> Option<(&Server, &Identity, Descent)> {
        let server = self.server.filter(|server| !server.in_recovery && !self.is_shared)?;
        self.membership()?;
        let known = self.identity?;
        let is_it = known.record.system_identifier == server.system_identifier;
        is_it.then(|| (server, known, known.record.descent(&server.lineage())))
    }

    /// Whom its metadata belong to, where that is not this coordinator and this node. What is about to
    /// be synced may still say otherwise.
    pub fn usurper(&self) -> Option<String> {
        let theirs = self.membership().filter(|_| self.row.hasmetadata && !self.is_unsynced())?;
        let ours = self.coordinator.as_ref()?;
        let is_ours = theirs.coordinator.as_ref() == Some(ours)
            && theirs.nodeid.is_none_or(|nodeid| nodeid == self.row.nodeid);
        let coordinator = theirs.coordinator.as_deref().unwrap_or("no coordinator");
        let nodeid = theirs.nodeid.map_or("none".to_owned(), |nodeid| nodeid.to_string());
        (!is_ours).then(|| format!("{coordinator}, as node {nodeid}"))
    }

    pub fn is_unsynced(&self) -> bool {
        self.row.hasmetadata && !self.row.metadatasynced
    }
}

impl Member<'_> {
    pub fn disabled_by_fleet(&self) -> bool {
        self.identity.is_some_and(|identity| identity.disabled_by_fleet)
    }

    /// It is in order, and nothing else is to be said of it.
    pub fn is_quiet(&self) -> bool {
        self.row.isactive && self.at_home.state == State::Active && self.at_home.reason.is_none()
    }
}
