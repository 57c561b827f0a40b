//! Activation statistics and the int8 range calibrated from them.

use serde::Serialize;

/// Maximum number of values stored per activation.
const SAMPLES: usize = 1 << 18;
/// Maximum number of values sampled per run.
const PER_RUN: usize = 1 << 14;
/// Number of bins of a histogram of magnitudes.
const BINS: usize = 2048;
/// Number of magnitudes that int8 can represent.
const LEVELS: usize = 128;

/// How a range was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibrator {
    /// The largest magnitude seen.
    MinMax,
    /// 99.99 % of magnitudes are smaller.
    Percentile9999,
    /// 99.9 % of magnitudes are smaller.
    Percentile999,
    /// Least Kullback-Leibler divergence of the clipped, rounded distribution from the original.
    Entropy,
}

impl Calibrator {
    /// Name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::Percentile9999 => "99.99 %",
            Self::Percentile999 => "99.9 %",
            Self::Entropy => "entropy",
        }
    }
}

/// Statistics of one activation.
#[derive(Debug, Clone, Default)]
pub(super) struct ActivationStats {
    /// The largest magnitude of all values.
    pub largest: f32,
    /// Magnitudes, evenly sampled from the values of each run.
    samples: Vec<f32>,
}

impl ActivationStats {
    /// Adds the values of a run. The index of the first NaN or infinity is the error.
    pub fn add(&mut self, values: &[f32]) -> Result<(), usize> {
        let most = values.iter().fold(0f32, |most, x| most.max(x.abs()));
        // `max` ignores NaN.
        if let Some(bad) = values.iter().position(|x| !x.is_finite()) {
            return Err(bad);
        }
        self.largest = self.largest.max(most);
        let room = SAMPLES.saturating_sub(self.samples.len()).min(PER_RUN);
        if room > 0 {
            let step = values.len().div_ceil(room).max(1);
            self.samples
                .extend(values.iter().step_by(step).map(|x| x.abs()));
        }
        Ok(())
    }

    /// Candidate ranges, none of them 0.
    pub fn candidates(&mut self) -> Vec<(Calibrator, f32)> {
        self.samples.sort_by(f32::total_cmp);
        let percentile = |share: f64| {
            let last = self.samples.len().saturating_sub(1);
            self.samples
                .get((last as f64 * share).ceil() as usize)
                .copied()
                .unwrap_or(0.0)
        };
        let mut found = vec![(Calibrator::MinMax, self.largest)];
        for (calibrator, range) in [
            (Calibrator::Percentile9999, percentile(0.9999)),
            (Calibrator::Percentile999, percentile(0.999)),
            (Calibrator::Entropy, entropy(&self.samples, self.largest)),
        ] {
            if found.iter().all(|(_, known)| *known != range) {
                found.push((calibrator, range));
            }
        }
        found.retain(|(_, range)| (range / 127.0).is_normal());
        found
    }
}

/// The range whose clipped, rounded histogram is closest to the full one.
fn entropy(samples: &[f32], largest: f32) -> f32 {
    if largest <= 0.0 {
        return 0.0;
    }
    let mut histogram = vec![0f64; BINS];
    for x in samples {
        let bin = (x / largest * BINS as f32) as usize;
        histogram[bin.min(BINS - 1)] += 1.0;
    }
    let end = (LEVELS..=BINS)
        .step_by(16)
        .map(|end| (divergence(&histogram, end), end))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(BINS, |(_, end)| end);
    largest * end as f32 / BINS as f32
}

/// Kullback-Leibler divergence between the histogram, clipped to its first `end` bins, and its
/// quantization to [`LEVELS`] levels.
fn divergence(histogram: &[f64], end: usize) -> f64 {
    let mut clipped = histogram[..end].to_vec();
    clipped[end - 1] += histogram[end..].iter().sum::<f64>();
    let mut rounded = vec![0f64; end];
    for level in 0..LEVELS {
        let (from, to) = (level * end / LEVELS, (level + 1) * end / LEVELS);
        let bins = &histogram[from..to];
        let filled = bins.iter().filter(|n| **n > 0.0).count();
        let each = bins.iter().sum::<f64>() / filled.max(1) as f64;
        for (rounded, n) in rounded[from..to].iter_mut().zip(bins) {
            *rounded = if *n > 0.0 { each } else { 0.0 };
        }
    }
    let (all, kept): (f64, f64) = (clipped.iter().sum(), rounded.iter().sum());
    if kept == 0.0 {
        return f64::INFINITY;
    }
    let term = |(p, q): (&f64, &f64)| match (*p / all, *q / kept) {
        (0.0, _) => 0.0,
        // An empty bin counts as a thousandth of a value.
        (p, 0.0) => p * (p * kept / 1e-3).ln(),
        (p, q) => p * (p / q).ln(),
    };
    clipped.iter().zip(&rounded).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Roughly normal numbers, and a few far away.
    fn values(outlier: f32) -> Vec<f32> {
        let uniform = |i: u32| (i.wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1u32 << 24) as f32;
        let mut all: Vec<f32> = (0..16000u32)
            .map(|i| (0..6).map(|k| uniform(i * 6 + k) - 0.5).sum())
            .collect();
        all[77] = outlier;
        all
    }

    #[test]
    fn candidates_are_in_order_and_percentiles_leave_out_what_is_far_away() {
        let mut stats = ActivationStats::default();
        stats.add(&values(400.0)).unwrap();
        let found = stats.candidates();
        let range = |c| found.iter().find(|(known, _)| *known == c).unwrap().1;
        assert_eq!(range(Calibrator::MinMax), 400.0);
        assert!(range(Calibrator::Percentile999) < 3.0);
        assert!(range(Calibrator::Entropy) <= 400.0);
    }

    #[test]
    fn entropy_clips_a_long_thin_tail_and_no_uniform_distribution() {
        let mut stats = ActivationStats::default();
        stats.add(&values(12.0)).unwrap();
        let clipped = entropy(&stats.samples, stats.largest);
        assert!((0.7..6.0).contains(&clipped), "{clipped}");
        let uniform: Vec<f32> = (0..40000).map(|i| i as f32 / 40000.0).collect();
        let kept = entropy(&uniform, 1.0);
        assert!(kept > 0.95, "{kept}");
    }

    #[test]
    fn nothing_and_nan_have_no_range() {
        let mut stats = ActivationStats::default();
        stats.add(&[0.0; 100]).unwrap();
        assert!(stats.candidates().is_empty());
        assert_eq!(stats.add(&[1.0, f32::NAN]), Err(1));
    }
}
