//! Owns what the coordinator's catalogs say: itself, the rows of `pg_dist_node`, and what the fleet has
//! recorded of the servers behind them.
//! Must not know what anybody answers.

use super::lineage::Record;
use super::server::{Relation, Server};
use crate::configuration::names::HostName;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A row of `pg_dist_node`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DistNode {
    pub nodeid: i32,
    pub groupid: i32,
    pub nodename: String,
    /// Citus takes any number.
    pub nodeport: i32,
    pub isactive: bool,
    pub hasmetadata: bool,
    pub metadatasynced: bool,
    /// `noderole`: false for secondaries and for clones.
    pub is_primary: bool,
    pub shouldhaveshards: bool,
    /// The node that it is a clone of, and not promoted yet (`citus_add_clone_node`).
    pub clone_of: Option<i32>,
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
    pub nodeport: i32,
    /// Where it answered when it was removed; none where it did not.
    pub address: Option<IpAddr>,
    /// What Citus has left on it and the controller is to drop, quoted and qualified.
    pub relations: Vec<String>,
    pub is_clean: bool,
    /// The mark that it was known by, which it carries also where pg_upgrade has given it another identity.
    pub mark: Option<String>,
}

/// A number as a port, where it is one.
pub fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

impl DistNode {
    /// Its port, where it has one.
    pub fn port(&self) -> Option<u16> {
        port(self.nodeport)
    }

    /// Why nobody can connect by it, whatever DNS says: Citus takes any name as well.
    pub fn misfit(&self) -> Option<String> {
        if self.port().is_none() {
            return Some(format!("{} is not a port from 1 to 65535", self.nodeport));
        }
        let is_address = self.nodename.parse::<IpAddr>().is_ok();
        HostName::parse(&self.nodename).err().filter(|_| !is_address)
    }
}

impl fmt::Display for DistNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.nodename, self.nodeport)
    }
}

impl Removed {
    /// Whether it is this server.
    pub fn is(&self, server: &Server) -> bool {
        self.system_identifier == server.system_identifier
            || self.mark.as_ref().is_some_and(|mark| server.carries(mark))
    }

    /// Where it answered when it was removed.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address?, port(self.nodeport)?))
    }

    /// Where to look for it, whatever the sources say, until it is clean.
    pub fn endpoint_to_clean(&self) -> Option<SocketAddr> {
        self.endpoint().filter(|_| !self.is_clean)
    }
}

/// What `fleet.identities` keeps of a registered worker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    #[serde(flatten)]
    pub record: Record,
    /// The fleet disabled it, as `citus_fleet.on_absent` asked for; an operator did not.
    pub disabled_by_fleet: bool,
    /// Its server was accepted by an operator, and Citus has not written its metadata anew since.
    pub to_be_synced: bool,
    /// When it was recorded, on the clock of its server: by another session, if that changes.
    pub recorded_us: i64,
    /// Seconds since it was recorded.
    pub recorded_for: u64,
    /// Another server that was seen running as this worker while its own did, and where: only an
    /// operator can tell which of them has the rows.
    pub rival: Option<String>,
    /// Bytes of WAL that the server which was followed last did not have, and nobody has accepted yet.
    pub lost_wal: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CitusFacts {
    pub version: String,
    /// As in [`Membership`](super::server::Membership).
    #[serde(default)]
    pub server_id: Option<String>,
    pub group_id: i32,
    pub nodes: Vec<DistNode>,
    /// Those of the relations that candidates have whose names distributed tables have too. They are
    /// looked up one by one: a cluster may have tens of thousands of tables.
    #[serde(default)]
    pub clashes: BTreeSet<Relation>,
    /// Distributed tables, whose metadata a new worker is sent; counted only where one is to join.
    #[serde(default)]
    pub tables: u64,
    /// A background job of Citus has not ended.
    pub is_job_running: bool,
}

impl Coordinator {
    /// Every row of `pg_dist_node`; none without Citus.
    pub fn nodes(&self) -> &[DistNode] {
        self.citus.as_ref().map_or(&[], |citus| &citus.nodes)
    }

    /// What each row says, by nodeid, in the words in which a worker is asked for its own.
    pub fn rows(&self) -> BTreeMap<i32, String> {
        let told = |row: &DistNode| (row.nodeid, format!("{row} of group {}", row.groupid));
        self.nodes().iter().map(told).collect()
    }

    /// The coordinator's own row of `pg_dist_node`.
    pub fn own_row(&self) -> Option<&DistNode> {
        self.nodes().iter().find(|node| node.groupid == 0 && node.is_primary)
    }

    /// The row of a clone that is known by this name, or by this address, and port.
    pub fn clone_at(&self, name: &str, at: SocketAddr) -> Option<&DistNode> {
        let is_it = |row: &&DistNode| {
            row.port() == Some(at.port())
                && (row.nodename == name || row.nodename == at.ip().to_string())
        };
        self.clone_rows().find(is_it)
    }

    pub fn clone_rows(&self) -> impl Iterator<Item = &DistNode> {
        self.nodes().iter().filter(|node| node.clone_of.is_some())
    }

    /// The primaries of all other groups.
    pub fn worker_rows(&self) -> impl Iterator<Item = &DistNode> {
        self.nodes().iter().filter(|node| node.groupid != 0 && node.is_primary)
    }
}

/// A name of the coordinator, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    pub nodename: String,
    pub nodeport: i32,
    /// None where DNS has failed, or says that it leads nowhere.
    pub endpoints: Vec<SocketAddr>,
}

impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.nodename, self.nodeport)
    }
}
