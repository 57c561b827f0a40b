//! Group normalization of each image, followed by SiLU.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::{
    Needs,
    matrix::{elements, extent, for_rows, matrix, reduce},
};

/// Numbers of images and of channel groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Number of images, which are consecutive in the rows.
    pub batch: usize,
    /// Number of groups of consecutive channels.
    pub groups: usize,
}

impl Groups {
    /// Number of rows per image and channels per group.
    fn extents(self, rows: usize, channels: usize) -> (usize, usize) {
        (rows / self.batch, channels / self.groups)
    }
}

fn silu(z: f32) -> f32 {
    z / (1.0 + (-z).exp())
}

fn silu_slope(z: f32) -> f32 {
    let s = 1.0 / (1.0 + (-z).exp());
    s * (1.0 + z * (1.0 - s))
}

/// Replaces the sums of the channels, one per image and channel, by the sum over their group.
fn spread(sums: &mut [f32], channels: usize, width: usize) {
    debug_assert!(sums.len().is_multiple_of(channels) && channels.is_multiple_of(width));
    for group in sums.chunks_exact_mut(width) {
        let sum: f32 = group.iter().sum();
        group.fill(sum);
    }
}

/// `silu((x - mean) / sqrt(variance + eps) * weight + bias)`, mean and variance over the pixels and
/// channels of a group. Also returns mean and reciprocal standard deviation for each image and
/// channel, `[2 * batch, c]`.
pub(super) fn forward(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    of: Groups,
    eps: f32,
) -> (FlexTensor, FlexTensor) {
    let (n, c) = extent(x);
    let (xs, w, b) = (elements(x), elements(w), elements(b));
    let (rows, width) = of.extents(n, c);
    let count = (rows * width) as f32;
    let mut mean: Vec<f32> = per_image(of.batch, rows, c, |i, acc| {
        for (a, x) in acc.iter_mut().zip(&xs[i * c..][..c]) {
            *a += x;
        }
    });
    spread(&mut mean, c, width);
    mean.iter_mut().for_each(|m| *m /= count);
    let mut inv: Vec<f32> = per_image(of.batch, rows, c, |i, acc| {
        let mean = &mean[i / rows * c..][..c];
        for ((a, x), m) in acc.iter_mut().zip(&xs[i * c..]).zip(mean) {
            *a += (x - m) * (x - m);
        }
    });
    spread(&mut inv, c, width);
    inv.iter_mut()
        .for_each(|v| *v = 1.0 / (*v / count + eps).sqrt());
    let mut out = vec![0.0; n * c];
    for_rows(&mut out, c, |i, out| {
        let at = i / rows * c;
        let stats = mean[at..].iter().zip(&inv[at..]);
        let values = out.iter_mut().zip(&xs[i * c..]).zip(stats);
        for (((o, x), (m, inv)), (w, b)) in values.zip(w.iter().zip(b)) {
            *o = silu((x - m) * inv * w + b);
        }
    });
    mean.extend(inv);
    (matrix(out, n, c), matrix(mean, 2 * of.batch, c))
}

/// Gradients of [`forward`] for x, weight and bias.
pub(super) fn backward(
    grad: &FlexTensor,
    [x, w, b]: &[FlexTensor; 3],
    stats: &FlexTensor,
    of: Groups,
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let (n, c) = extent(x);
    let (g, xs, w, b) = (elements(grad), elements(x), elements(w), elements(b));
    let (mean, inv) = elements(stats).split_at(of.batch * c);
    let (rows, width) = of.extents(n, c);
    // The gradient before SiLU, and the normalized values.
    let before = |i: usize, j: usize| {
        let at = i / rows * c + j;
        let normalized = (xs[i * c + j] - mean[at]) * inv[at];
        let slope = silu_slope(normalized * w[j] + b[j]);
        (g[i * c + j] * slope, normalized)
    };
    let sums = per_image(of.batch, rows, 2 * c, |i, acc| {
        let (db, dw) = acc.split_at_mut(c);
        for (j, (db, dw)) in db.iter_mut().zip(dw).enumerate() {
            let (g, normalized) = before(i, j);
            *db += g;
            *dw += g * normalized;
        }
    });
    let all = |first: usize| -> FlexTensor {
        let of_images = sums.chunks_exact(2 * c).map(|s| &s[first..][..c]);
        let total = of_images.fold(vec![0.0; c], |mut total, image| {
            total.iter_mut().zip(image).for_each(|(t, s)| *t += s);
            total
        });
        matrix(total, 1, c)
    };
    let dx = needs[0].then(|| {
        let count = (rows * width) as f32;
        // Means over a group of the gradient of the normalized values, and of gradient times value.
        let means = |first: usize| {
            let weighted = sums.chunks_exact(2 * c).flat_map(|s| {
                let sums = s[first..][..c].iter();
                sums.zip(w).map(|(s, w)| s * w / count)
            });
            let mut means: Vec<f32> = weighted.collect();
            spread(&mut means, c, width);
            means
        };
        let (shift, slope) = (means(0), means(c));
        let mut dx = vec![0.0; n * c];
        for_rows(&mut dx, c, |i, dx| {
            for (j, d) in dx.iter_mut().enumerate() {
                let (g, normalized) = before(i, j);
                let at = i / rows * c + j;
                *d = (g * w[j] - shift[at] - normalized * slope[at]) * inv[at];
            }
        });
        matrix(dx, n, c)
    });
    [dx, needs[1].then(|| all(c)), needs[2].then(|| all(0))]
}

/// Accumulates `sums` values over the rows of each image; `row` gets the index among all rows.
fn per_image(
    batch: usize,
    rows: usize,
    sums: usize,
    row: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let images = 0..batch;
    images
        .into_par_iter()
        .flat_map_iter(|image| reduce(rows, sums, |i, acc| row(image * rows + i, acc)))
        .collect()
}
