//! A step's batch in host memory, and its transfer to a device.

use burn::tensor::{Device, Tensor, TensorData};
use loftup_bundle::Size;

use loftup_runtime::{Features, Rect};
use loftup_spec::HALO;

use crate::{
    config::Config,
    kernels::Grid,
    losses::{Projection, View},
    model::{Guidance, LoftUp, Mode, Tokens, device_matrix},
    resample::Jitter,
    step::{Batch, Crop, Target},
    teacher::{Part, Region, encode},
};

/// A step's batch in host memory.
#[derive(Debug, Clone)]
pub struct HostBatch {
    /// Size of the images.
    pub(crate) size: Size,
    /// Rows and columns of the output, if it is not `size`.
    pub(crate) output: Option<(usize, usize)>,
    /// Factor of the coordinates of NAF's rotary encoding.
    pub(crate) coordinate_scale: f32,
    /// Windows of the output to compute; the whole output if `None`.
    pub(crate) windows: Option<Windows>,
    pub(crate) images: Vec<Vec<f32>>,
    pub(crate) lr: Vec<Features>,
    pub(crate) views: Vec<HostView>,
    pub(crate) target: HostTarget,
}

/// A window of each image's output.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    pub(crate) size: Size,
    /// First row and column of each window.
    pub(crate) corners: Vec<(usize, usize)>,
}

impl Windows {
    /// The window of image `image`.
    pub(crate) fn rect(&self, image: usize) -> Rect {
        let (top, left) = self.corners[image];
        Rect {
            x: left,
            y: top,
            width: self.size.width,
            height: self.size.height,
        }
    }

    /// Weight of each pixel of windows in outputs of size `of`: 0 where the convolutions reach a window
    /// edge that is not an image edge, otherwise 1.
    pub(crate) fn weights(&self, of: Size) -> Vec<f32> {
        let complete = |i: usize, first: usize, len: usize, whole: usize| {
            (i >= HALO || first == 0) && (i + HALO < len || first + len == whole)
        };
        let Size { width, height } = self.size;
        let mut weights = Vec::with_capacity(self.corners.len() * width * height);
        for &(top, left) in &self.corners {
            for y in 0..height {
                let row = complete(y, top, height, of.height);
                weights.extend(
                    (0..width).map(|x| f32::from(row && complete(x, left, width, of.width))),
                );
            }
        }
        weights
    }
}

#[derive(Debug, Clone)]
pub(crate) struct HostView {
    pub(crate) jitter: Jitter,
    pub(crate) lr: Vec<Features>,
    pub(crate) kept: Vec<f32>,
    pub(crate) projection: Projection,
}

#[derive(Debug, Clone)]
pub(crate) enum HostTarget {
    MaskBicubic {
        values: Vec<f32>,
        projection: Projection,
        /// Weight of each pixel; empty if all are equal.
        weights: Vec<f32>,
    },
    Crops(Vec<HostCrop>),
}

/// A crop of every image, at the same position.
#[derive(Debug, Clone)]
pub(crate) struct HostCrop {
    pub(crate) region: Region,
    pub(crate) parts: Vec<Part>,
}

