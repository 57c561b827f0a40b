//! The linear probe: multinomial logistic regression on standardized features.

use loftup_bundle::Linear;
use loftup_runtime::dot;
use rayon::prelude::*;

use crate::{Progress, random::Random};

/// Labeled features.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Channels, `d`.
    pub dim: usize,
    /// `[n, d]`.
    pub features: Vec<f32>,
    /// `[n]`.
    pub labels: Vec<u8>,
}

/// Training settings of a probe: Adam with a cosine schedule.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Number of epochs; more if that would be less than 500 steps.
    pub epochs: usize,
    /// Batch size.
    pub batch: usize,
    /// Initial learning rate.
    pub rate: f64,
    /// L2 regularization: weight of half the squared norm of the weights (not of the bias) in the
    /// loss.
    pub decay: f64,
    /// Seed of the sample order.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 1024,
            rate: 0.01,
            decay: 1e-5,
            seed: 0,
        }
    }
}

/// A trained probe.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Weights for raw features: the standardization is folded in.
    pub linear: Linear,
    /// Mean cross-entropy of the samples in the last epoch.
    pub loss: f64,
    /// Accuracy on the training samples in the last epoch.
    pub accuracy: f64,
}

/// Minimum number of steps.
const LEAST_STEPS: usize = 500;

/// Samples whose gradients are summed together: fixed, so that sums do not depend on the number of
/// threads.
const CHUNK: usize = 128;

/// Trains a probe for `classes` classes. For the same samples and options, results are bit-identical
/// for any number of threads.
///
/// # Panics
/// There are no samples, `features` is not `[n, d]`, or a label is not a class.
pub fn train(
    mut samples: Samples,
    classes: usize,
    options: &Options,
    progress: Progress<'_>,
) -> Trained {
    let dim = samples.dim;
    let count = samples.labels.len();
    assert!(
        count > 0 && samples.features.len() == count * dim,
        "{count} samples of {dim} channels"
    );
    assert!(
        samples.labels.iter().all(|l| usize::from(*l) < classes),
        "a label is not a class"
    );
    let (mean, scale) = standardize(&mut samples.features, dim);

    // Weights, followed by biases.
    let mut parameters = vec![0f32; classes * (dim + 1)];
    let mut adam = Adam::new(parameters.len());
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut random = Random::new(options.seed);
    let batch = options.batch.clamp(1, count);
    let epochs = options
        .epochs
        .max(LEAST_STEPS.div_ceil(count.div_ceil(batch)));
    let steps = epochs * count.div_ceil(batch);
    let mut step = 0;
    let (mut loss, mut right) = (0.0, 0);
    for epoch in 0..epochs {
        progress("training the probe", epoch, epochs);
        random.choose(&mut order, count);
        (loss, right) = (0.0, 0);
        for batch in order.chunks(batch) {
            let parts: Vec<Part> = batch
                .par_chunks(CHUNK)
                .map(|chunk| Part::of(&samples, chunk, &parameters, classes))
                .collect();
            let mut gradient = vec![0f32; parameters.len()];
            for part in &parts {
                gradient
                    .iter_mut()
                    .zip(&part.gradient)
                    .for_each(|(sum, g)| *sum += g);
                loss += part.loss;
                right += part.right;
            }
            let mean = 1.0 / batch.len() as f32;
            let decay = options.decay as f32;
            for (i, (g, p)) in gradient.iter_mut().zip(&parameters).enumerate() {
                let decay = if i < classes * dim { decay } else { 0.0 };
                *g = *g * mean + decay * p;
            }
            let done = step as f64 / steps as f64;
            let rate = options.rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            adam.step(&mut parameters, &gradient, rate);
            step += 1;
        }
    }
    Trained {
        linear: folded(parameters, &mean, &scale),
        loss: loss / count as f64,
        accuracy: f64::from(right) / count as f64,
    }
}

