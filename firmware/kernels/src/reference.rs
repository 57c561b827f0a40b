//! Reference implementations in 64 bit that the kernels are tested against.

use crate::simd::Format;

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

/// A row or column of a product, rounded as its operands are: to bfloat16, or to integers with the scale of
/// its largest value.
pub fn rounded(format: Format, x: &[f32]) -> Vec<f64> {
    let Some(limit) = format.limit(x.len()) else {
        // Half a unit in the last of eight bits, ties to even.
        let round = |x: f64| {
            if x == 0.0 {
                return 0.0;
            }
            let unit = 2f64.powi(x.abs().log2().floor() as i32 - 7);
            (x / unit).round_ties_even() * unit
        };
        return x.iter().map(|x| round(f64::from(*x))).collect();
    };
    let largest = x
        .iter()
        .fold(0.0, |max: f64, x| max.max(f64::from(x.abs())));
    let scale = largest / f64::from(limit);
    let round = |x: &f32| match scale {
        0.0 => 0.0,
        _ => (f64::from(*x) / scale).round_ties_even() * scale,
    };
    x.iter().map(round).collect()
}
