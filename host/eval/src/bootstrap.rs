//! Confidence intervals of paired differences.

use serde::Serialize;

use crate::random::Random;

/// A difference with its 95 % bootstrap interval over images or clips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The difference over all images or clips.
    pub value: f64,
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// Number of bootstrap resamples.
const RESAMPLINGS: usize = 1000;

impl Interval {
    /// Resamples `count` items with replacement; `statistic` computes the difference on the items with
    /// the given indices. Both sides of a difference see the same items, so the pairing is kept.
    pub fn bootstrap(count: usize, seed: u64, statistic: impl Fn(&[usize]) -> f64) -> Self {
        let all: Vec<usize> = (0..count).collect();
        let mut random = Random::new(seed);
        let mut values: Vec<f64> = (0..RESAMPLINGS)
            .map(|_| {
                let chosen: Vec<usize> = all.iter().map(|_| random.below(count)).collect();
                statistic(&chosen)
            })
            .collect();
        values.sort_by(f64::total_cmp);
        Self {
            value: statistic(&all),
            low: values[RESAMPLINGS / 40],
            high: values[RESAMPLINGS - 1 - RESAMPLINGS / 40],
        }
    }

    /// Returns the mean of `differences`, one per item, with its interval.
    pub fn of_mean(differences: &[f64], seed: u64) -> Self {
        Self::bootstrap(differences.len(), seed, |chosen| {
            chosen.iter().map(|i| differences[*i]).sum::<f64>() / chosen.len() as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_that_of_the_normal_distribution() {
        // 0 and 1 in equal parts: the standard error of the mean of 400 is 0.025.
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let found = Interval::of_mean(&values, 3);
        assert_eq!(found.value, 0.5);
        // With 1000 resamplings, a percentile at 1.96 standard errors is off by about 0.1 of one.
        for (end, expected) in [(found.low, 0.451), (found.high, 0.549)] {
            assert!((end - expected).abs() < 0.01, "{found:?}");
        }
        assert_eq!(found, Interval::of_mean(&values, 3));
        let constant = Interval::of_mean(&[0.25; 7], 0);
        assert_eq!(
            (constant.low, constant.value, constant.high),
            (0.25, 0.25, 0.25)
        );
    }
}
