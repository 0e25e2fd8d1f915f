//! Owns the checks of measured recall: whether searches find what they should, and whether that is known.
//! Must not judge by chance: a figure is low only where its confidence interval is, and the more of them are
//! judged at once, the wider that is.

use super::each::reindex;
use super::nodes::rounded;
use crate::condition::Condition;
use crate::node::literal;
use crate::search::recall::summary::{Sampled, TAIL};
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Table};
use crate::search::vector::model::{Index, RecallResult};
use crate::search::vector::recalls::{Measurement, Recall, pairs, recalls, sampled};
use crate::search::vector::sizes::LISTS;

pub fn unknown(fleet: &Fleet<'_>) -> Vec<Finding> {
    let unknown = |recall: Recall<'_, '_>| {
        // Whoever has an index gets its answers: of many small shards as of a few large ones. Those of which
        // nothing is known are taken for as large as the others.
        let known = (recall.placements() - recall.silent()) as f64;
        let rows = recall.rows() * recall.placements() as f64 / known;
        let is_needed = rows >= fleet.thresholds.index_min_rows;
        let why = recall.doubt().filter(|_| is_needed)?;
        let (name, index) = (recall.table.name, &recall.shell.quoted);
        Some(Finding {
            status: Condition::Unknown,
            subject: recall.table.subject_of_index(recall.shell),
            symptom: format!("the recall of index {index} of {name} is not known: {why}"),
            evidence: Evidence::exact(
                "placements with a figure that still holds",
                recall.measured().count(),
                recall.placements(),
            ),
            // A node that does not answer cannot be measured either.
            remedy: (recall.silent() == 0).then(|| Remedy::on_coordinator(measure(recall.table))),
        })
    };
    recalls(fleet).into_iter().filter_map(unknown).collect()
}

/// A partitioned table is measured as a whole.
fn measure(table: &Table<'_>) -> String {
    let name = table.shell.root.as_deref().unwrap_or(table.name);
    format!("SELECT * FROM fleet.vector_recall({})", literal(name))
}

/// How low is low, and how sure that has to be.
struct Bar {
    target: f64,
    /// What the interval of one of so many figures may leave out.
    tail: f64,
}

impl Bar {
    /// One wrong verdict in forty on all of `count` figures together, by Bonferroni's correction.
    fn of(fleet: &Fleet<'_>, count: usize) -> Self {
        Self { target: fleet.thresholds.recall_target, tail: TAIL / count.max(1) as f64 }
    }

    /// How bad a recall surely is; nothing where it may well reach the target.
    fn judge(&self, sampled: &Sampled) -> Option<Condition> {
        let most = sampled.interval(self.tail).1;
        // Twice as many neighbours are missed as the target allows.
        let far_below = 1.0 - 2.0 * (1.0 - self.target);
        match most {
            most if most >= self.target => None,
            most if most >= far_below => Some(Condition::Yellow),
            _ => Some(Condition::Red),
        }
    }
}

pub fn low(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut known = recalls(fleet);
    known.retain(|recall| recall.doubt().is_none());
    let places = known.iter().map(|recall| recall.measured().count()).sum();
    let (of_table, of_place) = (Bar::of(fleet, known.len()), Bar::of(fleet, places));
    known.iter().flat_map(|recall| low_in(fleet, recall, &of_table, &of_place)).collect()
}

/// Placements that are low while the others together are not, or the table as a whole.
fn low_in(
    fleet: &Fleet<'_>,
    recall: &Recall<'_, '_>,
    of_table: &Bar,
    of_place: &Bar,
) -> Vec<Finding> {
    let judged = recall.measured().map(|(place, result)| {
        let sampled = sampled(result);
        (place, result, sampled, of_place.judge(&sampled))
    });
    let (low, others): (Vec<_>, Vec<_>) = judged.partition(|(.., verdict)| verdict.is_some());
    let others: Vec<(Sampled, f64)> =
        others.iter().map(|(place, _, sampled, _)| (*sampled, place.rows())).collect();
    if Sampled::together(&others).is_some_and(|others| of_table.judge(&others).is_none()) {
        let told = low.into_iter().filter_map(|(place, result, sampled, verdict)| {
            Some(low_placement(fleet, recall, place, result, &sampled, verdict?))
        });
        return told.collect();
    }
    let whole = recall.together().and_then(|sampled| Some((sampled, of_table.judge(&sampled)?)));
    whole.map(|(sampled, status)| low_table(fleet, recall, &sampled, status)).into_iter().collect()
}

