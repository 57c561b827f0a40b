//! Operations on tokens between matrix products: layer normalization, softmax, layout changes.
//!
//! Tokens are stored in panels `[channels][columns]`, one token per column, with the `NR` columns of a
//! GEMM panel, so that reductions over the channels of a token are element-wise vector operations.

use crate::{
    math::exp,
    simd::{Simd, SimdOp, SupportedIsa, dispatch},
};

/// Layer normalization without scale and offset, `(x - mean) / sqrt(var + eps)`, of each token of a panel,
/// with the biased variance.
pub(crate) fn normalize(isa: SupportedIsa, x: &[f32], eps: f32, out: &mut [f32]) {
    debug_assert_eq!(x.len(), out.len());
    dispatch(isa, Normalize { x, eps, out });
}

struct Normalize<'a> {
    x: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl SimdOp for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let over = S::splat(1.0 / (self.x.len() / S::NR).max(1) as f32);
        let zero = [S::splat(0.0); 2];
        let mut sum = zero;
        for row in self.x.chunks_exact(S::NR) {
            let (a, b) = row.split_at(S::LANES);
            sum = [S::add(sum[0], S::load(a)), S::add(sum[1], S::load(b))];
        }
        let mean = sum.map(|s| S::mul(s, over));
        let mut sum = zero;
        for row in self.x.chunks_exact(S::NR) {
            let (a, b) = row.split_at(S::LANES);
            let (a, b) = (S::sub(S::load(a), mean[0]), S::sub(S::load(b), mean[1]));
            sum = [S::fma(a, a, sum[0]), S::fma(b, b, sum[1])];
        }
        let scale = sum.map(|s| {
            let deviation = S::sqrt(S::fma(s, over, S::splat(self.eps)));
            S::div(S::splat(1.0), deviation)
        });
        for (row, out) in self
            .x
            .chunks_exact(S::NR)
            .zip(self.out.chunks_exact_mut(S::NR))
        {
            let (a, b) = row.split_at(S::LANES);
            let (to_a, to_b) = out.split_at_mut(S::LANES);
            S::store(to_a, S::mul(S::sub(S::load(a), mean[0]), scale[0]));
            S::store(to_b, S::mul(S::sub(S::load(b), mean[1]), scale[1]));
        }
    }
}

/// Replaces each column of a panel by `exp(x - max)`, and writes one over the sum of each column to
/// `inverse` `[columns]`: softmax without the final scaling.
pub(crate) fn unnormalized_softmax(isa: SupportedIsa, x: &mut [f32], inverse: &mut [f32]) {
    dispatch(isa, UnnormalizedSoftmax { x, inverse });
}

struct UnnormalizedSoftmax<'a> {
    x: &'a mut [f32],
    inverse: &'a mut [f32],
}

impl SimdOp for UnnormalizedSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let mut max = [S::splat(f32::NEG_INFINITY); 2];
        for row in self.x.chunks_exact(S::NR) {
            let (a, b) = row.split_at(S::LANES);
            max = [S::max(max[0], S::load(a)), S::max(max[1], S::load(b))];
        }
        let mut sum = [S::splat(0.0); 2];
        for row in self.x.chunks_exact_mut(S::NR) {
            let (a, b) = row.split_at_mut(S::LANES);
            let ea = exp::<S>(S::sub(S::load(a), max[0]));
            let eb = exp::<S>(S::sub(S::load(b), max[1]));
            S::store(a, ea);
            S::store(b, eb);
            sum = [S::add(sum[0], ea), S::add(sum[1], eb)];
        }
        let (a, b) = self.inverse.split_at_mut(S::LANES);
        S::store(a, S::div(S::splat(1.0), sum[0]));
        S::store(b, S::div(S::splat(1.0), sum[1]));
    }
}

/// Multiplies each column of a panel by its factor, `factors` `[columns]`.
pub(crate) fn scale_columns(isa: SupportedIsa, x: &mut [f32], factors: &[f32]) {
    dispatch(isa, ScaleColumns { x, factors });
}

struct ScaleColumns<'a> {
    x: &'a mut [f32],
    factors: &'a [f32],
}

impl SimdOp for ScaleColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let (a, b) = self.factors.split_at(S::LANES);
        let factors = [S::load(a), S::load(b)];
        for row in self.x.chunks_exact_mut(S::NR) {
            let (a, b) = row.split_at_mut(S::LANES);
            S::store(a, S::mul(S::load(a), factors[0]));
            S::store(b, S::mul(S::load(b), factors[1]));
        }
    }
}

