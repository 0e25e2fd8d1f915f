//! Owns what a server says of itself when it is probed.
//! Must not judge it.

use super::lineage::{History, Lineage, Lsn};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// Installed and installable versions of one extension on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ExtensionState {
    pub installed: Option<String>,
    /// Whether the version that the coordinator has could be created there.
    #[serde(default)]
    pub available: bool,
}

/// As many relations of its own as a server names that is to become a worker: one that is fit has few.
pub const MOST_RELATIONS: usize = 1000;

/// A relation of a server. Whoever is asked for these learns no name of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Relation {
    pub schema: String,
    pub name: String,
}

impl Relation {
    /// Whether PostgreSQL could have such names at all.
    pub fn is_possible(&self) -> bool {
        let is_name = |text: &str| (1..256).contains(&text.len()) && !text.contains('\0');
        is_name(&self.schema) && is_name(&self.name)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
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
    /// The timelines that it has left; none where that could not be read.
    pub history: Option<History>,
    pub position: Lsn,
    /// The coordinator's marks in its data; none where it has no table for them.
    pub marks: Option<Vec<String>>,
    /// As `server_version_num`: 170011.
    pub version_num: u32,
    pub max_prepared_transactions: u32,
    /// Whether it let the controller in by a password.
    pub wants_password: bool,
    pub citus: ExtensionState,
    pub vector: ExtensionState,
    pub fleet: ExtensionState,
    /// Relations of its own, of extensions and the system none; one more than [`MOST_RELATIONS`] where
    /// it has more. Not asked of a registered worker.
    pub relations: Vec<Relation>,
    /// Index builds that are under way there.
    pub index_builds: u32,
    /// Present where Citus is installed.
    pub membership: Option<Membership>,
}

/// What a server knows of the Citus cluster it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Membership {
    /// `pg_dist_local_group`: 0 on a coordinator and on a server that never was in a cluster;
    /// [`Membership::NO_GROUP`] where it is empty.
    pub group_id: i32,
    /// Rows of `pg_dist_node`: how many, and what each says, by nodeid.
    pub nodes: u64,
    #[serde(default)]
    pub rows: BTreeMap<i32, String>,
    /// What Citus tells one server from another by (`pg_dist_node_metadata`).
    #[serde(default)]
    pub server_id: Option<String>,
    /// What it calls the coordinator, `name:port`; none where it has no row for group 0.
    #[serde(default)]
    pub coordinator: Option<String>,
    /// What it takes itself for: the nodeid of its group's primary.
    #[serde(default)]
    pub nodeid: Option<i32>,
    /// Rows of `pg_dist_partition`, counted up to [`Membership::MOST_COUNTED`].
    pub distributed_tables: u64,
}

impl Membership {
    pub const MOST_COUNTED: u64 = 1000;
    pub const NO_GROUP: i32 = -1;
}

impl Server {
    pub fn lineage(&self) -> Lineage {
        Lineage {
            system_identifier: self.system_identifier,
            started_us: self.started_us,
            timeline: self.timeline,
            history: self.history.clone(),
            position: self.position,
            marks: self.marks.clone(),
        }
    }

    /// Whether a mark of the coordinator is in its data.
    pub fn carries(&self, mark: &str) -> bool {
        self.marks.iter().flatten().any(|id| id == mark)
    }

    /// Whether two answers came from one server: clones and standbys share the system identifier,
    /// but not the microsecond at which their postmaster started.
    pub fn is_same(&self, other: &Self) -> bool {
        self.system_identifier == other.system_identifier && self.started_us == other.started_us
    }
}
