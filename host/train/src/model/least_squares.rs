//! Linear least squares.

/// Ridge regularization relative to the mean of the diagonal, which keeps the weights of almost constant
/// channels small.
const RIDGE: f64 = 1e-4;

/// A linear map with a bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinearMap {
    /// `[outputs, inputs]`, row-major.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

impl LinearMap {
    /// Returns the root mean square error of predicting `y` from `x`.
    pub fn error(&self, x: &[f32], y: &[f32]) -> f64 {
        let outputs = self.bias.len();
        let inputs = self.weight.len() / outputs;
        let mut sum = 0.0f64;
        for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)) {
            for (o, y) in y.iter().enumerate() {
                let row = &self.weight[o * inputs..][..inputs];
                let predicted: f32 = row.iter().zip(x).map(|(w, x)| w * x).sum();
                sum += f64::from(predicted + self.bias[o] - y).powi(2);
            }
        }
        (sum / y.len() as f64).sqrt()
    }
}

/// Fits a linear map from rows `x` `[n, inputs]` to rows `y` `[n, outputs]`. `None` if there are no rows
/// or they contain NaN.
pub(super) fn fit(x: &[f32], inputs: usize, y: &[f32], outputs: usize) -> Option<LinearMap> {
    let n = x.len() / inputs;
    if n == 0 || y.len() != n * outputs {
        return None;
    }
    let (mx, my) = (means(x, inputs), means(y, outputs));
    let centered = |row: &[f32], mean: &[f64]| -> Vec<f64> {
        row.iter()
            .zip(mean)
            .map(|(v, m)| f64::from(*v) - m)
            .collect()
    };
    // Normal equations: the lower triangle of x'x, and x'y.
    let mut gram = vec![0.0f64; inputs * inputs];
    let mut right = vec![0.0f64; inputs * outputs];
    for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)) {
        let (x, y) = (centered(x, &mx), centered(y, &my));
        for (i, a) in x.iter().enumerate() {
            for (g, b) in gram[i * inputs..][..=i].iter_mut().zip(&x) {
                *g += a * b;
            }
            for (r, b) in right[i * outputs..][..outputs].iter_mut().zip(&y) {
                *r += a * b;
            }
        }
    }
    let mean = (0..inputs).map(|i| gram[i * (inputs + 1)]).sum::<f64>() / inputs as f64;
    for i in 0..inputs {
        gram[i * (inputs + 1)] += mean * RIDGE + f64::MIN_POSITIVE;
    }
    solve(&mut gram, inputs, &mut right, outputs)?;
    let weight: Vec<f32> = (0..outputs * inputs)
        .map(|i| right[i % inputs * outputs + i / inputs] as f32)
        .collect();
    let bias = (0..outputs).map(|o| {
        let moved: f64 = (0..inputs).map(|i| mx[i] * right[i * outputs + o]).sum();
        (my[o] - moved) as f32
    });
    let map = LinearMap {
        bias: bias.collect(),
        weight,
    };
    let finite = map.weight.iter().chain(&map.bias).all(|v| v.is_finite());
    finite.then_some(map)
}

/// Fits a scale and offset from `x` to `y`, both `[n, c]`, for each channel.
pub(super) fn lines(x: &[f32], y: &[f32], c: usize) -> (Vec<f32>, Vec<f32>) {
    let (mx, my) = (means(x, c), means(y, c));
    let (mut square, mut product) = (vec![0.0f64; c], vec![0.0f64; c]);
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact(c)) {
        for i in 0..c {
            let x = f64::from(x[i]) - mx[i];
            square[i] += x * x;
            product[i] += x * (f64::from(y[i]) - my[i]);
        }
    }
    let factor: Vec<f64> = (0..c)
        .map(|i| match square[i] > 0.0 {
            true => product[i] / square[i],
            false => 0.0,
        })
        .collect();
    let offset = (0..c).map(|i| (my[i] - factor[i] * mx[i]) as f32).collect();
    (factor.iter().map(|f| *f as f32).collect(), offset)
}

