//! Resamples position embeddings for grids other than the training grid.
//!
//! Libraries and families resample in different ways, which affects the features. This module
//! reproduces PyTorch's `interpolate(mode="bicubic", align_corners=False)` step by step in 32 bits.
//! Multiplications and additions are fused where PyTorch's x86-64 builds fuse them: at coordinates
//! of 30, the rounding of one product shifts a sample by several 1e-6.

use loftup_onnx::Tensor;
use loftup_spec::interpolate::{CUBIC_A, cubic};

use super::{Family, Positions};

/// How position embeddings are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Bicubic, with a scale factor for a size a tenth of a patch larger than requested: DINOv2
    /// without registers, and MaskCLIP as in FeatUp and LoftUp.
    Offset,
    /// Bicubic with antialiasing: DINOv2 with registers, and timm.
    Antialiased,
    /// Bicubic to the target size: transformers.
    Bicubic,
}

impl Method {
    /// The method of `positions` for a family with this number of registers.
    pub fn of(positions: Positions, family: Family, registers: usize) -> Self {
        match (positions, family) {
            (Positions::Facebook, Family::DinoV2) if registers == 0 => Self::Offset,
            (Positions::Facebook, Family::Clip) => Self::Offset,
            (Positions::Transformers, Family::DinoV2) if registers > 0 => Self::Antialiased,
            (Positions::Transformers, _) => Self::Bicubic,
            (Positions::Facebook | Positions::Timm, _) => Self::Antialiased,
        }
    }
}

/// Resamples position embeddings `[n, n, width]` to a grid of `rows` x `columns`: `[rows, columns,
/// width]`. Returns them unchanged for the training grid.
pub(super) fn resample(grid: &Tensor, rows: usize, columns: usize, method: Method) -> Tensor {
    let [n, m, width] = grid.shape()[..] else {
        panic!("position embeddings of shape {:?}", grid.shape())
    };
    if (n, m) == (rows, columns) {
        return grid.clone();
    }
    let taps: fn(usize, usize) -> Vec<Taps> = match method {
        Method::Offset => |n, m| bicubic_taps(offset_scale(n, m), n, m),
        Method::Bicubic => |n, m| bicubic_taps(n as f32 / m as f32, n, m),
        Method::Antialiased => antialiased_taps,
    };
    let across = combine(grid.data(), n, m, width, &taps(m, columns));
    let down = combine(&across, 1, n, columns * width, &taps(n, rows));
    Tensor::from_fn([rows, columns, width], |i| down[i])
}

/// Input samples of an output sample, with their weights.
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

/// Input samples per output sample with an offset of a tenth of an output sample: the scale factor
/// is passed in 64 bits and inverted.
fn offset_scale(input: usize, output: usize) -> f32 {
    (1.0 / ((output as f64 + 0.1) / input as f64)) as f32
}

/// Four taps around each output position, with the border repeated.
fn bicubic_taps(scale: f32, input: usize, output: usize) -> Vec<Taps> {
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

/// All taps under a kernel widened by the scale; taps outside are dropped and the weights
/// normalized to a sum of one.
fn antialiased_taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f32 / output as f32;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..output)
        .map(|i| {
            let center = scale * (i as f32 + 0.5);
            // The casts saturate at zero, as intended.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let weight = |k: usize| cubic_fused((k as f32 - center + 0.5) * stretch.recip());
            let weights: Vec<f32> = (first..end).map(weight).collect();
            let total: f32 = weights.iter().sum();
            (first..end)
                .zip(weights)
                .map(|(k, w)| (k, w / total))
                .collect()
        })
        .collect()
}

/// The cubic convolution kernel with parameter -0.5 at any distance, with fused multiply-add.
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
