//! Owns the exact side of one query: its k least distances, and which returned rows are hits.
//! Must not look at rows, only at their distances.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Clone, Copy, Debug)]
struct Distance(f64);

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Distance {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Distance {}

/// The k least distances of a query, of all that it was shown.
#[derive(Clone, Debug)]
pub struct Nearest {
    k: usize,
    greatest_first: BinaryHeap<Distance>,
    /// Once there are k: a distance that is not below it changes nothing.
    bound: f64,
}

/// How one query went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// Returned rows that are no farther than the last of the exact neighbours.
    pub hits: usize,
    /// Rows that the index returned, k at the most.
    pub returned: usize,
    /// Rows that there were to return: k, or fewer in a table that has fewer.
    pub available: usize,
}

impl Nearest {
    pub fn new(k: usize) -> Self {
        Self { k, greatest_first: BinaryHeap::new(), bound: f64::INFINITY }
    }

    /// Shows one row's distance. NaN is the cosine distance of a zero vector, which no index holds:
    /// it is nobody's neighbour.
    #[inline]
    pub fn offer(&mut self, distance: f64) {
        if distance < self.bound || self.greatest_first.len() < self.k {
            self.keep(distance);
        }
    }

    fn keep(&mut self, distance: f64) {
        if distance.is_nan() {
            return;
        }
        if self.greatest_first.len() == self.k {
            self.greatest_first.pop();
        }
        self.greatest_first.push(Distance(distance));
        if self.greatest_first.len() == self.k {
            self.bound = self.greatest_first.peek().map_or(f64::INFINITY, |greatest| greatest.0);
        }
    }

    /// Judges what an index returned, by distances that the same function gave. Rows as far as the
    /// last exact neighbour are hits: which of them are returned is chance. So are rows that are
    /// farther by no more than `slack`, which is what the index may round. None where the query had
    /// no neighbours at all.
    pub fn score(&self, returned: &[f64], slack: f64) -> Option<Score> {
        let available = self.greatest_first.len();
        let last = self.greatest_first.peek()?.0 + slack;
        let hits = returned.iter().take(available).filter(|distance| **distance <= last).count();
        Some(Score { hits, returned: returned.len().min(available), available })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nearest(k: usize, distances: &[f64]) -> Nearest {
        let mut nearest = Nearest::new(k);
        distances.iter().for_each(|distance| nearest.offer(*distance));
        nearest
    }

    #[test]
    fn ties_with_the_last_neighbour_are_hits() {
        let exact = nearest(3, &[5.0, 1.0, 2.0, 2.0, 2.0, 9.0]);
        // Which two of the three at 2.0 come back is chance.
        assert_eq!(
            exact.score(&[1.0, 2.0, 2.0], 0.0),
            Some(Score { hits: 3, returned: 3, available: 3 })
        );
        assert_eq!(exact.score(&[2.0, 2.0, 5.0], 0.0).map(|score| score.hits), Some(2));
        assert_eq!(exact.score(&[], 0.0), Some(Score { hits: 0, returned: 0, available: 3 }));
    }

    #[test]
    fn fewer_rows_than_k_are_all_there_is_to_return() {
        let exact = nearest(10, &[1.0, 2.0]);
        assert_eq!(
            exact.score(&[1.0, 2.0], 0.0),
            Some(Score { hits: 2, returned: 2, available: 2 })
        );
        assert_eq!(nearest(10, &[]).score(&[], 0.0), None);
    }

    #[test]
    fn what_is_not_a_number_is_no_neighbour() {
        let exact = nearest(2, &[f64::NAN, 3.0, f64::NAN, 1.0, 2.0]);
        assert_eq!(exact.score(&[f64::NAN, 1.0], 0.0).map(|score| score.hits), Some(1));
        assert_eq!(nearest(2, &[f64::NAN]).score(&[], 0.0), None);
    }

    #[test]
    fn inner_products_are_below_zero_and_infinity_is_a_distance() {
        let exact = nearest(2, &[f64::INFINITY, -7.5, f64::INFINITY]);
        assert_eq!(exact.score(&[-7.5, f64::INFINITY], 0.0).map(|score| score.hits), Some(2));
    }

    #[test]
    fn what_an_index_rounds_is_no_miss() {
        let exact = nearest(2, &[0.0, 0.0, 6e-8]);
        assert_eq!(exact.score(&[0.0, 6e-8], 0.0).map(|score| score.hits), Some(1));
        assert_eq!(exact.score(&[0.0, 6e-8], 1e-6).map(|score| score.hits), Some(2));
        assert_eq!(exact.score(&[0.0, 2e-6], 1e-6).map(|score| score.hits), Some(1));
    }

    proptest! {
        #[test]
        fn the_last_neighbour_is_that_of_sorting(
            distances in prop::collection::vec(prop_oneof![-3.0..3.0f64, Just(1.0)], 1..60),
            k in 1usize..20,
        ) {
            let exact = nearest(k, &distances);
            let mut sorted = distances.clone();
            sorted.sort_by(f64::total_cmp);
            sorted.truncate(k);
            let all = Score { hits: sorted.len(), returned: sorted.len(), available: sorted.len() };
            prop_assert_eq!(exact.score(&sorted, 0.0), Some(all));
            let last = sorted.last().copied().unwrap_or_default();
            prop_assert_eq!(exact.score(&[last + 1e-9], 0.0).map(|score| score.hits), Some(0));
            prop_assert_eq!(exact.score(&[last], 0.0).map(|score| score.hits), Some(1));
        }
    }
}
