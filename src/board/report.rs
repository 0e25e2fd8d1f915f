//! Owns the JSON on the board that is read by name in Rust: what a pass is answered with, and complaints.
//! Must not hold anything secret: everybody in pg_monitor may read it.

use decide::membership::state::Action;
use serde::{Deserialize, Serialize};

/// What is wrong, and what can be done about it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Complaint {
    pub reason: Option<String>,
    pub remedy: Option<String>,
}

/// What a pass wanted and what came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub error: Option<String>,
    pub rows: Vec<ReportRow>,
}

/// A row of `citus_autoregister()`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReportRow {
    pub nodename: String,
    pub nodeport: i32,
    pub nodeid: Option<i32>,
    pub action: Action,
    pub outcome: OutcomeWord,
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeWord {
    Done,
    Planned,
    Failed,
    Skipped,
}

impl OutcomeWord {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Planned => "planned",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Report {
    /// Why a request could not be met.
    pub fn failed(error: &str) -> Self {
        Self { error: Some(error.to_owned()), rows: Vec::new() }
    }
}
