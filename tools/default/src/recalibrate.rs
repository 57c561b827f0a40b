//! Batch statistics of a trained upsampler.
//!
//! The running statistics of a training are averages over its last few batches, at its resolution.
//! Here they are recomputed over many scenes, at the resolution of inference.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use burn::tensor::Device;
use loftup_bundle::Size;
use loftup_import::checkpoint::Checkpoint;
use loftup_onnx::Tensor;
use loftup_runtime::image::RgbImage;
use loftup_train::{
    backbone::Backbone,
    kernels::Grid,
    model::{Guidance, LoftUp, Mode, RangeOver, Tokens, device_matrix, host_values, init},
};

use crate::{
    Progress,
    scenes::{Part, SIDE, labeled},
};

/// Scenes per pass.
const BATCH_SIZE: usize = 2;

/// All tensors of the upsampler in `weights`, with batch statistics over `scenes` scenes.
///
/// # Errors
/// The weights or the bundle cannot be read, or there are no scenes.
pub fn recalibrate_batch_norm(
    weights: &Path,
    bundle: &Path,
    scenes: usize,
    device: &Device,
    progress: Progress<'_>,
) -> Result<BTreeMap<String, Tensor>> {
    let checkpoint = Checkpoint::open(weights)?;
    let config = *loftup_import::loftup::read(&checkpoint)?.config();
    let start = init::from_checkpoint(&checkpoint, &config)?;
    let mut tensors = start.weights.clone();
    tensors.extend(start.statistics.clone());
    let upsampler = LoftUp::new(config, start, device);
    let backbone = Backbone::open(bundle, None)?;
    let size = Size {
        width: SIDE,
        height: SIDE,
    };
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let passes = scenes.div_ceil(BATCH_SIZE);
    for pass in 0..passes {
        progress(
            "statistics of the upsampler",
            pass as u64,
            passes as u64,
            "",
        );
        let (mut images, mut values) = (Vec::new(), Vec::new());
        let mut grid = Grid {
            batch: BATCH_SIZE,
            height: 0,
            width: 0,
        };
        for frame in labeled(Part::Upsampler, pass * BATCH_SIZE..(pass + 1) * BATCH_SIZE) {
            let image = backbone.normalized(&RgbImage::new(SIDE, SIDE, frame.rgb)?);
            let features = backbone.features(image.clone(), size)?;
            (grid.height, grid.width) = (features.height, features.width);
            values.extend(features.tokens);
            images.push(image);
        }
        let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let guidance = Guidance::new(&slices, SIDE, SIDE, RangeOver::Image);
        let lr = Tokens {
            values: device_matrix(values, grid.pixels(), config.dim, device),
            grid,
        };
        for (name, moment) in upsampler.forward(&lr, &guidance, Mode::Train).batch_stats {
            let found = host_values(&moment);
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; found.len()]);
            for (s, x) in sum.iter_mut().zip(found) {
                *s += f64::from(x);
            }
        }
    }
    anyhow::ensure!(!sums.is_empty(), "no scenes: statistics need at least one");
    for (name, sum) in sums {
        let old = tensors
            .get_mut(&name)
            .with_context(|| format!("{}: tensor {name} is missing", weights.display()))?;
        *old = Tensor::from_fn([sum.len()], |i| (sum[i] / passes as f64) as f32);
    }
    Ok(tensors)
}
