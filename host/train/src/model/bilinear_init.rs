//! Bilinear initialization: weights that interpolate before the first step.
//!
//! From random weights, a training spends thousands of steps on learning where a pixel is among the
//! tokens. Here the queries and keys of the first layer are sines and cosines of the position, so
//! that each pixel attends to the tokens around it, with a Gaussian about as wide as the kernel of
//! bilinear interpolation; values pass through to the last linear map. The position reaches the
//! queries through *positional channels*, which convolutions and ReLU leave unchanged. Two linear maps
//! are fitted to a few images by least squares: from the first layer's input to the queries, and from
//! the last layer's output to the features. Everything else is random, and scaled down where it
//! would disturb. Training then only has to learn the edges.
//!
//! The weights of the positional channels are frozen during training ([`Frozen`]): an optimizer that
//! moves each of the 1800 weights behind a channel by the learning rate shifts the position by more
//! than a token in a few steps. A later training that starts from such weights recognizes the
//! channels and freezes them too.
//!
//! This is not published; the architecture is.

use std::collections::BTreeMap;

use burn::tensor::Device;
use loftup_onnx::Tensor;
use loftup_spec::{Config, frequencies};

use super::{
    Guidance, LoftUp, Mode, Params, Place, Tokens, host_values,
    least_squares::{LinearMap, fit, lines, statistics},
};
use crate::resample::{Axis, resample_values};

/// Frequencies of row and column in the positional channels, as sine and cosine.
const PASSED: usize = 4;
/// Positional channels.
const POSITIONAL_CHANNELS: usize = 4 * PASSED;
/// Offset that keeps a positional channel above zero, in its standard deviations.
const ABOVE_ZERO: f32 = 3.0;
/// The bell of the attention: its deviation in tokens. That of bilinear interpolation is 0.41, and
/// a bell sampled at whole tokens needs a little more to be even.
const BELL: f64 = 0.5;
/// Factor of what begins weak: channels of the stream that carry nothing, and the other layers.
const WEAK: f32 = 0.1;
/// Channels of a head that know the position: sine and cosine of row and column.
const ANGLES: usize = 4;

/// The weights of the positional channels, which are not trained.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// 1 for a frozen weight, 0 for others, of the tensors that have frozen weights.
    masks: Params,
}

/// Whether a row of a matrix is frozen.
type Rows = Box<dyn Fn(usize) -> bool>;

impl Frozen {
    /// The positional channels of an upsampler, if it has some: only one that began by interpolating hands
    /// channels from one convolution to the next as they are.
    pub fn find(upsampler: &LoftUp, device: &Device) -> Option<Self> {
        let (name, e) = (&conv(4, "weight"), upsampler.config.width());
        if e < POSITIONAL_CHANNELS || upsampler.weights.shape(name)? != [e, e, 3, 3] {
            return None;
        }
        let taps = host_values(&upsampler.weights.get(name));
        let passed_on = |i: usize| i % (9 * e) == i / (9 * e) * 9 + 4;
        taps.iter()
            .take(POSITIONAL_CHANNELS * 9 * e)
            .enumerate()
            .all(|(i, &tap)| tap == f32::from(passed_on(i)))
            .then(|| Self::new(upsampler, device))
    }

    /// The positional channels of an upsampler that began by interpolating.
    fn new(upsampler: &LoftUp, device: &Device) -> Self {
        let (d, e) = (upsampler.config.dim, upsampler.config.width());
        let head = e / upsampler.config.heads;
        let wanted = |name: &str| -> Option<(usize, Rows)> {
            let positional = |row: usize| row < POSITIONAL_CHANNELS;
            let key = move |row: usize| row / e == 1 && row % e % head < ANGLES;
            let first = format!("{}.0.attention.in_proj", layer(0));
            match name {
                "upsampler.fourier_feat.1.biases" | "upsampler.lr_pe.biases" => {
                    Some((1, Box::new(|_| true)))
                }
                "upsampler.first_conv.1.weight" => Some((
                    9 * upsampler.config.guidance_channels(),
                    Box::new(positional),
                )),
                "upsampler.first_conv.4.weight" => Some((9 * e, Box::new(positional))),
                _ if name.starts_with("upsampler.first_conv.") && !name.contains(".0.norm") => {
                    Some((1, Box::new(positional)))
                }
                _ if name == format!("{first}_weight") => Some((e, Box::new(key))),
                _ if name == format!("{first}_bias") => Some((1, Box::new(key))),
                // The normalization before the keys keeps the share of the waves.
                _ if name == format!("{}.0.norm_kv.weight", layer(0)) => {
                    Some((1, Box::new(move |i| i >= d)))
                }
                _ => None,
            }
        };
        let masks = upsampler.weights.names().filter_map(|name| {
            let (columns, frozen) = wanted(name)?;
            let shape = upsampler.weights.shape(name)?.to_vec();
            let mask = Tensor::from_fn(shape, |i| f32::from(frozen(i / columns)));
            Some((name.to_string(), mask))
        });
        Self {
            masks: Params::new(masks, device),
        }
    }