impl HostBatch {
    /// Moves the batch to a device. In stage 2, the teacher computes its features.
    ///
    /// # Panics
    /// If it is a stage 2 batch and there is no teacher.
    pub fn on(self, config: &Config, teacher: Option<&LoftUp>, device: &Device) -> Batch {
        let slices: Vec<&[f32]> = self.images.iter().map(Vec::as_slice).collect();
        let Size { width, height } = self.size;
        let guidance = Guidance::of(config.upsampler, &slices, height, width, config.loss.range);
        let guidance = match &self.windows {
            Some(Windows { size, corners }) => guidance.windows(corners, size.height, size.width),
            None => guidance,
        };
        let views = self.views.into_iter().map(|v| View {
            jitter: v.jitter,
            lr: tokens(&v.lr, device),
            kept: v.kept,
            projection: v.projection,
        });
        let target = match self.target {
            HostTarget::MaskBicubic {
                values,
                projection,
                weights,
            } => {
                let rows = values.len() / projection.to;
                let weighted = !weights.is_empty();
                Target::MaskBicubic {
                    weights: weighted.then(|| device_matrix(weights, rows, 1, device)),
                    values: device_matrix(values, rows, projection.to, device),
                    projection: projection.matrix(device),
                }
            }
            HostTarget::Crops(crops) => {
                let Some(teacher) = teacher else {
                    panic!("stage 2 without a teacher")
                };
                let alpha = config.stage2.alpha;
                let seen = |crop: HostCrop| {
                    let region = crop.region;
                    let features: Vec<f32> = crop
                        .parts
                        .iter()
                        .flat_map(|part| encode(teacher, part, alpha, &region, device))
                        .collect();
                    let shape = [
                        crop.parts.len(),
                        region.inner() * region.inner(),
                        teacher.config.dim,
                    ];
                    Crop {
                        top: region.top + region.border,
                        left: region.left + region.border,
                        side: region.inner(),
                        features: Tensor::from_data(TensorData::new(features, shape), device),
                    }
                };
                Target::Teacher(crops.into_iter().map(seen).collect())
            }
        };
        Batch {
            guidance,
            lr: tokens(&self.lr, device),
            views: views.collect(),
            target,
            output: self.output,
            coordinate_scale: self.coordinate_scale,
            batch_norm: match config.optimizer.freeze_batch_norm {
                true => Mode::Eval,
                false => Mode::Train,
            },
        }
    }
}

/// Concatenates the tokens of several images.
pub(crate) fn tokens(lr: &[Features], device: &Device) -> Tokens {
    let grid = Grid {
        batch: lr.len(),
        height: lr[0].height,
        width: lr[0].width,
    };
    let values: Vec<f32> = lr.iter().flat_map(|t| &t.tokens).copied().collect();
    let dim = values.len() / grid.pixels();
    Tokens {
        values: device_matrix(values, grid.pixels(), dim, device),
        grid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{RangeOver, cut, host_values, init},
        rng::{Purpose, Rng},
    };

    #[test]
    fn weighted_pixels_of_a_window_are_those_of_the_whole_output() {
        let device = Device::flex();
        let mut rng = Rng::new(3, Purpose::Weights, 0);
        let config = init::published(16);
        let model = LoftUp::new(config, init::random(&config, &mut rng), &device);
        let (whole, part) = (
            Size {
                width: 23,
                height: 17,
            },
            Size {
                width: 11,
                height: 9,
            },
        );
        // Both corners, one edge, and the middle.
        let corners = vec![(0, 0), (8, 12), (0, 7), (4, 5)];
        let images: Vec<Vec<f32>> = (0..corners.len())
            .map(|_| (0..3 * whole.area()).map(|_| rng.normal()).collect())
            .collect();
        let grid = Grid {
            batch: corners.len(),
            height: 2,
            width: 3,
        };
        let values = (0..grid.pixels() * config.dim).map(|_| rng.normal());
        let lr = Tokens {
            values: device_matrix(values.collect(), grid.pixels(), config.dim, &device),
            grid,
        };
        let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let guidance = Guidance::new(&slices, whole.height, whole.width, RangeOver::Image);
        let output =
            |guidance: &Guidance| host_values(&model.forward(&lr, guidance, Mode::Eval).features);
        let expected = cut(
            &output(&guidance),
            config.dim,
            (whole.height, whole.width),
            &corners,
            (part.height, part.width),
        );
        let found = output(&guidance.windows(&corners, part.height, part.width));
        let windows = Windows {
            size: part,
            corners,
        };
        let (mut worst, mut outside) = (0.0f32, 0.0f32);
        let rows = found.chunks_exact(config.dim);
        let rows = rows.zip(expected.chunks_exact(config.dim));
        let weights = windows.weights(whole);
        for ((a, b), weight) in rows.zip(&weights) {
            let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs());
            let most = if *weight > 0.0 {
                &mut worst
            } else {
                &mut outside
            };
            *most = difference.fold(*most, f32::max);
        }
        println!("worst difference: {worst:.1e} where it counts, {outside:.1e} at inner edges");
        // The same arithmetic, in blocks of other pixels.
        assert!(worst < 1e-5);
        assert!(outside > 1e-2);
        // Two rows or columns at each inner edge: 2 edges, 2, 3 and 4.
        let counted = weights.iter().filter(|w| **w > 0.0).count();
        assert_eq!(counted, 9 * 7 + 9 * 7 + 7 * 7 + 7 * 5);
    }
}
