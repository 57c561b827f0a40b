//! Bilinear initialization: initial weights with which the upsampler interpolates bilinearly.
//!
//! From random weights, training spends thousands of steps on learning the position of a pixel among
//! the tokens. Here, the queries and keys of the first layer are sines and cosines of the position, so
//! that each pixel attends to the tokens around it with a Gaussian about as wide as the kernel of
//! bilinear interpolation. Values pass through, and the last linear map, fitted to a few images by
//! least squares, turns them into features. The rest is random, and small where it would disturb this.
//! Training then only has to learn the edges.
//!
//! The architecture has several normalizations, each of which would cause an error:
//!
//! - Layer normalizations before queries and keys subtract a mean and divide by a deviation that
//!   depend on the position and the colors. The mean cancels, because positions are encoded as
//!   differences of channels. A factor common to sine and cosine does not change the angle. The
//!   phases of the keys' sinusoids are chosen so that all tokens have the same deviation.
//! - The layer normalization after the layers, and the one of the output, discard the length of a
//!   vector. Large constants in other channels (`CONSTANT_CHANNELS`, `PEDESTAL`) keep the length
//!   almost constant, so that both are almost linear maps. The last one also discards two
//!   directions, chosen such that the features vary least along them (`directions`).
//!
//! The position reaches the queries through *positional channels*, which the convolutions pass
//! through. Their weights are frozen during training ([`Frozen`]): an optimizer that changes each of
//! the 1800 weights of such a channel by the learning rate would shift the position by more than a
//! token in a few steps. A later training that starts from such weights recognizes the channels and
//! freezes them, too. This also applies to the color channels of a bilateral initialization
//! (`bilateral`).
//!
//! This initialization is not published; the architecture is.

mod bilateral;
mod directions;
mod frozen;
mod waves;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor as Matrix};
use loftup_onnx::Tensor;
use loftup_spec::{Config, EPS, frequencies};

use super::{
    BatchStats, Guidance, LoftUp, Mode, Params, Tokens, host_values,
    least_squares::{LinearMap, fit, lines, statistics},
};
use crate::resample::{Axis, resample_values};

pub use bilateral::Examples;
pub use frozen::Frozen;

/// Number of position values: sine and cosine of row and column.
const ANGLES: usize = 4;
/// Number of colors: red, green and blue.
const COLORS: usize = 3;
/// Number of channels per head that compare colors: the positive and negative part of each color, and a constant.
const SLOTS: usize = 2 * COLORS + 1;
/// Number of channels that contain a constant.
const CONSTANT_CHANNELS: usize = 4;
/// Sum of squares of the constant channels, relative to the number of feature channels.
const CONSTANT_POWER: f32 = 3.0;
/// Constant that the last linear map adds to each channel, in standard deviations of a feature.
const PEDESTAL: f32 = 4.0;
/// Standard deviation of the attention's Gaussian, in tokens. The kernel of bilinear interpolation
/// has 0.41.
const KERNEL_SIGMA: f64 = 0.42;
/// Factor of the guidance in the channels that contain features.
const FAINT: f32 = 0.02;
/// Factor of the guidance in the remaining channels.
const GUIDANCE: f32 = 0.5;
/// Factor of the MLPs and of the attention of later layers.
const WEAK: f32 = 0.1;
/// Factor of the random weights of queries and keys.
const NOISE: f32 = 0.25;
/// Maximum number of rows that the last linear map is fitted to.
const FITTED_ROWS: usize = 1 << 14;

/// Named tensors of the upsampler.
type Weights = BTreeMap<String, Tensor>;

/// Initializes the upsampler to interpolate `lr`, the features of the images in `guidance`. With
/// `examples`, its attention also compares colors: it starts as joint bilateral upsampling.
///
/// Returns `false` and changes nothing if the upsampler has too few channels in addition to the
/// features, heads with fewer than four channels, or too few low frequencies.
///
/// # Panics
/// If the numbers of features and images differ, as for [`LoftUp::forward`].
pub fn interpolate(
    upsampler: &mut LoftUp,
    lr: &Tokens,
    guidance: &Guidance,
    examples: Option<&Examples>,
    device: &Device,
) -> bool {
    let mut trial = upsampler.clone();
    let done = Fit {
        config: trial.config,
        lr,
        guidance,
        examples,
        device,
    }
    .apply(&mut trial);
    if done.is_some() {
        *upsampler = trial;
    }
    done.is_some()
}

/// The data that the weights are fitted to.
struct Fit<'a> {
    config: Config,
    lr: &'a Tokens,
    guidance: &'a Guidance,
    examples: Option<&'a Examples>,
    device: &'a Device,
}

