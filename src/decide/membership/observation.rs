//! Owns everything that a plan is made from, at one moment.
//! Must not hold anything that a later moment could not observe again.

use super::candidate::Candidate;
use super::change::{ChangeFailure, Subject};
use super::coordinator::Coordinator;
use super::endpoint::Endpoint;
use super::server::Server;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A moment, on the clock that never jumps (for decisions) and on the wall (for people).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since the controller started.
    pub monotonic: Duration,
    /// Microseconds since 1970-01-01 UTC.
    pub wall_us: i64,
}

/// Why changes are withheld from a worker that could be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    Paused,
    /// `citus_fleet.enabled = off`.
    Disabled,
}

/// Everything a plan is made from.
#[derive(Debug)]
pub struct Observation<'a> {
    pub now: Now,
    pub coordinator: &'a Coordinator,
    pub candidates: &'a [Candidate],
    /// Where the names of registered workers lead, by nodeid.
    pub node_addresses: &'a BTreeMap<i32, Vec<IpAddr>>,
    /// Where the coordinator's own address leads; nowhere where DNS has failed.
    pub own_endpoints: &'a [SocketAddr],
    pub endpoints: &'a BTreeMap<SocketAddr, Endpoint>,
    /// Workers that no source has named, and since when (monotonic), by nodeid.
    pub unnamed_since: &'a BTreeMap<i32, Duration>,
    /// Changes that failed, by what they were about.
    pub failures: &'a BTreeMap<Subject, ChangeFailure>,
    pub hold: Option<Hold>,
}

/// An answer is this old at the most when it is acted upon.
const FRESH: Duration = Duration::from_secs(10);

/// Two answers within this time of each other were given by two servers if they differ; further
/// apart, one server may have been restarted between them.
const SIMULTANEOUS: Duration = Duration::from_secs(2);

/// A server that has answered, where, and when it was asked.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    pub at: SocketAddr,
    pub server: &'a Server,
    pub asked_at: Duration,
}

impl Sighting<'_> {
    /// Whether the two answers are from the same moment, so that two servers gave them if they differ.
    pub fn is_simultaneous(&self, other: &Self) -> bool {
        self.asked_at.abs_diff(other.asked_at) <= SIMULTANEOUS
    }
}

impl<'a> Observation<'a> {
    /// The server that answered last at an address, if the last answer was one.
    pub fn sighting(&self, at: SocketAddr) -> Option<Sighting<'a>> {
        let probe = self.endpoints.get(&at)?.probe.as_ref()?;
        Some(Sighting { at, server: probe.result.as_ref().ok()?, asked_at: probe.at })
    }

    /// Whether an answer of that time is too old to act on.
    pub fn is_stale(&self, asked_at: Duration) -> bool {
        self.now.monotonic.saturating_sub(asked_at) > FRESH
    }
}
