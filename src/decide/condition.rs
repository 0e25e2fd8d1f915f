//! Owns how the fleet is in one word, and why: what `/health` and whoever watches it go by.
//! Must not judge a worker anew: its state says everything.

use super::model::State;
use super::vector::finding::Status;

/// Seconds without a good cycle after which the controller counts as stuck.
const STALE_SECONDS: f64 = 60.0;

/// What a worker's state means for the cluster. Data is at stake only where it is registered.
pub fn of_worker(state: State, is_registered: bool) -> Status {
    match state {
        State::Active | State::Standby | State::Removing | State::Removed => Status::Green,
        State::Discovered | State::Ready | State::Refused | State::Inactive => Status::Yellow,
        State::Unreachable | State::Absent | State::Conflict | State::Blank => {
            match is_registered {
                true => Status::Red,
                false => Status::Yellow,
            }
        }
    }
}

/// Whether the controller works: `age` is the number of seconds since its last good cycle, if any.
pub fn of_controller(age: Option<f64>) -> Status {
    match age {
        Some(age) if age <= STALE_SECONDS => Status::Green,
        _ => Status::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_worker_that_is_gone_is_worse_than_a_candidate() {
        assert_eq!(of_worker(State::Unreachable, true), Status::Red);
        assert_eq!(of_worker(State::Unreachable, false), Status::Yellow);
        assert_eq!(of_worker(State::Active, true), Status::Green);
        assert_eq!(of_worker(State::Refused, false), Status::Yellow);
    }

    #[test]
    fn a_controller_that_does_not_move_is_red() {
        assert_eq!(of_controller(Some(60.0)), Status::Green);
        assert_eq!(of_controller(Some(61.0)), Status::Red);
        assert_eq!(of_controller(None), Status::Red);
    }
}
