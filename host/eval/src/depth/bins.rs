//! A depth head that predicts bins, trained with the loss of Probe3D (El Banani et al., CVPR 2024).

use loftup_bundle::Linear;
use loftup_runtime::{depth::BIN_FLOOR, dot};
use loftup_spec::linspace;
use rayon::prelude::*;

use crate::{
    Progress,
    probe::{Adam, folded, standardize},
    random::Random,
};

/// Square windows of training images.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows {
    /// Number of channels of the features.
    pub dim: usize,
    /// Side of a window in pixels.
    pub side: usize,
    /// `[windows, side, side, dim]`.
    pub features: Vec<f32>,
    /// `[windows, side, side]`; 0 where there is no depth.
    pub meters: Vec<f32>,
}

/// Windows in a batch.
const BATCH: usize = 8;
/// Epochs; more if that would be less than [`LEAST_STEPS`].
const EPOCHS: usize = 10;
const LEAST_STEPS: usize = 1000;
/// Fraction of the steps for the learning-rate warmup.
const WARM_UP: f64 = 0.15;
/// The learning rate at the start and the end, as a fraction of the maximum.
const LOW: f64 = 0.01;
const RATE: f64 = 1e-3;
/// Decoupled weight decay.
const DECAY: f64 = 0.01;
/// Pixels whose gradients are summed together: fixed, so that sums do not depend on the number of
/// threads.
const CHUNK: usize = 121;

/// Trains weights for bins evenly spaced in `range`: AdamW with warmup and a cosine schedule. Also returns
/// R² of the logarithm of depth. For the same windows and seed, results are bit-identical for any number
/// of threads.
pub(super) fn train(
    mut windows: Windows,
    (bins, range): (usize, (f32, f32)),
    seed: u64,
    progress: Progress<'_>,
) -> (Linear, f64) {
    let Windows { dim, side, .. } = windows;
    let (mean, scale) = standardize(&mut windows.features, dim);
    let bins = linspace(range.0, range.1, bins);
    let mut random = Random::new(seed);
    // As in PyTorch: uniform within +-1 / sqrt(inputs).
    let bound = (dim as f32).sqrt().recip();
    let mut uniform = || (random.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0) * bound;
    let mut parameters: Vec<f32> = (0..bins.len() * (dim + 1)).map(|_| uniform()).collect();
    let mut adam = Adam::new(parameters.len());
    let area = side * side;
    let mut order: Vec<usize> = (0..windows.meters.len() / area).collect();
    let count = order.len();
    let batches = count.div_ceil(BATCH).max(1);
    let epochs = EPOCHS.max(LEAST_STEPS.div_ceil(batches));
    let mut step = 0;
    for epoch in 0..epochs {
        progress("training the head", epoch, epochs);
        random.choose(&mut order, count);
        for batch in order.chunks(BATCH) {
            let pixels: Vec<usize> = batch
                .iter()
                .flat_map(|w| w * area..(w + 1) * area)
                .collect();
            let truth: Vec<f32> = pixels.iter().map(|i| windows.meters[*i]).collect();
            let head = Bins {
                bins: &bins,
                parameters: &parameters,
                dim,
            };
            let predicted = head.predict(&windows.features, &pixels);
            let mut by_depth = vec![0.0; pixels.len()];
            loss(&predicted, &truth, side, &mut by_depth);
            let gradient = head.gradient(&windows.features, &pixels, &by_depth);
            let rate = rate(step as f64 / (epochs * batches) as f64);
            let keep = (1.0 - rate * DECAY) as f32;
            parameters.iter_mut().for_each(|p| *p *= keep);
            adam.step(&mut parameters, &gradient, rate);
            step += 1;
        }
    }
    let head = Bins {
        bins: &bins,
        parameters: &parameters,
        dim,
    };
    let all: Vec<usize> = (0..windows.meters.len()).collect();
    let r_squared = explained(&head.predict(&windows.features, &all), &windows.meters);
    (folded(parameters, &mean, &scale), r_squared)
}

/// Returns the learning rate after this fraction of the training.
fn rate(done: f64) -> f64 {
    if done < WARM_UP {
        return RATE * (LOW + (1.0 - LOW) * done / WARM_UP);
    }
    let part = (done - WARM_UP) / (1.0 - WARM_UP);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
    RATE * (LOW + (1.0 - LOW) * cosine)
}

