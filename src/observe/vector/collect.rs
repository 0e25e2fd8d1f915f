//! Owns collecting the evidence of the whole cluster: the coordinator's catalogs and its own evidence
//! by direct calls, every other node's by one question to all of them at once.
//! Must not judge: a node that does not answer is evidence too.

use crate::backend::catalog;
use crate::error::{Error, one_line};
use crate::net::ask::{Bounds, Question, ask};
use crate::observe::coordinator;
use crate::recall_results;
use crate::silences;
use decide::login::{LoginFailure, LoginFailureKind};
use decide::node::Node;
use decide::search::vector::catalogs::{CatalogNode, Catalogs};
use decide::search::vector::model::{NodeAnswer, NodeEvidence, RecallResult, Silence};
use std::collections::BTreeMap;
use std::time::Duration;

/// What one node is asked, and what the coordinator asks itself: through the SQL function, which sets
/// the search path and lets Citus show shards.
const STATEMENT: &str = "SELECT fleet.vector_evidence()::pg_catalog.text";

/// Evidence of ten thousand placements has some 20 MB.
const MOST_BYTES: usize = 256 << 20;

/// The coordinator's group.
const COORDINATOR: i32 = 0;

/// All that vector-shard health is judged by.
pub struct Collected {
    /// This server's port, for the name of a coordinator that Citus knows nothing of.
    pub own_port: u16,
    pub own: NodeEvidence,
    /// `None` without Citus.
    pub catalogs: Option<Catalogs>,
    /// Of the other nodes, by nodeid.
    pub answers: BTreeMap<i32, NodeAnswer>,
    pub recalls: Vec<RecallResult>,
    pub silences: Vec<Silence>,
}

/// Collects the evidence of all nodes within the deadline.
///
/// Errors: 55000 on a node that is not the coordinator; a cancel or an end of the process.
pub fn collect(deadline: Duration) -> Result<Collected, Error> {
    catalog::require_no_worker()?;
    let own: NodeEvidence = catalog::value(STATEMENT, &[])?;
    let catalogs = match catalog::is_installed(c"citus") {
        true => Some(catalogs(&own)?),
        false => None,
    };
    let others: Vec<Node> =
        catalogs.iter().flat_map(|found| &found.nodes).filter_map(node).collect();
    Ok(Collected {
        own_port: u16::try_from(crate::settings::own_port()).unwrap_or_default(),
        answers: if others.is_empty() { BTreeMap::new() } else { question(others, deadline)? },
        recalls: recall_results::latest()?,
        silences: silences::current()?,
        own,
        catalogs,
    })
}

fn catalogs(own: &NodeEvidence) -> Result<Catalogs, Error> {
    let oid = |oid: u32| pgrx::pg_sys::Oid::from(oid);
    let relations: Vec<_> = own.relations.iter().map(|relation| oid(relation.oid)).collect();
    let (indexes, tables): (Vec<_>, Vec<_>) = own
        .relations
        .iter()
        .flat_map(|relation| {
            relation.indexes.iter().map(|index| (oid(index.oid), oid(relation.oid)))
        })
        .unzip();
    catalog::value(include_str!("cluster.sql"), &[relations.into(), indexes.into(), tables.into()])
}

/// A node that has to be asked: every one but this one.
fn node(node: &CatalogNode) -> Option<Node> {
    (node.groupid != COORDINATOR).then(|| Node {
        nodeid: node.nodeid,
        nodename: node.nodename.clone(),
        nodeport: node.nodeport,
    })
}

fn question(others: Vec<Node>, deadline: Duration) -> Result<BTreeMap<i32, NodeAnswer>, Error> {
    let question = Question {
        statement: STATEMENT,
        bounds: Bounds { login: deadline, deadline },
        most_bytes: MOST_BYTES,
    };
    let nodes: Vec<(Node, Vec<String>)> = others.into_iter().map(|node| (node, vec![])).collect();
    let answers = ask(&nodes, &question, &coordinator::credentials()?)?;
    let understood = |text: String| {
        serde_json::from_str(&text).map_err(|error| LoginFailure {
            kind: LoginFailureKind::Protocol,
            message: one_line(&format!("unexpected answer: {error}")),
        })
    };
    Ok(nodes
        .iter()
        .zip(answers)
        .map(|((node, _), answer)| (node.nodeid, answer.and_then(understood)))
        .collect())
}
