//! The separable resize as two matrix products.
//!
//! Pillow's resize is a weighted sum with 22-bit fixed-point weights, rounded to 8 bits after each pass.
//! The weights are split into two numbers of 11 bits, which TF32 and fp16 represent exactly, as they do
//! the pixels, and the sums are integers below 2^24. So the products give the same levels on every
//! engine that adds in 32 bits, if no output pixel depends on more than 64 input pixels in a row.

use super::Resize;
use crate::{Graph, Tensor, Value};

/// Fraction bits of a weight.
const BITS: u32 = 22;
/// Bits of the lower part of a weight.
const LOW: u32 = 11;

/// Weights along one axis.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Input pixels.
    pub from: usize,
    /// Output pixels.
    pub to: usize,
    /// The weight of each input pixel for each output pixel, `[to, from]`, times 2^22.
    pub weights: Vec<i32>,
}

impl Weights {
    /// The upper and the lower parts of the weights, `[2 * to, from]`. The lower parts are from -1024 to 1023.
    fn split(&self) -> Tensor {
        let high = |w: i32| (w + (1 << (LOW - 1))) >> LOW;
        let upper = self.weights.iter().map(|w| high(*w) as f32);
        let lower = self.weights.iter().map(|w| (w - (high(*w) << LOW)) as f32);
        let parts: Vec<f32> = upper.chain(lower).collect();
        Tensor::from_fn([2 * self.to, self.from], |i| parts[i])
    }
}

/// Resizes the levels `x` `[1, 3, rows, columns]`, which are whole numbers.
pub fn resized(g: &mut Graph, x: &Value, resize: &Resize) -> Value {
    let mut x = x.clone();
    if let Some(columns) = &resize.columns {
        x = g.scope("columns", |g| {
            let weights = g.constant("weights", &columns.split().transposed());
            let sums = g.matmul(&x, &weights);
            levels(g, &sums, 3, columns.to)
        });
    }
    if let Some(rows) = &resize.rows {
        x = g.scope("rows", |g| {
            let weights = g.constant("weights", &rows.split());
            let sums = g.matmul(&weights, &x);
            levels(g, &sums, 2, rows.to)
        });
    }
    x
}

/// The levels from the sums with the upper and the lower parts of the weights, which follow each other
/// along `axis`: `(upper * 2^11 + lower + 2^21) >> 22`.
fn levels(g: &mut Graph, sums: &Value, axis: i64, to: usize) -> Value {
    let upper = g.slice(sums, &[axis], &[0], &[to as i64]);
    let lower = g.slice(sums, &[axis], &[to as i64], &[i64::MAX]);
    let unit = g.scalar("unit", 1.0 / (1u32 << LOW) as f32);
    let carry = g.mul(&lower, &unit);
    let carry = g.op("Floor", &[&carry], &[]);
    let half = g.scalar("half", (1u32 << (BITS - LOW - 1)) as f32);
    let sum = g.add(&upper, &carry);
    let sum = g.add(&sum, &half);
    let level = g.mul(&sum, &unit);
    g.op("Floor", &[&level], &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_have_eleven_bits_and_make_up_the_weights() {
        let weights: Vec<i32> = (0..=4096).map(|i| i * 1023).chain([1 << BITS]).collect();
        let count = weights.len();
        let split = Weights {
            from: count,
            to: 1,
            weights: weights.clone(),
        }
        .split();
        assert_eq!(split.shape(), [2, count]);
        let (upper, lower) = split.data().split_at(count);
        for ((weight, upper), lower) in weights.iter().zip(upper).zip(lower) {
            let unit = (1 << LOW) as f32;
            assert_eq!(upper * unit + lower, *weight as f32);
            assert!((0.0..=unit).contains(upper) && (-unit / 2.0..unit / 2.0).contains(lower));
        }
    }
}
