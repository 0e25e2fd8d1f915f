//! Owns measuring a table wherever its placements are: every node measures its own, all at the same
//! time. Must not leave a placement out because its node does not answer.

use super::measure;
use crate::backend::catalog;
use crate::backend::transaction::as_superuser;
use crate::error::{Error, one_line};
use crate::net::ask::{Bounds, Question, ask};
use crate::observe::coordinator;
use decide::node::Node;
use decide::search::recall::ask::Ask;
use decide::search::recall::result::{Measured, Placed};
use pgrx::pg_sys;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

const STATEMENT: &str = "SELECT fleet.shard_recall($1::pg_catalog.text[], $2::pg_catalog.int4,
    $3::pg_catalog.int4, $4::pg_catalog.int8)::pg_catalog.text";

/// One object for each index of each placement, of a few hundred bytes.
const MOST_BYTES: usize = 64 << 20;

/// A node that keeps the budget has answered by then, also when it is busy.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Measurable {
    has_vectors: bool,
    lacks_dimensions: bool,
    leaves: Vec<Leaf>,
}

#[derive(Deserialize)]
struct Leaf {
    oid: u32,
    name: String,
    foreign: bool,
}

#[derive(Default, Deserialize)]
struct Shards {
    known: Vec<u32>,
    own: Option<Node>,
    placements: Vec<RemotePlacement>,
}

#[derive(Clone, Deserialize)]
struct RemotePlacement {
    node: Node,
    shardid: i64,
    name: String,
}

/// What is to be measured, without what measuring it takes.
pub struct Survey {
    own: Node,
    /// Tables of this server alone, by qualified name.
    here: Vec<String>,
    foreign: Vec<String>,
    elsewhere: Vec<RemotePlacement>,
    lacks_dimensions: bool,
}

/// Looks up where a relation's rows are. Runs in a transaction, and connects to nothing.
///
/// Errors: 55000 on a node that is not the coordinator; 42809 for a table without vectors.
pub fn survey(relation: pg_sys::Oid) -> Result<Survey, Error> {
    catalog::require_no_worker()?;
    let found: Measurable = catalog::value(include_str!("placements.sql"), &[relation.into()])?;
    if !found.has_vectors {
        return Err(Error::NoVectors);
    }
    let oids: Vec<pg_sys::Oid> =
        found.leaves.iter().map(|leaf| pg_sys::Oid::from(leaf.oid)).collect();
    let shards: Shards = match catalog::is_installed(c"citus") {
        true => catalog::value(include_str!("shards.sql"), &[oids.into()])?,
        false => Shards::default(),
    };
    let local_leaves = found.leaves.into_iter().filter(|leaf| !shards.known.contains(&leaf.oid));
    let (foreign, here): (Vec<Leaf>, Vec<Leaf>) = local_leaves.partition(|leaf| leaf.foreign);
    let names = |leaves: Vec<Leaf>| leaves.into_iter().map(|leaf| leaf.name).collect();
    Ok(Survey {
        own: shards.own.unwrap_or_else(own_node),
        here: names(here),
        foreign: names(foreign),
        elsewhere: shards.placements,
        lacks_dimensions: found.lacks_dimensions,
    })
}

impl Survey {
    /// Whether other nodes are to be asked.
    pub fn is_distributed(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Measures what is here, in the open transaction. The rows are sorted by node and shard.
    pub fn measure_here(&self, ask: &Ask) -> Vec<Placed> {
        let mut rows: Vec<Placed> = self
            .foreign
            .iter()
            .map(|name| Measured::not(name, None, "it is a foreign table"))
            .chain(measure(&self.here, ask))
            .map(|measured| Placed { node: self.own.clone(), shardid: None, measured })
            .collect();
        rows.sort_by(|a, b| a.measured.relation.cmp(&b.measured.relation));
        rows
    }

    /// Lets every other node measure its placements. Needs no transaction but for `credentials`.
    pub fn measure_elsewhere(
        &self,
        ask_for: &Ask,
        credentials: &crate::net::credentials::Credentials,
        login: Duration,
    ) -> Result<Vec<Placed>, Error> {
        let mut by_node: BTreeMap<i32, Vec<&RemotePlacement>> = BTreeMap::new();
        for placement in &self.elsewhere {
            by_node.entry(placement.node.nodeid).or_default().push(placement);
        }
        let nodes: Vec<(Node, Vec<String>)> =
            by_node.values().map(|placements| question(placements, ask_for)).collect();
        let terms = Question {
            statement: STATEMENT,
            bounds: Bounds { login, deadline: ask_for.budget + GRACE },
            most_bytes: MOST_BYTES,
        };
        let answers = ask(&nodes, &terms, credentials)?;
        Ok(by_node
            .values()
            .zip(answers)
            .flat_map(|(placements, answer)| {
                let answer = answer.map_err(|failure| failure.message).and_then(|text| {
                    serde_json::from_str::<Vec<Measured>>(&text)
                        .map_err(|error| one_line(&format!("unexpected answer: {error}")))
                });
                rows(placements, answer)
            })
            .collect())
    }

    /// An error where there is not one index to measure.
    pub fn check(&self, rows: &[Placed]) -> Result<(), Error> {
        match !rows.is_empty() && rows.iter().all(|row| row.measured.unindexed) {
            true => Err(Error::NoAnnIndex { lacks_dimensions: self.lacks_dimensions }),
            false => Ok(()),
        }
    }
}

/// How other nodes are logged in to: `pg_dist_authinfo` is not for everybody's eyes.
pub fn credentials() -> Result<crate::net::credentials::Credentials, Error> {
    as_superuser(coordinator::credentials)
}

/// What this server is called where Citus has no name for it.
fn own_node() -> Node {
    let nodeport = u16::try_from(crate::settings::own_port()).unwrap_or_default();
    Node { nodeid: 0, nodename: "localhost".into(), nodeport }
}

fn question(placements: &[&RemotePlacement], ask: &Ask) -> (Node, Vec<String>) {
    let names: Vec<String> = placements
        .iter()
        .map(|placement| {
            format!("\"{}\"", placement.name.replace('\\', "\\\\").replace('"', "\\\""))
        })
        .collect();
    let parameters = vec![
        format!("{{{}}}", names.join(",")),
        ask.k.to_string(),
        ask.sample.to_string(),
        ask.budget.as_millis().max(1).to_string(),
    ];
    (placements[0].node.clone(), parameters)
}

/// The rows of one node, those that it says nothing of among them.
fn rows(placements: &[&RemotePlacement], answer: Result<Vec<Measured>, String>) -> Vec<Placed> {
    let mut rows = Vec::new();
    for placement in placements {
        let own: Vec<Measured> = match &answer {
            Ok(measured) => {
                measured.iter().filter(|m| m.relation == placement.name).cloned().collect()
            }
            Err(why) => vec![Measured::not(&placement.name, None, why.as_str())],
        };
        let own = match own.is_empty() {
            true => vec![Measured::not(&placement.name, None, "the node says nothing of it")],
            false => own,
        };
        let place = |measured| Placed {
            node: placement.node.clone(),
            shardid: Some(placement.shardid),
            measured,
        };
        rows.extend(own.into_iter().map(place));
    }
    rows
}
