//! The weights of a ConvNeXt, with constants folded.

use loftup_onnx::Tensor;

use super::{ConvNextError, STAGES, names::Tower, preset::Sizes};
use crate::transformer::{Linear, Norm, norm, scaled};

/// All weights of the stages that are read.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    /// 4x4 with a stride of 4.
    pub stem: Linear,
    pub stem_norm: Norm,
    pub stages: Vec<Stage>,
}

/// A stage.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    /// 2x2 with a stride of 2, on normalized inputs, with the norm's scale and offset folded in. The first
    /// stage has none.
    pub downsample: Option<Linear>,
    pub blocks: Vec<Block>,
}

/// A block: `x + second(gelu(first(normalize(depthwise(x)))))`.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// `[channels, 1, 7, 7]`.
    pub depthwise: Linear,
    /// `[4 channels, channels, 1, 1]`, with the norm's scale and offset.
    pub first: Linear,
    /// `[channels, 4 channels, 1, 1]`, multiplied by `gamma`.
    pub second: Linear,
}

impl Weights {
    pub fn read(tower: &Tower<'_>, sizes: Sizes) -> Result<Self, ConvNextError> {
        let layer = |name: &str, shape: &[usize]| -> Result<Linear, ConvNextError> {
            Ok(Linear {
                weight: tower.tensor(&format!("{name}.weight"), shape)?,
                bias: tower.tensor(&format!("{name}.bias"), &shape[..1])?,
            })
        };
        let norm = |name: &str, width: usize| norm(name, width, |n, d| tower.tensor(n, d));
        let [conv, stem_norm] = tower.stem();
        let width = sizes.channels[0];
        let mut stages = Vec::with_capacity(STAGES);
        for stage in 0..STAGES {
            let width = sizes.channels[stage];
            let downsample = match stage {
                0 => None,
                _ => {
                    let before = sizes.channels[stage - 1];
                    let [norm_name, conv] = tower.downsample(stage);
                    let conv = layer(&conv, &[width, before, 2, 2])?;
                    Some(after(&norm(&norm_name, before)?, conv))
                }
            };
            let block = |block| -> Result<Block, ConvNextError> {
                let [depthwise, norm_name, first, second] = tower.layers(stage, block);
                let gamma = tower.tensor(&tower.gamma(stage, block), &[width])?;
                let first = after(
                    &norm(&norm_name, width)?,
                    layer(&first, &[4 * width, width])?,
                );
                let second = scaled(layer(&second, &[width, 4 * width])?, &gamma);
                Ok(Block {
                    depthwise: layer(&depthwise, &[width, 1, 7, 7])?,
                    first: pointwise(first),
                    second: pointwise(second),
                })
            };
            stages.push(Stage {
                downsample,
                blocks: (0..sizes.blocks[stage])
                    .map(block)
                    .collect::<Result<_, _>>()?,
            });
        }
        Ok(Self {
            stem: layer(&conv, &[width, 3, 4, 4])?,
            stem_norm: norm(&stem_norm, width)?,
            stages,
        })
    }

    /// Channels of the last stage.
    pub fn dim(&self) -> usize {
        let last = self.stages.last().and_then(|stage| stage.blocks.last());
        last.map_or(0, |block| block.depthwise.bias.shape()[0])
    }
}

/// Folds a norm's scale and offset into the layer `[out, in, ...]` after it, which has no padding.
fn after(norm: &Norm, layer: Linear) -> Linear {
    let shape = layer.weight.shape();
    let row: usize = shape[1..].iter().product();
    let taps = row / shape[1];
    let offset = |out: usize| -> f64 {
        let weights = &layer.weight.data()[out * row..][..row];
        let products = weights
            .iter()
            .enumerate()
            .map(|(i, w)| f64::from(*w) * f64::from(norm.bias.data()[i / taps]));
        products.sum()
    };
    Linear {
        bias: Tensor::from_fn([shape[0]], |out| {
            (f64::from(layer.bias.data()[out]) + offset(out)) as f32
        }),
        weight: (layer.weight.clone()).map(|i, w| w * norm.weight.data()[i % row / taps]),
    }
}

/// Converts a linear layer to a 1x1 convolution.
fn pointwise(layer: Linear) -> Linear {
    let [out, inputs] = [0, 1].map(|axis| layer.weight.shape()[axis]);
    Linear {
        weight: layer.weight.reshaped([out, inputs, 1, 1]),
        bias: layer.bias,
    }
}
