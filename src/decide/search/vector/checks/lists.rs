//! Owns the checks of ivfflat's lists: whether they were trained on these rows, and how many there are.
//! Must not read them: what the build has written is told by the metapage's evidence.

use super::each::each_index;
use super::nodes::rounded;
use super::upkeep::of_table;
use crate::condition::Condition;
use crate::search::vector::finding::{Concern, Evidence, Finding, Remedy};
use crate::search::vector::fleet::Fleet;
use crate::search::vector::model::{Index, Metapage};
use crate::search::vector::sizes::{LISTS, advised_lists};

/// Rows that came after the training, as growth of the lists.
const GROWN: f64 = 2.0;
/// How far the number of lists may be from what is advised.
const OFF: f64 = 4.0;

/// How many times as large as its build has left them the lists are, and whether the build had next
/// to nothing to train on: not one list then filled its first page.
fn growth(index: &Index) -> Option<(f64, bool)> {
    let Some(Metapage::Ivfflat { lists, built_pages: Some(built), head_pages: Some(head), .. }) =
        index.meta
    else {
        return None;
    };
    let now = index.pages?.saturating_sub(head) as f64;
    let ratio = now / built as f64;
    // With one list there is nothing that the training could have parted.
    (index.valid && lists > 1 && ratio > GROWN).then_some((ratio, built <= u64::from(lists)))
}

pub fn training(fleet: &Fleet<'_>) -> Vec<Finding> {
    each_index(
        fleet,
        |spot| growth(spot.index),
        |spot, (ratio, untrained), everywhere| Finding {
            status: if untrained { Condition::Red } else { Condition::Yellow },
            subject: spot.subject(fleet),
            symptom: format!(
                "the lists of {} on {} have {ratio:.1} times the pages of their training{}",
                spot.index.quoted,
                spot.node(fleet),
                if untrained { ", which had no or very few rows" } else { "" }
            ),
            evidence: Evidence::estimated("pages per page at the build", rounded(ratio), GROWN),
            remedy: Some(spot.rebuild(fleet, everywhere)),
        },
    )
}

/// One number of lists serves all shards of a table, so their mean decides.
pub fn number(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        let rows: Vec<f64> =
            table.placements.iter().filter_map(|p| Some(p.relation?.rows())).collect();
        let mean = rows.iter().sum::<f64>() / rows.len().max(1) as f64;
        if mean < fleet.thresholds.index_min_rows {
            continue;
        }
        let advised = advised_lists(mean);
        let shells = table.shell.indexes.iter().filter(|i| i.method == "ivfflat" && !i.partial);
        for shell in shells {
            let lists = f64::from(shell.option("lists", LISTS));
            if (lists / advised).max(advised / lists) <= OFF {
                continue;
            }
            let index = format!("{}.{}", table.shell.quoted_schema, shell.quoted);
            findings.push(Finding {
                status: Condition::Yellow,
                subject: Concern { index: Some(shell.quoted.clone()), ..of_table(table) },
                symptom: format!(
                    "index {index} has {lists} lists for {} rows a shard",
                    mean.round()
                ),
                evidence: Evidence::estimated("lists", lists, advised),
                remedy: Some(
                    Remedy::on_coordinator(format!("ALTER INDEX {index} SET (lists = {advised})"))
                        .then(format!("REINDEX INDEX CONCURRENTLY {index}")),
                ),
            });
        }
    }
    findings
}
