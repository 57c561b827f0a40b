//! The names of a ConvNeXt's tensors.

use std::collections::BTreeMap;

use loftup_onnx::Tensor;

use super::{ConvNextError, STAGES, preset::Sizes};
use crate::checkpoint::{Checkpoint, listed, teacher_of};

/// A naming scheme. `{i}` is a stage, `{j}` a block of it. Names are relative to the network; names after
/// `block` are relative to a block.
#[derive(Debug)]
struct Scheme {
    /// The suffix that identifies the scheme.
    marker: &'static str,
    /// Convolution and norm of the stem.
    stem: [&'static str; 2],
    /// Norm and convolution before a later stage.
    downsample: [&'static str; 2],
    block: &'static str,
    /// Depthwise convolution, norm, and the two linear layers.
    layers: [&'static str; 4],
}

const SCHEMES: [Scheme; 3] = [
    // facebookresearch.
    Scheme {
        marker: "stages.0.0.dwconv.weight",
        stem: ["downsample_layers.0.0", "downsample_layers.0.1"],
        downsample: ["downsample_layers.{i}.0", "downsample_layers.{i}.1"],
        block: "stages.{i}.{j}.",
        layers: ["dwconv", "norm", "pwconv1", "pwconv2"],
    },
    // timm.
    Scheme {
        marker: "stages.0.blocks.0.conv_dw.weight",
        stem: ["stem.0", "stem.1"],
        downsample: ["stages.{i}.downsample.0", "stages.{i}.downsample.1"],
        block: "stages.{i}.blocks.{j}.",
        layers: ["conv_dw", "norm", "mlp.fc1", "mlp.fc2"],
    },
    // Hugging Face transformers.
    Scheme {
        marker: "stages.0.layers.0.depthwise_conv.weight",
        stem: [
            "stages.0.downsample_layers.0",
            "stages.0.downsample_layers.1",
        ],
        downsample: [
            "stages.{i}.downsample_layers.0",
            "stages.{i}.downsample_layers.1",
        ],
        block: "stages.{i}.layers.{j}.",
        layers: [
            "depthwise_conv",
            "layer_norm",
            "pointwise_conv1",
            "pointwise_conv2",
        ],
    },
];

/// A ConvNeXt in a checkpoint.
pub(super) struct Tower<'a> {
    checkpoint: &'a Checkpoint,
    scheme: &'static Scheme,
    prefix: String,
}

impl<'a> Tower<'a> {
    /// Finds the only ConvNeXt in a checkpoint; of a student and its teacher, the teacher.
    pub fn find(checkpoint: &'a Checkpoint) -> Result<Self, ConvNextError> {
        let mut found: BTreeMap<&str, &'static Scheme> = BTreeMap::new();
        for scheme in &SCHEMES {
            for prefix in checkpoint.prefixes(scheme.marker) {
                found.insert(prefix, scheme);
            }
        }
        let prefixes: Vec<&str> = found.keys().copied().collect();
        let prefix = match (&prefixes[..], teacher_of(&prefixes)) {
            ([], _) => {
                return Err(ConvNextError::NotAConvNext {
                    path: checkpoint.path().into(),
                    found: checkpoint.names().take(3).map(String::from).collect(),
                });
            }
            ([prefix], _) => *prefix,
            (_, Some(teacher)) => {
                log::warn!(
                    "{}: found ConvNeXts at {}; using the teacher {teacher}*; select another with --prefix",
                    checkpoint.path().display(),
                    listed(prefixes.iter().copied()),
                );
                teacher
            }
            _ => {
                return Err(ConvNextError::Ambiguous {
                    path: checkpoint.path().into(),
                    example: prefixes[0].trim_end_matches('.').into(),
                    prefixes: listed(prefixes.iter().copied()),
                });
            }
        };
        Ok(Self {
            checkpoint,
            scheme: found[prefix],
            prefix: prefix.into(),
        })
    }

    /// Channels and blocks of each stage.
    pub fn sizes(&self) -> Result<Sizes, ConvNextError> {
        let mut sizes = Sizes {
            channels: [0; STAGES],
            blocks: [0; STAGES],
        };
        for stage in 0..STAGES {
            let [depthwise, ..] = self.layers(stage, 0);
            let name = format!("{depthwise}.weight");
            sizes.channels[stage] = match *self.checkpoint.shape(&name)? {
                [channels, 1, 7, 7] if channels > 0 => channels,
                ref shape => {
                    return Err(ConvNextError::Shape {
                        path: self.checkpoint.path().into(),
                        name,
                        shape: shape.to_vec(),
                        expected: "a depthwise convolution [channels, 1, 7, 7]",
                    });
                }
            };
            let there = |block: &usize| {
                let [depthwise, ..] = self.layers(stage, *block);
                self.checkpoint.contains(&format!("{depthwise}.weight"))
            };
            sizes.blocks[stage] = (0..).take_while(there).count();
        }
        let v2 = self.block(0, 0);
        if self
            .checkpoint
            .names()
            .any(|n| n.starts_with(&v2) && n.contains(".grn."))
        {
            return Err(ConvNextError::V2 {
                path: self.checkpoint.path().into(),
            });
        }
        Ok(sizes)
    }

    /// Convolution and norm of the stem.
    pub fn stem(&self) -> [String; 2] {
        self.scheme
            .stem
            .map(|name| format!("{}{name}", self.prefix))
    }

    /// Norm and convolution before a later stage.
    pub fn downsample(&self, stage: usize) -> [String; 2] {
        let name = |name: &str| format!("{}{}", self.prefix, numbered(name, stage, 0));
        self.scheme.downsample.map(name)
    }

    /// Depthwise convolution, norm, and the two linear layers of a block.
    pub fn layers(&self, stage: usize, block: usize) -> [String; 4] {
        self.scheme
            .layers
            .map(|name| self.block(stage, block) + name)
    }

    /// Name of the factors of a block's channels (LayerScale).
    pub fn gamma(&self, stage: usize, block: usize) -> String {
        self.block(stage, block) + "gamma"
    }

    /// Reads a tensor by its full name.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ConvNextError> {
        Ok(self.checkpoint.tensor(name, shape)?)
    }

    fn block(&self, stage: usize, block: usize) -> String {
        format!(
            "{}{}",
            self.prefix,
            numbered(self.scheme.block, stage, block)
        )
    }
}

fn numbered(name: &str, stage: usize, block: usize) -> String {
    name.replace("{i}", &stage.to_string())
        .replace("{j}", &block.to_string())
}