    /// `new` with the frozen weights of `old`.
    pub fn restore(&self, old: &Params, new: &Params) -> Params {
        new.map(|name, new| match self.masks.shape(name) {
            Some(_) => {
                // Products with 0 and 1, and sums with 0, are exact.
                let mask = self.masks.get(name);
                new.clone() * (mask.clone() * -1.0 + 1.0) + old.get(name) * mask
            }
            None => new.clone(),
        })
    }
}

/// Named tensors of the upsampler.
type Weights = BTreeMap<String, Tensor>;

/// Initializes the upsampler to interpolate `lr`, features of the images in `guidance`.
///
/// Returns `false`, and changes nothing, where it has no room for that: fewer channels than the
/// positional channels and the features side by side, heads of fewer than four channels, or frequencies
/// among which none is slow enough.
///
/// # Panics
/// Where features and images are of another number, as [`LoftUp::forward`].
pub fn interpolate(
    upsampler: &mut LoftUp,
    lr: &Tokens,
    guidance: &Guidance,
    device: &Device,
) -> bool {
    let mut trial = upsampler.clone();
    let done = Fit {
        config: trial.config,
        lr,
        guidance,
        device,
    }
    .apply(&mut trial);
    if done.is_some() {
        *upsampler = trial;
    }
    done.is_some()
}

/// What the weights are fitted to.
struct Fit<'a> {
    config: Config,
    lr: &'a Tokens,
    guidance: &'a Guidance,
    device: &'a Device,
}

/// Changes every element of a tensor; `f` takes its index and its value.
fn change(weights: &mut Weights, name: &str, f: impl FnMut(usize, f32) -> f32) {
    if let Some(tensor) = weights.remove(name) {
        weights.insert(name.into(), tensor.map(f));
    }
}

/// A tensor of the convolutions before the attention.
fn conv(i: usize, what: &str) -> String {
    format!("upsampler.first_conv.{i}.{what}")
}

fn layer(i: usize) -> String {
    format!("upsampler.ca_transformer.layers.{i}")
}