/// Changes every element of a tensor; `f` takes its index and its value.
fn change(weights: &mut Weights, name: &str, f: impl FnMut(usize, f32) -> f32) {
    if let Some(tensor) = weights.remove(name) {
        weights.insert(name.into(), tensor.map(f));
    }
}

/// Returns the name of a tensor of the convolutions before the attention.
fn conv(i: usize, what: &str) -> String {
    format!("upsampler.first_conv.{i}.{what}")
}

fn layer(i: usize) -> String {
    format!("upsampler.ca_transformer.layers.{i}")
}

impl Fit<'_> {
    fn apply(&self, upsampler: &mut LoftUp) -> Option<()> {
        let (d, e) = (self.config.dim, self.config.width());
        let grid_frequencies = frequencies(self.config.grid_frequencies);
        let slow =
            (1..grid_frequencies.len()).find(|&i| (1.0..=3.0).contains(&grid_frequencies[i]))?;
        let channels = ANGLES + self.examples.map_or(0, |_| SLOTS);
        if e < self.first_feature() + d || e / self.config.heads < channels {
            return None;
        }
        let frequency = f64::from(grid_frequencies[slow]);
        let mut weights = upsampler.weights.to_host();
        self.set_convolutions(&mut weights, frequency)?;
        self.set_attention(&mut weights, slow);
        self.set_later_layers(&mut weights);
        upsampler.weights = Params::new(weights.clone(), self.device);

        for index in [2, 5] {
            let (_, batch_stats) = self.stem(upsampler);
            self.pass_through(&mut weights, &batch_stats, index);
            upsampler.weights = Params::new(weights.clone(), self.device);
        }
        let (queries, batch_stats) = self.stem(upsampler);
        upsampler.statistics = Params::new(
            batch_stats
                .iter()
                .map(|(name, x)| (name.clone(), vector(host_values(x)))),
            self.device,
        );
        self.set_queries(&mut weights, frequency, &queries, KERNEL_SIGMA);
        upsampler.weights = Params::new(weights.clone(), self.device);

        let target = self.bilinear();
        let last = upsampler.transformer(self.lr, self.guidance, Mode::Train, &mut Vec::new());
        let map = self.last_map(&host_values(&last), &target)?;
        let name = "upsampler.final_conv.0";
        set(&mut weights, &format!("{name}.weight"), map.weight);
        set(&mut weights, &format!("{name}.bias"), map.bias);
        upsampler.weights = Params::new(weights.clone(), self.device);

        let seen = upsampler.forward(self.lr, self.guidance, Mode::Train);
        let (factor, offset) = lines(&host_values(&seen.features), &target, d);
        let name = "upsampler.final_conv.1";
        set(&mut weights, &format!("{name}.weight"), factor);
        set(&mut weights, &format!("{name}.bias"), offset);
        if let Some(examples) = self.examples {
            // The maps after the attention have been fitted and are valid for any kernel.
            self.set_queries(&mut weights, frequency, &queries, bilateral::SIGMA_SPATIAL);
            self.compare_colors(upsampler, &mut weights, examples);
        }
        upsampler.weights = Params::new(weights, self.device);
        Some(())
    }

    /// Number of channels that pass the convolutions unchanged: positional and color channels. Each
    /// signal is stored twice, once negated: ReLU passes the positive part of each, so their difference
    /// is the signal.
    fn carried(&self) -> usize {
        2 * (ANGLES + self.examples.map_or(0, |_| COLORS))
    }

    /// Index of the first channel with interpolated features.
    fn first_feature(&self) -> usize {
        self.carried() + CONSTANT_CHANNELS
    }

    /// Makes a batch normalization pass the carried channels unchanged.
    fn pass_through(&self, weights: &mut Weights, batch_stats: &BatchStats, index: usize) {
        let seen = |what: &str| {
            let name = conv(index, what);
            let found = batch_stats.iter().find(|(n, _)| *n == name);
            found.map_or(Vec::new(), |(_, x)| host_values(x))
        };
        let (mean, variance) = (seen("running_mean"), seen("running_var"));
        let carried = self.carried();
        change(weights, &conv(index, "weight"), |i, x| {
            if i < carried {
                (variance[i] + EPS).sqrt()
            } else {
                x
            }
        });
        change(weights, &conv(index, "bias"), |i, x| {
            if i < carried { mean[i] } else { x }
        });
    }

    /// Computes the first queries, `[batch * H * W, e]`, and the statistics of the batch normalizations.
    fn stem(&self, upsampler: &LoftUp) -> (Vec<f32>, BatchStats) {
        let mut batch_stats = Vec::new();
        let queries = self.queries(upsampler, self.guidance, Mode::Train, &mut batch_stats);
        (host_values(&queries), batch_stats)
    }

    /// Computes the first queries, `[batch * H * W, e]`.
    fn queries(
        &self,
        upsampler: &LoftUp,
        guidance: &Guidance,
        mode: Mode,
        batch_stats: &mut BatchStats,
    ) -> Matrix<2> {
        let x = upsampler.stem(guidance, mode, self.device, batch_stats);
        upsampler.layer_norm(x, &format!("{}.0.norm_q", layer(0)), EPS)
    }

    /// Sets the convolutions to compute the angles in the positional channels.
    fn set_convolutions(&self, weights: &mut Weights, frequency: f64) -> Option<()> {
        let (d, e, waves) = (
            self.config.dim,
            self.config.width(),
            5 * self.config.frequencies,
        );
        let inputs = self.config.guidance_channels();
        let all = frequencies(self.config.frequencies);
        // Carrier: sine or cosine, frequency, row or column.
        let source = |angle: usize, k: usize| angle / 2 * waves + k * 5 + angle % 2;
        let (small, large) = (self.lr.grid, self.guidance.grid());
        let carried = self.carried();
        let mut rows = vec![0.0; carried * inputs];
        let mut used = Vec::new();
        for signal in 0..carried / 2 {
            let coefficients: Vec<(usize, f32)> = if signal < ANGLES {
                let (tokens, pixels) = match signal % 2 {
                    0 => (small.height, large.height),
                    _ => (small.width, large.width),
                };
                let wanted = frequency * waves::scale(tokens, pixels);
                let wave = [f64::sin, f64::cos][signal / 2];
                let found = waves::combine(&all, wanted, wave)?.into_iter();
                found.map(|(k, c)| (source(signal, k), c)).collect()
            } else {
                vec![(2 * waves + signal - ANGLES, 1.0)]
            };
            let sum: f32 = coefficients.iter().map(|(_, c)| c).sum();
            for (channel, sign) in [(2 * signal, 1.0), (2 * signal + 1, -1.0)] {
                let row = &mut rows[channel * inputs..][..inputs];
                for &(source, c) in &coefficients {
                    row[source] += sign * c;
                }
                // The two sinusoids of the lowest frequency are opposites, so their mean is minus the mean
                // that the normalization subtracted.
                row[0] -= sign * sum / 2.0;
                row[waves] -= sign * sum / 2.0;
            }
            used.extend(coefficients.iter().map(|(source, _)| *source));
        }
        change(weights, "upsampler.fourier_feat.1.biases", |i, x| {
            opposites(i, waves).unwrap_or(if used.contains(&i) { 0.0 } else { x })
        });
        let positional = |i: usize| i < carried;
        change(weights, &conv(1, "weight"), |i, x| match i / (9 * inputs) {
            o if positional(o) && i % 9 == 4 => rows[i / 9],
            o if positional(o) => 0.0,
            _ => x,
        });
        change(weights, &conv(4, "weight"), |i, x| match i / (9 * e) {
            o if positional(o) => f32::from(i % (9 * e) == o * 9 + 4),
            _ => x,
        });
        for index in [1, 4] {
            change(weights, &conv(index, "bias"), |i, x| {
                if positional(i) { 0.0 } else { x }
            });
        }
        let constant = (CONSTANT_POWER * d as f32 / CONSTANT_CHANNELS as f32).sqrt();
        let first = self.first_feature();
        let is_constant = |i: usize| (carried..first).contains(&i);
        change(weights, &conv(5, "weight"), |i, x| match i {
            _ if is_constant(i) => 0.0,
            _ if (first..first + d).contains(&i) => FAINT * x,
            _ => GUIDANCE * x,
        });
        change(weights, &conv(5, "bias"), |i, x| {
            if is_constant(i) { constant } else { x }
        });
        Some(())
    }

    /// Sets the keys to the position of their token, and lets values pass through.
    fn set_attention(&self, weights: &mut Weights, slow: usize) {
        let (d, e) = (self.config.dim, self.config.width());
        let head = e / self.config.heads;
        let waves = 2 * self.config.grid_frequencies;
        // Sine and cosine have equal phases, so that their squares add up to 1.
        change(weights, "upsampler.lr_pe.biases", |i, _| {
            opposites(i, waves).unwrap_or(0.0)
        });
        let attention = format!("{}.0.attention", layer(0));
        let key = |angle: usize, column: usize| {
            let source = d + angle / 2 * waves + slow * 2 + angle % 2;
            match column {
                _ if column == source => 1.0,
                _ if column == d || column == d + waves => -0.5,
                _ => 0.0,
            }
        };
        change(weights, &format!("{attention}.in_proj_weight"), |i, x| {
            let (part, row, column) = (i / (e * e), i / e % e, i % e);
            match part {
                1 if row % head < ANGLES => key(row % head, column),
                2 if row < d => f32::from(column == row),
                2 => x,
                // They get their first gradients through these weights.
                _ => NOISE * x,
            }
        });
        let first = self.first_feature();
        change(weights, &format!("{attention}.out_proj.weight"), |i, _| {
            f32::from((first..first + d).contains(&(i / e)) && i % e == i / e - first)
        });
    }

    /// Scales down everything after the first attention.
    fn set_later_layers(&self, weights: &mut Weights) {
        for i in 0..self.config.layers {
            let name = layer(i);
            for what in ["weight", "bias"] {
                change(weights, &format!("{name}.1.net.4.{what}"), |_, x| WEAK * x);
            }
            if i > 0 {
                let name = format!("{name}.0.attention.out_proj.weight");
                change(weights, &name, |_, x| WEAK * x);
            }
        }
    }

    /// Sets the queries to the position of their pixel, scaled so that the attention is a Gaussian.
    fn set_queries(&self, weights: &mut Weights, frequency: f64, queries: &[f32], sigma: f64) {
        let (e, head) = (self.config.width(), self.config.width() / self.config.heads);
        // Mean length of sine and cosine.
        let length = |axis: usize| -> f64 {
            let lengths = queries.chunks_exact(e).map(|q| {
                let angle = |a: usize| f64::from(q[2 * a] - q[2 * a + 1]);
                angle(axis).hypot(angle(2 + axis))
            });
            lengths.sum::<f64>() / (queries.len() / e) as f64
        };
        // Keys are layer-normalized: the tokens' channels have a variance of 1, the sinusoids of 1/2.
        let (d, waves) = (self.config.dim as f64, (e - self.config.dim) as f64);
        let shrunk = ((d + 0.5 * waves) / e as f64).sqrt();
        let grid = self.lr.grid;
        let strengths = [(0, grid.height), (1, grid.width)].map(|(axis, tokens)| {
            let step = 2.0 * frequency / (tokens.max(2) - 1) as f64;
            let strength = (head as f64).sqrt() * shrunk / (sigma * step).powi(2);
            (strength / length(axis)) as f32
        });
        let name = format!("{}.0.attention.in_proj", layer(0));
        let angle = |row: usize| (row < e && row % head < ANGLES).then_some(row % head);
        change(weights, &format!("{name}_weight"), |i, x| {
            match angle(i / e) {
                Some(a) if i % e == 2 * a => strengths[a % 2],
                Some(a) if i % e == 2 * a + 1 => -strengths[a % 2],
                Some(_) => 0.0,
                None => x,
            }
        });
    }

    /// Fits the last linear map to `target`.
    fn last_map(&self, last: &[f32], target: &[f32]) -> Option<LinearMap> {
        let (d, e) = (self.config.dim, self.config.width());
        let step = (last.len() / e).div_ceil(FITTED_ROWS);
        let rows = |x: &[f32], channels: usize| -> Vec<f32> {
            x.chunks_exact(channels)
                .step_by(step)
                .flatten()
                .copied()
                .collect()
        };
        let (last, mut features) = (rows(last, e), rows(target, d));
        let (mean, deviation) = statistics(&features, d);
        for row in features.chunks_exact_mut(d) {
            for ((x, mean), deviation) in row.iter_mut().zip(&mean).zip(&deviation) {
                *x = (*x - mean) / deviation.max(1e-6);
            }
        }
        let (signs, pedestal) = directions::choose(&features, d);
        for row in features.chunks_exact_mut(d) {
            for ((x, sign), constant) in row.iter_mut().zip(&signs).zip(&pedestal) {
                *x = sign * *x + PEDESTAL * constant;
            }
        }
        let map = fit(&last, e, &features, d)?;
        log::debug!(
            "features read from the last layer: off by {:.3} of their deviation",
            map.error(&last, &features)
        );
        Some(map)
    }

    /// Interpolates the features at every pixel of the guidance, `[batch * H * W, d]`.
    fn bilinear(&self) -> Vec<f32> {
        let (small, large) = (self.lr.grid, self.guidance.grid());
        let rows = Axis::bilinear(small.height, large.height);
        let columns = Axis::bilinear(small.width, large.width);
        host_values(&self.lr.values)
            .chunks_exact(small.height * small.width * self.config.dim)
            .flat_map(|map| resample_values(map, self.config.dim, &rows, &columns))
            .collect()
    }
}

fn vector(values: Vec<f32>) -> Tensor {
    Tensor::from_fn([values.len()], |i| values[i])
}

/// Replaces the values of a tensor.
fn set(weights: &mut Weights, name: &str, values: Vec<f32>) {
    change(weights, name, |i, _| values[i]);
}

/// Returns phases that make the two sinusoids of the lowest row frequency opposites: `sin(x)` and
/// `cos(x + pi / 2)`.
fn opposites(i: usize, waves: usize) -> Option<f32> {
    match i {
        0 => Some(0.0),
        _ if i == waves => Some(std::f32::consts::FRAC_PI_2),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
