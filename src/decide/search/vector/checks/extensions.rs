//! Owns the checks of extensions: whether all nodes run the same versions, and sound ones.
//! Must not look into a table but for whether it has an index.

use super::nodes::compared;
use crate::condition::Condition;
use crate::node::literal;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::Fleet;
use crate::search::vector::model::NodeEvidence;

/// pgvector's defects end with this version.
const SOUND: [u32; 3] = [0, 8, 4];

pub fn skew(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, theirs, ours) in compared(fleet) {
        for (name, version) in &ours.extensions {
            let found = theirs.extensions.get(name);
            if found == Some(version) {
                continue;
            }
            let wanted = literal(version);
            let (status, shown, sql) = match found {
                None => (Condition::Red, "no", format!("CREATE EXTENSION {name} VERSION {wanted}")),
                Some(found) => (
                    Condition::Yellow,
                    found.as_str(),
                    format!("ALTER EXTENSION {name} UPDATE TO {wanted}"),
                ),
            };
            findings.push(Finding {
                status,
                subject: node.subject(),
                symptom: format!(
                    "{} has {shown} {name}, the coordinator has {version}",
                    node.address
                ),
                evidence: Evidence::exact("extversion", shown, version.as_str()),
                // The worker alone is to be changed.
                remedy: Some(node.remedy("SET citus.enable_ddl_propagation = off").then(sql)),
            });
        }
    }
    findings
}

pub fn buggy(fleet: &Fleet<'_>) -> Vec<Finding> {
    let affected = |evidence: &NodeEvidence| {
        let version = version_that_runs(evidence)?;
        let has_graphs =
            evidence.relations.iter().flat_map(|r| &r.indexes).any(|index| index.method == "hnsw");
        (has_graphs && numbers(version)? < SOUND).then(|| version.clone())
    };
    fleet
        .nodes
        .iter()
        .filter_map(|node| {
            let version = affected(node.answer.ok()?)?;
            Some(Finding {
                status: Condition::Yellow,
                subject: node.subject(),
                symptom: format!("{} runs vector {version}", node.address),
                evidence: Evidence::exact("version of vector", version, "0.8.4"),
                // A sound one has to be installed first, and is judged then.
                remedy: None,
            })
        })
        .collect()
}

/// The version of pgvector that runs on a node, as far as that can be told.
pub fn version_that_runs(evidence: &NodeEvidence) -> Option<&String> {
    let installed = evidence.library.installed.as_ref();
    installed.filter(|_| !evidence.library.is_replaced).or(evidence.extensions.get("vector"))
}

/// `0.8.2` as numbers that can be compared.
pub fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?])
}

/// The library runs, whatever version the extension's objects are of.
pub fn library(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &fleet.nodes {
        let Some(evidence) = node.answer.ok().filter(|evidence| evidence.library.is_replaced)
        else {
            continue;
        };
        findings.push(Finding {
            status: Condition::Yellow,
            subject: node.subject(),
            symptom: format!(
                "{} has preloaded a library of vector that has been replaced since: it runs until a restart",
                node.address
            ),
            evidence: Evidence::exact("library", "replaced", evidence.library.installed.clone()),
            remedy: None,
        });
    }
    let differs = compared(fleet).filter_map(|(node, theirs, ours)| {
        let (theirs, ours) = (theirs.library.installed.as_ref()?, ours.library.installed.as_ref()?);
        (theirs != ours).then(|| Finding {
            status: Condition::Yellow,
            subject: node.subject(),
            symptom: format!(
                "{} has vector {theirs} installed, the coordinator {ours}",
                node.address
            ),
            evidence: Evidence::exact("version of the library", theirs.as_str(), ours.as_str()),
            remedy: None,
        })
    });
    let differs: Vec<Finding> = differs.collect();
    let is_same_everywhere = differs.is_empty();
    findings.extend(differs);
    findings.extend(outdated_objects(fleet, is_same_everywhere));
    findings
}

/// The extension's objects are of another version than the library.
fn outdated_objects(fleet: &Fleet<'_>, is_same_everywhere: bool) -> Option<Finding> {
    let (_, node) = fleet.coordinator();
    let evidence = node.answer.ok()?;
    let version = evidence.extensions.get("vector")?;
    let installed = evidence.library.installed.as_ref().filter(|it| *it != version)?;
    Some(Finding {
        status: Condition::Yellow,
        subject: node.subject(),
        symptom: format!("the objects of vector are of {version}, its library is of {installed}"),
        evidence: Evidence::exact("extversion", version.as_str(), installed.as_str()),
        // A worker without the scripts of that version would fail.
        remedy: is_same_everywhere.then(|| Remedy::on_coordinator("ALTER EXTENSION vector UPDATE")),
    })
}
