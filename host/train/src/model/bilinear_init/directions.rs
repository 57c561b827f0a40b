//! Directions of the features that a layer normalization may discard.
//!
//! A layer normalization subtracts the mean over the channels. Flipping a channel's sign before and
//! after it changes which combination of channels is subtracted. A large constant `p` added to each
//! channel makes the rest of the normalization linear, except for the component along `p`. So two
//! directions with entries of -1 and 1 are lost; they are chosen such that the features hardly vary
//! along them.

/// Chooses the signs of the channels, and the sign of the constant added to each, for standardized
/// features `[n, d]`.
pub(super) fn choose(features: &[f32], d: usize) -> (Vec<f32>, Vec<f32>) {
    let covariance = covariance(features, d);
    let mut signs = vec![1.0; d];
    reduce(&covariance, &mut signs, &[]);
    // As many of the constants as possible cancel in the mean.
    let mut lost: Vec<f64> = (0..d)
        .map(|i| if i % 2 == 0 { signs[i] } else { -signs[i] })
        .collect();
    reduce(&covariance, &mut lost, &signs);
    let pedestal = lost
        .iter()
        .zip(&signs)
        .map(|(l, s)| (l * s) as f32)
        .collect();
    (signs.into_iter().map(|s| s as f32).collect(), pedestal)
}

fn covariance(features: &[f32], d: usize) -> Vec<f64> {
    let mut sum = vec![0.0; d * d];
    for row in features.chunks_exact(d) {
        for (i, a) in row.iter().enumerate() {
            for (s, b) in sum[i * d..][..d].iter_mut().zip(row) {
                *s += f64::from(a * b);
            }
        }
    }
    sum
}

/// Flips entries of `v`, which are -1 or 1, as long as that reduces the variance `v' C v`. With
/// `signs`, entries are flipped in pairs that do not change the sum of `v * signs`.
fn reduce(covariance: &[f64], v: &mut [f64], signs: &[f64]) {
    let d = v.len();
    let mut product: Vec<f64> = (0..d)
        .map(|i| (0..d).map(|j| covariance[i * d + j] * v[j]).sum())
        .collect();
    let c = |i: usize, j: usize| covariance[i * d + j];
    let flip = |v: &mut [f64], product: &mut [f64], i: usize| {
        v[i] = -v[i];
        for (j, p) in product.iter_mut().enumerate() {
            *p += 2.0 * v[i] * c(i, j);
        }
    };
    // Each pass reduces the variance; a bound guards against cycles of rounding errors.
    for _ in 0..4 * d {
        let mut best = (0.0, None);
        for i in 0..d {
            let alone = 4.0 * (c(i, i) - v[i] * product[i]);
            if signs.is_empty() {
                if alone < best.0 {
                    best = (alone, Some((i, None)));
                }
                continue;
            }
            for j in 0..i {
                if v[i] * signs[i] != v[j] * signs[j] {
                    let both =
                        alone + 4.0 * (c(j, j) - v[j] * product[j]) + 8.0 * v[i] * v[j] * c(i, j);
                    if both < best.0 {
                        best = (both, Some((i, Some(j))));
                    }
                }
            }
        }
        let (_, Some((i, j))) = best else { return };
        flip(v, &mut product, i);
        if let Some(j) = j {
            flip(v, &mut product, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    /// Mean square along a vector of -1 and 1, relative to that of an average direction.
    fn share(features: &[f32], d: usize, v: &[f32]) -> f32 {
        let rows = features.chunks_exact(d);
        let square = |x: f32| x * x;
        let along: f32 = rows
            .clone()
            .map(|x| square(x.iter().zip(v).map(|(a, b)| a * b).sum::<f32>()))
            .sum();
        along / features.iter().map(|x| square(*x)).sum::<f32>()
    }

    #[test]
    fn what_is_lost_hardly_varies() {
        let (n, d, rank) = (600, 24, 6);
        let mut rng = Rng::new(8, Purpose::Weights, 0);
        let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let (basis, factors) = (normal(rank * d), normal(n * rank));
        let features: Vec<f32> = factors
            .chunks_exact(rank)
            .flat_map(|f| {
                let at = |c: usize| (0..rank).map(|r| f[r] * basis[r * d + c]).sum::<f32>();
                (0..d).map(at).collect::<Vec<f32>>()
            })
            .collect();
        let (signs, pedestal) = choose(&features, d);
        let lost: Vec<f32> = signs.iter().zip(&pedestal).map(|(a, b)| a * b).collect();
        let [plain, first, second] = [&vec![1.0; d], &signs, &lost].map(|v| share(&features, d, v));
        println!("along ones {plain:.3}, signs {first:.4}, constant {second:.4}");
        assert!(first < 0.1 && second < 0.1);
        assert_eq!(pedestal.iter().sum::<f32>(), 0.0);
        assert!(signs.iter().chain(&lost).all(|v| v.abs() == 1.0));
    }
}
