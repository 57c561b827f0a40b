//! One step of training, as a function: weights and a batch to losses and gradients.
//!
//! Nothing is changed and nothing is drawn here, so that several devices can each do a part of a
//! batch and add up their gradients before the optimiser is asked.

use burn::tensor::{Device, Tensor};

use crate::{
    kernels::Grid,
    losses::{Companions, View, affinity, mean_square, reconstruction, total_variation},
    model::{Guidance, LoftUp, Mode, Moments, Params, Tokens, host_values},
};

/// Everything that is trained.
#[derive(Debug, Clone)]
pub struct Net {
    /// The upsampler.
    pub upsampler: LoftUp,
    /// Trained along with it, and left behind afterwards.
    pub companions: Companions,
}

impl Net {
    /// All trained weights.
    pub fn weights(&self) -> Params {
        self.upsampler
            .weights
            .clone()
            .joined(self.companions.weights.clone())
    }

    /// The same with other weights.
    pub fn with_weights(&self, weights: &Params) -> Self {
        let mut net = self.clone();
        net.upsampler.weights = weights.only(|name| self.upsampler.weights.shape(name).is_some());
        net.companions.weights = weights.only(|name| self.companions.weights.shape(name).is_some());
        net
    }
}

/// What both stages look at.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The pictures.
    pub guidance: Guidance,
    /// Features of the pictures.
    pub lr: Tokens,
    /// Views of the pictures.
    pub views: Vec<View>,
    /// What the upsampled features are compared to.
    pub target: Target,
}

/// What the upsampled features are compared to.
#[derive(Debug, Clone)]
// There is one of them at a time.
#[allow(clippy::large_enum_variant)]
pub enum Target {
    /// Stage 1: the pseudo ground truth, through a projection.
    MaskBicubic {
        /// `[batch * H * W, to]`.
        values: Tensor<2>,
        /// `[d, to]`.
        projection: Tensor<2>,
        /// How much each pixel counts, `[batch * H * W, 1]`; all alike without.
        weights: Option<Tensor<2>>,
    },
    /// Stage 2: what the teacher makes of parts of the pictures.
    Teacher(Vec<Crop>),
}

/// A part of the pictures as the teacher sees it.
#[derive(Debug, Clone)]
pub struct Crop {
    /// First row of the student's answer that is compared.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows and columns.
    pub side: usize,
    /// The teacher's features there, `[batch, side * side, d]`.
    pub features: Tensor<3>,
}

/// Weights of the terms of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Of the total variation.
    pub variation: f64,
    /// Of the affinity loss.
    pub affinity: f64,
}

/// What a step found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The sum that is minimised, then its terms before weighting, by name.
    pub losses: Vec<(&'static str, f32)>,
    /// Gradient of the sum for every trained weight.
    pub gradients: Params,
    /// What the batch normalisations saw.
    pub moments: Moments,
}

/// Pixels `top..top + side`, `left..left + side` of maps `[batch * H * W, d]`, as
/// `[batch, side * side, d]`.
fn cut(x: Tensor<2>, grid: Grid, crop: &Crop) -> Tensor<3> {
    let [_, d] = x.dims();
    x.reshape([grid.batch, grid.height, grid.width, d])
        .narrow(1, crop.top, crop.side)
        .narrow(2, crop.left, crop.side)
        .reshape([grid.batch, crop.side * crop.side, d])
}

/// Losses and gradients of a batch.
pub fn step(net: &Net, batch: &Batch, terms: Terms) -> Found {
    let tracked = net.weights().tracked();
    let net = net.with_weights(&tracked);
    let grid = batch.guidance.grid();
    let answer = net
        .upsampler
        .forward(&batch.lr, &batch.guidance, Mode::Train);
    let features = answer.features;
    let zero = || Tensor::<1>::zeros([1], &device_of(&batch.lr));
    let (mut rec, mut variation) = (zero(), zero());
    let first_stage = matches!(batch.target, Target::MaskBicubic { .. });
    for (i, view) in batch.views.iter().enumerate() {
        let wants_variation = i == 0 && first_stage && terms.variation > 0.0;
        let (loss, seen) = reconstruction(
            &net.companions,
            features.clone(),
            grid,
            view,
            wants_variation,
        );
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
        } => (
            "mask_bicubic",
            mean_square(
                features.matmul(projection.clone()),
                values.clone(),
                weights.clone(),
            ),
            1.0,
        ),
        Target::Teacher(crops) => {
            if terms.variation > 0.0 && !batch.views.is_empty() {
                variation = total_variation(features.clone(), grid);
            }
            let mut sum = zero();
            for crop in crops {
                let found = affinity(cut(features.clone(), grid, crop), crop.features.clone());
                sum = sum + found / crops.len() as f32;
            }
            ("affinity", sum, terms.affinity)
        }
    };
    let total = rec.clone() + variation.clone() * terms.variation + main.clone() * weight;
    let value = |x: &Tensor<1>| host_values(x)[0];
    let mut losses = vec![("loss", value(&total)), (name, value(&main))];
    if !batch.views.is_empty() {
        losses.extend([
            ("reconstruction", value(&rec)),
            ("total_variation", value(&variation)),
        ]);
    }
    let mut found = total.backward();
    Found {
        losses,
        gradients: tracked.gradients(&mut found),
        moments: answer.moments,
    }
}

fn device_of(lr: &Tokens) -> Device {
    lr.values.device().without_autodiff()
}
