//! Owns the shape of a finding: what is wrong where, how bad it is, and what mends it.
//! Must not find anything.

use crate::condition::Condition;
use serde::Serialize;
use serde_json::Value;

/// What a finding is about; the more is filled in, the narrower it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Concern {
    /// `host:port` as in `pg_dist_node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The table as an operator knows it, with its schema, quoted where it has to be.
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
    pub value: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub threshold: Value,
    pub confidence: Confidence,
}

impl Evidence {
    pub fn exact(what: &'static str, value: impl Into<Value>, threshold: impl Into<Value>) -> Self {
        let (value, threshold) = (value.into(), threshold.into());
        Self { what, value, threshold, confidence: Confidence::Exact }
    }

    pub fn estimated(
        what: &'static str,
        value: impl Into<Value>,
        threshold: impl Into<Value>,
    ) -> Self {
        Self { confidence: Confidence::Estimated, ..Self::exact(what, value, threshold) }
    }
}

/// Where statements on the coordinator are run.
pub const COORDINATOR: &str = "coordinator";

/// Statements that mend it, and the node to run them on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remedy {
    /// `coordinator`, or `host:port`.
    pub run_on: String,
    /// One statement per element, to be run one by one: some of them refuse a transaction block.
    pub sql: Vec<String>,
}

impl Remedy {
    pub fn on_coordinator(sql: impl Into<String>) -> Self {
        Self { run_on: COORDINATOR.to_owned(), sql: vec![sql.into()] }
    }

    /// For psql: one after the other.
    pub fn script(&self) -> String {
        format!("{};", self.sql.join(";\n"))
    }

    pub fn then(mut self, sql: impl Into<String>) -> Self {
        self.sql.push(sql.into());
        self
    }
}

/// One thing that is wrong, or worth knowing where its status is green. Which one it is, what it does
/// to users and why it comes about stands with the check that found it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub status: Condition,
    pub subject: Concern,
    /// The fact, in a sentence.
    pub symptom: String,
    pub evidence: Evidence,
    /// What mends it; none where no statement can.
    pub remedy: Option<Remedy>,
}

#[cfg(test)]
mod tests {
    use super::Condition::*;

    #[test]
    fn they_are_called_what_json_calls_them() {
        let names = [Green, Unknown, Yellow, Red].map(|status| serde_json::json!(status));
        assert_eq!(names, super::Condition::NAMES.map(|name| serde_json::json!(name)));
    }

    #[test]
    fn the_worst_wins() {
        assert_eq!([Green, Unknown].into_iter().max(), Some(Unknown));
        assert_eq!([Yellow, Unknown, Green].into_iter().max(), Some(Yellow));
        assert_eq!([Yellow, Red, Unknown].into_iter().max(), Some(Red));
    }
}
