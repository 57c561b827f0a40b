//! Median and 90th percentile of measurements.

use serde::{Deserialize, Serialize};

/// Median and 90th percentile, in the unit of the measurements.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    pub p50: f64,
    pub p90: f64,
}

impl Spread {
    /// `values` must not be empty.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        // Nearest rank.
        let at = |part: f64| values[((part * values.len() as f64).ceil() as usize).max(1) - 1];
        Self {
            p50: at(0.5),
            p90: at(0.9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((spread.p50, spread.p90), (3.0, 5.0));
        let spread = Spread::of(vec![7.0]);
        assert_eq!((spread.p50, spread.p90), (7.0, 7.0));
        let spread = Spread::of((1..=10).map(f64::from).collect());
        assert_eq!((spread.p50, spread.p90), (5.0, 9.0));
    }
}
