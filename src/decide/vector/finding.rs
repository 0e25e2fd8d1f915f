//! Owns the shape of a finding: what is wrong where, how bad it is, and what mends it.
//! Must not find anything.

use serde::Serialize;

/// How something is. The worst of several wins, so the order is part of the meaning: what is not
/// known is worse than what is well, and better than what is known to be bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Green,
    Unknown,
    Yellow,
    Red,
}

/// What a finding is about; the more is filled in, the narrower it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Subject {
    /// `host:port` as in `pg_dist_node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The table as an operator knows it, quoted where it has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shardid: Option<i64>,
    /// The index as its table knows it: on the coordinator, not on the shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
}

/// Whether a value was counted or computed from estimates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Exact,
    Estimated,
}

/// What was measured, and what it is measured against.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// What the value is, with its unit.
    pub what: &'static str,
    pub value: serde_json::Value,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub threshold: serde_json::Value,
}

/// Statements that mend it, and the node to run them on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// `coordinator`, or `host:port`.
    pub run_on: String,
    /// One statement per element: some of them cannot run in one transaction.
    pub sql: Vec<String>,
}

/// One thing that is wrong, or worth knowing where its status is green.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable: what it means in general is in `checks::CHECKS` and in docs/vector-health.md.
    pub id: &'static str,
    pub status: Status,
    pub subject: Subject,
    /// The fact, in a sentence.
    pub symptom: String,
    pub evidence: Evidence,
    pub confidence: Confidence,
    /// What mends it; none where no statement can.
    pub remedy: Option<Remedy>,
}

#[cfg(test)]
mod tests {
    use super::Status::*;

    #[test]
    fn the_worst_wins() {
        assert_eq!([Green, Unknown].into_iter().max(), Some(Unknown));
        assert_eq!([Yellow, Unknown, Green].into_iter().max(), Some(Yellow));
        assert_eq!([Yellow, Red, Unknown].into_iter().max(), Some(Red));
    }
}
