//! Owns what is known today of the recall of each vector index of each table: which of the figures that were
//! measured still tell of it, and what they say together. Must not call it good or bad: the check does.

use super::fleet::{Fleet, Placement, Table, is_leftover};
use super::model::{Index, RecallResult, Relation};
use super::nodes::FleetNode;
use crate::search::recall::summary::Sampled;
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;

/// Of fewer queries nothing is concluded.
const LEAST_QUERIES: u64 = 30;
/// The share of the rows that have to be on placements with a figure.
const LEAST_COVERED: f64 = 0.5;
/// So many writes per row after which a figure tells of another index: the share of a table's rows from which
/// on autovacuum acts.
const CHANGED: f64 = 0.2;
/// Seconds that a figure may seem to come from the future: clocks are set.
const CLOCKS: f64 = 60.0;

/// One vector index of a table, on all placements where it serves searches.
pub struct Recall<'f, 'a> {
    pub table: &'f Table<'a>,
    pub shell: &'a Index,
    pub places: Vec<Measurement<'f, 'a>>,
}

pub struct Measurement<'f, 'a> {
    pub placement: &'f Placement<'a>,
    pub relation: &'a Relation,
    pub index: &'a Index,
    /// The figure that tells of the index as it is and is searched today.
    pub figure: Result<&'a RecallResult, Outdated>,
}

/// Why there is no such figure.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Outdated {
    #[error("it has not been measured")]
    NotMeasured,
    #[error("it was measured {0:.0} days ago")]
    Old(f64),
    #[error("it was measured at a moment that is still to come, by the clock of today")]
    ToCome,
    #[error(
        "the statistics of its node were reset or lost since it was measured, so that nobody can tell what was written"
    )]
    Uncounted,
    #[error("the index was rebuilt since it was measured")]
    Rebuilt,
    #[error("it was measured with {name} = {then}, which is {now} now")]
    Settings { name: String, then: String, now: String },
    #[error("{0:.0} rows were written for each 100 that there were when it was measured")]
    Rows(f64),
}

/// Results by node, port, relation and index.
type Results<'a> = HashMap<(&'a str, u16, &'a str, &'a str), &'a RecallResult>;

/// Every vector index of every table.
pub fn recalls<'f, 'a>(fleet: &'f Fleet<'a>) -> Vec<Recall<'f, 'a>> {
    let key = |r: &'a RecallResult| {
        (r.nodename.as_str(), r.nodeport, r.placement.as_str(), r.index.as_str())
    };
    let results: Results<'_> = fleet.recalls.iter().map(|result| (key(result), result)).collect();
    let indexes = fleet.tables.iter().flat_map(|table| {
        let shells = table.shell.indexes.iter().filter(|shell| !is_leftover(shell));
        shells.map(move |shell| (table, shell))
    });
    indexes
        .map(|(table, shell)| Recall {
            table,
            shell,
            places: table
                .placements
                .iter()
                .filter_map(|placement| {
                    let (relation, index) = (placement.relation?, placement.counterpart(shell)?);
                    let figure = figure(fleet, &results, placement, relation, index);
                    index.valid.then_some(Measurement { placement, relation, index, figure })
                })
                .collect(),
        })
        .collect()
}

fn figure<'a>(
    fleet: &Fleet<'_>,
    results: &Results<'a>,
    placement: &Placement<'_>,
    relation: &Relation,
    index: &Index,
) -> Result<&'a RecallResult, Outdated> {
    let node = fleet.node(placement);
    let key = (node.name.as_str(), node.port, relation.quoted.as_str(), index.name.as_str());
    let result = *results.get(&key).ok_or(Outdated::NotMeasured)?;
    if result.filenode != index.filenode {
        return Err(Outdated::Rebuilt);
    }
    let age = fleet.observed_at - result.measured_at;
    if age < -CLOCKS {
        return Err(Outdated::ToCome);
    }
    if age > fleet.thresholds.recall_lasts {
        return Err(Outdated::Old(age / 86_400.0));
    }
    if let Some((name, then, now)) = changed_setting(node, &result.settings) {
        return Err(Outdated::Settings { name: name.into(), then: then.into(), now: now.into() });
    }
    // By another count nobody can tell what was written.
    let since = node.answer.ok().and_then(|evidence| evidence.counted_since);
    let written = relation.written().checked_sub(result.written);
    let Some(written) = written.filter(|_| is_same(since, result.counted_since)) else {
        return Err(Outdated::Uncounted);
    };
    // Entries written to the index since then, per row that there was.
    let changed = written as f64 / (result.rows as f64).max(1.0);
    if changed > CHANGED { Err(Outdated::Rows(changed * 100.0)) } else { Ok(result) }
}