/// Transposes tokens `[n][stride]` into a panel `[channels][columns]`. Columns without a token become
/// zero.
pub(crate) fn to_panel(tokens: &[f32], n: usize, stride: usize, columns: usize, panel: &mut [f32]) {
    const BLOCK: usize = 8;
    if n < columns {
        panel.fill(0.0);
    }
    for t0 in (0..n).step_by(BLOCK) {
        let len = BLOCK.min(n - t0);
        let rows: [&[f32]; BLOCK] =
            std::array::from_fn(|i| &tokens[(t0 + i.min(len - 1)) * stride..][..stride]);
        for (c, out) in panel.chunks_exact_mut(columns).enumerate() {
            for (out, row) in out[t0..t0 + len].iter_mut().zip(rows) {
                *out = row[c];
            }
        }
    }
}

/// Transposes the first `n` tokens of a panel to `[n][channels]`, times `weight` plus `bias` for each
/// channel.
pub(crate) fn from_panel(
    panel: &[f32],
    n: usize,
    columns: usize,
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    const BLOCK: usize = 16;
    let channels = weight.len();
    for c0 in (0..channels).step_by(BLOCK) {
        let len = BLOCK.min(channels - c0);
        let (weight, bias) = (&weight[c0..c0 + len], &bias[c0..c0 + len]);
        for (t, out) in out.chunks_exact_mut(channels).take(n).enumerate() {
            let column = panel[c0 * columns + t..].iter().step_by(columns);
            for (((out, x), w), b) in out[c0..c0 + len]
                .iter_mut()
                .zip(column)
                .zip(weight)
                .zip(bias)
            {
                *out = x * w + b;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gemm::nr, reference};

    fn max_error(a: &[f32], b: impl Iterator<Item = f64>) -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| (f64::from(*a) - b).abs())
            .fold(
                0.0,
                |max: f64, e| if e.is_nan() { f64::NAN } else { e.max(max) },
            )
    }

    #[test]
    fn normalization_and_softmax_match_the_reference() {
        for isa in SupportedIsa::all() {
            let columns = nr(isa);
            for channels in [1, 2, 5, 52, 203, 404] {
                for n in [1, columns - 1, columns] {
                    let stride = channels + 3;
                    let tokens = reference::noise(7, n * stride);
                    let mut panel = vec![f32::NAN; channels * columns];
                    to_panel(&tokens, n, stride, columns, &mut panel);
                    let column = |t: usize| -> Vec<f64> {
                        let row = &tokens[t * stride..][..channels];
                        row.iter().map(|x| f64::from(*x)).collect()
                    };

                    let mut out = vec![f32::NAN; panel.len()];
                    normalize(isa, &panel, 1e-5, &mut out);
                    let (weight, bias) =
                        (reference::noise(8, channels), reference::noise(9, channels));
                    let mut rows = vec![f32::NAN; n * channels];
                    from_panel(&out, n, columns, &weight, &bias, &mut rows);
                    let exact = (0..n).flat_map(|t| {
                        let x = reference::normalize(&column(t), 1e-5);
                        let affine: Vec<f64> = x
                            .iter()
                            .zip(weight.iter().zip(&bias))
                            .map(|(x, (w, b))| x * f64::from(*w) + f64::from(*b))
                            .collect();
                        affine
                    });
                    let error = max_error(&rows, exact);
                    // Sums of up to 404 values in 32 bit. With one channel the variance is zero, and
                    // 1 / sqrt(eps) magnifies the rounding error.
                    assert!(
                        error < if channels < 3 { 1e-3 } else { 5e-6 },
                        "{isa} {channels} {n}: {error:.1e}"
                    );

                    let mut inverse = vec![f32::NAN; columns];
                    unnormalized_softmax(isa, &mut panel, &mut inverse);
                    scale_columns(isa, &mut panel, &inverse);
                    for t in 0..n {
                        let exact = reference::softmax(&column(t));
                        let found: Vec<f32> =
                            panel.iter().skip(t).step_by(columns).copied().collect();
                        let error = max_error(&found, exact.into_iter());
                        assert!(error < 1e-6, "{isa} {channels} {n}: {error:.1e}");
                    }
                }
            }
        }
    }

    #[test]
    fn softmax_handles_large_scores() {
        for isa in SupportedIsa::all() {
            let columns = nr(isa);
            let mut panel: Vec<f32> = (0..3 * columns)
                .map(|i| (i / columns) as f32 * 1e4 - 1e4)
                .collect();
            let mut inverse = vec![0.0; columns];
            unnormalized_softmax(isa, &mut panel, &mut inverse);
            assert!(panel[2 * columns..].iter().all(|x| *x == 1.0), "{isa}");
            assert!(panel[..2 * columns].iter().all(|x| *x < 1e-37), "{isa}");
        }
    }
}