impl Fit<'_> {
    fn apply(&self, upsampler: &mut LoftUp) -> Option<()> {
        let (d, e) = (self.config.dim, self.config.width());
        let slow = nearest(&frequencies(self.config.grid_frequencies), 1.0, 3.0)?;
        let passed = self.passed()?;
        if e < POSITIONAL_CHANNELS + d || e / self.config.heads < ANGLES {
            return None;
        }
        let mut weights = upsampler.weights.to_host();
        self.carry(&mut weights, passed);
        self.attend(&mut weights, slow);
        upsampler.weights = Params::new(weights.clone(), self.device);

        let (queries, batch_stats) = self.look(upsampler, Place::Queries);
        upsampler.statistics = Params::new(batch_stats, self.device);
        let frequency = f64::from(frequencies(self.config.grid_frequencies)[slow]);
        let angles = self.angles(frequency);
        let map = fit(&queries, e, &angles, ANGLES)?;
        log::debug!(
            "positions read from the stream: off by {:.3} (root mean square), weights up to {:.1}",
            map.error(&queries, &angles),
            map.weight.iter().fold(0f32, |m, w| m.max(w.abs()))
        );
        self.set_queries(&mut weights, frequency, &map);
        upsampler.weights = Params::new(weights.clone(), self.device);

        let target = self.bilinear();
        let (mean, deviation) = statistics(&target, d);
        let scaled: Vec<f32> = target
            .iter()
            .enumerate()
            .map(|(i, x)| (x - mean[i % d]) / deviation[i % d].max(1e-6))
            .collect();
        let (last, _) = self.look(upsampler, Place::Last);
        let map = fit(&last, e, &scaled, d)?;
        log::debug!(
            "features read from the stream: off by {:.3} of their deviation, weights up to {:.1}",
            map.error(&last, &scaled),
            map.weight.iter().fold(0f32, |m, w| m.max(w.abs()))
        );
        let name = "upsampler.final_conv.0";
        change(&mut weights, &format!("{name}.weight"), |i, _| {
            map.weight[i]
        });
        change(&mut weights, &format!("{name}.bias"), |i, _| map.bias[i]);
        upsampler.weights = Params::new(weights.clone(), self.device);

        // The last normalization takes the length of every vector away. What it leaves is brought
        // as close to the features as a factor and an offset for each channel can.
        let seen = upsampler.forward(self.lr, self.guidance, Mode::Train);
        let (factor, offset) = lines(&host_values(&seen.features), &target, d);
        let name = "upsampler.final_conv.1";
        change(&mut weights, &format!("{name}.weight"), |i, _| factor[i]);
        change(&mut weights, &format!("{name}.bias"), |i, _| offset[i]);
        upsampler.weights = Params::new(weights, self.device);
        Some(())
    }

    /// What passes `place`, and what the batch normalizations saw.
    fn look(&self, upsampler: &LoftUp, place: Place) -> (Vec<f32>, Weights) {
        let mut seen = Vec::new();
        let output =
            upsampler.forward_watched(self.lr, self.guidance, Mode::Train, &mut |at, x| {
                if at == place {
                    seen = host_values(x);
                }
            });
        let batch_stats = output.batch_stats.into_iter().map(|(name, x)| {
            let values = host_values(&x);
            (name, Tensor::from_fn([values.len()], |i| values[i]))
        });
        (seen, batch_stats.collect())
    }

    /// The first of the frequencies that are passed on: from about 1, a third of a turn over the
    /// image, upwards.
    fn passed(&self) -> Option<usize> {
        let first = nearest(&frequencies(self.config.frequencies), 0.5, 2.0)?;
        (first + PASSED <= self.config.frequencies).then_some(first)
    }

    /// The convolutions hand sines and cosines of row and column on; their other channels start
    /// out weak.
    fn carry(&self, weights: &mut Weights, first: usize) {
        let (e, waves) = (self.config.width(), 5 * self.config.frequencies);
        let inputs = self.config.guidance_channels();
        // Carrier: sine or cosine, frequency, row or column.
        let source = |positional: usize| {
            let (part, rest) = (positional / (2 * PASSED), positional % (2 * PASSED));
            part * waves + (first + rest / 2) * 5 + rest % 2
        };
        let wanted: Vec<usize> = (0..POSITIONAL_CHANNELS).map(source).collect();
        change(weights, "upsampler.fourier_feat.1.biases", |i, x| {
            if wanted.contains(&i) { 0.0 } else { x }
        });
        let passing = |channels: usize, from: &dyn Fn(usize) -> usize| {
            let places: Vec<usize> = (0..POSITIONAL_CHANNELS)
                .map(|o| (o * channels + from(o)) * 9 + 4)
                .collect();
            move |i: usize, x: f32| match i / (channels * 9) {
                o if o < POSITIONAL_CHANNELS => f32::from(i == places[o]),
                _ => x,
            }
        };
        change(weights, &conv(1, "weight"), passing(inputs, &source));
        change(weights, &conv(4, "weight"), passing(e, &|o| o));
        for index in [1, 4] {
            let passed_on = |i: usize, x: f32| if i < POSITIONAL_CHANNELS { 0.0 } else { x };
            change(weights, &conv(index, "bias"), passed_on);
            let above = |i: usize, x: f32| {
                if i < POSITIONAL_CHANNELS {
                    ABOVE_ZERO
                } else {
                    x
                }
            };
            change(weights, &conv(index + 1, "bias"), above);
        }
        let weak = |i: usize, x: f32| if i < POSITIONAL_CHANNELS { x } else { WEAK * x };
        change(weights, &conv(5, "weight"), weak);
    }

    /// Keys know the position of their token, values pass through, and everything else is weak.
    fn attend(&self, weights: &mut Weights, slow: usize) {
        let (d, e) = (self.config.dim, self.config.width());
        let head = e / self.config.heads;
        let waves = 2 * self.config.grid_frequencies;
        // Sine of row and column, then cosine.
        let source = |angle: usize| angle / 2 * waves + slow * 2 + angle % 2;
        change(weights, "upsampler.lr_pe.biases", |i, x| {
            if (0..ANGLES).any(|a| source(a) == i) {
                0.0
            } else {
                x
            }
        });
        let attention = format!("{}.0.attention", layer(0));
        let projection = |i: usize, x: f32| {
            let (part, row, column) = (i / (e * e), i / e % e, i % e);
            match part {
                1 if row % head < ANGLES => f32::from(column == d + source(row % head)),
                2 if row < d => f32::from(column == row),
                2 => x,
                // Noise in the scores, and through it the first gradients of these channels.
                _ => 0.5 * x,
            }
        };
        change(weights, &format!("{attention}.in_proj_weight"), projection);
        change(weights, &format!("{attention}.out_proj.weight"), |i, _| {
            f32::from(
                i / e >= POSITIONAL_CHANNELS
                    && i / e < POSITIONAL_CHANNELS + d
                    && i % e == i / e - POSITIONAL_CHANNELS,
            )
        });
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

    /// Where each pixel lies among the tokens, `[batch * H * W, 4]`: sine of row and column, cosine
    /// of row and column. Tokens lie at equal steps from -1 to 1, in the middle of their patch.
    fn angles(&self, frequency: f64) -> Vec<f32> {
        let grid = self.guidance.grid();
        let along = |pixels: usize, tokens: usize| -> Vec<[f32; 2]> {
            let place = |i: usize| {
                let token = (i as f64 + 0.5) * tokens as f64 / pixels as f64 - 0.5;
                let (sin, cos) =
                    (frequency * (2.0 * token / (tokens.max(2) - 1) as f64 - 1.0)).sin_cos();
                [sin as f32, cos as f32]
            };
            (0..pixels).map(place).collect()
        };
        let rows = along(grid.height, self.lr.grid.height);
        let columns = along(grid.width, self.lr.grid.width);
        let mut angles = Vec::with_capacity(grid.pixels() * ANGLES);
        for _ in 0..grid.batch {
            for y in &rows {
                for x in &columns {
                    angles.extend([y[0], x[0], y[1], x[1]]);
                }
            }
        }
        angles
    }

    /// Puts the fitted map where queries are made, so strong that the attention is a bell.
    fn set_queries(&self, weights: &mut Weights, frequency: f64, map: &LinearMap) {
        let e = self.config.width();
        let head = e / self.config.heads;
        // Keys have been through a layer normalization: the tokens' channels have a variance of 1,
        // the waves of a half.
        let (d, waves) = (self.config.dim as f64, (e - self.config.dim) as f64);
        let shrunk = ((d + 0.5 * waves) / e as f64).sqrt();
        let strength = |tokens: usize| {
            let step = 2.0 * frequency / (tokens.max(2) - 1) as f64;
            ((head as f64).sqrt() * shrunk / (BELL * step).powi(2)) as f32
        };
        let strengths = [strength(self.lr.grid.height), strength(self.lr.grid.width)];
        let name = format!("{}.0.attention.in_proj", layer(0));
        let angle = |row: usize| (row < e && row % head < ANGLES).then_some(row % head);
        change(weights, &format!("{name}_weight"), |i, x| {
            match angle(i / e) {
                Some(a) => strengths[a % 2] * map.weight[a * e + i % e],
                None => x,
            }
        });
        change(weights, &format!("{name}_bias"), |i, x| match angle(i) {
            Some(a) => strengths[a % 2] * map.bias[a],
            None => x,
        });
    }

    /// The features at every pixel of the guidance, `[batch * H * W, d]`.
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

/// The index of the frequency nearest to `least`, among those from there to `most`.
fn nearest(frequencies: &[f32], least: f32, most: f32) -> Option<usize> {
    frequencies.iter().position(|f| (least..=most).contains(f))
}

#[cfg(test)]
mod tests;
