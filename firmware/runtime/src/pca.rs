//! Principal components of features, for visualization.
//!
//! Features are row-major `[n, d]`: `n` samples (tokens, pixels) of `d` channels. Everything is
//! deterministic: the same samples give the same bits.

mod common;
mod eigen;

pub use common::{CommonBasis, Range};

use eigen::Rows;

/// Maximum number of channels, which bounds memory.
pub const MAX_WIDTH: usize = 1 << 16;

/// Maximum number of components.
pub const MAX_COMPONENTS: usize = 64;

/// Why components cannot be computed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PcaError {
    /// The samples are not `n` rows of `d` values, or are empty.
    #[error(
        "set {set}: {values} values are not {samples} samples of {width} channels, at least one of each and at most {MAX_WIDTH} channels"
    )]
    BadShape {
        /// Which set of samples, from 0.
        set: usize,
        /// The values given.
        values: usize,
        /// The samples expected.
        samples: usize,
        /// The channels expected.
        width: usize,
    },
    /// A sample contains NaN or infinity.
    #[error(
        "set {set}: sample {sample}, channel {channel} is {value}: principal components need finite features"
    )]
    NotFinite {
        /// Which set of samples, from 0.
        set: usize,
        /// The row.
        sample: usize,
        /// The column.
        channel: usize,
        /// The value.
        value: f32,
    },
    /// An invalid number of components.
    #[error("{components} principal components of {width} channels: expected 1 to {}", (*width).min(MAX_COMPONENTS))]
    BadComponents {
        /// The requested components.
        components: usize,
        /// The channels of the samples.
        width: usize,
    },
    /// No sets were given.
    #[error("no sets of features to find principal components of")]
    NoSets,
    /// The buffers of a projection do not match the basis or each other.
    #[error(
        "{tokens} values of features and {out} of output do not fit {width} channels and {components} components"
    )]
    BadProjection {
        /// The values given.
        tokens: usize,
        /// The values of the output buffer.
        out: usize,
        /// The channels of the basis.
        width: usize,
        /// The components of the basis.
        components: usize,
    },
    /// A set that the basis was not fitted to.
    #[error("set {set} of a basis of {sets} sets")]
    NoSuchSet {
        /// The requested set.
        set: usize,
        /// The number of sets.
        sets: usize,
    },
}

/// The principal components of one set of samples.
///
/// Components are sorted by decreasing variance. The sign is fixed: the entry of largest magnitude
/// of each direction is positive (the first one, if there are several). If the samples vary in fewer
/// dimensions than requested (constant samples, `n <= k`), the remaining directions and their
/// projections are zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    mean: Vec<f32>,
    directions: Vec<f32>,
    variances: Vec<f64>,
}

impl Pca {
    /// Finds the first `k` principal components of `samples`, row-major `[n, d]`.
    ///
    /// # Errors
    /// No samples, a length that is not a multiple of `d`, NaN or infinity, or `k` not in 1 to
    /// the smaller of `d` and [`MAX_COMPONENTS`].
    pub fn fit(samples: &[f32], d: usize, k: usize) -> Result<Self, PcaError> {
        let n = samples.len().checked_div(d).unwrap_or(0);
        check_components(k, d)?;
        check_samples(0, samples, n, d)?;
        let statistics = Statistics::of(samples, d);
        let mut rows = Rows::new(d);
        rows.push(samples, &statistics, 1, n);
        let found = eigen::leading(&rows, k, statistics.floor());
        let per_unit = statistics.rms * statistics.rms;
        Ok(Self {
            mean: statistics.mean_f32(),
            directions: found.directions,
            variances: found.values.iter().map(|value| value * per_unit).collect(),
        })
    }

    /// Channels of a sample.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// The mean of the samples, `[d]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The directions, row-major `[k, d]`, of length 1 (or 0, see above), orthogonal.
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// The variance of the samples along each direction (divided by `n`), `[k]`.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// Projects `tokens`, row-major `[n, d]`, into `out`, row-major `[n, k]`. A token with NaN is
    /// projected to NaN.
    ///
    /// # Errors
    /// The lengths do not match each other or the basis.
    pub fn project(&self, tokens: &[f32], out: &mut [f32]) -> Result<(), PcaError> {
        project(&self.mean, 1.0, &self.directions, tokens, out)
    }
}

