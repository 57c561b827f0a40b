//! One training step, as a function from weights and a batch to losses and gradients.
//!
//! It has no side effects and draws no random numbers, so that several devices can each process a
//! part of a batch and sum their gradients before the optimizer step.

use burn::tensor::{Device, Tensor};

use crate::{
    kernels::Grid,
    losses::{
        AuxModules, View, affinity, gradient_matching, mean_square, reconstruction, total_variation,
    },
    model::{BatchStats, Guidance, Mode, Params, Tokens, Upsampler, host_values},
};

/// Everything that is trained.
#[derive(Debug, Clone)]
pub struct Trainable {
    /// The upsampler.
    pub upsampler: Upsampler,
    /// Auxiliary modules that only training needs.
    pub aux: AuxModules,
}

impl Trainable {
    /// All trained weights.
    pub fn weights(&self) -> Params {
        let upsampler = self.upsampler.weights().clone();
        upsampler.joined(self.aux.weights.clone())
    }

    /// Returns the same modules with other weights.
    pub fn with_weights(&self, weights: &Params) -> Self {
        let mut net = self.clone();
        let own = self.upsampler.weights();
        net.upsampler
            .set_weights(weights.only(|name| own.shape(name).is_some()));
        net.aux.weights = weights.only(|name| self.aux.weights.shape(name).is_some());
        net
    }
}

/// Inputs of a step of either stage.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The images.
    pub guidance: Guidance,
    /// Features of the images.
    pub lr: Tokens,
    /// Views of the images.
    pub views: Vec<View>,
    /// Target of the upsampled features.
    pub target: Target,
    /// Rows and columns of the output, if they differ from the guidance's.
    pub output: Option<(usize, usize)>,
    /// Factor of the coordinates of NAF's rotary encoding; 1 outside of training.
    pub coordinate_scale: f32,
    /// The statistics used by batch normalization.
    pub batch_norm: Mode,
}

/// Target of the upsampled features.
#[derive(Debug, Clone)]
// Only one exists at a time, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum Target {
    /// Stage 1: the projected pseudo ground truth.
    MaskBicubic {
        /// `[batch * H * W, to]`.
        values: Tensor<2>,
        /// `[d, to]`.
        projection: Tensor<2>,
        /// Weight of each pixel, `[batch * H * W, 1]`; equal weights if `None`.
        weights: Option<Tensor<2>>,
    },
    /// Stage 2: the teacher's features of crops.
    Teacher(Vec<Crop>),
}

/// The teacher's features of a crop.
#[derive(Debug, Clone)]
pub struct Crop {
    /// First row of the compared part of the student's output.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows and columns.
    pub side: usize,
    /// The teacher's features there, `[batch, side * side, d]`.
    pub features: Tensor<3>,
}

/// Weights of the losses in their sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Weight of the squared error of stage 1.
    pub mse: f64,
    /// Weight of gradient matching in stage 1.
    pub gradient: f64,
    /// Weight of the total variation loss.
    pub total_variation: f64,
    /// Weight of the affinity loss.
    pub affinity: f64,
}

/// Losses, gradients and batch statistics of a step.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// The total loss, then its terms before weighting, by name.
    pub losses: Vec<(&'static str, f32)>,
    /// Gradient of the total loss with respect to every trained weight.
    pub gradients: Params,
    /// Statistics of the batch normalizations.
    pub batch_stats: BatchStats,
}

/// Cuts pixels `top..top + side`, `left..left + side` out of maps `[batch * H * W, d]`:
/// `[batch, side * side, d]`.
fn cut(x: Tensor<2>, grid: Grid, crop: &Crop) -> Tensor<3> {
    let [_, d] = x.dims();
    x.reshape([grid.batch, grid.height, grid.width, d])
        .narrow(1, crop.top, crop.side)
        .narrow(2, crop.left, crop.side)
        .reshape([grid.batch, crop.side * crop.side, d])
}

/// Computes losses and gradients of a batch.
pub fn step(net: &Trainable, batch: &Batch, loss_weights: LossWeights) -> StepOutput {
    let tracked = net.weights().tracked();
    let mut net = net.with_weights(&tracked);
    if let Upsampler::Naf(naf) = &mut net.upsampler {
        naf.scale_coordinates(batch.coordinate_scale);
    }
    let mut grid = batch.guidance.grid();
    if let Some((height, width)) = batch.output {
        (grid.height, grid.width) = (height, width);
    }
    let size = (grid.height, grid.width);
    let output = net
        .upsampler
        .forward(&batch.lr, &batch.guidance, size, batch.batch_norm);
    let features = output.features;
    let zero = || Tensor::<1>::zeros([1], &device_of(&batch.lr));
    let (mut rec, mut variation, mut gradient) = (zero(), zero(), None);
    let first_stage = matches!(batch.target, Target::MaskBicubic { .. });
    for (i, view) in batch.views.iter().enumerate() {
        let wants_variation = i == 0 && first_stage && loss_weights.total_variation > 0.0;
        let (loss, seen) = reconstruction(&net.aux, features.clone(), grid, view, wants_variation);
        rec = rec + loss / batch.views.len() as f32;
        if let Some(seen) = seen {
            variation = seen;
        }
    }
    let (name, main, weight) = match &batch.target {
        Target::MaskBicubic {
            values,
            projection,
            weights,
        } => {
            let projected = features.matmul(projection.clone());
            if loss_weights.gradient > 0.0 {
                let error = projected.clone() - values.clone();
                gradient = Some(gradient_matching(error, grid));
            }
            let mse = mean_square(projected, values.clone(), weights.clone());
            ("mask_bicubic", mse, loss_weights.mse)
        }
        Target::Teacher(crops) => {
            if loss_weights.total_variation > 0.0 && !batch.views.is_empty() {
                variation = total_variation(features.clone(), grid);
            }
            let mut sum = zero();
            for crop in crops {
                let found = affinity(cut(features.clone(), grid, crop), crop.features.clone());
                sum = sum + found / crops.len() as f32;
            }
            ("affinity", sum, loss_weights.affinity)
        }
    };
    let mut total =
        rec.clone() + variation.clone() * loss_weights.total_variation + main.clone() * weight;
    if let Some(gradient) = &gradient {
        total = total + gradient.clone() * loss_weights.gradient;
    }
    let value = |x: &Tensor<1>| host_values(x)[0];
    let mut losses = vec![("loss", value(&total)), (name, value(&main))];
    losses.extend(gradient.iter().map(|g| ("gradient_matching", value(g))));
    if !batch.views.is_empty() {
        losses.extend([
            ("reconstruction", value(&rec)),
            ("total_variation", value(&variation)),
        ]);
    }
    let mut found = total.backward();
    StepOutput {
        losses,
        gradients: tracked.gradients(&mut found),
        batch_stats: output.batch_stats,
    }
}

fn device_of(lr: &Tokens) -> Device {
    lr.values.device().without_autodiff()
}

#[cfg(test)]
mod tests;
