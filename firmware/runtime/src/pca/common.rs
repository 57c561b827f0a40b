//! A common basis for several sets of features, to show them in the same colors.

use super::eigen::{Rows, leading, spread};
use super::{PcaError, Statistics, check_components, check_samples, project};

/// Samples per set used to find the directions; more do not change an image visibly.
const SAMPLES: usize = 2048;

/// Samples per set used to find the range.
const RANGE_SAMPLES: usize = 16384;

/// Principal components common to several sets of features of the same width.
///
/// Backbone features and upsampled features have different offsets and scales. Each set is
/// centered by its own mean and scaled to a root mean square of 1 over all its entries. The
/// principal directions are then those of all sets together, with equal weights. Large sets are
/// subsampled evenly: 2048 samples per set for the directions, 16384 for the range; mean and scale
/// use all samples.
///
/// Order, sign and degenerate sets are as in [`Pca`](super::Pca). A constant set projects to zero.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonBasis {
    sets: Vec<Normalization>,
    directions: Vec<f32>,
    range: Range,
}

#[derive(Debug, Clone, PartialEq)]
struct Normalization {
    mean: Vec<f32>,
    /// Scale of the centered features.
    scale: f32,
}

/// The values of each component that map to levels 0 and 255: a robust minimum and maximum.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Range {
    /// Creates a range from the low and the high end of each component.
    pub fn new(ends: &[(f32, f32)]) -> Self {
        Self {
            low: ends.iter().map(|ends| ends.0).collect(),
            high: ends.iter().map(|ends| ends.1).collect(),
        }
    }

    /// Number of components.
    pub fn components(&self) -> usize {
        self.low.len()
    }

    /// The ends of component `j`.
    ///
    /// # Panics
    /// If there is no component `j`.
    pub fn ends(&self, j: usize) -> (f32, f32) {
        (self.low[j], self.high[j])
    }

    /// Returns the level, 0 to 255, of `value` in component `j`. Values beyond the ends are clamped, and
    /// NaN is 0. A component that does not vary is gray, 128.
    ///
    /// # Panics
    /// If there is no component `j`.
    pub fn level(&self, j: usize, value: f32) -> u8 {
        let (low, high) = self.ends(j);
        let extent = high - low;
        if !(extent > 0.0 && extent.is_finite()) {
            return 128;
        }
        // The cast saturates, and NaN becomes 0.
        ((value - low) / extent * 255.0).round() as u8
    }
}

impl CommonBasis {
    /// Finds the `k` directions common to `sets`, each row-major `[n, d]` with its `n`.
    ///
    /// # Errors
    /// No sets, a set that is empty or not `n * d` long, NaN or infinity, or `k` not in 1 to the
    /// smaller of `d` and [`MAX_COMPONENTS`](super::MAX_COMPONENTS).
    pub fn fit(sets: &[(&[f32], usize)], d: usize, k: usize) -> Result<Self, PcaError> {
        if sets.is_empty() {
            return Err(PcaError::NoSets);
        }
        check_components(k, d)?;
        let mut rows = Rows::new(d);
        let mut normalizations = Vec::with_capacity(sets.len());
        for (set, &(samples, n)) in sets.iter().enumerate() {
            check_samples(set, samples, n, d)?;
            let statistics = Statistics::of(samples, d);
            // A constant set contains only rounding errors.
            if statistics.varies() {
                rows.push(samples, &statistics, sets.len(), n.min(SAMPLES));
            }
            normalizations.push(Normalization {
                mean: statistics.mean_f32(),
                scale: if statistics.varies() {
                    ((1.0 / statistics.rms) as f32).min(f32::MAX)
                } else {
                    0.0
                },
            });
        }
        let directions = leading(&rows, k, 0.0).directions;
        let mut basis = Self {
            sets: normalizations,
            directions,
            range: Range::new(&[]),
        };
        basis.range = basis.robust_range(sets, d, k)?;
        Ok(basis)
    }

    /// Number of sets that it was fitted to.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Channels of a sample.
    pub fn width(&self) -> usize {
        self.sets.first().map_or(0, |set| set.mean.len())
    }

    /// The directions, row-major `[k, d]`, of length 1 (or 0), orthogonal.
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// The 1st to the 99th percentile of each component over all sets, each set with the same
    /// weight.
    pub fn range(&self) -> &Range {
        &self.range
    }

    /// Projects features of set `set`, row-major `[n, d]`, into `out`, row-major `[n, k]`, with
    /// that set's mean and scale.
    ///
    /// # Errors
    /// There is no such set, or the lengths do not match each other or the basis.
    pub fn project(&self, set: usize, tokens: &[f32], out: &mut [f32]) -> Result<(), PcaError> {
        let sets = self.sets.len();
        let own = self
            .sets
            .get(set)
            .ok_or(PcaError::NoSuchSet { set, sets })?;
        project(&own.mean, own.scale, &self.directions, tokens, out)
    }

    fn robust_range(
        &self,
        sets: &[(&[f32], usize)],
        d: usize,
        k: usize,
    ) -> Result<Range, PcaError> {
        let mut values: Vec<Vec<(f32, f64)>> = vec![Vec::new(); k];
        let mut components = vec![0f32; k];
        for (set, &(samples, n)) in sets.iter().enumerate() {
            let count = n.min(RANGE_SAMPLES);
            for index in 0..count {
                let token = &samples[spread(index, count, n) * d..][..d];
                self.project(set, token, &mut components)?;
                for (values, &value) in values.iter_mut().zip(&components) {
                    values.push((value, 1.0 / count as f64));
                }
            }
        }
        let ends = values.iter_mut().map(|values| {
            values.sort_by(|a, b| a.0.total_cmp(&b.0));
            let total = sets.len() as f64;
            (
                quantile(values, 0.01 * total),
                quantile(values, 0.99 * total),
            )
        });
        Ok(Range::new(&ends.collect::<Vec<_>>()))
    }
}

/// Returns the first of the sorted values at which the cumulative weight reaches `weight`.
fn quantile(sorted: &[(f32, f64)], weight: f64) -> f32 {
    let mut sum = 0.0;
    for &(value, own) in sorted {
        sum += own;
        if sum >= weight {
            return value;
        }
    }
    sorted.last().map_or(0.0, |last| last.0)
}
