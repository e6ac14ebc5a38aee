//! Percentile bootstrap (Efron 1979) of a statistic over windows.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Resamples behind each interval.
const BOOTSTRAP_RESAMPLES: usize = 1000;
/// The ends of the 95 % interval as quantiles of the resampled statistics.
const ENDS: [f64; 2] = [0.025, 0.975];

/// A statistic with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The statistic of the sample itself.
    pub value: f64,
    /// The 2.5 % quantile of its resamples.
    pub low: f64,
    /// The 97.5 % quantile of its resamples.
    pub high: f64,
}

/// A statistic of a sample and its interval. `None` for an empty sample and where the sample has no such statistic; a
/// resample that has none is left out. What is drawn is a whole value: values that hang together are one.
///
/// The statistic may reorder what it is given. The random numbers depend on the seed and the sample's size alone, so a
/// column does not change when another is added.
pub fn bootstrap<T: Copy>(
    values: &[T],
    seed: u64,
    mut statistic: impl FnMut(&mut [T]) -> Option<f64>,
) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = values.to_vec();
    let value = statistic(&mut sample)?;
    let mut resampled: Vec<f64> = (0..BOOTSTRAP_RESAMPLES)
        .filter_map(|_| {
            for slot in &mut sample {
                // u64, so that the stream is the same on a machine with 32-bit words.
                *slot = values[random.random_range(0..values.len() as u64) as usize];
            }
            statistic(&mut sample)
        })
        .collect();
    if resampled.is_empty() {
        return None;
    }
    resampled.sort_by(f64::total_cmp);
    let [low, high] = ENDS.map(|quantile| sorted_quantile(&resampled, quantile));
    Some(Interval { value, low, high })
}

/// The mean, of at least one value.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The median, the mean of the two middle values of an even number; reorders its argument, which must not be empty.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if !even {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    0.5 * (lower + upper)
}

/// Linear interpolation between order statistics, as `numpy.quantile` does by default.
fn sorted_quantile(sorted: &[f64], quantile: f64) -> f64 {
    let position = quantile * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these values are exact by construction")]
mod tests {
    use super::*;

    #[test]
    fn median_and_quantile_agree_with_numpy() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 8.0]), 3.0);
        assert!((sorted_quantile(&[0.0, 1.0, 2.0, 4.0], 0.9) - 3.4).abs() < 1e-12);
        assert_eq!(sorted_quantile(&[5.0], 0.025), 5.0);
    }

    #[test]
    fn the_interval_of_a_mean_has_the_width_of_its_standard_error() {
        // 0 and 1 in equal parts: standard error 0.5 / sqrt(400) = 0.025, 95 % within 1.96 of it.
        let values: Vec<f64> = (0..400).map(|k| f64::from(k % 2)).collect();
        let Interval { value, low, high } = bootstrap(&values, 3, |values| Some(mean(values))).unwrap();
        assert_eq!(value, 0.5);
        assert!((low - 0.451).abs() < 0.01, "{low}");
        assert!((high - 0.549).abs() < 0.01, "{high}");
    }

    #[test]
    fn a_seed_fixes_the_interval_and_another_moves_it() {
        let values: Vec<f64> = (0..30).map(|k| f64::from(k * k)).collect();
        let of = |seed| bootstrap(&values, seed, |values| Some(mean(values)));
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
        assert_eq!(bootstrap(&[], 3, |values| Some(median(values))), None);
    }

    #[test]
    fn a_statistic_that_some_resamples_lack_is_taken_over_the_others() {
        // The share of hits among tries, two of three windows without a try: some resamples have none at all.
        let share = |windows: &mut [(u32, u32)]| {
            let (hits, tries) = windows.iter().fold((0, 0), |sum, window| (sum.0 + window.0, sum.1 + window.1));
            (tries > 0).then(|| f64::from(hits) / f64::from(tries))
        };
        let interval = bootstrap(&[(1, 2), (0, 0), (0, 0)], 3, share).unwrap();
        assert_eq!(interval, Interval { value: 0.5, low: 0.5, high: 0.5 });
        assert_eq!(bootstrap(&[(0, 0), (0, 0)], 3, share), None);
    }
}
