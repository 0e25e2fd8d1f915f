//! Owns the words of the fleet as plain data: what was observed, and what is to be done about it.
//! Must not decide anything.

pub use super::change::{Change, ChangeFailure, Lineage, Subject};
use super::verdict::Verdict;
use crate::condition::Condition;
use crate::configuration::names::HostName;
use crate::login::LoginFailure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
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

/// Installed and installable versions of one extension on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ExtensionState {
    pub installed: Option<String>,
    /// Whether the version that the coordinator has could be created there.
    #[serde(default)]
    pub available: bool,
}

/// What a server says of itself: the identity and the facts that preflight needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `pg_control_system()`: shared by a primary and its standbys, and by clones.
    pub system_identifier: i64,
    /// When its postmaster started, in microseconds since 1970: tells one server under two
    /// addresses from two servers that share a system identifier.
    pub started_us: i64,
    pub in_recovery: bool,
    /// The timeline that it writes: every promotion begins a higher one. 0 in recovery.
    pub timeline: i32,
    /// As `server_version_num`: 170011.
    pub version_num: u32,
    pub max_prepared_transactions: u32,
    /// Whether it let the controller in by a password.
    pub wants_password: bool,
    pub citus: ExtensionState,
    pub vector: ExtensionState,
    pub fleet: ExtensionState,
    /// Relations that carry the name of one of the coordinator's distributed tables.
    pub clashing_relations: Vec<String>,
    /// Index builds that are under way there.
    pub index_builds: u32,
    /// Present where Citus is installed.
    pub membership: Option<Membership>,
}

/// What a server knows of the Citus cluster it is in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Membership {
    /// `pg_dist_local_group`: 0 on a coordinator and on a server that never was in a cluster.
    pub group_id: i32,
    /// Rows of `pg_dist_node`.
    pub nodes: u64,
    /// Rows of `pg_dist_partition`.
    pub distributed_tables: u64,
}

pub type ProbeResult = Result<Server, LoginFailure>;

/// The newest answer of an endpoint.
#[derive(Clone, Debug)]
pub struct Probe {
    /// When it was asked, on the monotonic clock: what it said may have changed ever since.
    pub at: Duration,
    pub round_trip: Duration,
    pub result: ProbeResult,
    /// Since when it has failed in the same way without a success in between.
    pub failing_since: Option<Duration>,
    /// The same, whatever the failures were.
    pub silent_since: Option<Duration>,
    /// Since when it has been one of those of which a worker's next primary may be one.
    pub sought_since: Option<Duration>,
    /// When it last succeeded, on the wall clock.
    pub last_seen_us: Option<i64>,
    /// The name to register the endpoint under; none where it is to be known by its address.
    pub naming: Option<Naming>,
    /// When its name was last asked for, on the monotonic clock.
    pub named_at: Option<Duration>,
}

/// A name that Citus could reach an endpoint by, and all that the system's resolver gives for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    pub name: HostName,
    pub addresses: Vec<IpAddr>,
}

/// An endpoint that a source yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub endpoint: SocketAddr,
    /// The name that the source gave for it; none where it gave an address.
    pub given: Option<HostName>,
    /// The source as the operator wrote it.
    pub source: String,
}

/// A row of `pg_dist_node`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DistNode {
    pub nodeid: i32,
    pub groupid: i32,
    pub nodename: String,
    pub nodeport: u16,
    pub isactive: bool,
    pub hasmetadata: bool,
    pub metadatasynced: bool,
    /// `noderole`: false for secondaries and for clones.
    pub is_primary: bool,
    pub shouldhaveshards: bool,
    /// A session is in `fleet.remove_worker` for it.
    pub is_being_removed: bool,
    /// Placements of distributed tables that it still holds; counted only where it takes no more.
    pub placements: Option<u64>,
    /// It could hold shards, holds none while others do, and no rebalance has been started since it
    /// joined; looked for only with `citus_fleet.rebalance_on_join`.
    pub waits_for_shards: bool,
    /// Tasks of the background job that is running, those that concern it.
    pub tasks: Option<Tasks>,
}

/// How far a background job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Tasks {
    pub done: u64,
    pub total: u64,
}

/// What the coordinator knows of itself, read from its catalogs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Coordinator {
    pub system_identifier: i64,
    /// As in [`Server`].
    pub started_us: i64,
    pub version_num: u32,
    pub vector_version: Option<String>,
    pub fleet_version: String,
    /// Present where Citus is installed in the controller's database.
    pub citus: Option<CitusFacts>,
    /// Whether the controller's role has a password here, which Citus gives it on every node.
    pub role_has_password: bool,
    /// `fleet.pause()` was called.
    pub paused: bool,
    /// Who each registered worker is known to be, by nodeid.
    #[serde(default)]
    pub identities: BTreeMap<i32, Identity>,
    /// Servers that `fleet.remove_worker` has taken out, and that stay out.
    pub removed: Vec<Removed>,
    /// Index builds that are under way here.
    pub index_builds: u32,
}

