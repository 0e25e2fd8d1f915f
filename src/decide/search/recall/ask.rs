//! Owns what a measurement is asked for, and which values make no sense.
//! Must not know how it is carried out.

use std::time::Duration;
use thiserror::Error;

/// Distances kept at the same time: k of them for each query, twice.
const MOST_DISTANCES: i64 = 10_000_000;
/// Query vectors are at most 8 kB each where an index can hold them.
const MOST_QUERIES: i64 = 10_000;
const LONGEST_BUDGET: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Neighbours of each query.
    pub k: usize,
    /// Queries, each of them a row.
    pub sample: usize,
    /// The longest that a node may take.
    pub budget: Duration,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadAsk {
    #[error("k is {0}, but must be at least 1")]
    K(i64),
    #[error("sample is {0}, but must be from 1 to {MOST_QUERIES}")]
    Sample(i64),
    #[error("k times sample is {0}, more than {MOST_DISTANCES}")]
    Product(i64),
    #[error("budget is {} ms, but must be more than 0 and at most a day", .0 / 1000)]
    Budget(i64),
}

impl Ask {
    /// As `fleet.vector_recall` asks where nothing else is said.
    pub const DEFAULT: Self = Self { k: 10, sample: 100, budget: Duration::from_secs(30) };

    /// Whether the figures are fit to be kept for health: of as many neighbours as are always asked
    /// for, and of enough queries.
    pub fn is_to_be_kept(&self) -> bool {
        self.k == Self::DEFAULT.k && self.sample >= Self::DEFAULT.sample
    }

    /// Checks the arguments of `fleet.vector_recall`; the budget is in microseconds.
    pub fn new(k: i32, sample: i32, budget_us: i64) -> Result<Self, BadAsk> {
        let (k, sample) = (i64::from(k), i64::from(sample));
        if k < 1 {
            return Err(BadAsk::K(k));
        }
        if !(1..=MOST_QUERIES).contains(&sample) {
            return Err(BadAsk::Sample(sample));
        }
        if k * sample > MOST_DISTANCES {
            return Err(BadAsk::Product(k * sample));
        }
        let budget = u64::try_from(budget_us).map(Duration::from_micros).unwrap_or_default();
        if budget.is_zero() || budget > LONGEST_BUDGET {
            return Err(BadAsk::Budget(budget_us));
        }
        let whole = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self { k: whole(k), sample: whole(sample), budget })
    }
}

/// Queries that stay in a heap pass, of which the last `covered` part (of 1) has taken `span` and
/// `ahead` is to come, so that it ends within `left`. All rows have to be seen, so only queries can
/// be given up; `least` of them stay in any case. What does not depend on the number of queries
/// shows at the next look.
pub fn affordable(
    queries: usize,
    least: usize,
    (covered, span): (f64, Duration),
    (ahead, left): (f64, Duration),
) -> usize {
    let needed = span.as_secs_f64() / covered * ahead;
    if needed <= left.as_secs_f64() {
        return queries;
    }
    let share = left.as_secs_f64() / needed;
    ((queries as f64 * share) as usize).clamp(least.min(queries), queries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_make_no_sense_are_named() {
        const SECOND: i64 = 1_000_000;
        assert_eq!(
            Ask::new(10, 100, 30 * SECOND),
            Ok(Ask { k: 10, sample: 100, budget: Duration::from_secs(30) })
        );
        assert_eq!(Ask::new(0, 100, SECOND), Err(BadAsk::K(0)));
        assert_eq!(Ask::new(-3, 100, SECOND), Err(BadAsk::K(-3)));
        assert_eq!(Ask::new(1, 0, SECOND), Err(BadAsk::Sample(0)));
        assert_eq!(Ask::new(1, 10_001, SECOND), Err(BadAsk::Sample(10_001)));
        assert_eq!(Ask::new(i32::MAX, 100, SECOND), Err(BadAsk::Product(214_748_364_700)));
        assert_eq!(Ask::new(1, 1, 0), Err(BadAsk::Budget(0)));
        assert_eq!(Ask::new(1, 1, -5), Err(BadAsk::Budget(-5)));
        assert!(Ask::new(1, 1, i64::MAX).is_err());
        assert_eq!(
            BadAsk::Budget(-5_000).to_string(),
            "budget is -5 ms, but must be more than 0 and at most a day"
        );
    }

    #[test]
    fn a_pass_that_would_be_late_gives_up_queries_and_never_rows() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        // A quarter has taken 1 s: 3 s are to come.
        assert_eq!(affordable(100, 10, (0.25, s(1)), (0.75, s(3))), 100);
        assert_eq!(affordable(100, 10, (0.25, s(1)), (0.75, ms(1500))), 50);
        // Half as many are twice as fast: nothing more is given up.
        assert_eq!(affordable(50, 10, (0.25, ms(500)), (0.5, s(1))), 50);
        // Reading alone takes too long: the least stay, until the budget ends it.
        assert_eq!(affordable(100, 10, (0.25, s(5)), (0.75, s(1))), 10);
        assert_eq!(affordable(4, 10, (0.25, s(5)), (0.75, s(1))), 4);
        assert_eq!(affordable(100, 10, (0.25, s(5)), (0.75, s(0))), 10);
        assert_eq!(affordable(100, 10, (0.25, s(5)), (0.0, s(0))), 100);
    }
}
