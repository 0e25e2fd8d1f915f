//! Owns collecting the evidence of the whole cluster: the coordinator's catalogs and its own evidence
//! by direct calls, every other node's by one question to all of them at once.
//! Must not judge: a node that does not answer is evidence too.

use crate::decide::model::{ProbeFailure, ProbeFailureKind};
use crate::decide::vector::model::{CatalogNode, Catalogs, NodeAnswer, NodeEvidence, RecallResult};
use crate::error::{Error, one_line};
use crate::observe::ask::{Peer, Question, ask};
use crate::observe::citus_nodes as local;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one node is asked, and what the coordinator asks itself: through the SQL function, which sets
/// the search path and lets Citus show shards.
const STATEMENT: &str = "SELECT fleet.vector_evidence()::pg_catalog.text";

/// What has been measured of recall, as JSON.
const RECALLS: &str = "SELECT COALESCE(pg_catalog.json_agg(r), '[]')::pg_catalog.text
    FROM (SELECT r.nodename, r.nodeport, r.placement, r.index, r.filenode, r.settings, r.k, r.recall,
                 r.ci_high, r.returned_ratio
          FROM fleet.recall_results r) r";

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
}

/// Collects the evidence of all nodes within the deadline.
///
/// Errors: 55000 on a node that is not the coordinator; a cancel or an end of the process.
pub fn collect(deadline: Duration) -> Result<Collected, Error> {
    match local::own_group()? {
        None | Some(COORDINATOR) => {}
        Some(group) => return Err(Error::NotCoordinator { group }),
    }
    let own: NodeEvidence = local::value(STATEMENT, &[])?;
    let catalogs = match local::is_installed(c"citus") {
        true => Some(catalogs(&own)?),
        false => None,
    };
    let others: Vec<Peer> =
        catalogs.iter().flat_map(|found| &found.nodes).filter_map(peer).collect();
    Ok(Collected {
        own_port: u16::try_from(crate::settings::own_port()).unwrap_or_default(),
        answers: if others.is_empty() { BTreeMap::new() } else { question(others, deadline)? },
        recalls: local::value(RECALLS, &[])?,
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
    local::value(include_str!("cluster.sql"), &[relations.into(), indexes.into(), tables.into()])
}

/// A node that has to be asked: every one but this one.
fn peer(node: &CatalogNode) -> Option<Peer> {
    (node.groupid != COORDINATOR).then(|| Peer {
        nodeid: node.nodeid,
        name: node.nodename.clone(),
        port: node.nodeport,
    })
}

fn question(others: Vec<Peer>, deadline: Duration) -> Result<BTreeMap<i32, NodeAnswer>, Error> {
    let question =
        Question { statement: STATEMENT, login: deadline, deadline, most_bytes: MOST_BYTES };
    let peers: Vec<(Peer, Vec<String>)> = others.into_iter().map(|peer| (peer, vec![])).collect();
    let answers = ask(&peers, &question, &local::credentials()?)?;
    let understood = |text: String| {
        serde_json::from_str(&text).map_err(|error| ProbeFailure {
            kind: ProbeFailureKind::Protocol,
            message: one_line(&format!("unexpected answer: {error}")),
        })
    };
    Ok(peers
        .iter()
        .zip(answers)
        .map(|((peer, _), answer)| (peer.nodeid, answer.and_then(understood)))
        .collect())
}
