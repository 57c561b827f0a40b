//! What is done to tokens between matrix products.
//!
//! Tokens stand in panels: `[channels][columns]`, a token a column, as many columns as the
//! register block of the matrix product has. Means, maxima and sums over the channels of a token
//! are then sums of vectors.

use crate::{
    math::exp,
    simd::{Isa, Kernel, Simd, dispatch},
};

/// `(x - mean) / sqrt(var + eps)` of each token of a panel, with the biased variance.
pub(crate) fn normalise(isa: Isa, x: &[f32], eps: f32, out: &mut [f32]) {
    debug_assert_eq!(x.len(), out.len());
    dispatch(isa, Normalise { x, eps, out });
}

struct Normalise<'a> {
    x: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let wide = 2 * S::LANES;
        let over = S::splat(1.0 / (self.x.len() / wide).max(1) as f32);
        let zero = [S::splat(0.0); 2];
        let mut sum = zero;
        for row in self.x.chunks_exact(wide) {
            let (a, b) = row.split_at(S::LANES);
            sum = [S::add(sum[0], S::get(a)), S::add(sum[1], S::get(b))];
        }
        let mean = sum.map(|s| S::mul(s, over));
        let mut sum = zero;
        for row in self.x.chunks_exact(wide) {
            let (a, b) = row.split_at(S::LANES);
            let (a, b) = (S::sub(S::get(a), mean[0]), S::sub(S::get(b), mean[1]));
            sum = [S::fma(a, a, sum[0]), S::fma(b, b, sum[1])];
        }
        let scale = sum.map(|s| {
            let deviation = S::sqrt(S::fma(s, over, S::splat(self.eps)));
            S::div(S::splat(1.0), deviation)
        });
        for (row, out) in self
            .x
            .chunks_exact(wide)
            .zip(self.out.chunks_exact_mut(wide))
        {
            let (a, b) = row.split_at(S::LANES);
            let (to_a, to_b) = out.split_at_mut(S::LANES);
            S::put(to_a, S::mul(S::sub(S::get(a), mean[0]), scale[0]));
            S::put(to_b, S::mul(S::sub(S::get(b), mean[1]), scale[1]));
        }
    }
}

/// `e^(x - max)` of each column of a panel in place, and one over their sum in `inverse`: softmax
/// but for the last product.
pub(crate) fn exponentials(isa: Isa, x: &mut [f32], inverse: &mut [f32]) {
    dispatch(isa, Exponentials { x, inverse });
}

struct Exponentials<'a> {
    x: &'a mut [f32],
    inverse: &'a mut [f32],
}

impl Kernel for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let wide = 2 * S::LANES;
        let mut most = [S::splat(f32::NEG_INFINITY); 2];
        for row in self.x.chunks_exact(wide) {
            let (a, b) = row.split_at(S::LANES);
            most = [S::max(most[0], S::get(a)), S::max(most[1], S::get(b))];
        }
        let mut sum = [S::splat(0.0); 2];
        for row in self.x.chunks_exact_mut(wide) {
            let (a, b) = row.split_at_mut(S::LANES);
            let ea = exp::<S>(S::sub(S::get(a), most[0]));
            let eb = exp::<S>(S::sub(S::get(b), most[1]));
            S::put(a, ea);
            S::put(b, eb);
            sum = [S::add(sum[0], ea), S::add(sum[1], eb)];
        }
        let (a, b) = self.inverse.split_at_mut(S::LANES);
        S::put(a, S::div(S::splat(1.0), sum[0]));
        S::put(b, S::div(S::splat(1.0), sum[1]));
    }
}

/// Multiplies each column of a panel by its own factor.
pub(crate) fn scale_columns(isa: Isa, x: &mut [f32], factors: &[f32]) {
    dispatch(isa, ScaleColumns { x, factors });
}

struct ScaleColumns<'a> {
    x: &'a mut [f32],
    factors: &'a [f32],
}

impl Kernel for ScaleColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (a, b) = self.factors.split_at(S::LANES);
        let factors = [S::get(a), S::get(b)];
        for row in self.x.chunks_exact_mut(2 * S::LANES) {
            let (a, b) = row.split_at_mut(S::LANES);
            S::put(a, S::mul(S::get(a), factors[0]));
            S::put(b, S::mul(S::get(b), factors[1]));
        }
    }
}

