//! Products with the softmax of scores on the right.

use super::NarrowB;
use crate::{
    gemm::nr,
    math::exp,
    simd::{Format, Narrow, NarrowOp, Simd, SupportedFormat, dispatch_narrow},
};

/// Largest number of rows of scores whose sums in 8 bits cannot overflow: `255 * 127 * rows` is below 2^31.
pub(crate) const MAX_INT8_ROWS: usize = 66_000;

impl NarrowB {
    /// Packs the softmax of each column of a panel of scores `[depth][NR]`.
    ///
    /// Weights are relative to the largest one, which is 1, so that no range need be computed, and their scale
    /// contains one over their sum. In 8 bits they are unsigned where the instruction expects that, and the sum
    /// is that of the rounded weights.
    pub fn pack_softmax(&mut self, format: SupportedFormat, scores: &[f32], depth: usize) {
        let (columns, group) = (nr(format.isa()), format.format().group());
        self.data.resize(depth.div_ceil(group) * columns, 0);
        self.scales.resize(columns, 1.0);
        self.unsigned = format.format().offset() != 0;
        assert!(format.format() != Format::Int8 || depth <= MAX_INT8_ROWS);
        let limit = match format.format() {
            Format::Int8 if self.unsigned => 255,
            format => format.limit(depth).unwrap_or(1),
        };
        let op = PackSoftmax {
            scores: &scores[..depth * columns],
            limit: limit as f32,
            out: &mut self.data,
            scales: &mut self.scales,
        };
        dispatch_narrow(format, op);
    }
}

struct PackSoftmax<'a> {
    scores: &'a [f32],
    /// What the largest weight becomes.
    limit: f32,
    out: &'a mut [u32],
    scales: &'a mut [f32],
}

