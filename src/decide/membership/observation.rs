//! Owns everything that a plan is made from, at one moment.
//! Must not hold anything that a later moment could not observe again.

use super::candidate::Candidate;
use super::change::{ChangeFailure, Subject};
use super::coordinator::{Coordinator, OwnAddress};
use super::endpoint::Endpoint;
use super::server::Server;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Where the names of registered workers lead, by nodeid; of a lost name, where it last led.
    pub node_addresses: &'a BTreeMap<i32, Vec<IpAddr>>,
    /// Registered workers whose names lead nowhere: DNS says that they do not exist.
    pub lost_names: &'a BTreeSet<i32>,
    /// The coordinator's own addresses, the one that workers are given first.
    pub own: &'a [OwnAddress],
    /// This server has answered at one of them since it started, and nobody else has since.
    pub is_proved: bool,
    pub endpoints: &'a BTreeMap<SocketAddr, Endpoint>,
    /// Since when the coordinator's own row is what it is (monotonic).
    pub own_row_since: Duration,
    /// What each row of `pg_dist_node` says, by nodeid.
    pub rows: &'a BTreeMap<i32, String>,
    /// Since when the rows of `pg_dist_node` say what they say, and when they were read last (monotonic).
    pub rows_since: Duration,
    pub rows_read_at: Duration,
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
    primary_since: Option<Duration>,
}

impl Sighting<'_> {
    /// Whether the two answers are from the same moment, so that two servers gave them if they differ.
    pub fn is_simultaneous(&self, other: &Self) -> bool {
        self.asked_at.abs_diff(other.asked_at) <= SIMULTANEOUS
    }

    /// Whether both are known to have been primaries at one moment: a switch-over, in which one ends before
    /// the other begins, must not look like it.
    pub fn ran_beside(&self, other: &Self) -> bool {
        let began = self.primary_since.zip(other.primary_since).map(|(one, two)| one.max(two));
        began.is_some_and(|began| began <= self.asked_at.min(other.asked_at))
    }
}

impl<'a> Observation<'a> {
    /// The server that answered last at an address, if the last answer was one.
    pub fn sighting(&self, at: SocketAddr) -> Option<Sighting<'a>> {
        let endpoint = self.endpoints.get(&at)?;
        let probe = endpoint.probe.as_ref()?;
        let (server, primary_since) = (probe.result.as_ref().ok()?, endpoint.primary_since());
        Some(Sighting { at, server, asked_at: probe.at, primary_since })
    }

    /// Whether an answer of that time is too old to act on.
    pub fn is_stale(&self, asked_at: Duration) -> bool {
        self.now.monotonic.saturating_sub(asked_at) > FRESH
    }
}