fn check_components(k: usize, d: usize) -> Result<(), PcaError> {
    if (1..=d.min(MAX_COMPONENTS)).contains(&k) {
        return Ok(());
    }
    let (components, width) = (k, d);
    Err(PcaError::BadComponents { components, width })
}

fn check_samples(set: usize, values: &[f32], n: usize, d: usize) -> Result<(), PcaError> {
    if n == 0 || !(1..=MAX_WIDTH).contains(&d) || n.checked_mul(d) != Some(values.len()) {
        return Err(PcaError::BadShape {
            set,
            values: values.len(),
            samples: n,
            width: d,
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(PcaError::NotFinite {
            set,
            sample: at / d,
            channel: at % d,
            value: values[at],
        }),
    }
}

/// Mean and scale of a set of samples.
struct Statistics {
    mean: Vec<f64>,
    /// Root mean square over all entries of the centered samples; 1 if they do not vary.
    rms: f64,
    /// Mean square over all entries of the centered samples.
    spread: f64,
    /// Mean square over all entries as given.
    power: f64,
}

impl Statistics {
    fn of(samples: &[f32], d: usize) -> Self {
        let n = (samples.len() / d) as f64;
        let mut mean = vec![0f64; d];
        let mut power = 0.0;
        for row in samples.chunks_exact(d) {
            let mut squares = 0.0;
            for (sum, &value) in mean.iter_mut().zip(row) {
                let value = f64::from(value);
                *sum += value;
                squares += value * value;
            }
            power += squares;
        }
        mean.iter_mut().for_each(|sum| *sum /= n);
        power /= n * d as f64;
        // In a second pass, since computing it as power minus squared mean would cancel.
        let mut spread = 0.0;
        for row in samples.chunks_exact(d) {
            let squares = row.iter().zip(&mean).map(|(&value, mean)| {
                let centered = f64::from(value) - mean;
                centered * centered
            });
            spread += squares.sum::<f64>();
        }
        spread /= n * d as f64;
        let rms = if spread > CONSTANT * power {
            spread.sqrt()
        } else {
            1.0
        };
        Self {
            mean,
            rms,
            spread,
            power,
        }
    }

    fn mean_f32(&self) -> Vec<f32> {
        self.mean.iter().map(|&mean| mean as f32).collect()
    }

    /// Whether the samples differ by more than the rounding of f32.
    fn varies(&self) -> bool {
        self.spread > CONSTANT * self.power
    }

    /// Returns the variance, in units of `rms` squared, below which a component is only rounding error.
    fn floor(&self) -> f64 {
        CONSTANT * self.power * self.mean.len() as f64 / (self.rms * self.rms)
    }
}

/// Samples that deviate from their mean by less than 1e-7 of their magnitude (squared here) are
/// constant up to f32 rounding.
const CONSTANT: f64 = 1e-14;

/// `out[i, j] = dot(tokens[i] - mean, directions[j]) * scale`, for every token `i`.
fn project(
    mean: &[f32],
    scale: f32,
    directions: &[f32],
    tokens: &[f32],
    out: &mut [f32],
) -> Result<(), PcaError> {
    let width = mean.len();
    let components = directions.len() / width;
    let n = tokens.len() / width;
    if n * width != tokens.len() || n * components != out.len() {
        return Err(PcaError::BadProjection {
            tokens: tokens.len(),
            out: out.len(),
            width,
            components,
        });
    }
    let mut centered = vec![0f32; width];
    for (token, out) in tokens
        .chunks_exact(width)
        .zip(out.chunks_exact_mut(components))
    {
        // Centered first: dot(token) - dot(mean) would cancel where the mean is large.
        for ((centered, &value), &mean) in centered.iter_mut().zip(token).zip(mean) {
            *centered = value - mean;
        }
        for (out, direction) in out.iter_mut().zip(directions.chunks_exact(width)) {
            *out = dot(&centered, direction) * scale;
        }
    }
    Ok(())
}

/// A dot product in 16 interleaved sums, which the compiler vectorizes.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<16>();
    let (b_blocks, b_rest) = b.as_chunks::<16>();
    let mut sums = [0f32; 16];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
