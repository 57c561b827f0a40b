//! Position embeddings for grids other than the one they were trained on.
//!
//! Each family resamples in its own way, and the features depend on which: these follow PyTorch's
//! `interpolate(mode="bicubic", align_corners=False)` step by step, in 32 bit. Multiplications and
//! additions are fused where PyTorch's builds for x86-64 fuse them: at coordinates of 30 the
//! rounding of one product moves a sample by several 1e-6.

use loftup_onnx::Tensor;
use loftup_spec::interpolate::{CUBIC_A, cubic};

use super::Family;

/// How a family resamples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Bicubic, for a size a tenth of a patch larger than asked for, which the coordinates then
    /// follow: DINOv2 without registers, and MaskCLIP as FeatUp and LoftUp run it.
    Offset,
    /// Bicubic with a kernel as wide as the reduction: DINOv2 with registers, and timm.
    Antialiased,
}

impl Method {
    pub fn of(family: Family, registers: usize) -> Self {
        match family {
            Family::DinoV2 if registers == 0 => Self::Offset,
            Family::Clip => Self::Offset,
            Family::DinoV2 | Family::SigLip => Self::Antialiased,
        }
    }
}

/// Position embeddings `[n, n, width]` on a grid of `rows` x `columns`: `[rows, columns, width]`.
/// On the training grid they stay as they are.
pub(super) fn resample(grid: &Tensor, rows: usize, columns: usize, method: Method) -> Tensor {
    let [n, m, width] = grid.shape()[..] else {
        panic!("positions of shape {:?}", grid.shape())
    };
    if (n, m) == (rows, columns) {
        return grid.clone();
    }
    let taps = match method {
        Method::Offset => offset_taps,
        Method::Antialiased => antialiased_taps,
    };
    let across = combine(grid.data(), n, m, width, &taps(m, columns));
    let down = combine(&across, 1, n, columns * width, &taps(n, rows));
    Tensor::from_fn([rows, columns, width], |i| down[i])
}

/// The samples that make one output, and their weights.
type Taps = Vec<(usize, f32)>;

/// Resamples the middle axis of `[outer, len, inner]`.
fn combine(x: &[f32], outer: usize, len: usize, inner: usize, taps: &[Taps]) -> Vec<f32> {
    let mut y = vec![0.0; outer * taps.len() * inner];
    for (o, plane) in y.chunks_exact_mut(taps.len() * inner).enumerate() {
        for (row, taps) in plane.chunks_exact_mut(inner).zip(taps) {
            for &(tap, weight) in taps {
                let source = &x[(o * len + tap) * inner..][..inner];
                row.iter_mut()
                    .zip(source)
                    .for_each(|(y, x)| *y += weight * x);
            }
        }
    }
    y
}

/// Four taps around each output's place, the border repeated.
fn offset_taps(input: usize, output: usize) -> Vec<Taps> {
    // The scale factor is handed over in 64 bit and inverted there.
    let scale = (1.0 / ((output as f64 + 0.1) / input as f64)) as f32;
    let last = input as isize - 1;
    (0..output)
        .map(|i| {
            let at = scale.mul_add(i as f32 + 0.5, -0.5);
            let first = (at.floor() as isize).min(last);
            let t = (at - first as f32).clamp(0.0, 1.0);
            let weights = [1.0 + t, t, 1.0 - t, 1.0 - t + 1.0].map(|x| cubic(CUBIC_A, x));
            let tap = |k: usize| (first - 1 + k as isize).clamp(0, last) as usize;
            weights
                .into_iter()
                .enumerate()
                .map(|(k, w)| (tap(k), w))
                .collect()
        })
        .collect()
}

/// All taps under a kernel that is stretched by the reduction; beyond the border there are none,
/// and the rest is brought to a sum of one.
fn antialiased_taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f32 / output as f32;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..output)
        .map(|i| {
            let centre = scale * (i as f32 + 0.5);
            // The casts saturate at zero, as is wanted.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let weight = |k: usize| cubic_fused((k as f32 - centre + 0.5) * stretch.recip());
            let weights: Vec<f32> = (first..end).map(weight).collect();
            let total: f32 = weights.iter().sum();
            (first..end)
                .zip(weights)
                .map(|(k, w)| (k, w / total))
                .collect()
        })
        .collect()
}

/// The cubic convolution kernel with the free parameter -0.5, at any distance, multiplying and adding in one rounding.
fn cubic_fused(x: f32) -> f32 {
    const A: f32 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0).mul_add(x, -(A + 3.0)) * x).mul_add(x, 1.0)
    } else if x < 2.0 {
        A.mul_add(x, -5.0 * A)
            .mul_add(x, 8.0 * A)
            .mul_add(x, -4.0 * A)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
