//! Owns how the fleet is in one word, and why: what `/health` and whoever watches it go by.
//! Must not judge anything but the controller: whoever has a state or a finding says how bad it is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How something is. The worst of several wins, so the order is part of the meaning: what is not
/// known is worse than what is well, and better than what is known to be bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    #[default]
    Green,
    Unknown,
    Yellow,
    Red,
}

impl Condition {
    /// What they are called, in their order.
    pub const NAMES: [&str; 4] = ["green", "unknown", "yellow", "red"];

    /// That of a row, by its `status`; none where it says nothing that is one.
    pub fn of_row(row: &Value) -> Option<Self> {
        Self::deserialize(&row["status"]).ok()
    }
}

/// Seconds without a good cycle after which the controller counts as stuck.
const STALE_SECONDS: f64 = 60.0;

/// Whether the controller works: `age` is the number of seconds since its last good cycle, if any.
pub fn of_controller(age: Option<f64>) -> Condition {
    match age {
        Some(age) if age <= STALE_SECONDS => Condition::Green,
        _ => Condition::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_does_not_move_is_red() {
        assert_eq!(of_controller(Some(60.0)), Condition::Green);
        assert_eq!(of_controller(Some(61.0)), Condition::Red);
        assert_eq!(of_controller(None), Condition::Red);
    }
}
