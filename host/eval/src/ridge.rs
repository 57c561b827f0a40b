//! Ridge regression in closed form.

use loftup_bundle::Linear;
use rayon::prelude::*;

/// Running sums for a regression of one value on features, in one pass over the data.
#[derive(Debug, Clone)]
pub struct Ridge {
    dim: usize,
    count: f64,
    /// Subtracted from all features, so that the sums of squares do not lose precision.
    shift: Vec<f64>,
    sum: Vec<f64>,
    /// Products of features, the upper triangle of `[dim, dim]`.
    products: Vec<f64>,
    target_sum: f64,
    target_square: f64,
    /// Products of features and target.
    target_products: Vec<f64>,
}

/// The result of a regression.
#[derive(Debug, Clone)]
pub struct Regression {
    /// Weights for raw features, with one output.
    pub linear: Linear,
    /// R² on the samples.
    pub r_squared: f64,
}

impl Ridge {
    /// Creates a regression without samples.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            count: 0.0,
            shift: Vec::new(),
            sum: vec![0.0; dim],
            products: vec![0.0; dim * dim],
            target_sum: 0.0,
            target_square: 0.0,
            target_products: vec![0.0; dim],
        }
    }

    /// Adds samples: features `[n, dim]` and targets `[n]`. The result does not depend on the number of threads.
    ///
    /// # Panics
    /// If the numbers of features and targets do not match.
    pub fn add(&mut self, features: &[f32], targets: &[f32]) {
        assert_eq!(features.len(), targets.len() * self.dim);
        let Some(first) = features.get(..self.dim) else {
            return;
        };
        if targets.is_empty() {
            return;
        }
        if self.shift.is_empty() {
            self.shift = first.iter().map(|x| f64::from(*x)).collect();
        }
        let shift = self.shift.iter().cycle();
        let shifted = features.iter().zip(shift).map(|(x, s)| f64::from(*x) - s);
        let shifted: Vec<f64> = shifted.collect();
        let rows = || shifted.chunks_exact(self.dim);
        self.products
            .par_chunks_mut(self.dim)
            .enumerate()
            .for_each(|(i, products)| {
                for row in rows() {
                    for (product, x) in products[i..].iter_mut().zip(&row[i..]) {
                        *product += row[i] * x;
                    }
                }
            });
        for (row, target) in rows().zip(targets) {
            let target = f64::from(*target);
            for ((sum, product), x) in self.sum.iter_mut().zip(&mut self.target_products).zip(row) {
                *sum += x;
                *product += x * target;
            }
            self.target_sum += target;
            self.target_square += target * target;
        }
        self.count += targets.len() as f64;
    }

    /// Returns the weights that minimize the mean squared error plus `decay` times the squared norm of the
    /// weights for standardized features. Constant features get no weight.
    ///
    /// # Panics
    /// If there are no samples, or `decay` is not positive.
    pub fn solve(&self, decay: f64) -> Regression {
        assert!(self.count > 0.0 && decay > 0.0);
        let (n, dim) = (self.count, self.dim);
        let mean: Vec<f64> = self.sum.iter().map(|s| s / n).collect();
        let target_mean = self.target_sum / n;
        let covariance = |i: usize, j: usize| {
            let product = self.products[i.min(j) * dim + i.max(j)];
            product / n - mean[i] * mean[j]
        };
        let scale: Vec<f64> = (0..dim)
            .map(|i| {
                let deviation = covariance(i, i).max(0.0).sqrt();
                let size = (self.shift[i] + mean[i]).abs();
                // Variation below the 32-bit rounding error counts as constant.
                match deviation > 1e-6 * size && deviation > 0.0 {
                    true => deviation.recip(),
                    false => 0.0,
                }
            })
            .collect();
        let with_target: Vec<f64> = (0..dim)
            .map(|i| scale[i] * (self.target_products[i] / n - mean[i] * target_mean))
            .collect();
        let mut matrix: Vec<f64> = (0..dim * dim)
            .map(|k| {
                let (i, j) = (k / dim, k % dim);
                covariance(i, j) * scale[i] * scale[j] + if i == j { decay } else { 0.0 }
            })
            .collect();
        let weights = solve_positive_definite(&mut matrix, dim, &with_target);
        // The error of the minimum: v - 2 w c + w (A - decay) w, where A w = c.
        let variance = self.target_square / n - target_mean * target_mean;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let explained = dot(&weights, &with_target) + decay * dot(&weights, &weights);
        let folded: Vec<f64> = weights.iter().zip(&scale).map(|(w, s)| w * s).collect();
        let center = folded.iter().zip(&mean).zip(&self.shift);
        let center: f64 = center.map(|((w, m), s)| w * (m + s)).sum();
        Regression {
            linear: Linear {
                inputs: dim,
                weight: folded.iter().map(|w| *w as f32).collect(),
                bias: vec![(target_mean - center) as f32],
            },
            r_squared: match variance > 0.0 {
                true => (explained / variance).clamp(0.0, 1.0),
                false => 0.0,
            },
        }
    }
}