/// Mean of each channel of `x` `[n, c]`.
fn means(x: &[f32], c: usize) -> Vec<f64> {
    let mut sum = vec![0.0f64; c];
    for row in x.chunks_exact(c) {
        for (s, v) in sum.iter_mut().zip(row) {
            *s += f64::from(*v);
        }
    }
    let n = (x.len() / c).max(1) as f64;
    sum.iter().map(|s| s / n).collect()
}

/// Mean and standard deviation of each channel of `x` `[n, c]`.
pub(crate) fn statistics(x: &[f32], c: usize) -> (Vec<f32>, Vec<f32>) {
    let mean = means(x, c);
    let mut square = vec![0.0f64; c];
    for row in x.chunks_exact(c) {
        for ((s, v), m) in square.iter_mut().zip(row).zip(&mean) {
            *s += (f64::from(*v) - m).powi(2);
        }
    }
    let n = (x.len() / c).max(1) as f64;
    let deviation = square.iter().map(|s| (s / n).sqrt() as f32).collect();
    (mean.iter().map(|m| *m as f32).collect(), deviation)
}

/// Solves a symmetric positive definite system in place by Cholesky decomposition: `a` `[n, n]`, of which
/// only the lower triangle is read, and `b` `[n, m]`. `None` if `a` is not positive definite.
pub(super) fn solve(a: &mut [f64], n: usize, b: &mut [f64], m: usize) -> Option<()> {
    for i in 0..n {
        for j in 0..=i {
            let (before, row) = a.split_at(i * n);
            let other = if j < i { &before[j * n..] } else { row };
            let dot: f64 = (0..j).map(|k| row[k] * other[k]).sum();
            let rest = row[j] - dot;
            a[i * n + j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / a[j * n + j],
            };
        }
    }
    let scaled = |b: &mut [f64], row: usize, from: usize, by: f64| {
        for c in 0..m {
            b[row * m + c] -= by * b[from * m + c];
        }
    };
    for i in 0..n {
        for k in 0..i {
            scaled(b, i, k, a[i * n + k]);
        }
        b[i * m..][..m].iter_mut().for_each(|v| *v /= a[i * n + i]);
    }
    for i in (0..n).rev() {
        for k in i + 1..n {
            scaled(b, i, k, a[k * n + i]);
        }
        b[i * m..][..m].iter_mut().for_each(|v| *v /= a[i * n + i]);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    #[test]
    fn a_linear_map_is_recovered() {
        let mut rng = Rng::new(3, Purpose::Weights, 0);
        let (n, inputs, outputs) = (400, 7, 3);
        let x: Vec<f32> = (0..n * inputs).map(|_| rng.normal() + 2.0).collect();
        let weight: Vec<f32> = (0..outputs * inputs).map(|_| rng.normal()).collect();
        let y: Vec<f32> = x
            .chunks_exact(inputs)
            .flat_map(|x| {
                let of = |o: usize| -> f32 {
                    x.iter()
                        .zip(&weight[o * inputs..])
                        .map(|(x, w)| x * w)
                        .sum()
                };
                (0..outputs).map(of).map(|v| v - 1.5).collect::<Vec<_>>()
            })
            .collect();
        let map = fit(&x, inputs, &y, outputs).unwrap();
        let worst = map
            .weight
            .iter()
            .zip(&weight)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        println!("worst weight {worst:.1e}");
        // The ridge takes a ten-thousandth of each weight; the offset moves with seven of them.
        assert!(worst < 1e-3);
        assert!(map.bias.iter().all(|b| (b + 1.5).abs() < 1e-2));
    }

    #[test]
    fn empty_and_nan_inputs_have_no_fit() {
        assert!(fit(&[], 2, &[], 1).is_none());
        assert!(fit(&[f32::NAN, 1.0, 0.0, 2.0], 2, &[1.0, 2.0], 1).is_none());
        // Constant channels are allowed.
        assert!(fit(&[1.0, 0.0, 1.0, 1.0], 2, &[1.0, 3.0], 1).is_some());
    }

    #[test]
    fn each_channel_is_fitted_independently() {
        let x = [0.0, 5.0, 1.0, 5.0, 2.0, 5.0];
        let y = [1.0, 4.0, 3.0, 6.0, 5.0, 8.0];
        assert_eq!(lines(&x, &y, 2), (vec![2.0, 0.0], vec![1.0, 6.0]));
    }
}
