//! Owns the check of measured recall: whether searches find what they should, where that has been
//! sampled. Must not count a result that tells of another index, or of other settings, than now.

use super::indexes::rebuild;
use super::nodes::rounded;
use crate::decide::vector::finding::{Evidence, Finding, Remedy, Status};
use crate::decide::vector::fleet::{Fleet, Node, Placement, Table, literal};
use crate::decide::vector::model::{Index, RecallResult, Relation};

pub fn low(fleet: &Fleet<'_>) -> Vec<Finding> {
    fleet
        .indexes()
        .filter_map(|(table, placement, relation, placed, index)| {
            let result = result(fleet, placement, relation, index)?;
            let target = fleet.thresholds.recall_target;
            let is_certain = result.ci_high.is_some_and(|high| high < target);
            (result.recall < target).then(|| Finding {
                status: if is_certain { Status::Red } else { Status::Yellow },
                subject: fleet.subject_of(table, placement, placed.shell),
                symptom: format!(
                    "index {} on {} finds {:.0} % of the {} nearest neighbours{}",
                    index.quoted,
                    fleet.node(placement).address,
                    result.recall * 100.0,
                    result.k,
                    missing(result)
                ),
                evidence: Evidence::estimated("recall", rounded(result.recall), target),
                remedy: Some(harder(table, index, result).unwrap_or_else(|| {
                    rebuild(fleet, table, placement, relation, placed.shell, index, false)
                })),
            })
        })
        .collect()
}

/// The result that tells of an index as it is, searched as it is searched now.
fn result<'a>(
    fleet: &Fleet<'a>,
    placement: &Placement<'_>,
    relation: &Relation,
    index: &Index,
) -> Option<&'a RecallResult> {
    let node = fleet.node(placement);
    fleet.recalls.iter().find(|result| {
        result.nodename == node.name
            && result.nodeport == node.port
            && result.placement == relation.quoted
            && result.index == index.name
            && result.filenode == index.filenode
            && has_settings(node, &result.settings)
    })
}

/// Whether a node has settings, given as `name=value` between spaces.
fn has_settings(node: &Node<'_>, settings: &str) -> bool {
    let Ok(evidence) = node.answer else { return false };
    pairs(settings).all(|(name, value)| {
        evidence.settings.get(name).is_none_or(|setting| setting.value == value)
    })
}

fn pairs(settings: &str) -> impl Iterator<Item = (&str, &str)> {
    settings.split(' ').filter_map(|word| word.split_once('='))
}

fn missing(result: &RecallResult) -> String {
    match result.returned_ratio {
        ratio if ratio < 1.0 => {
            format!(", and returns {:.0} % of the rows asked for", ratio * 100.0)
        }
        _ => String::new(),
    }
}

/// Twice the effort for each search, and a look at what it brings; nothing where there is no more.
fn harder(table: &Table<'_>, index: &Index, result: &RecallResult) -> Option<Remedy> {
    let (option, most) = match index.method.as_str() {
        "hnsw" => ("hnsw.ef_search", 1_000),
        _ => ("ivfflat.probes", index.option("lists", 100)),
    };
    let (_, now) = pairs(&result.settings).find(|(name, _)| *name == option)?;
    let now: u32 = now.parse().ok().filter(|now| *now < most)?;
    let more = now.saturating_mul(2).min(most).to_string();
    let (option, more) = (literal(option), literal(&more));
    Some(
        Remedy::on_coordinator(format!("SELECT fleet.set_search_option({option}, {more})"))
            .then(format!("SELECT * FROM fleet.vector_recall({})", literal(table.name))),
    )
}
