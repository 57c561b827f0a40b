//! The losses of both stages.
//!
//! Random projection, bicubic resizing, mask refinement, jitter and blur are all linear, and
//! operations on channels commute with operations on pixels. So features are projected first, and
//! everything after that processes the few projected channels, with the same result for a fraction
//! of the operations.

mod affinity;
mod reconstruction;
mod variation;

#[cfg(test)]
mod tests;

use burn::tensor::{Device, Tensor};
use loftup_runtime::{
    image::RgbImage,
    jbu::{Jbu, JbuOptions},
};

pub use affinity::affinity;
#[cfg(test)]
pub use affinity::affinity_by_pairs;
pub use reconstruction::{AuxModules, View, reconstruction};
pub use variation::{gradient_matching, total_variation};

use crate::{
    config::Upsampling,
    model::device_matrix,
    regions::Mask,
    resample::{Axis, resample_values},
    rng::Rng,
};

/// Draws a random matrix `[dim, to]` with columns of unit length; the identity if `to` is 0.
pub fn random_projection(dim: usize, to: usize, rng: &mut Rng) -> Projection {
    if to == 0 {
        let values = (0..dim * dim).map(|i| if i % (dim + 1) == 0 { 1.0 } else { 0.0 });
        return Projection {
            values: values.collect(),
            dim,
            to: dim,
        };
    }
    let mut values: Vec<f32> = (0..dim * to).map(|_| rng.normal()).collect();
    for column in 0..to {
        let square: f32 = values[column..].iter().step_by(to).map(|x| x * x).sum();
        let scale = 1.0 / square.sqrt().max(1e-12);
        values[column..]
            .iter_mut()
            .step_by(to)
            .for_each(|x| *x *= scale);
    }
    Projection { values, dim, to }
}

/// A projection of features to fewer channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `[dim, to]`, row-major.
    pub values: Vec<f32>,
    /// Number of channels of the features.
    pub dim: usize,
    /// Number of channels of the output.
    pub to: usize,
}

impl Projection {
    /// Returns the matrix on a device.
    pub fn matrix(&self, device: &Device) -> Tensor<2> {
        device_matrix(self.values.clone(), self.dim, self.to, device)
    }

    /// Projects rows in host memory.
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.dim * self.to];
        for (out, x) in out.chunks_exact_mut(self.to).zip(x.chunks_exact(self.dim)) {
            for (v, row) in x.iter().zip(self.values.chunks_exact(self.to)) {
                for (o, p) in out.iter_mut().zip(row) {
                    *o += v * p;
                }
            }
        }
        out
    }
}

/// Averages features `[pixels, c]` within each mask in turn: `f <- alpha * mean + (1 - alpha) * f`.
/// Later masks see the results of earlier ones.
pub fn refine(features: &mut [f32], c: usize, masks: &[Mask], alpha: f32) {
    let mut mean = vec![0.0f64; c];
    for mask in masks.iter().filter(|m| !m.pixels().is_empty()) {
        mean.fill(0.0);
        for &pixel in mask.pixels() {
            for (m, f) in mean.iter_mut().zip(&features[pixel as usize * c..]) {
                *m += f64::from(*f);
            }
        }
        let pull: Vec<f32> = mean
            .iter()
            .map(|m| (m / mask.pixels().len() as f64) as f32 * alpha)
            .collect();
        for &pixel in mask.pixels() {
            for (f, p) in features[pixel as usize * c..][..c].iter_mut().zip(&pull) {
                *f = p + (1.0 - alpha) * *f;
            }
        }
    }
}

/// Replaces features by the mean of their refinements by each of several segmentations. Without
/// segmentations, they are unchanged.
pub fn refine_mean(features: &mut [f32], c: usize, segmentations: &[Vec<Mask>], alpha: f32) {
    let Some((last, others)) = segmentations.split_last() else {
        return;
    };
    let refined: Vec<Vec<f32>> = others
        .iter()
        .map(|masks| {
            let mut copy = features.to_vec();
            refine(&mut copy, c, masks, alpha);
            copy
        })
        .collect();
    refine(features, c, last, alpha);
    if refined.is_empty() {
        return;
    }
    let share = 1.0 / segmentations.len() as f32;
    for (i, f) in features.iter_mut().enumerate() {
        *f = refined.iter().fold(*f, |sum, map| sum + map[i]) * share;
    }
}

