//! Owns the nodes of the whole picture: who they are and what each has said of itself.
//! Must not know of a table.

use super::catalogs::CatalogNode;
use super::finding::{COORDINATOR, Concern, Remedy};
use super::model::NodeEvidence;
use super::sizes::Allowance;
use super::sources::Sources;

#[derive(Debug)]
pub struct FleetNode<'a> {
    pub nodeid: Option<i32>,
    pub groupid: i32,
    pub name: String,
    pub port: u16,
    /// Both as `host:port`.
    pub address: String,
    pub active: bool,
    /// Whether Citus puts shards of distributed tables on it.
    pub holds_shards: bool,
    pub answer: Told<'a>,
}

/// What a node said, or why it said nothing.
pub type Told<'a> = Result<&'a NodeEvidence, &'a crate::login::LoginFailure>;

impl FleetNode<'_> {
    pub fn is_coordinator(&self) -> bool {
        self.groupid == 0
    }

    pub fn remedy(&self, sql: impl Into<String>) -> Remedy {
        let run_on = if self.is_coordinator() { COORDINATOR } else { &self.address };
        Remedy { run_on: run_on.to_owned(), sql: vec![sql.into()] }
    }

    pub fn subject(&self) -> Concern {
        Concern { node: Some(self.address.clone()), ..Concern::default() }
    }

    /// A setting in bytes.
    pub fn bytes(&self, setting: &str) -> Option<u64> {
        self.answer.ok()?.settings.get(setting)?.value.parse().ok()
    }

    /// What an index build on it may take. A version that does not tell all settings is taken to have
    /// PostgreSQL's defaults.
    pub fn allowance(&self) -> Option<Allowance> {
        const WORKERS: u32 = 2;
        const SCAN_SIZE: u64 = 8 << 20;
        let settings = &self.answer.ok()?.settings;
        let workers = settings.get("max_parallel_maintenance_workers");
        Some(Allowance {
            memory: self.bytes("maintenance_work_mem")? as f64,
            workers: workers.and_then(|workers| workers.value.parse().ok()).unwrap_or(WORKERS),
            scan_size: self.bytes("min_parallel_table_scan_size").unwrap_or(SCAN_SIZE) as f64,
        })
    }
}

/// Every primary of the cluster, or this server alone.
pub fn nodes<'a>(sources: &Sources<'a>) -> Vec<FleetNode<'a>> {
    let known = sources.catalogs.map(|catalogs| catalogs.nodes.as_slice()).unwrap_or_default();
    let mut nodes: Vec<FleetNode<'a>> =
        known.iter().filter_map(|node| Some(listed(node, answer(sources, node)?))).collect();
    if !nodes.iter().any(FleetNode::is_coordinator) {
        nodes.insert(
            0,
            FleetNode {
                nodeid: None,
                groupid: 0,
                name: "localhost".to_owned(),
                port: sources.own_port,
                address: format!("localhost:{}", sources.own_port),
                active: true,
                holds_shards: false,
                answer: Ok(sources.own),
            },
        );
    }
    nodes
}

fn answer<'a>(sources: &Sources<'a>, node: &CatalogNode) -> Option<Told<'a>> {
    match node.groupid {
        0 => Some(Ok(sources.own)),
        _ => Some(sources.answers.get(&node.nodeid)?.as_ref()),
    }
}

fn listed<'a>(node: &CatalogNode, answer: Told<'a>) -> FleetNode<'a> {
    FleetNode {
        nodeid: Some(node.nodeid),
        groupid: node.groupid,
        name: node.nodename.clone(),
        port: node.nodeport,
        address: format!("{}:{}", node.nodename, node.nodeport),
        active: node.isactive,
        holds_shards: node.shouldhaveshards,
        answer,
    }
}
