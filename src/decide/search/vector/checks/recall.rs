//! Owns the check of measured recall: whether searches find what they should, where that has been
//! sampled. Must not count a result that tells of another index, or of other settings, than now.

use super::each::{Spot, each_index};
use super::nodes::rounded;
use crate::condition::Condition;
use crate::node::literal;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, FleetNode, Table};
use crate::search::vector::model::{Index, RecallResult};
use std::collections::HashMap;

/// Results by node, port, relation and index.
type Results<'a> = HashMap<(&'a str, u16, &'a str, &'a str), &'a RecallResult>;

pub fn low(fleet: &Fleet<'_>) -> Vec<Finding> {
    let key = |r| {
        let RecallResult { nodename, nodeport, placement, index, .. }: &RecallResult = r;
        (nodename.as_str(), *nodeport, placement.as_str(), index.as_str())
    };
    let results: Results<'_> = fleet.recalls.iter().map(|result| (key(result), result)).collect();
    let target = fleet.thresholds.recall_target;
    each_index(
        fleet,
        |spot| result(fleet, &results, &spot).filter(|result| result.recall < target),
        |spot, result, everywhere| Finding {
            status: match result.ci_high {
                Some(high) if high < target => Condition::Red,
                _ => Condition::Yellow,
            },
            subject: spot.subject(fleet),
            symptom: format!(
                "index {} on {} finds {:.0} % of the {} nearest neighbours{}",
                spot.index.quoted,
                spot.node(fleet),
                result.recall * 100.0,
                result.k,
                missing(result)
            ),
            evidence: Evidence::estimated("recall", rounded(result.recall), target),
            remedy: Some(
                harder(spot.place.table, spot.index, result)
                    .unwrap_or_else(|| spot.rebuild(fleet, everywhere)),
            ),
        },
    )
}

/// The result that tells of an index as it is, searched as it is searched now.
fn result<'a>(
    fleet: &Fleet<'_>,
    results: &Results<'a>,
    spot: &Spot<'_, '_>,
) -> Option<&'a RecallResult> {
    let node = fleet.node(spot.place.placement);
    let relation = spot.place.relation.quoted.as_str();
    let result = *results.get(&(&node.name, node.port, relation, &spot.index.name))?;
    let is_current = result.filenode == spot.index.filenode && has_settings(node, &result.settings);
    is_current.then_some(result)
}

/// Whether a node has settings, given as `name=value` between spaces.
fn has_settings(node: &FleetNode<'_>, settings: &str) -> bool {
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
