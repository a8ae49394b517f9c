//! Figures of samples.

/// The smallest value that at least the part `p` (0 to 1) of the values does not exceed; NaN without values.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The middle value; of an even number the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().wrapping_sub(1) / 2), sorted.get(sorted.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| (low + high) / 2.0)
}

/// How cost grows: k in cost = a + b·nᵏ, from the first and the last two points of a series (n, cost). A tenth of the first cost is
/// noise: None where the last point has grown by less, and growth up to the last but one counts as that much at least.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let [first, .., middle, last] = points else { return None };
    let noise = first.1 / 10.0;
    let (small, large) = ((middle.1 - first.1).max(noise), last.1 - first.1);
    (large > noise).then(|| (large / small).ln() / ((last.0 - first.0) / (middle.0 - first.0)).ln())
}

/// A source of order for shuffled runs: xorshift, seeded by the clock.
#[derive(Debug)]
pub struct Shuffle(u64);

impl Shuffle {
    /// One that differs from run to run.
    pub fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(now.as_nanos() as u64 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Brings the items into another order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

impl Default for Shuffle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            [percentile(&values, 0.95), percentile(&values, 0.99), percentile(&values, 1.0)],
            [95.0, 99.0, 100.0]
        );
        assert_eq!([median(&values), median(&[3.0, 1.0, 2.0]), percentile(&[7.0], 0.5)], [50.5, 2.0, 7.0]);
        assert!(median(&[]).is_nan() && percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn an_exponent_is_that_of_what_grows() {
        let series = |k: f64| [1.0, 10.0, 100.0, 1000.0].map(|n: f64| (n, 5.0 + 0.3 * (n - 1.0).powf(k)));
        for k in [1.0, 1.5, 2.0] {
            assert!((exponent(&series(k)).unwrap() - k).abs() < 1e-6);
        }
        assert_eq!(exponent(&[(1.0, 5.0), (10.0, 5.1), (1000.0, 5.2)]), None);
        // 0.1 is as good as 0.5 here.
        assert!((exponent(&[(1.0, 5.0), (101.0, 5.1), (1001.0, 10.0)]).unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        let mut shuffle = Shuffle::new();
        shuffle.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