impl NarrowOp for PackSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<N: Narrow>(self) {
        let (lanes, columns) = (N::S::LANES, N::S::NR);
        let (group, bytes) = (N::FORMAT.group(), matches!(N::FORMAT, Format::Int8));
        // Packing adds the offset after rounding.
        let offset = N::S::splat(N::FORMAT.offset() as f32 / self.limit);
        let shifted = |x| match N::FORMAT.offset() {
            0 => x,
            _ => N::S::sub(x, offset),
        };
        let factor = N::S::splat(self.limit);
        for at in [0, lanes] {
            let mut max = N::S::splat(f32::NEG_INFINITY);
            for row in self.scores.chunks_exact(columns) {
                max = N::S::max(max, N::S::load(&row[at..]));
            }
            let mut sum = N::S::splat(0.0);
            let mut integers = N::zero();
            // SAFETY: valid for reading one word.
            let ones = unsafe { N::splat(&0x0101_0101) };
            let words = self.out.chunks_exact_mut(columns);
            for (rows, out) in self.scores.chunks(group * columns).zip(words) {
                let mut weights = [shifted(N::S::splat(0.0)); 4];
                for (weight, row) in weights.iter_mut().zip(rows.chunks_exact(columns)) {
                    let x = exp::<N::S>(N::S::sub(N::S::load(&row[at..]), max));
                    sum = N::S::add(sum, x);
                    *weight = shifted(x);
                }
                let words = N::pack(weights, factor);
                if bytes {
                    integers = N::dot(ones, words, integers);
                }
                let out = &mut out[at..];
                assert!(out.len() >= lanes);
                // SAFETY: `out` holds at least a vector of words.
                unsafe { N::store(out.as_mut_ptr(), words) }
            }
            let total = match bytes {
                true => N::finish(integers),
                false => N::S::mul(sum, factor),
            };
            let scale = N::S::div(N::S::splat(1.0), total);
            N::S::store(&mut self.scales[at..], scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        gemm::{Packed, Scratch, narrow_tests::formats, nr},
        reference::{self, noise},
        simd::{Format, SupportedFormat},
    };

    /// Rows of values and rows of scores, which are the depth of the product.
    const SHAPES: [(usize, usize); 7] = [
        (1, 1),
        (5, 7),
        (13, 52),
        (25, 403),
        (104, 256),
        (3, 2001),
        (12, 4),
    ];

    /// Scores `[depth][NR]` of columns from equal ones to those with one large weight.
    fn scores(depth: usize, columns: usize) -> Vec<f32> {
        let scale = |i: usize| [0.0, 1.0, 10.0, 80.0][i % columns % 4];
        let noise = noise(12, depth * columns).into_iter().enumerate();
        noise.map(|(i, x)| x * scale(i)).collect()
    }

    /// `values softmax(scores)` `[rows][NR]`.
    fn product(format: SupportedFormat, values: &[f32], scores: &[f32], rows: usize) -> Vec<f32> {
        let (isa, columns) = (format.isa(), nr(format.isa()));
        let depth = values.len() / rows;
        let packed = Packed::new(isa, Some(format), rows, depth, |r, k| values[r * depth + k]);
        let mut scores = scores.to_vec();
        let mut out = vec![f32::NAN; rows * columns];
        let mut inverse = vec![0.0; columns];
        packed.multiply_softmax(&mut scores, &mut inverse, &mut out, &mut Scratch::default());
        out
    }

    #[test]
    fn weighted_means_match_plain_arithmetic_on_the_rounded_operands() {
        for (isa, format) in formats() {
            let (name, columns) = (format.format(), nr(isa));
            let mut worst: f64 = 0.0;
            for (rows, depth) in SHAPES {
                let (values, scores) = (noise(13, rows * depth), scores(depth, columns));
                let found = product(format, &values, &scores, rows);
                // What the largest weight becomes, and the size of a step there.
                let (largest, step) = match (name, name.limit(depth)) {
                    (Format::Int8, _) if name.offset() != 0 => (255.0, 1.0 / 255.0),
                    (Format::Int8 | Format::Int16, Some(limit)) => {
                        (f64::from(limit), 1.0 / f64::from(limit))
                    }
                    (Format::Fp16, _) => (0.0, 1.0 / 1024.0),
                    _ => (0.0, 1.0 / 128.0),
                };
                for (i, found) in found.iter().enumerate() {
                    let (row, column) = (i / columns, i % columns);
                    let at = |k: usize| f64::from(scores[k * columns + column]);
                    let max = (0..depth).map(at).fold(f64::NEG_INFINITY, f64::max);
                    let exact: Vec<f64> = (0..depth).map(|k| (at(k) - max).exp()).collect();
                    let rounded = |x: &f64| match largest {
                        0.0 => *x,
                        _ => (x * largest).round_ties_even() / largest,
                    };
                    let weights: Vec<f64> = exact.iter().map(rounded).collect();
                    let sum: f64 = match name {
                        Format::Int8 => weights.iter().sum(),
                        _ => exact.iter().sum(),
                    };
                    let values = reference::rounded(name, &values[row * depth..][..depth]);
                    let expected: f64 = values.iter().zip(&weights).map(|(v, w)| v * w / sum).sum();
                    // Values are below 1. The exponential has a relative error of 3e-7, so that up to three
                    // weights are almost halfway between two steps and become the other one. Weights of
                    // floats are not rounded above.
                    let flips = if largest > 0.0 { 3.0 } else { 3.0 * sum };
                    let (error, limit) = (
                        (f64::from(*found) - expected).abs(),
                        1e-5 + flips * step / sum,
                    );
                    assert!(
                        error < limit,
                        "{isa} {name} {rows}x{depth}, column {column}: {error:.1e}, {limit:.1e}"
                    );
                    worst = worst.max(error);
                }
            }
            println!("{isa} {name}: worst error {worst:.1e}");
        }
    }

    /// As the sum in 8 bits is that of the rounded weights.
    #[test]
    fn weighted_means_of_equal_values_are_these_values() {
        for (isa, format) in formats() {
            if format.format() != Format::Int8 {
                continue;
            }
            let columns = nr(isa);
            for (rows, depth) in SHAPES {
                let value = |row: usize| row as f32 * 0.37 - 1.2;
                let values: Vec<f32> = (0..rows * depth).map(|i| value(i / depth)).collect();
                let found = product(format, &values, &scores(depth, columns), rows);
                for (i, found) in found.iter().enumerate() {
                    let value = value(i / columns);
                    let error = (found / value - 1.0).abs();
                    assert!(error < 1e-6, "{isa} {rows}x{depth}: {error:.1e}");
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_stay_so() {
        for (isa, format) in formats() {
            let (rows, depth, columns) = (13, 7, nr(isa));
            for bad in [f32::NAN, f32::INFINITY] {
                let mut values = noise(14, rows * depth);
                values[4 * depth + 1] = bad;
                let found = product(format, &values, &vec![0.5; depth * columns], rows);
                for (i, x) in found.iter().enumerate() {
                    assert_eq!(
                        x.is_finite(),
                        i / columns != 4,
                        "{isa} {}: {x}",
                        format.format()
                    );
                }
            }
        }
    }
}
