//! Owns the check of what searches order by, as far as pg_stat_statements tells: whether an index serves it.
//! Must not judge a search that an index serves.

use super::columns::{create_for, is_indexable, is_large};
use crate::condition::Condition;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Table};
use crate::search::vector::model::{Index, Relation, Search};
use std::collections::BTreeMap;

/// So many searches that read all rows are no try.
const MANY: u64 = 100;
/// Of so many of the searches the statistics have to show a read of all rows.
const MOSTLY: f64 = 0.5;

/// The operator class that serves an operator, without the type in front (pgvector's documentation).
fn class(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "<->" => "l2_ops",
        "<#>" => "ip_ops",
        "<=>" => "cosine_ops",
        "<+>" => "l1_ops",
        "<~>" => "hamming_ops",
        "<%>" => "jaccard_ops",
        _ => return None,
    })
}

/// Whether a valid index of the relation orders by the operator; it is taken for one where somebody holds it
/// so that its definition cannot be read.
fn is_served(relation: &Relation, operator: &str) -> bool {
    let class = class(operator).unwrap_or_default();
    let orders = |index: &Index| index.definition.as_ref().is_none_or(|it| it.contains(class));
    relation.indexes.iter().any(|index| index.valid && orders(index))
}

pub fn unserved(fleet: &Fleet<'_>) -> Vec<Finding> {
    fleet.tables.iter().flat_map(|table| unserved_of(fleet, table)).collect()
}

fn unserved_of(fleet: &Fleet<'_>, table: &Table<'_>) -> Vec<Finding> {
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    for placement in &table.placements {
        let Some(relation) = placement.relation.filter(|it| is_large(fleet, it)) else { continue };
        let searches = fleet.node(placement).answer.map(|evidence| evidence.searches.as_slice());
        let of_it = |search: &&Search| search.relation == relation.oid;
        for search in searches.unwrap_or_default().iter().filter(of_it) {
            // Where another index finds few rows to be sorted, the shard is not read as a whole.
            let reads = relation.rows_read as f64 / relation.rows();
            let is_read = reads >= search.calls as f64 * MOSTLY;
            // Without any index there is another finding.
            if is_read && !relation.indexes.is_empty() && !is_served(relation, &search.operator) {
                let known = calls.entry(&search.operator).or_default();
                *known = search.calls.max(*known);
            }
        }
    }
    calls
        .into_iter()
        .filter(|(_, calls)| *calls >= MANY)
        .map(|(operator, calls)| Finding {
            status: Condition::Yellow,
            subject: table.subject(),
            symptom: format!(
                "{} was searched {calls} times by {operator}, by which no index orders: each search reads all rows",
                table.name
            ),
            evidence: Evidence::exact("searches of a shard", calls, MANY),
            remedy: create(fleet, table, operator),
        })
        .collect()
}

/// The index that would serve it, where there is one column that it can be about.
fn create(fleet: &Fleet<'_>, table: &Table<'_>, operator: &str) -> Option<Remedy> {
    let class = class(operator)?;
    let [column] = &table.shell.columns[..] else { return None };
    let takes_class = !class.starts_with("hamming") && !class.starts_with("jaccard");
    let is_plain = is_indexable(table, column) && !column.is_domain && takes_class;
    is_plain.then(|| create_for(fleet, table, column, class))
}
