//! Owns what the queries of one placement say together: mean, confidence interval, the worst tenth.
//! Must not claim more than the number of queries can show.

use super::nearest::Score;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub queries: usize,
    /// The mean over queries of hits / available.
    pub recall: f64,
    /// 95 % confidence that the mean over all queries is within; none for a single query.
    pub interval: Option<(f64, f64)>,
    /// The recall that nine queries in ten reach, interpolated as by `percentile_cont(0.1)`.
    pub p10: f64,
    /// Returned rows / rows that there were to return.
    pub returned_ratio: f64,
}

/// Sums the queries up; nothing where there are none.
pub fn summarize(scores: &[Score]) -> Option<Summary> {
    let mut recalls: Vec<f64> =
        scores.iter().map(|score| score.hits as f64 / score.available as f64).collect();
    recalls.sort_by(f64::total_cmp);
    let (least, most) = (*recalls.first()?, *recalls.last()?);
    // Equal recalls must not differ from their mean by a rounding error.
    let mean = if least == most { least } else { average(&recalls) };
    let returned: usize = scores.iter().map(|score| score.returned).sum();
    let available: usize = scores.iter().map(|score| score.available).sum();
    Some(Summary {
        queries: recalls.len(),
        recall: mean,
        interval: interval(&recalls, mean),
        p10: percentile(&recalls, 0.1),
        returned_ratio: returned as f64 / available as f64,
    })
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Student's interval from the variance between queries: the k neighbours of one query are found or
/// missed together, so a binomial interval on all of them would be far too narrow.
///
/// Where all queries agree there is no variance to go by, yet they prove nothing about those that
/// were not asked. With 95 % confidence fewer than 3/n of all differ (the rule of three, Hanley and
/// Lippman-Hand 1983), and those may be anywhere from 0 to 1.
fn interval(recalls: &[f64], mean: f64) -> Option<(f64, f64)> {
    let n = recalls.len() as f64;
    if recalls.len() < 2 {
        return None;
    }
    let squares: f64 = recalls.iter().map(|recall| (recall - mean).powi(2)).sum();
    if squares == 0.0 {
        let others = (3.0 / n).min(1.0);
        return Some((mean * (1.0 - others), mean + (1.0 - mean) * others));
    }
    let error = (squares / (n - 1.0) / n).sqrt() * student(n - 1.0);
    Some(((mean - error).max(0.0), (mean + error).min(1.0)))
}

/// The 0.975 quantile of Student's t distribution: a table for the first few degrees of freedom,
/// and the expansion around the normal quantile (Abramowitz and Stegun 26.7.5) beyond.
fn student(freedom: f64) -> f64 {
    const FIRST: [f64; 10] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    const Z: f64 = 1.959_964;
    match FIRST.get(freedom as usize - 1) {
        Some(quantile) => *quantile,
        None => {
            let first = (Z.powi(3) + Z) / 4.0;
            let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
            Z + first / freedom + second / freedom.powi(2)
        }
    }
}

fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(hits: &[usize]) -> Vec<Score> {
        hits.iter().map(|hits| Score { hits: *hits, returned: 10, available: 10 }).collect()
    }

    fn is_near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() < 5e-4
    }

    #[test]
    fn the_interval_is_students() {
        // By hand: standard error sqrt(0.249 / 9 / 10) = 0.0526, times 2.262 for nine degrees.
        let summary = summarize(&scores(&[9, 7, 10, 8, 6, 9, 10, 5, 8, 9])).unwrap();
        assert!(is_near(summary.recall, 0.81));
        let (low, high) = summary.interval.unwrap();
        assert!(is_near(low, 0.6910) && is_near(high, 0.9290), "{low} {high}");
        assert!(is_near(summary.p10, 0.59), "{}", summary.p10);
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, quantile) in [
            (1.0, 12.706),
            (4.0, 2.776),
            (5.0, 2.571),
            (9.0, 2.262),
            (30.0, 2.042),
            (99.0, 1.984),
            (1e6, 1.960),
        ] {
            let error = (student(freedom) - quantile).abs();
            assert!(error < 0.002, "{freedom}: {} against {quantile}", student(freedom));
        }
    }

    #[test]
    fn agreement_is_no_proof() {
        let perfect = summarize(&scores(&[10; 100])).unwrap();
        assert_eq!((perfect.recall, perfect.interval), (1.0, Some((0.97, 1.0))));
        let (low, high) = summarize(&scores(&[5; 10])).unwrap().interval.unwrap();
        assert!(is_near(low, 0.35) && is_near(high, 0.65), "{low} {high}");
        let two = summarize(&scores(&[10; 2])).unwrap();
        assert_eq!(two.interval, Some((0.0, 1.0)));
        assert_eq!(summarize(&scores(&[7])).unwrap().interval, None);
        assert_eq!(summarize(&[]), None);
    }

    #[test]
    fn the_interval_stays_between_none_and_all() {
        let (low, high) = summarize(&scores(&[0, 10, 10])).unwrap().interval.unwrap();
        assert_eq!((low, high), (0.0, 1.0));
    }

    #[test]
    fn what_was_not_returned_shows() {
        let half = Score { hits: 5, returned: 5, available: 10 };
        let summary = summarize(&[half, half]).unwrap();
        assert_eq!((summary.recall, summary.returned_ratio), (0.5, 0.5));
        // A table with fewer rows than k returns all that it has.
        let few = Score { hits: 3, returned: 3, available: 3 };
        assert_eq!(summarize(&[few]).unwrap().returned_ratio, 1.0);
    }
}
