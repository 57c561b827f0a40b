//! Depth metrics of one image.

use loftup_bundle::Size;
use serde::Serialize;

use crate::distance::squared_distances;

/// Metrics of depth estimation, as in Eigen et al. (2014) and their successors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Fraction of pixels with `max(p / t, t / p) < 1.25`.
    pub d1: f64,
    /// Fraction of pixels with `max(p / t, t / p) < 1.25^2`.
    pub d2: f64,
    /// Fraction of pixels with `max(p / t, t / p) < 1.25^3`.
    pub d3: f64,
    /// Mean of `|p - t| / t`.
    pub abs_rel: f64,
    /// Mean of `(p - t)^2 / t`, in meters.
    pub sq_rel: f64,
    /// Root mean squared error, in meters.
    pub rmse: f64,
    /// Root mean squared error of the natural logarithms.
    pub rmse_log: f64,
    /// Mean absolute error of the decimal logarithms.
    pub log10: f64,
    /// 100 times the standard deviation of the error of the natural logarithms.
    pub silog: f64,
}

impl Metrics {
    /// Computes the metrics of the pixels in `keep`; `None` if there are none. Depths are positive.
    pub fn of(predicted: &[f32], truth: &[f32], keep: &[bool]) -> Option<Self> {
        let mut sum = Self::default();
        let (mut count, mut logs, mut log_squares) = (0u64, 0.0, 0.0);
        for ((p, t), _) in predicted
            .iter()
            .zip(truth)
            .zip(keep)
            .filter(|(_, keep)| **keep)
        {
            let (p, t) = (f64::from(*p), f64::from(*t));
            let (ratio, error, log) = ((p / t).max(t / p), p - t, p.ln() - t.ln());
            count += 1;
            sum.d1 += f64::from(u8::from(ratio < 1.25));
            sum.d2 += f64::from(u8::from(ratio < 1.25f64.powi(2)));
            sum.d3 += f64::from(u8::from(ratio < 1.25f64.powi(3)));
            sum.abs_rel += error.abs() / t;
            sum.sq_rel += error * error / t;
            sum.rmse += error * error;
            sum.log10 += log.abs() / std::f64::consts::LN_10;
            logs += log;
            log_squares += log * log;
        }
        if count == 0 {
            return None;
        }
        let n = count as f64;
        let (mean, square) = (logs / n, log_squares / n);
        let mut all = sum.map(|x| x / n);
        all.rmse = all.rmse.sqrt();
        all.rmse_log = square.sqrt();
        // Rounding can make it negative.
        all.silog = 100.0 * (square - mean * mean).max(0.0).sqrt();
        Some(all)
    }

    /// Returns the mean of each metric over images; `None` if there are none.
    pub fn mean<'a>(images: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let (mut sum, mut count) = (Self::default(), 0.0);
        for one in images {
            sum = Self::combine(&sum, one, |a, b| a + b);
            count += 1.0;
        }
        (count > 0.0).then(|| sum.map(|x| x / count))
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self::combine(&self, &self, |a, _| f(a))
    }

    fn combine(a: &Self, b: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            d1: f(a.d1, b.d1),
            d2: f(a.d2, b.d2),
            d3: f(a.d3, b.d3),
            abs_rel: f(a.abs_rel, b.abs_rel),
            sq_rel: f(a.sq_rel, b.sq_rel),
            rmse: f(a.rmse, b.rmse),
            rmse_log: f(a.rmse_log, b.rmse_log),
            log10: f(a.log10, b.log10),
            silog: f(a.silog, b.silog),
        }
    }
}

/// Minimum aligned depth in meters, so that the logarithm exists.
const LEAST_ALIGNED: f64 = 1e-3;

/// Returns `scale * predicted + shift` with the least squared error in depth on the pixels in `keep`. If
/// the prediction is constant there, it is returned unchanged.
pub fn aligned(predicted: &[f32], truth: &[f32], keep: &[bool]) -> Vec<f32> {
    let kept = || {
        let pairs = predicted.iter().zip(truth).zip(keep);
        pairs.filter_map(|((p, t), keep)| keep.then_some((f64::from(*p), f64::from(*t))))
    };
    let n = kept().count() as f64;
    let mean = |f: &dyn Fn(f64, f64) -> f64| kept().map(|(p, t)| f(p, t)).sum::<f64>() / n;
    let (mp, mt) = (mean(&|p, _| p), mean(&|_, t| t));
    let variance = mean(&|p, _| (p - mp).powi(2));
    let covariance = mean(&|p, t| (p - mp) * (t - mt));
    let scale = covariance / variance;
    let shift = mt - scale * mp;
    // No pixels give NaN.
    if variance.is_nan() || variance <= 1e-12 * mp * mp || !(scale.is_finite() && shift.is_finite())
    {
        return predicted.to_vec();
    }
    let fitted = |p: &f32| (scale * f64::from(*p) + shift).max(LEAST_ALIGNED) as f32;
    predicted.iter().map(fitted).collect()
}

/// Returns the pixels near a depth jump. A pixel is at a jump if another pixel within `reach` rows and
/// columns is more than 8 % farther away; the band is all pixels within a Euclidean distance of `radius`
/// of a jump. A depth of 0 is unknown.
pub fn jump_band(depth: &[f32], size: Size, reach: usize, radius: usize) -> Vec<bool> {
    const FARTHER: f32 = 1.08;
    let Size { width, height } = size;
    let farthest = |i: usize| {
        let (x, y) = (i % width, i / width);
        let rows = y.saturating_sub(reach)..(y + reach + 1).min(height);
        rows.flat_map(|y| {
            &depth[y * width + x.saturating_sub(reach)..]
                [..(x + reach + 1).min(width) - x.saturating_sub(reach)]
        })
        .fold(0f32, |a, b| a.max(*b))
    };
    let no_jump: Vec<bool> = (0..depth.len())
        .map(|i| depth[i] <= 0.0 || farthest(i) <= FARTHER * depth[i])
        .collect();
    squared_distances(&no_jump, size, false)
        .iter()
        .map(|d| *d as usize <= radius * radius)
        .collect()
}

#[cfg(test)]
mod tests;
