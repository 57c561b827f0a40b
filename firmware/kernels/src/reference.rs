//! Reference implementations in 64 bits, for tests of the kernels.

use crate::simd::{FP16_BLOCK, Format};

/// `n` pseudorandom values in -1..1, the same for the same seed.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The error function: a power series near zero, a continued fraction of erfc elsewhere.
pub fn erf(x: f64) -> f64 {
    let abs = x.abs();
    let value = if abs < 2.5 {
        let (mut term, mut sum) = (abs, abs);
        for n in 1..100 {
            term *= -abs * abs / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let fraction = (1..200)
            .rev()
            .fold(abs, |f, n| abs + f64::from(n) / 2.0 / f);
        1.0 - (-abs * abs).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}

/// `(x - mean) / sqrt(var + eps)`
pub fn normalize(x: &[f64], eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    x.iter()
        .map(|x| (x - mean) / (variance + eps).sqrt())
        .collect()
}

/// Softmax over all values.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

/// `x W + b` with the weight `[in][out]`.
pub fn linear(x: &[f64], weight: &[f32], bias: &[f32]) -> Vec<f64> {
    (0..bias.len())
        .map(|o| {
            let dot: f64 = x
                .iter()
                .enumerate()
                .map(|(i, x)| x * f64::from(weight[i * bias.len() + o]))
                .sum();
            dot + f64::from(bias[o])
        })
        .collect()
}

/// A valid 3x3 convolution with ReLU: `[height][width][c]` to `[height - 2][width - 2][o]`, weight
/// `[o][c][3][3]`.
pub fn convolution(
    x: &[f64],
    (height, width): (usize, usize),
    weight: &[f32],
    bias: &[f32],
) -> Vec<f64> {
    let (c, o) = (x.len() / (height * width), bias.len());
    let mut out = Vec::new();
    for y in 0..height - 2 {
        for x0 in 0..width - 2 {
            for k in 0..o {
                let mut sum = f64::from(bias[k]);
                for dy in 0..3 {
                    for dx in 0..3 {
                        let pixel = &x[((y + dy) * width + x0 + dx) * c..][..c];
                        for (i, v) in pixel.iter().enumerate() {
                            sum += v * f64::from(weight[(k * c + i) * 9 + dy * 3 + dx]);
                        }
                    }
                }
                out.push(sum.max(0.0));
            }
        }
    }
    out
}

/// Rounds to `bits` bits, ties to even, or to multiples of the smallest value.
fn round(x: f64, bits: i32, smallest: f64) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    let unit = 2f64.powi(x.abs().log2().floor() as i32 + 1 - bits);
    let unit = unit.max(smallest);
    (x / unit).round_ties_even() * unit
}

/// Rounds to fp16, for values in its range.
fn fp16(x: f64) -> f64 {
    round(x, 11, 2f64.powi(-24))
}

/// A row or column of a product, rounded as its operands are, and its scale: bfloat16 has none, with other formats the
/// largest value becomes the limit.
fn scaled(format: Format, x: &[f32]) -> (Vec<f64>, f64) {
    let wide = x.iter().map(|x| f64::from(*x));
    let Some(limit) = format.limit(x.len()) else {
        return (wide.map(|x| round(x, 8, 0.0)).collect(), 1.0);
    };
    let largest = wide.clone().fold(0.0, |max: f64, x| max.max(x.abs()));
    let scale = largest / f64::from(limit);
    let round = |x: f64| match (scale, format) {
        (0.0, _) => 0.0,
        (_, Format::Fp16) => fp16(x / scale),
        _ => (x / scale).round_ties_even(),
    };
    (wide.map(round).collect(), scale)
}

/// A row or column of a product, rounded as its operands are.
pub fn rounded(format: Format, x: &[f32]) -> Vec<f64> {
    let (values, scale) = scaled(format, x);
    values.into_iter().map(|x| x * scale).collect()
}

/// The dot product of a row and a column in a format.
pub fn product(format: Format, row: &[f32], column: &[f32]) -> f64 {
    let [(row, by_row), (column, by_column)] = [row, column].map(|x| scaled(format, x));
    let sum: f64 = match format {
        // Sums of every other product are in fp16. A product has 22 bits, so that it is added without an error.
        Format::Fp16 => (row
            .chunks(2 * FP16_BLOCK)
            .zip(column.chunks(2 * FP16_BLOCK)))
        .map(|(row, column)| {
            let mut sums = [0.0; 2];
            for (k, (a, b)) in row.iter().zip(column).enumerate() {
                sums[k % 2] = fp16(a * b + sums[k % 2]);
            }
            fp16(sums[0] + sums[1])
        })
        .sum(),
        _ => row.iter().zip(column).map(|(a, b)| a * b).sum(),
    };
    sum * by_row * by_column
}
