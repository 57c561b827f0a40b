//! Principal components of features, for visualization.
//!
//! Features are row-major `[n, d]`: `n` samples (tokens, pixels) of `d` channels. All results are
//! deterministic: the same samples give the same bits.

mod common;
mod eigen;

pub use common::{CommonBasis, Range};

use eigen::Rows;

/// The maximum number of channels, which limits the memory for the directions.
pub const MAX_WIDTH: usize = 1 << 16;

/// The maximum number of components.
pub const MAX_COMPONENTS: usize = 64;

/// Errors of principal component analysis. Messages are one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PcaError {
    /// The samples are not `n` rows of `d` values, or there are none.
    #[error(
        "set {set}: {values} values do not form {samples} samples of {width} channels (at least one sample, 1 to {MAX_WIDTH} channels)"
    )]
    BadShape {
        /// Index of the set.
        set: usize,
        /// Number of values.
        values: usize,
        /// Number of samples.
        samples: usize,
        /// Number of channels.
        width: usize,
    },
    /// A sample contains NaN or infinity.
    #[error(
        "set {set}: sample {sample}, channel {channel} is {value}: principal components need finite features"
    )]
    NotFinite {
        /// Index of the set.
        set: usize,
        /// Index of the sample.
        sample: usize,
        /// Index of the channel.
        channel: usize,
        /// The value.
        value: f32,
    },
    /// The number of components is out of range.
    #[error("{components} principal components of {width} channels: expected 1 to {}", (*width).min(MAX_COMPONENTS))]
    BadComponents {
        /// Requested number of components.
        components: usize,
        /// Number of channels.
        width: usize,
    },
    /// No sets of features were given.
    #[error("principal components need at least one set of features")]
    NoSets,
    /// The buffers of a projection do not match the basis or each other.
    #[error(
        "{tokens} feature values and {out} output values do not match {width} channels and {components} components"
    )]
    BadProjection {
        /// Number of feature values.
        tokens: usize,
        /// Length of the output buffer.
        out: usize,
        /// Number of channels of the basis.
        width: usize,
        /// Number of components of the basis.
        components: usize,
    },
    /// The set was not part of the fit.
    #[error("set {set} does not exist: the basis has {sets} sets")]
    NoSuchSet {
        /// The requested set.
        set: usize,
        /// The number of sets.
        sets: usize,
    },
}

/// The principal components of one set of samples.
///
/// Components are ordered by descending variance. The sign is fixed: the entry of largest magnitude
/// of each direction is positive (the first one if there are several). If the samples have fewer
/// dimensions than requested components (constant samples, `n <= k`), the remaining directions are
/// zero, and projections on them are zero as well.
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
    /// No samples, a length that is not a multiple of `d`, NaN or infinity, or `k` outside 1 to the
    /// smaller of `d` and [`MAX_COMPONENTS`].
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

    /// Number of channels.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// The mean of the samples, `[d]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The directions, row-major `[k, d]`, orthogonal, of unit length (or zero, see above).
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// The variance of the samples along each direction (divided by `n`), `[k]`.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// Projects `tokens`, row-major `[n, d]`, to `out`, row-major `[n, k]`. A token with NaN
    /// projects to NaN.
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

/// Mean and spread of a set of samples.
struct Statistics {
    mean: Vec<f64>,
    /// RMS of all entries of the centered samples; 1 if they are constant.
    rms: f64,
    /// Mean square over all entries of the centered samples.
    spread: f64,
    /// Mean square of all entries of the samples before centering.
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
        // Two passes, because subtracting the squared mean from the power would cancel.
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

    /// Whether the samples differ by more than f32 rounding.
    fn varies(&self) -> bool {
        self.spread > CONSTANT * self.power
    }

    /// The variance, in units of `rms` squared, below which a component is only rounding error.
    fn floor(&self) -> f64 {
        CONSTANT * self.power * self.mean.len() as f64 / (self.rms * self.rms)
    }
}

/// Relative deviation from the mean (squared here, 1e-7) below which samples are constant up to f32
/// rounding.
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
        // Centered first, because dot(token) - dot(mean) would cancel if the mean is large.
        for ((centered, &value), &mean) in centered.iter_mut().zip(token).zip(mean) {
            *centered = value - mean;
        }
        for (out, direction) in out.iter_mut().zip(directions.chunks_exact(width)) {
            *out = dot(&centered, direction) * scale;
        }
    }
    Ok(())
}

/// A dot product with 16 interleaved accumulators, which the compiler vectorizes.
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