/// Returns R² of the logarithm over the pixels with depth.
fn explained(predicted: &[f32], meters: &[f32]) -> f64 {
    let known = || predicted.iter().zip(meters).filter(|(_, m)| **m > 0.0);
    let count = known().count() as f64;
    let mean = known().map(|(_, m)| f64::from(m.ln())).sum::<f64>() / count;
    let square = |x: f64| x * x;
    let error: f64 = known()
        .map(|(p, m)| square(f64::from(p.ln() - m.ln())))
        .sum();
    let variance: f64 = known().map(|(_, m)| square(f64::from(m.ln()) - mean)).sum();
    (1.0 - error / variance).clamp(0.0, 1.0)
}

/// The head in training, on standardized features.
struct Bins<'a> {
    bins: &'a [f32],
    /// Weights `[bins, dim]`, then biases.
    parameters: &'a [f32],
    dim: usize,
}

impl Bins<'_> {
    /// Computes the weights of the bins at a pixel; returns their sum and the depth.
    fn at(&self, x: &[f32], weights: &mut Vec<f32>) -> (f32, f32) {
        let (weight, bias) = self.parameters.split_at(self.bins.len() * self.dim);
        weights.clear();
        let rows = weight.chunks_exact(self.dim).zip(bias);
        weights.extend(rows.map(|(row, bias)| (dot(row, x) + bias).max(0.0) + BIN_FLOOR));
        let total: f32 = weights.iter().sum();
        (total, dot(weights, self.bins) / total)
    }

    fn predict(&self, features: &[f32], pixels: &[usize]) -> Vec<f32> {
        let at = |weights: &mut Vec<f32>, i: &usize| {
            self.at(&features[i * self.dim..][..self.dim], weights).1
        };
        pixels.par_iter().map_init(Vec::new, at).collect()
    }

    /// Returns the gradient with respect to the parameters, given that with respect to each pixel's depth.
    fn gradient(&self, features: &[f32], pixels: &[usize], by_depth: &[f32]) -> Vec<f32> {
        let chunks = pixels.par_chunks(CHUNK).zip(by_depth.par_chunks(CHUNK));
        let parts: Vec<Vec<f32>> = chunks
            .map(|(pixels, by_depth)| {
                let mut gradient = vec![0f32; self.parameters.len()];
                let (by_weight, by_bias) = gradient.split_at_mut(self.bins.len() * self.dim);
                let mut weights = Vec::new();
                for (i, by_depth) in pixels.iter().zip(by_depth).filter(|(_, d)| **d != 0.0) {
                    let x = &features[i * self.dim..][..self.dim];
                    let (total, depth) = self.at(x, &mut weights);
                    let rows = by_weight.chunks_exact_mut(self.dim).zip(by_bias.iter_mut());
                    for ((row, bias), (weight, bin)) in rows.zip(weights.iter().zip(self.bins)) {
                        // The score is not positive: no gradient.
                        if *weight <= BIN_FLOOR {
                            continue;
                        }
                        let by_score = by_depth * (bin - depth) / total;
                        *bias += by_score;
                        row.iter_mut().zip(x).for_each(|(g, x)| *g += by_score * x);
                    }
                }
                gradient
            })
            .collect();
        let mut sum = vec![0f32; self.parameters.len()];
        for part in &parts {
            sum.iter_mut().zip(part).for_each(|(sum, g)| *sum += g);
        }
        sum
    }
}

/// Added to depths before the logarithm.
const EPSILON: f64 = 1e-3;
/// Distances between the pixels of the four resolutions of the gradient loss.
const STRIDES: [usize; 4] = [1, 2, 4, 6];