/// Tokens `[n][stride]`, of which `channels` values count, into a panel of `columns`; what is
/// left of the panel becomes zero.
pub(crate) fn to_panel(tokens: &[f32], n: usize, stride: usize, columns: usize, panel: &mut [f32]) {
    const SIDE: usize = 8;
    if n < columns {
        panel.fill(0.0);
    }
    for t0 in (0..n).step_by(SIDE) {
        let some = SIDE.min(n - t0);
        let rows: [&[f32]; SIDE] =
            std::array::from_fn(|i| &tokens[(t0 + i.min(some - 1)) * stride..][..stride]);
        for (c, out) in panel.chunks_exact_mut(columns).enumerate() {
            for (out, row) in out[t0..t0 + some].iter_mut().zip(rows) {
                *out = row[c];
            }
        }
    }
}

/// The first `n` tokens of a panel as `[n][channels]`, each channel times `weight` plus `bias`.
pub(crate) fn from_panel(
    panel: &[f32],
    n: usize,
    columns: usize,
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    const SIDE: usize = 16;
    let channels = weight.len();
    for c0 in (0..channels).step_by(SIDE) {
        let some = SIDE.min(channels - c0);
        let (weight, bias) = (&weight[c0..c0 + some], &bias[c0..c0 + some]);
        for (t, out) in out.chunks_exact_mut(channels).take(n).enumerate() {
            let column = panel[c0 * columns + t..].iter().step_by(columns);
            for (((out, x), w), b) in out[c0..c0 + some]
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
    use crate::{gemm::block_cols, reference};

    fn worst(a: &[f32], b: impl Iterator<Item = f64>) -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| (f64::from(*a) - b).abs())
            .fold(
                0.0,
                |worst, e| if e.is_nan() { f64::NAN } else { e.max(worst) },
            )
    }

    #[test]
    fn normalisation_and_softmax_are_those_of_each_token() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let columns = block_cols(isa);
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
                    normalise(isa, &panel, 1e-5, &mut out);
                    let (weight, bias) =
                        (reference::noise(8, channels), reference::noise(9, channels));
                    let mut rows = vec![f32::NAN; n * channels];
                    from_panel(&out, n, columns, &weight, &bias, &mut rows);
                    let exact = (0..n).flat_map(|t| {
                        let x = reference::normalised(&column(t), 1e-5);
                        let affine: Vec<f64> = x
                            .iter()
                            .zip(weight.iter().zip(&bias))
                            .map(|(x, (w, b))| x * f64::from(*w) + f64::from(*b))
                            .collect();
                        affine
                    });
                    let error = worst(&rows, exact);
                    // Sums of up to 404 values in 32 bit. One channel has no variance: the root
                    // of epsilon magnifies what rounding leaves.
                    assert!(
                        error < if channels < 3 { 1e-3 } else { 5e-6 },
                        "{isa} {channels} {n}: {error:.1e}"
                    );

                    let mut inverse = vec![f32::NAN; columns];
                    exponentials(isa, &mut panel, &mut inverse);
                    scale_columns(isa, &mut panel, &inverse);
                    for t in 0..n {
                        let exact = reference::softmax(&column(t));
                        let found: Vec<f32> =
                            panel.iter().skip(t).step_by(columns).copied().collect();
                        let error = worst(&found, exact.into_iter());
                        assert!(error < 1e-6, "{isa} {channels} {n}: {error:.1e}");
                    }
                }
            }
        }
    }

    #[test]
    fn softmax_stands_large_scores() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let columns = block_cols(isa);
            let mut panel: Vec<f32> = (0..3 * columns)
                .map(|i| (i / columns) as f32 * 1e4 - 1e4)
                .collect();
            let mut inverse = vec![0.0; columns];
            exponentials(isa, &mut panel, &mut inverse);
            assert!(panel[2 * columns..].iter().all(|x| *x == 1.0), "{isa}");
            assert!(panel[..2 * columns].iter().all(|x| *x < 1e-37), "{isa}");
        }
    }
}