/// The first of the settings, given as `name=value` between spaces, that a node has otherwise.
fn changed_setting<'n>(
    node: &FleetNode<'n>,
    settings: &'n str,
) -> Option<(&'n str, &'n str, &'n str)> {
    let known = &node.answer.ok()?.settings;
    pairs(settings).find_map(|(name, then)| {
        let now = known.get(name)?.value.as_str();
        (now != then).then_some((name, then, now))
    })
}

/// Whether two moments are one, after a way through text.
fn is_same(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() < 0.01,
        (one, other) => one.is_none() && other.is_none(),
    }
}

pub fn pairs(settings: &str) -> impl Iterator<Item = (&str, &str)> {
    settings.split(' ').filter_map(|word| word.split_once('='))
}

impl<'f, 'a> Recall<'f, 'a> {
    /// The placements with a figure.
    pub fn measured(&self) -> impl Iterator<Item = (&Measurement<'f, 'a>, &'a RecallResult)> {
        self.places.iter().filter_map(|place| Some((place, *place.figure.as_ref().ok()?)))
    }

    pub fn queries(&self) -> u64 {
        self.measured().map(|(_, result)| u64::from(result.queries)).sum()
    }

    /// When the oldest of the figures was measured, in seconds since 1970.
    pub fn measured_at(&self) -> Option<f64> {
        self.measured().map(|(_, result)| result.measured_at).reduce(f64::min)
    }

    /// The recall of all placements together, each by its rows, as they take part in the merged answer.
    pub fn together(&self) -> Option<Sampled> {
        let parts = self.measured().map(|(place, result)| (sampled(result), place.rows()));
        Sampled::together(&parts.collect::<Vec<_>>())
    }

    /// Why the recall is not known; nothing where it is.
    pub fn doubt(&self) -> Option<String> {
        let covered: f64 = self.measured().map(|(place, _)| place.rows()).sum();
        let (measured, queries) = (self.measured().count(), self.queries());
        let silent = self.silent();
        if silent > 0 {
            return Some(format!(
                "nothing is known of {silent} of {} placements",
                self.placements()
            ));
        }
        if measured == 0 || covered < LEAST_COVERED * self.rows() {
            let why = self.main_reason().unwrap_or(Outdated::NotMeasured);
            return Some(match measured {
                0 => why.to_string(),
                _ => {
                    let all = self.places.len();
                    format!("on {} of {all} placements {why}", all - measured)
                }
            });
        }
        (queries < LEAST_QUERIES).then(|| format!("it was measured with {queries} queries only"))
    }

    /// All placements of the table.
    pub fn placements(&self) -> usize {
        self.table.placements.len()
    }

    /// Placements of which nothing is known.
    pub fn silent(&self) -> usize {
        self.table.placements.iter().filter(|placement| placement.relation.is_none()).count()
    }

    /// Rows of all placements together.
    pub fn rows(&self) -> f64 {
        self.places.iter().map(Measurement::rows).sum()
    }

    /// What most rows without a figure lack one for.
    fn main_reason(&self) -> Option<Outdated> {
        let mut reasons: BTreeMap<String, (f64, &Outdated)> = BTreeMap::new();
        for place in &self.places {
            let Err(why) = &place.figure else { continue };
            let kind = format!("{:?}", std::mem::discriminant(why));
            reasons.entry(kind).or_insert((0.0, why)).0 += place.rows().max(1.0);
        }
        reasons.into_values().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, why)| why.clone())
    }
}

impl Measurement<'_, '_> {
    pub fn rows(&self) -> f64 {
        self.relation.indexed_rows(self.index)
    }
}

pub fn sampled(result: &RecallResult) -> Sampled {
    let RecallResult { queries, recall, deviation, .. } = result;
    Sampled { queries: f64::from(*queries).max(1.0), mean: *recall, deviation: *deviation }
}
