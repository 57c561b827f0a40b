//! A step's batch in host memory, and its transfer to a device.

use burn::tensor::{Device, Tensor, TensorData};
use loftup_bundle::Size;

use loftup_runtime::Features;

use crate::{
    config::Config,
    kernels::Grid,
    losses::{Projection, View},
    model::{Guidance, LoftUp, Tokens, device_matrix},
    resample::Jitter,
    step::{Batch, Crop, Target},
    teacher::{Part, Region, encode},
};

/// A step's batch in host memory.
#[derive(Debug, Clone)]
pub struct HostBatch {
    pub(crate) size: Size,
    pub(crate) images: Vec<Vec<f32>>,
    pub(crate) lr: Vec<Features>,
    pub(crate) views: Vec<HostView>,
    pub(crate) target: HostTarget,
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

/// A crop of every image, at the same place.
#[derive(Debug, Clone)]
pub(crate) struct HostCrop {
    pub(crate) region: Region,
    pub(crate) parts: Vec<Part>,
}

impl HostBatch {
    /// The batch on a device. In stage 2 the teacher computes its features.
    ///
    /// # Panics
    /// If it is a batch of stage 2 and there is no teacher.
    pub fn on(self, config: &Config, teacher: Option<&LoftUp>, device: &Device) -> Batch {
        let slices: Vec<&[f32]> = self.images.iter().map(Vec::as_slice).collect();
        let guidance = Guidance::new(
            &slices,
            self.size.height,
            self.size.width,
            config.loss.range,
        );
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
        }
    }
}

/// Tokens of several images, one after another.
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