/// Computes Probe3D's loss of windows with `side` x `side` pixels, and its gradient with respect to the
/// predicted depth. With `g` the difference of the logarithms: `10 sqrt(mean(g^2) - 0.85 mean(g)^2)`, plus
/// half the sum over four resolutions of the mean absolute difference of `g` between pixels two apart.
fn loss(predicted: &[f32], truth: &[f32], side: usize, gradient: &mut [f32]) -> f64 {
    let log = |x: f32| (f64::from(x) + EPSILON).ln();
    let g: Vec<f64> = predicted
        .iter()
        .zip(truth)
        .map(|(p, t)| log(*p) - log(*t))
        .collect();
    let known = |i: usize| truth[i] > 0.0;
    let all = || (0..g.len()).filter(|i| known(*i));
    let n = all().count() as f64;
    if n == 0.0 {
        return 0.0;
    }
    let mean = all().map(|i| g[i]).sum::<f64>() / n;
    let square = all().map(|i| g[i] * g[i]).sum::<f64>() / n;
    // Not 0, since the gradient would be infinite.
    let root = (square - 0.85 * mean * mean).max(1e-12).sqrt();
    let mut by_g = vec![0.0; g.len()];
    all().for_each(|i| by_g[i] = 10.0 * (g[i] - 0.85 * mean) / (n * root));
    let mut loss = 10.0 * root;
    for stride in STRIDES {
        let row = (0..side).step_by(stride);
        let lattice = || {
            let windows = 0..g.len() / (side * side);
            let places = row.clone().flat_map(|y| row.clone().map(move |x| (x, y)));
            windows.flat_map(move |w| places.clone().map(move |(x, y)| (w * side * side, x, y)))
        };
        let count = lattice()
            .filter(|(w, x, y)| known(w + y * side + x))
            .count();
        for (window, x, y) in lattice() {
            let i = window + y * side + x;
            for (far, j) in [(x, i + 2 * stride), (y, i + 2 * stride * side)] {
                if far + 2 * stride < side && known(i) && known(j) {
                    let difference = g[j] - g[i];
                    let sign = if difference == 0.0 {
                        0.0
                    } else {
                        difference.signum()
                    };
                    let by = 0.5 * sign / count as f64;
                    loss += 0.5 * difference.abs() / count as f64;
                    by_g[j] += by;
                    by_g[i] -= by;
                }
            }
        }
    }
    for (i, out) in gradient.iter_mut().enumerate() {
        *out = (by_g[i] / (f64::from(predicted[i]) + EPSILON)) as f32;
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_a_worked_example() {
        // Windows of 3 x 3, g is ln 2 in the last column and 0 elsewhere; the first pixel is unknown.
        let truth = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let double = (2.0 * (1.0 + EPSILON) - EPSILON) as f32;
        let predicted: Vec<f32> = (0..9)
            .map(|i| if i % 3 == 2 { double } else { 1.0 })
            .collect();
        let g = 2f64.ln();
        let (mean, square) = (3.0 * g / 8.0, 3.0 * g * g / 8.0);
        // Stride 1: of the rows, the second and third have a known first and last pixel; columns have no
        // difference. 8 pixels are known. Stride 2: first pixel unknown, so 3 pixels, but none are 4 apart.
        let expected = 10.0 * (square - 0.85 * mean * mean).sqrt() + 0.5 * 2.0 * g / 8.0;
        let found = loss(&predicted, &truth, 3, &mut [0.0; 9]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        // A second window without depth changes nothing.
        let (predicted, truth) = (
            [&predicted[..], &[3.0; 9]].concat(),
            [truth, [0.0; 9]].concat(),
        );
        let again = loss(&predicted, &truth, 3, &mut [0.0; 18]);
        assert!((found - again).abs() < 1e-12);
        assert_eq!(loss(&[1.0], &[0.0], 1, &mut [0.0]), 0.0);
    }

    fn random_windows(count: usize, side: usize, dim: usize) -> Windows {
        let mut random = Random::new(5);
        let mut uniform = move || random.below(1 << 16) as f32 / (1 << 16) as f32;
        let pixels = count * side * side;
        Windows {
            dim,
            side,
            features: (0..pixels * dim).map(|_| uniform() - 0.5).collect(),
            meters: (0..pixels)
                .map(|i| {
                    if i % 7 == 3 {
                        0.0
                    } else {
                        1.0 + 3.0 * uniform()
                    }
                })
                .collect(),
        }
    }

    #[test]
    fn the_gradient_by_depth_is_that_of_finite_differences() {
        // Differences of g between pixels are far from 0, where the absolute value has a kink.
        let side = 13;
        let truth: Vec<f32> = (0..2 * side * side)
            .map(|i| {
                if i % 11 == 5 {
                    0.0
                } else {
                    1.0 + (i % 7) as f32 / 4.0
                }
            })
            .collect();
        let g = |i: usize| 0.011 * (i % side) as f32 + 0.023 * (i / side % side) as f32 - 0.1;
        let predicted: Vec<f32> = (0..truth.len())
            .map(|i| truth[i].max(1.0) * g(i).exp())
            .collect();
        let mut gradient = vec![0.0; truth.len()];
        loss(&predicted, &truth, side, &mut gradient);
        let mut unused = vec![0.0; truth.len()];
        for i in 0..truth.len() {
            let mut at = |depth: f32| {
                let mut changed = predicted.clone();
                changed[i] = depth;
                loss(&changed, &truth, side, &mut unused)
            };
            let (low, high) = (predicted[i] * 0.999, predicted[i] * 1.001);
            let expected = (at(high) - at(low)) / f64::from(high - low);
            // The third derivative, times the square of a step of 0.001.
            let off = (f64::from(gradient[i]) - expected).abs();
            assert!(
                off < 1e-4 * expected.abs() + 1e-6,
                "{i}: {} {expected}",
                gradient[i]
            );
        }
    }

    #[test]
    fn the_gradient_by_weights_is_that_of_finite_differences() {
        let windows = random_windows(2, 13, 3);
        let bins = linspace(0.5, 5.0, 6);
        let mut random = Random::new(2);
        let mut uniform = || random.below(1000) as f32 / 500.0 - 1.0;
        // Biases of 3 and -3: the scores of four bins are always positive, those of two never.
        let mut parameters: Vec<f32> = (0..6 * 4)
            .map(|i| {
                uniform()
                    + if i < 18 {
                        0.0
                    } else if i % 3 == 0 {
                        -3.0
                    } else {
                        3.0
                    }
            })
            .collect();
        let pixels: Vec<usize> = (0..windows.meters.len()).collect();
        let by_depth: Vec<f32> = pixels.iter().map(|_| uniform()).collect();
        fn head<'a>(bins: &'a [f32], parameters: &'a [f32]) -> Bins<'a> {
            Bins {
                bins,
                parameters,
                dim: 3,
            }
        }
        let gradient = head(&bins, &parameters).gradient(&windows.features, &pixels, &by_depth);
        for i in 0..parameters.len() {
            let mut at = |value: f32| {
                let own = std::mem::replace(&mut parameters[i], value);
                let depths = head(&bins, &parameters).predict(&windows.features, &pixels);
                let terms = depths.iter().zip(&by_depth);
                let sum: f64 = terms.map(|(d, by)| f64::from(*d) * f64::from(*by)).sum();
                parameters[i] = own;
                (sum, own)
            };
            let own = at(0.0).1;
            let (low, high) = (own - 0.02, own + 0.02);
            let expected = (at(high).0 - at(low).0) / f64::from(high - low);
            // Depths are rounded to 1e-7 of 5 m, 338 times, over a step of 0.04; the step squared is 4e-4.
            let off = (f64::from(gradient[i]) - expected).abs();
            assert!(
                off < 2e-3 * expected.abs() + 2e-3,
                "{i}: {} {expected}",
                gradient[i]
            );
        }
        assert!(
            gradient.iter().filter(|g| **g == 0.0).count() == 2 * 4,
            "{gradient:?}"
        );
    }

    #[test]
    fn the_rate_rises_and_falls() {
        assert!((rate(0.0) - LOW * RATE).abs() < 1e-12);
        assert!((rate(WARM_UP) - RATE).abs() < 1e-12);
        assert!((rate(1.0) - LOW * RATE).abs() < 1e-12);
    }

    #[test]
    fn depth_that_follows_from_the_features_is_learnt_whatever_the_threads() {
        let mut windows = random_windows(6, 8, 4);
        for (x, m) in windows.features.chunks(4).zip(&mut windows.meters) {
            if *m > 0.0 {
                *m = 2.5 + 1.5 * x[0] - x[2];
            }
        }
        let once = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let range = (1.0, 4.0);
            let train = || train(windows.clone(), (16, range), 0, &mut |_, _, _| {});
            pool.build().unwrap().install(train)
        };
        let (linear, r_squared) = once(1);
        assert!(r_squared > 0.9, "{r_squared}");
        assert_eq!((linear.inputs, linear.bias.len()), (4, 16));
        assert_eq!(once(3).0, linear);
    }
}
