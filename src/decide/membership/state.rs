//! Owns the states of a worker and what the plan may want with it, in words that stay the same.
//! Must not say when a worker is what: the table in `situations` does.

use crate::condition::Condition;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Discovered,
    Unreachable,
    Refused,
    Standby,
    Ready,
    Active,
    Inactive,
    Absent,
    Conflict,
    Blank,
    Removing,
    Removed,
}

impl State {
    pub const ALL: [Self; 12] = [
        Self::Discovered,
        Self::Unreachable,
        Self::Refused,
        Self::Standby,
        Self::Ready,
        Self::Active,
        Self::Inactive,
        Self::Absent,
        Self::Conflict,
        Self::Blank,
        Self::Removing,
        Self::Removed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Standby => "standby",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Absent => "absent",
            Self::Conflict => "conflict",
            Self::Blank => "blank",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }
}

impl State {
    /// What a worker's state means for the cluster. Data is at stake only where it is registered.
    pub fn condition(self, is_registered: bool) -> Condition {
        match self {
            // A registered one takes no writes.
            Self::Standby if is_registered => Condition::Red,
            Self::Active | Self::Standby | Self::Removing | Self::Removed => Condition::Green,
            Self::Discovered | Self::Ready | Self::Refused | Self::Inactive => Condition::Yellow,
            Self::Unreachable | Self::Absent | Self::Conflict | Self::Blank => {
                match is_registered {
                    true => Condition::Red,
                    false => Condition::Yellow,
                }
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the plan wants with a worker, as `citus_autoregister()` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Register,
    UpdateAddress,
    Reactivate,
    Disable,
    Refuse,
    None,
}
