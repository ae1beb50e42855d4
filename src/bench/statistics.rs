//! What a series of measurements says: order statistics, and how sure a ratio of medians is.

use serde::Serialize;

/// Order statistics of measurements, in their unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Number of measurements.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// The 0.25 quantile.
    pub lower_quartile: f64,
    /// The 0.5 quantile.
    pub median: f64,
    /// The 0.75 quantile.
    pub upper_quartile: f64,
    /// The 0.95 quantile. With fewer than 20 measurements it lies between the two largest.
    pub p95: f64,
    /// The 0.99 quantile. With fewer than 100 measurements it lies between the two largest.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summarizes measurements; none have no summary.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            n: sorted.len(),
            min: *sorted.first()?,
            lower_quartile: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper_quartile: quantile(&sorted, 0.75),
            p95: quantile(&sorted, 0.95),
            p99: quantile(&sorted, 0.99),
            max: *sorted.last()?,
        })
    }
}

/// The `q` quantile of sorted values, interpolated between the two nearest: definition 7 of Hyndman and Fan
/// (1996), which R and NumPy use. Zero for no values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let below = place.floor();
    let (low, high) = (
        sorted[below as usize],
        sorted[(below as usize + 1).min(last)],
    );
    low + (high - low) * (place - below)
}

/// How many times larger one median is than another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The ratio of the medians.
    pub ratio: f64,
    /// Lower end of its 95 % confidence interval.
    pub low: f64,
    /// Upper end of its 95 % confidence interval.
    pub high: f64,
}

/// Resamples of a bootstrap: enough that the ends of a 95 % interval repeat within their last printed digit.
const RESAMPLES: usize = 2000;
/// Resampling is deterministic: the same measurements give the same interval.
const SEED: u64 = 0x6b76_6d6c_6574;

impl Ratio {
    /// The median of `values` in terms of the median of `base`, with the percentile bootstrap's interval (Efron
    /// 1979): both are resampled with replacement, independently. `None` without measurements or if the
    /// base's median is zero.
    pub fn of(values: &[f64], base: &[f64]) -> Option<Self> {
        Self::resampled(values, base, RESAMPLES)
    }

    fn resampled(values: &[f64], base: &[f64], resamples: usize) -> Option<Self> {
        let ratio = Summary::of(values)?.median / Summary::of(base)?.median;
        if !ratio.is_finite() {
            return None;
        }
        let mut random = SplitMix64(SEED);
        let (mut top, mut bottom) = (Vec::new(), Vec::new());
        let mut ratios: Vec<f64> = (0..resamples)
            .map(|_| {
                random.resampled_median(values, &mut top)
                    / random.resampled_median(base, &mut bottom)
            })
            .filter(|ratio| ratio.is_finite())
            .collect();
        ratios.sort_by(f64::total_cmp);
        Some(Self {
            ratio,
            low: quantile(&ratios, 0.025),
            high: quantile(&ratios, 0.975),
        })
    }
}

/// A small generator of good quality (Steele, Lea, Flood 2014); security is of no concern here.
pub(super) struct SplitMix64(pub u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`. The bias of the multiplication is far below what a bootstrap resolves.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn resampled_median(&mut self, values: &[f64], into: &mut Vec<f64>) -> f64 {
        into.clear();
        into.extend((0..values.len()).map(|_| values[self.below(values.len())]));
        into.sort_by(f64::total_cmp);
        quantile(into, 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measurements with the inverse of their distribution function at evenly spaced places.
    fn sample(n: usize, inverse: impl Fn(f64) -> f64) -> Vec<f64> {
        (0..n)
            .map(|i| inverse((i as f64 + 0.5) / n as f64))
            .collect()
    }

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} is not {b}");
    }

    #[test]
    fn quantiles_of_few_values_are_those_of_r_and_numpy() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            (summary.n, summary.min, summary.median, summary.max),
            (4, 1.0, 2.5, 4.0)
        );
        // numpy.percentile([1, 2, 3, 4], [25, 75, 95, 99])
        assert_eq!(
            (summary.lower_quartile, summary.upper_quartile),
            (1.75, 3.25)
        );
        close(summary.p95, 3.85, 1e-12);
        close(summary.p99, 3.97, 1e-12);
    }

    #[test]
    fn one_value_is_all_of_its_quantiles_and_none_has_none() {
        let summary = Summary::of(&[7.0]).unwrap();
        assert_eq!((summary.min, summary.median, summary.p99), (7.0, 7.0, 7.0));
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_uniform_distribution_has_its_quantiles() {
        let summary = Summary::of(&sample(10_000, |p| p)).unwrap();
        close(summary.median, 0.5, 1e-3);
        close(summary.p95, 0.95, 1e-3);
        close(summary.p99, 0.99, 1e-3);
    }

    #[test]
    fn an_exponential_distribution_has_its_quantiles() {
        let summary = Summary::of(&sample(10_000, |p| -(1.0 - p).ln())).unwrap();
        close(summary.median, 2f64.ln(), 1e-3);
        close(summary.p95, 20f64.ln(), 1e-2);
        close(summary.p99, 100f64.ln(), 2e-2);
    }

    #[test]
    fn equal_distributions_have_a_ratio_of_one_inside_a_narrow_interval() {
        let values = sample(400, |p| 10.0 - (1.0 - p).ln());
        let ratio = Ratio::of(&values, &values).unwrap();
        assert_eq!(ratio.ratio, 1.0);
        assert!(ratio.low < 1.0 && ratio.high > 1.0, "{ratio:?}");
        assert!(ratio.high - ratio.low < 0.1, "{ratio:?}");
    }

    #[test]
    fn constant_measurements_leave_no_doubt() {
        let ratio = Ratio::of(&[6.0; 5], &[2.0; 9]).unwrap();
        assert_eq!(
            ratio,
            Ratio {
                ratio: 3.0,
                low: 3.0,
                high: 3.0
            }
        );
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        // Medians of two exponential distributions whose scales differ by 4: 95 of 100 intervals should hold it.
        let mut random = SplitMix64(1);
        let mut draw = |scale: f64| -> Vec<f64> {
            let uniform =
                |random: &mut SplitMix64| (random.next() >> 11) as f64 / (1u64 << 53) as f64;
            (0..60)
                .map(|_| -(1.0 - uniform(&mut random)).ln() * scale)
                .collect()
        };
        let covered = (0..200)
            .filter(|_| {
                let ratio = Ratio::resampled(&draw(4.0), &draw(1.0), 200).unwrap();
                ratio.low <= 4.0 && 4.0 <= ratio.high
            })
            .count();
        assert!((178..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn fewer_measurements_widen_the_interval() {
        let many = sample(400, |p| -(1.0 - p).ln());
        let few = sample(10, |p| -(1.0 - p).ln());
        let width = |values: &[f64]| {
            let ratio = Ratio::of(values, &many).unwrap();
            ratio.high - ratio.low
        };
        assert!(width(&few) > 2.0 * width(&many));
    }

    #[test]
    fn a_base_of_zero_or_of_nothing_has_no_ratio() {
        assert_eq!(Ratio::of(&[1.0], &[0.0]), None);
        assert_eq!(Ratio::of(&[1.0], &[]), None);
        assert_eq!(Ratio::of(&[], &[1.0]), None);
    }
}
