//! Owns the checks of whole nodes: whether they answer, what they run, what they hold.
//! Must not look into a table.

use crate::condition::Condition;
use crate::login::LoginFailureKind as Kind;
use crate::node::literal;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::Fleet;
use crate::search::vector::model::NodeEvidence;
use crate::search::vector::nodes::FleetNode;
use crate::search::vector::sizes::{human, megabytes};

/// Vector indexes against the memory that may cache them.
const FULL: f64 = 1.0;
const NEARLY_FULL: f64 = 0.8;
/// The share of a host's memory that PostgreSQL's documentation advises for `effective_cache_size`.
const CACHE_SHARE: f64 = 0.75;

pub fn unreachable(fleet: &Fleet<'_>) -> Vec<Finding> {
    let silent = fleet.nodes.iter().filter_map(|node| {
        let failure = node.answer.err()?;
        Some(Finding {
            status: silence(failure.kind),
            subject: node.subject(),
            symptom: format!("{} does not answer: {}", node.address, failure.message),
            evidence: Evidence::exact("answer", format!("{:?}", failure.kind), "Ok"),
            remedy: None,
        })
    });
    let disabled = fleet.nodes.iter().filter(|node| !node.active).map(|node| Finding {
        status: Condition::Red,
        subject: node.subject(),
        symptom: format!("{} is disabled in pg_dist_node", node.address),
        evidence: Evidence::exact("isactive", false, true),
        remedy: Some(Remedy::on_coordinator(format!(
            "SELECT pg_catalog.citus_activate_node({}, {})",
            literal(&node.name),
            node.port
        ))),
    });
    silent.chain(disabled).collect()
}

/// How bad it is that a node has not answered: unknown where only our own question failed, as Citus's
/// connections may well do better.
pub fn silence(kind: Kind) -> Condition {
    match kind {
        Kind::Unresolvable
        | Kind::NoRoute
        | Kind::Refused
        | Kind::Timeout
        | Kind::DatabaseMissing
        | Kind::StartingUp
        | Kind::TooManyConnections => Condition::Red,
        Kind::Tls
        | Kind::WrongPassword
        | Kind::PasswordNotBound
        | Kind::NotPermitted
        | Kind::Computing
        | Kind::Crowded
        | Kind::Protocol
        | Kind::Other => Condition::Unknown,
    }
}

pub fn placement_missing(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        for placement in &table.placements {
            let gone = placement.relation.is_none() && fleet.node(placement).answer.is_ok();
            if !gone && placement.healthy {
                continue;
            }
            let (what, node) = (table.name, &fleet.node(placement).address);
            findings.push(Finding {
                status: Condition::Red,
                subject: fleet.subject(table, placement),
                symptom: match gone {
                    true => format!("the placement of {what} on {node} has no table"),
                    false => format!("Citus does not use the placement of {what} on {node}"),
                },
                evidence: Evidence::exact(
                    "placement",
                    if gone { "missing" } else { "inactive" },
                    "active",
                ),
                remedy: None,
            });
        }
    }
    findings
}

/// Each node's evidence, with the coordinator's beside it.
pub fn compared<'f>(
    fleet: &'f Fleet<'_>,
) -> impl Iterator<Item = (&'f FleetNode<'f>, &'f NodeEvidence, &'f NodeEvidence)> {
    let own = fleet.coordinator().1.answer.ok();
    fleet
        .nodes
        .iter()
        .filter(|node| !node.is_coordinator())
        .filter_map(move |node| Some((node, node.answer.ok()?, own?)))
}

pub fn memory_fit(fleet: &Fleet<'_>) -> Vec<Finding> {
    fleet.nodes.iter().filter_map(|node| memory_of(node, node.answer.ok()?)).collect()
}

fn memory_of(node: &FleetNode<'_>, evidence: &NodeEvidence) -> Option<Finding> {
    let held = index_bytes(evidence) as f64;
    let hint = node.bytes("effective_cache_size")? as f64;
    let memory = evidence.resources.memory.map(|memory| memory as f64);
    // The setting only tells the planner what to expect: it is believed between what PostgreSQL's
    // documentation advises and all the memory that there is.
    let cache = memory.map_or(hint, |memory| hint.clamp(memory * CACHE_SHARE, memory));
    let lacks_memory = held > cache * NEARLY_FULL;
    if !lacks_memory && held <= hint * NEARLY_FULL {
        return None;
    }
    let (what, given) = match lacks_memory {
        true => ("the memory that can cache them", cache),
        false => ("effective_cache_size", hint),
    };
    Some(Finding {
        status: match lacks_memory && memory.is_some() && held > cache * FULL {
            true => Condition::Red,
            false => Condition::Yellow,
        },
        subject: node.subject(),
        symptom: format!(
            "the vector indexes on {} have {}, and {what} is {}",
            node.address,
            human(held),
            human(given)
        ),
        evidence: Evidence::estimated(
            "index bytes per byte that may cache them",
            rounded(held / given),
            NEARLY_FULL,
        ),
        // Memory that is not there comes of no statement.
        remedy: (!lacks_memory).then(|| {
            let size = megabytes(cache);
            node.remedy(format!("ALTER SYSTEM SET effective_cache_size = '{size}MB'"))
                .then("SELECT pg_catalog.pg_reload_conf()")
        }),
    })
}

/// Bytes of all vector indexes of a node.
pub fn index_bytes(evidence: &NodeEvidence) -> u64 {
    evidence.relations.iter().flat_map(|r| &r.indexes).map(|index| index.bytes()).sum()
}

/// Three digits are what an estimate is worth.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
