//! Owns the checks of ivfflat's lists: whether they were trained on these rows, and how many there are.
//! Must not read them: what the build has written is told by the metapage's evidence.

use super::each::each_index;
use super::nodes::rounded;
use crate::condition::Condition;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Placement, Table};
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
    // The last list is counted as one page. It may well have been twice as large as the others, which
    // matters where there are few.
    let others = built.saturating_sub(1) as f64;
    let last = 2.0 * others / f64::from(lists.saturating_sub(1).max(1));
    let ratio = now / (others + last.max(1.0));
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

/// How many rows of an index a row has on its own shard, on the mean: of fewer tenants than shards, most
/// shards are empty, and say nothing of those that searches read.
fn usual_rows(table: &Table<'_>, shell: &Index) -> f64 {
    let of = |placement: &Placement<'_>| {
        Some(placement.relation?.filled_rows(placement.counterpart(shell)?))
    };
    let rows: Vec<f64> = table.placements.iter().filter_map(of).collect();
    let all: f64 = rows.iter().sum();
    if all > 0.0 { rows.iter().map(|own| own * own / all).sum() } else { 0.0 }
}

/// One number of lists serves all shards of a table.
pub fn number(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        let shells = table.shell.indexes.iter().filter(|i| i.method == "ivfflat" && !i.partial);
        for shell in shells {
            let rows = usual_rows(table, shell);
            if rows < fleet.thresholds.index_min_rows {
                continue;
            }
            let advised = advised_lists(rows);
            let lists = f64::from(shell.option("lists", LISTS));
            if (lists / advised).max(advised / lists) <= OFF {
                continue;
            }
            let index = format!("{}.{}", table.shell.quoted_schema, shell.quoted);
            findings.push(Finding {
                status: Condition::Yellow,
                subject: table.subject_of_index(shell),
                symptom: format!(
                    "index {index} has {lists} lists for {} rows a shard",
                    rows.round()
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