/// Centers each channel and scales it to a standard deviation of 1. Returns the offset and the
/// factor that were applied. Constant channels become 0.
pub(crate) fn standardize(features: &mut [f32], dim: usize) -> (Vec<f64>, Vec<f64>) {
    let count = (features.len() / dim) as f64;
    let mut mean = vec![0f64; dim];
    for row in features.chunks_exact(dim) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(sum, x)| *sum += f64::from(*x));
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut square = vec![0f64; dim];
    for row in features.chunks_exact(dim) {
        for ((sum, x), mean) in square.iter_mut().zip(row).zip(&mean) {
            *sum += (f64::from(*x) - mean).powi(2);
        }
    }
    let scale: Vec<f64> = square
        .iter()
        .zip(&mean)
        .map(|(sum, mean)| {
            let deviation = (sum / count).sqrt();
            // Variation below the 32-bit rounding error counts as constant.
            if deviation > 1e-6 * mean.abs() && deviation > 0.0 {
                1.0 / deviation
            } else {
                0.0
            }
        })
        .collect();
    for row in features.chunks_exact_mut(dim) {
        for ((x, mean), scale) in row.iter_mut().zip(&mean).zip(&scale) {
            *x = ((f64::from(*x) - mean) * scale) as f32;
        }
    }
    (mean, scale)
}

/// Folds the standardization (`mean` and `scale` of [`standardize`]) into weights `[k, d]` and biases
/// `[k]`, so that they apply to raw features.
pub(crate) fn folded(mut parameters: Vec<f32>, mean: &[f64], scale: &[f64]) -> Linear {
    let dim = mean.len();
    let outputs = parameters.len() / (dim + 1);
    let mut bias = parameters.split_off(outputs * dim);
    // w * (x - mean) * scale + b  =  (w * scale) * x + (b - (w * scale) * mean)
    for (row, bias) in parameters.chunks_exact_mut(dim).zip(&mut bias) {
        let mut shift = 0f64;
        for ((w, mean), scale) in row.iter_mut().zip(mean).zip(scale) {
            let folded = f64::from(*w) * scale;
            shift += folded * mean;
            *w = folded as f32;
        }
        *bias = (f64::from(*bias) - shift) as f32;
    }
    Linear {
        inputs: dim,
        weight: parameters,
        bias,
    }
}

/// Sums over a subset of the samples.
struct Part {
    gradient: Vec<f32>,
    loss: f64,
    right: u32,
}

impl Part {
    fn of(samples: &Samples, chosen: &[u32], parameters: &[f32], classes: usize) -> Self {
        let dim = samples.dim;
        let (weight, bias) = parameters.split_at(classes * dim);
        let mut gradient = vec![0f32; parameters.len()];
        let (to_weight, to_bias) = gradient.split_at_mut(classes * dim);
        let mut scores = vec![0f32; classes];
        let (mut loss, mut right) = (0.0, 0);
        for &i in chosen {
            let x = &samples.features[i as usize * dim..][..dim];
            let label = usize::from(samples.labels[i as usize]);
            for ((score, row), bias) in scores.iter_mut().zip(weight.chunks_exact(dim)).zip(bias) {
                *score = dot(row, x) + bias;
            }
            let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            right += u32::from(scores[label] == greatest);
            let own = scores[label] - greatest;
            let mut sum = 0f32;
            for score in &mut scores {
                *score = (*score - greatest).exp();
                sum += *score;
            }
            loss += f64::from(sum.ln() - own);
            for (k, score) in scores.iter().enumerate() {
                let error = score / sum - f32::from(u8::from(k == label));
                to_bias[k] += error;
                for (g, x) in to_weight[k * dim..][..dim].iter_mut().zip(x) {
                    *g += error * x;
                }
            }
        }
        Self {
            gradient,
            loss,
            right,
        }
    }
}

/// Adam as in the paper by Kingma and Ba, with its default constants.
pub(crate) struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl Adam {
    pub fn new(parameters: usize) -> Self {
        Self {
            first: vec![0.0; parameters],
            second: vec![0.0; parameters],
            steps: 0,
        }
    }

    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], rate: f64) {
        const B1: f32 = 0.9;
        const B2: f32 = 0.999;
        self.steps += 1;
        let rate = rate / (1.0 - f64::from(B1).powi(self.steps));
        let rate = rate as f32;
        let correction = (1.0 / (1.0 - f64::from(B2).powi(self.steps))) as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((p, g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *m = B1 * *m + (1.0 - B1) * g;
            *v = B2 * *v + (1.0 - B2) * g * g;
            *p -= rate * *m / ((*v * correction).sqrt() + 1e-8);
        }
    }
}

#[cfg(test)]
mod tests;