fn low_table(
    fleet: &Fleet<'_>,
    recall: &Recall<'_, '_>,
    sampled: &Sampled,
    status: Condition,
) -> Finding {
    let (table, shell) = (recall.table, recall.shell);
    let results: Vec<&RecallResult> = recall.measured().map(|(_, result)| result).collect();
    let harder = results.first().and_then(|result| harder(table, shell, result));
    let rebuild = || Remedy::on_coordinator(reindex(table.shell, shell));
    Finding {
        status,
        subject: table.subject_of_index(shell),
        symptom: format!(
            "index {} of {} {}",
            shell.quoted,
            table.name,
            told(fleet, sampled, recall.queries(), &results)
        ),
        evidence: evidence(fleet, sampled),
        remedy: Some(harder.unwrap_or_else(rebuild)),
    }
}

/// More effort for every search would not mend one placement.
fn low_placement(
    fleet: &Fleet<'_>,
    recall: &Recall<'_, '_>,
    place: &Measurement<'_, '_>,
    result: &RecallResult,
    sampled: &Sampled,
    status: Condition,
) -> Finding {
    let Measurement { placement, relation, index, .. } = place;
    Finding {
        status,
        subject: fleet.subject_of(recall.table, placement, recall.shell),
        symptom: format!(
            "index {} on {}, unlike those of other shards, {}",
            index.quoted,
            fleet.node(placement).address,
            told(fleet, sampled, result.queries.into(), &[result])
        ),
        evidence: evidence(fleet, sampled),
        remedy: Some(fleet.on_node_of(placement, reindex(relation, index))),
    }
}

fn evidence(fleet: &Fleet<'_>, sampled: &Sampled) -> Evidence {
    Evidence::estimated("recall", rounded(sampled.mean), fleet.thresholds.recall_target)
}

/// The figure with what it was measured by, and when.
fn told(fleet: &Fleet<'_>, sampled: &Sampled, queries: u64, results: &[&RecallResult]) -> String {
    let (low, high) = sampled.interval(TAIL);
    let returned = results.iter().map(|result| result.returned_ratio).fold(1.0, f64::min);
    let missing = match returned {
        ratio if ratio < 1.0 => {
            format!(", and returns as few as {} % of the rows asked for", (ratio * 100.0).floor())
        }
        _ => String::new(),
    };
    let oldest = results.iter().map(|result| result.measured_at).fold(f64::INFINITY, f64::min);
    format!(
        "finds {:.0} % ({:.0} to {:.0} %) of the {} nearest neighbours{missing}: {queries} queries with {}, {} ago",
        sampled.mean * 100.0,
        low * 100.0,
        high * 100.0,
        results[0].k,
        results[0].settings,
        age((fleet.observed_at - oldest).max(0.0))
    )
}

/// Seconds, for people.
fn age(seconds: f64) -> String {
    let (minutes, hours) = (seconds / 60.0, seconds / 3600.0);
    match hours {
        hours if hours >= 48.0 => format!("{:.0} days", hours / 24.0),
        hours if hours >= 2.0 => format!("{hours:.0} h"),
        _ => format!("{minutes:.0} min"),
    }
}

/// At least so much effort is offered: pgvector's own default, of which k neighbours take twice their number.
const LEAST_EFFORT: u32 = 40;

/// Twice the effort for each search, and a look at what it brings; nothing where there is no more.
fn harder(table: &Table<'_>, index: &Index, result: &RecallResult) -> Option<Remedy> {
    let (option, most) = match index.method.as_str() {
        "hnsw" => ("hnsw.ef_search", 1_000),
        _ => ("ivfflat.probes", index.option("lists", LISTS)),
    };
    let (_, now) = pairs(&result.settings).find(|(name, _)| *name == option)?;
    let now: u32 = now.parse().ok().filter(|now| *now < most)?;
    let least = if index.method == "hnsw" { LEAST_EFFORT.max(2 * result.k) } else { 1 };
    let more = now.saturating_mul(2).max(least).min(most).to_string();
    let (option, more) = (literal(option), literal(&more));
    let set = format!("SELECT fleet.set_search_option({option}, {more})");
    Some(Remedy::on_coordinator(set).then(measure(table)))
}
