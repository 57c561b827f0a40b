//! Layer normalization of rows, and batch normalization of columns followed by ReLU.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::{
    Needs,
    matrix::{column_sums, elements, extent, for_rows, matrix, reduce},
};

/// Sum of `f(x)` with eight independent accumulators, which the compiler keeps in registers.
fn sum_by(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = x.as_chunks::<8>();
    let mut acc = [0.0f32; 8];
    for block in blocks {
        for (a, &v) in acc.iter_mut().zip(block) {
            *a += f(v);
        }
    }
    acc.iter().sum::<f32>() + rest.iter().map(|&v| f(v)).sum::<f32>()
}

/// Sums for the gradient of layer normalization: `(sum g*w, sum g*w*xhat)`.
fn dots(g: &[f32], w: &[f32], x: &[f32], mean: f32, inv: f32) -> (f32, f32) {
    let (mut a, mut b) = ([0.0f32; 8], [0.0f32; 8]);
    let (gs, grest) = g.as_chunks::<8>();
    let (ws, wrest) = w.as_chunks::<8>();
    let (xs, xrest) = x.as_chunks::<8>();
    for ((g, w), x) in gs.iter().zip(ws).zip(xs) {
        for i in 0..8 {
            let gw = g[i] * w[i];
            a[i] += gw;
            b[i] += gw * (x[i] - mean) * inv;
        }
    }
    let (mut a, mut b) = (a.iter().sum::<f32>(), b.iter().sum::<f32>());
    for ((g, w), x) in grest.iter().zip(wrest).zip(xrest) {
        a += g * w;
        b += g * w * (x - mean) * inv;
    }
    (a, b)
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, mean and variance over each row.
/// Also returns mean and reciprocal standard deviation of each row, `[n, 2]`.
pub(super) fn layer(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    eps: f32,
) -> (FlexTensor, FlexTensor) {
    let (n, c) = extent(x);
    let (xs, w, b) = (elements(x), elements(w), elements(b));
    let mut stats = vec![0.0; n * 2];
    stats
        .par_chunks_mut(2)
        .zip(xs.par_chunks(c))
        .with_min_len(64)
        .for_each(|(s, x)| {
            let mean = sum_by(x, |v| v) / c as f32;
            let variance = sum_by(x, |v| (v - mean) * (v - mean)) / c as f32;
            s[0] = mean;
            s[1] = 1.0 / (variance + eps).sqrt();
        });
    let mut out = vec![0.0; n * c];
    for_rows(&mut out, c, |i, out| {
        let (mean, inv) = (stats[2 * i], stats[2 * i + 1]);
        for (((o, x), w), b) in out.iter_mut().zip(&xs[i * c..]).zip(w).zip(b) {
            *o = (x - mean) * inv * w + b;
        }
    });
    (matrix(out, n, c), matrix(stats, n, 2))
}

/// Gradients of [`layer`] for x, weight and bias.
pub(super) fn layer_backward(
    grad: &FlexTensor,
    x: &FlexTensor,
    w: &FlexTensor,
    stats: &FlexTensor,
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let (n, c) = extent(x);
    let (g, xs, w, stats) = (elements(grad), elements(x), elements(w), elements(stats));
    let dx = needs[0].then(|| {
        let mut dx = vec![0.0; n * c];
        for_rows(&mut dx, c, |i, dx| {
            let (mean, inv) = (stats[2 * i], stats[2 * i + 1]);
            let (g, x) = (&g[i * c..][..c], &xs[i * c..][..c]);
            let (a, b) = dots(g, w, x, mean, inv);
            let (a, b) = (a / c as f32, b / c as f32);
            for (((d, g), w), x) in dx.iter_mut().zip(g).zip(w).zip(x) {
                *d = (g * w - a - (x - mean) * inv * b) * inv;
            }
        });
        matrix(dx, n, c)
    });
    let dw = needs[1].then(|| {
        let sums = reduce(n, c, |i, acc| {
            let (mean, inv) = (stats[2 * i], stats[2 * i + 1]);
            for ((a, g), x) in acc.iter_mut().zip(&g[i * c..]).zip(&xs[i * c..]) {
                *a += g * (x - mean) * inv;
            }
        });
        matrix(sums, 1, c)
    });
    let db = needs[2].then(|| matrix(column_sums(g, c), 1, c));
    [dx, dw, db]
}

/// Mean and biased variance of each column.
pub(super) fn column_moments(x: &[f32], c: usize) -> (Vec<f32>, Vec<f32>) {
    let n = x.len() / c;
    let mean: Vec<f32> = column_sums(x, c)
        .into_iter()
        .map(|s| s / n as f32)
        .collect();
    let variance = reduce(n, c, |i, acc| {
        for ((a, x), m) in acc.iter_mut().zip(&x[i * c..]).zip(&mean) {
            *a += (x - m) * (x - m);
        }
    });
    (mean, variance.into_iter().map(|s| s / n as f32).collect())
}

/// [`column_moments`] as a matrix, `[2, c]`.
pub(super) fn batch_stats(x: &FlexTensor) -> FlexTensor {
    let (_, c) = extent(x);
    let (mut mean, variance) = column_moments(elements(x), c);
    mean.extend(variance);
    matrix(mean, 2, c)
}

/// `relu((x - mean) / sqrt(variance + eps) * weight + bias)`, mean and variance over each column.
/// Also returns mean and reciprocal standard deviation of each column, `[2, c]`.
pub(super) fn batch_relu(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    eps: f32,
) -> (FlexTensor, FlexTensor) {
    let (n, c) = extent(x);
    let (xs, w, b) = (elements(x), elements(w), elements(b));
    let (mean, variance) = column_moments(xs, c);
    let inv: Vec<f32> = variance
        .into_iter()
        .map(|v| 1.0 / (v + eps).sqrt())
        .collect();
    // One multiplication and one addition per value.
    let scale: Vec<f32> = w.iter().zip(&inv).map(|(w, i)| w * i).collect();
    let mut out = vec![0.0; n * c];
    for_rows(&mut out, c, |i, out| {
        let x = &xs[i * c..][..c];
        for ((((o, x), m), s), b) in out.iter_mut().zip(x).zip(&mean).zip(&scale).zip(b) {
            *o = ((x - m) * s + b).max(0.0);
        }
    });
    let mut stats = mean;
    stats.extend(inv);
    (matrix(out, n, c), matrix(stats, 2, c))
}

/// `relu(x * scale + shift)`, each column with its own scale and shift.
pub(super) fn scale_shift_relu(
    x: &FlexTensor,
    scale: &FlexTensor,
    shift: &FlexTensor,
) -> FlexTensor {
    let (n, c) = extent(x);
    let (xs, scale, shift) = (elements(x), elements(scale), elements(shift));
    let mut out = vec![0.0; n * c];
    for_rows(&mut out, c, |i, out| {
        let x = &xs[i * c..][..c];
        for (((o, x), s), b) in out.iter_mut().zip(x).zip(scale).zip(shift) {
            *o = (x * s + b).max(0.0);
        }
    });
    matrix(out, n, c)
}

/// Gradients of [`scale_shift_relu`] for x, scale and shift. `out` is its output.
pub(super) fn scale_shift_relu_backward(
    grad: &FlexTensor,
    x: &FlexTensor,
    scale: &FlexTensor,
    out: &FlexTensor,
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let (n, c) = extent(x);
    let (g, xs, out) = (elements(grad), elements(x), elements(out));
    let dx = needs[0].then(|| {
        let scale = elements(scale);
        let mut dx = vec![0.0; n * c];
        for_rows(&mut dx, c, |i, dx| {
            let rows = g[i * c..].iter().zip(&out[i * c..]);
            for ((d, (g, o)), s) in dx.iter_mut().zip(rows).zip(scale) {
                *d = if *o > 0.0 { g * s } else { 0.0 };
            }
        });
        matrix(dx, n, c)
    });
    if !needs[1] && !needs[2] {
        return [dx, None, None];
    }
    let sums = reduce(n, 2 * c, |i, acc| {
        let (a, b) = acc.split_at_mut(c);
        let rows = g[i * c..].iter().zip(&xs[i * c..]).zip(&out[i * c..]);
        for ((a, b), ((g, x), o)) in a.iter_mut().zip(b).zip(rows) {
            let g = if *o > 0.0 { *g } else { 0.0 };
            *a += g * x;
            *b += g;
        }
    });
    let column = |i: usize| matrix(sums[i * c..][..c].to_vec(), 1, c);
    [dx, needs[1].then(|| column(0)), needs[2].then(|| column(1))]
}

/// Gradients of [`batch_relu`] for x, weight and bias. `out` is its output.
pub(super) fn batch_relu_backward(
    grad: &FlexTensor,
    x: &FlexTensor,
    w: &FlexTensor,
    stats: &FlexTensor,
    out: &FlexTensor,
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let (n, c) = extent(x);
    let (g, xs, w, out) = (elements(grad), elements(x), elements(w), elements(out));
    let (mean, inv) = elements(stats).split_at(c);
    // Sums of the gradient, and of the gradient times centered x, where the ReLU is active.
    let mut sums = reduce(n, 2 * c, |i, acc| {
        let (a, b) = acc.split_at_mut(c);
        let rows = g[i * c..]
            .iter()
            .zip(&xs[i * c..])
            .zip(&out[i * c..])
            .zip(mean);
        for ((a, b), (((g, x), o), m)) in a.iter_mut().zip(b).zip(rows) {
            let g = if *o > 0.0 { *g } else { 0.0 };
            *a += g;
            *b += g * (x - m);
        }
    });
    sums[c..].iter_mut().zip(inv).for_each(|(s, i)| *s *= i);
    let (db, dw) = sums.split_at(c);
    let dx = needs[0].then(|| {
        let scale: Vec<f32> = w.iter().zip(inv).map(|(w, i)| w * i).collect();
        let shift: Vec<f32> = db.iter().map(|s| s / n as f32).collect();
        let slope: Vec<f32> = dw.iter().zip(inv).map(|(s, i)| s / n as f32 * i).collect();
        let mut dx = vec![0.0; n * c];
        for_rows(&mut dx, c, |i, dx| {
            let rows = g[i * c..].iter().zip(&xs[i * c..]).zip(&out[i * c..]);
            let columns = mean.iter().zip(&slope).zip(&shift).zip(&scale);
            for ((d, ((g, x), o)), (((m, slope), shift), scale)) in
                dx.iter_mut().zip(rows).zip(columns)
            {
                let g = if *o > 0.0 { *g } else { 0.0 };
                *d = (g - shift - (x - m) * slope) * scale;
            }
        });
        matrix(dx, n, c)
    });
    let dw = needs[1].then(|| matrix(dw.to_vec(), 1, c));
    let db = needs[2].then(|| matrix(db.to_vec(), 1, c));
    [dx, dw, db]
}