/// Solves `A x = b` by Cholesky decomposition. `A` `[n, n]` is overwritten by its lower factor.
fn solve_positive_definite(a: &mut [f64], n: usize, b: &[f64]) -> Vec<f64> {
    for i in 0..n {
        for j in 0..=i {
            let (done, row) = a.split_at_mut(i * n);
            let other = if i == j {
                &row[..j]
            } else {
                &done[j * n..][..j]
            };
            let dot: f64 = row[..j].iter().zip(other).map(|(x, y)| x * y).sum();
            let rest = row[j] - dot;
            row[j] = match i == j {
                // Rounding cannot make it negative: the diagonal includes the decay.
                true => rest.max(f64::MIN_POSITIVE).sqrt(),
                false => rest / done[j * n + j],
            };
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|j| a[i * n + j] * x[j]).sum();
        x[i] = (x[i] - dot) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|j| a[j * n + i] * x[j]).sum();
        x[i] = (x[i] - dot) / a[i * n + i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_line_through_two_points_is_shrunk_by_the_decay() {
        // Features 9 and 11, targets 1 and 5: covariance 2, variance 1. The weight is 2 / (1 + decay).
        let mut ridge = Ridge::new(1);
        ridge.add(&[9.0], &[1.0]);
        ridge.add(&[11.0], &[5.0]);
        let found = ridge.solve(1.0);
        assert!((found.linear.weight[0] - 1.0).abs() < 1e-6);
        assert!((found.linear.bias[0] + 7.0).abs() < 1e-5);
        // Predicted 2 and 4: an error of 1 against a variance of 4.
        assert!((found.r_squared - 0.75).abs() < 1e-12);
        let found = ridge.solve(1e-9);
        assert!((found.linear.weight[0] - 2.0).abs() < 1e-6 && found.r_squared > 0.999_999);
    }

    #[test]
    fn a_linear_function_is_found_however_the_samples_come() {
        let mut random = Random::new(3);
        let dim = 7;
        let truth = |x: &[f32]| {
            let terms = x.iter().enumerate();
            terms.map(|(i, x)| (i as f32 - 2.0) * x).sum::<f32>() + 0.25
        };
        let mut uniform = || random.below(1 << 12) as f32 / 4096.0;
        let mut features: Vec<f32> = (0..300 * dim).map(|_| 30.0 + uniform()).collect();
        // A constant feature.
        features
            .iter_mut()
            .skip(4)
            .step_by(dim)
            .for_each(|x| *x = 7.0);
        let targets: Vec<f32> = features.chunks(dim).map(truth).collect();
        let mut whole = Ridge::new(dim);
        whole.add(&features, &targets);
        let found = whole.solve(1e-9);
        for (i, w) in found.linear.weight.iter().enumerate() {
            let expected = if i == 4 { 0.0 } else { i as f32 - 2.0 };
            // The targets are rounded to 32 bits: about 1e-5 of values of 100 or more.
            assert!((w - expected).abs() < 1e-3, "{:?}", found.linear);
        }
        assert!(found.r_squared > 0.999_99);
        let mut parts = Ridge::new(dim);
        for (x, y) in features.chunks(11 * dim).zip(targets.chunks(11)) {
            parts.add(x, y);
        }
        parts.add(&[], &[]);
        let parts = parts.solve(1e-9);
        assert_eq!(parts.linear.weight, found.linear.weight);
    }
}