/// How features are upsampled before they are refined.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// Bicubic interpolation, as published.
    Bicubic,
    /// Bilinear interpolation.
    Bilinear,
    /// Joint bilateral upsampling with the image at the output size.
    Jbu(&'a RgbImage),
}

impl<'a> Base<'a> {
    /// Converts the setting `upsampling`, for an image at the output size.
    pub fn new(upsampling: Upsampling, image: &'a RgbImage) -> Self {
        match upsampling {
            Upsampling::Bicubic => Self::Bicubic,
            Upsampling::Bilinear => Self::Bilinear,
            Upsampling::Jbu => Self::Jbu(image),
        }
    }
}

/// Computes the pseudo ground truth of stage 1 for one image, `[H * W, to]`: backbone features
/// `[h * w, d]`, projected, upsampled to `size` (rows, columns), and refined by `segmentations`.
pub fn pseudo_ground_truth(
    lr: &[f32],
    grid: (usize, usize),
    size: (usize, usize),
    base: Base<'_>,
    segmentations: &[Vec<Mask>],
    alpha: f32,
    projection: &Projection,
) -> Vec<f32> {
    let c = projection.to;
    let projected = projection.apply(lr);
    let resample = |axis: fn(usize, usize) -> Axis| {
        let (rows, columns) = (axis(grid.0, size.0), axis(grid.1, size.1));
        resample_values(&projected, c, &rows, &columns)
    };
    let mut target = match base {
        Base::Bicubic => resample(Axis::bicubic),
        Base::Bilinear => resample(Axis::bilinear),
        // The weights depend on the image only, so projected features can be upsampled.
        Base::Jbu(image) => Jbu::new(
            JbuOptions::default(),
            (grid.1, grid.0),
            image.data(),
            (size.1, size.0),
        )
        .image(&projected, c),
    };
    refine_mean(&mut target, c, segmentations, alpha);
    target
}

/// The mean of [`area_weights`] over several segmentations.
pub fn mean_area_weights(pixels: usize, segmentations: &[Vec<Mask>], exponent: f32) -> Vec<f32> {
    let mut sum = vec![0.0; pixels];
    for masks in segmentations {
        let weights = area_weights(pixels, masks, exponent);
        sum.iter_mut().zip(weights).for_each(|(s, w)| *s += w);
    }
    let share = 1.0 / segmentations.len().max(1) as f32;
    sum.iter_mut().for_each(|s| *s *= share);
    sum
}

/// Returns the weights of `pixels` pixels: the area of the pixel's region to the power of `-exponent`,
/// scaled to a mean of 1. The region of a pixel is the last mask that contains it; pixels outside all
/// masks form one region.
pub fn area_weights(pixels: usize, masks: &[Mask], exponent: f32) -> Vec<f32> {
    let mut region = vec![0usize; pixels];
    for (i, mask) in masks.iter().enumerate() {
        for &pixel in mask.pixels() {
            region[pixel as usize] = i + 1;
        }
    }
    let mut area = vec![0.0f32; masks.len() + 1];
    for &r in &region {
        area[r] += 1.0;
    }
    let weights: Vec<f32> = area.iter().map(|a| a.powf(-exponent)).collect();
    let sum: f64 = region.iter().map(|&r| f64::from(weights[r])).sum();
    let scale = (pixels as f64 / sum) as f32;
    region.iter().map(|&r| weights[r] * scale).collect()
}

/// Mean squared difference of rows, weighted by `weights` `[n, 1]` if given.
pub fn mean_square(a: Tensor<2>, b: Tensor<2>, weights: Option<Tensor<2>>) -> Tensor<1> {
    let [n, k] = a.dims();
    let square = (a - b).square();
    let square = match weights {
        Some(weights) => square * weights,
        None => square,
    };
    sum(square) / (n * k) as f32
}

/// Sums all elements, always in the same order. (The framework's own sum of a large tensor depends on
/// which thread finishes first.)
fn sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.sum_dim(D - 1).sum()
}
