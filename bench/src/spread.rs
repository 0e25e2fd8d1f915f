//! Owns what repeated values say together: the median and how far they spread.
//! Must not know units.

/// Values of one kind, sorted.
#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn new(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Spread(values)
    }

    /// The ratios of values that were taken one after the other, so that what disturbed the machine
    /// disturbed both.
    pub fn ratios(ours: &[f64], baseline: &[f64]) -> Spread {
        Spread::new(ours.iter().zip(baseline).map(|(a, b)| a / b))
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    pub fn least(&self) -> f64 {
        self.quantile(0.0)
    }

    pub fn most(&self) -> f64 {
        self.quantile(1.0)
    }

    /// Between two values it is interpolated; of no values it is not a number.
    pub fn quantile(&self, part: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        let at = part * (self.0.len() - 1) as f64;
        let (below, above) = (self.0[at.floor() as usize], self.0[at.ceil() as usize]);
        below + (above - below) * at.fract()
    }

    /// The median, and in brackets the least and the most.
    pub fn show(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median(), self.least(), self.most())
    }

    /// The median, and in brackets the middle half of the values.
    pub fn show_middle(&self, digits: usize) -> String {
        format!(
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median(),
            self.quantile(0.25),
            self.quantile(0.75)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn quantiles_lie_between_the_values() {
        let spread = Spread::new([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread.median(), 2.5);
        assert_eq!((spread.least(), spread.most()), (1.0, 4.0));
        assert_eq!(spread.quantile(0.25), 1.75);
        assert_eq!(Spread::new([7.0]).show(1), "7.0 (7.0–7.0)");
        assert!(Spread::default().median().is_nan());
    }

    #[test]
    fn ratios_are_of_pairs() {
        let ratios = Spread::ratios(&[2.0, 9.0], &[1.0, 3.0]);
        assert_eq!((ratios.least(), ratios.most()), (2.0, 3.0));
    }
}