/// What `fleet.removed` keeps of a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Removed {
    pub system_identifier: i64,
    pub nodename: String,
    pub nodeport: u16,
    /// Where it answered when it was removed; none where it did not.
    pub address: Option<IpAddr>,
    /// What Citus has left on it and the controller is to drop, quoted and qualified.
    pub relations: Vec<String>,
    pub is_clean: bool,
}

impl Removed {
    /// Where it answered when it was removed.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address?, self.nodeport))
    }

    /// Where to look for it, whatever the sources say, until it is clean.
    pub fn endpoint_to_clean(&self) -> Option<SocketAddr> {
        self.endpoint().filter(|_| !self.is_clean)
    }
}

/// What `fleet.identities` keeps of a registered worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    pub system_identifier: i64,
    /// The highest timeline it was seen at: whoever is below was left behind by a promotion.
    pub timeline: i32,
    /// The fleet disabled it, as `citus_fleet.on_absent` asked for; an operator did not.
    pub disabled_by_fleet: bool,
    /// Seconds since it was recorded.
    pub recorded_for: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CitusFacts {
    pub version: String,
    pub group_id: i32,
    pub nodes: Vec<DistNode>,
    /// Qualified names of the distributed tables, which a new worker may not have relations of.
    pub distributed_tables: Vec<String>,
    /// A background job of Citus has not ended.
    pub is_job_running: bool,
}

impl Coordinator {
    /// Every row of `pg_dist_node`; none without Citus.
    pub fn nodes(&self) -> &[DistNode] {
        self.citus.as_ref().map_or(&[], |citus| &citus.nodes)
    }

    /// The coordinator's own row of `pg_dist_node`.
    pub fn own_row(&self) -> Option<&DistNode> {
        self.nodes().iter().find(|node| node.groupid == 0 && node.is_primary)
    }

    /// The primaries of all other groups.
    pub fn worker_rows(&self) -> impl Iterator<Item = &DistNode> {
        self.nodes().iter().filter(|node| node.groupid != 0 && node.is_primary)
    }
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
    pub probes: &'a BTreeMap<SocketAddr, Probe>,
    /// Workers that no source has named, and since when (monotonic), by nodeid.
    pub unnamed_since: &'a BTreeMap<i32, Duration>,
    /// Changes that failed, by what they were about.
    pub failures: &'a BTreeMap<Subject, ChangeFailure>,
    pub hold: Option<Hold>,
}

impl Server {
    pub fn lineage(&self) -> Lineage {
        Lineage { system_identifier: self.system_identifier, timeline: self.timeline }
    }
}

impl Identity {
    /// Whether `server` has this identity, but writes a timeline that a promotion has ended: what
    /// was written since is not there.
    pub fn has_left_behind(&self, server: &Server) -> bool {
        self.system_identifier == server.system_identifier
            && !server.in_recovery
            && server.timeline < self.timeline
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Discovered,
    Unreachable,
    Refused,
    Standby,
    Ready,
    Active,
    Inactive,
    Absent,
    Conflict,
    Blank,
    Removing,
    Removed,
}

impl State {
    pub const ALL: [Self; 12] = [
        Self::Discovered,
        Self::Unreachable,
        Self::Refused,
        Self::Standby,
        Self::Ready,
        Self::Active,
        Self::Inactive,
        Self::Absent,
        Self::Conflict,
        Self::Blank,
        Self::Removing,
        Self::Removed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Standby => "standby",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Absent => "absent",
            Self::Conflict => "conflict",
            Self::Blank => "blank",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }
}

impl State {
    /// What a worker's state means for the cluster. Data is at stake only where it is registered.
    pub fn condition(self, is_registered: bool) -> Condition {
        match self {
            Self::Active | Self::Standby | Self::Removing | Self::Removed => Condition::Green,
            Self::Discovered | Self::Ready | Self::Refused | Self::Inactive => Condition::Yellow,
            Self::Unreachable | Self::Absent | Self::Conflict | Self::Blank => {
                match is_registered {
                    true => Condition::Red,
                    false => Condition::Yellow,
                }
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the plan wants with a worker, as `citus_autoregister()` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Register,
    UpdateAddress,
    Reactivate,
    Disable,
    Refuse,
    None,
}

/// A worker as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub nodename: String,
    pub nodeport: u16,
    pub endpoint: Option<SocketAddr>,
    pub nodeid: Option<i32>,
    pub groupid: Option<i32>,
    pub source: Option<String>,
    pub state: State,
    pub action: Action,
    pub reason: Option<String>,
    pub remedy: Option<String>,
}

/// The outcome of `membership::plan`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// Why workers cannot be told where the coordinator is.
    pub coordinator_host: Option<Verdict>,
    pub workers: Vec<Worker>,
    /// Endpoints whose newest answer is too old to act on.
    pub recheck: Vec<SocketAddr>,
    /// Where the primary of a worker that has none at the moment may appear.
    pub sought: Vec<SocketAddr>,
}
