//! Owns the answer of one node: what each of its placements measured, as JSON.
//! Must not judge it.

use super::summary::{Summary, TAIL};
use crate::node::Node;
use serde::{Deserialize, Serialize};

/// What was measured, and where.
#[derive(Clone, Debug)]
pub struct Placed {
    pub node: Node,
    /// None for a table that Citus does not know.
    pub shardid: Option<i64>,
    pub measured: Measured,
}

/// What was measured of one index of one placement, or why not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The placement's relation, as the node was asked for it.
    pub relation: String,
    /// The index's name; none where there was none to measure.
    pub index: Option<String>,
    /// Its file, which is another one after a rebuild.
    pub filenode: Option<u32>,
    /// The search settings that were in effect, as `name=value` between spaces.
    pub settings: Option<String>,
    pub queries: usize,
    pub recall: Option<f64>,
    /// The standard deviation of recall between queries.
    #[serde(default)]
    pub deviation: Option<f64>,
    pub ci_low: Option<f64>,
    pub ci_high: Option<f64>,
    pub p10: Option<f64>,
    pub returned_ratio: Option<f64>,
    pub duration_ms: Option<f64>,
    /// Rows that the index should hold, and entries that had ever been written to it (`Relation::written`).
    #[serde(default)]
    pub rows: Option<u64>,
    #[serde(default)]
    pub written: Option<u64>,
    #[serde(default)]
    pub counted_since: Option<f64>,
    /// What to know about the figures, or why there are none.
    pub note: Option<String>,
    /// The relation has no hnsw or ivfflat index.
    #[serde(default)]
    pub unindexed: bool,
}

impl Measured {
    /// A placement, or an index of it, without figures.
    pub fn not(relation: &str, index: Option<&str>, why: impl Into<String>) -> Self {
        Self {
            relation: relation.to_owned(),
            index: index.map(str::to_owned),
            note: Some(why.into()),
            ..Self::default()
        }
    }

    /// With figures to a millionth: more digits would only show how sums are rounded.
    pub fn with(mut self, summary: Summary) -> Self {
        let round = |value: f64| Some((value * 1e6).round() / 1e6);
        let (low, high) = summary.recall.interval(TAIL);
        self.queries = summary.recall.queries as usize;
        self.recall = round(summary.recall.mean);
        self.deviation = round(summary.recall.deviation);
        (self.ci_low, self.ci_high) = (round(low), round(high));
        self.p10 = round(summary.p10);
        self.returned_ratio = round(summary.returned_ratio);
        self
    }
}
