//! A vision transformer in a checkpoint, independent of its naming scheme.

use std::path::PathBuf;

use super::{
    Family, VitError,
    schemes::{Position, Scheme, Swiglu},
};
use crate::{checkpoint::Checkpoint, transformer::Linear};
use loftup_onnx::Tensor;

/// Numbers of classes of ImageNet's variants, for which CLIP models are fine-tuned.
const CLASSES: [usize; 5] = [1000, 11821, 21841, 21842, 21843];

/// The form of a block's MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MlpForm {
    /// `fc2(activation(fc1(x)))`: names of the two layers.
    Plain([&'static str; 2]),
    /// `fc2(silu(gate) values)`, where the gate is the first half of the first layer: names of the
    /// two layers.
    Fused([&'static str; 2]),
    /// Same as [`MlpForm::Fused`], with separate layers for gate and values: names of the three layers.
    Split([&'static str; 3]),
}

/// A vision transformer found in a checkpoint: its naming scheme, and the prefix of its names.
#[derive(Debug)]
pub(super) struct Tower<'a> {
    pub checkpoint: &'a Checkpoint,
    pub scheme: &'static Scheme,
    prefix: String,
    /// The common prefix of all blocks.
    pub stem: String,
    /// The prefix of each block's names.
    pub blocks: Vec<String>,
}

impl<'a> Tower<'a> {
    /// The tower with this prefix.
    pub fn at(
        checkpoint: &'a Checkpoint,
        scheme: &'static Scheme,
        prefix: &str,
    ) -> Result<Self, VitError> {
        let stem = |blocks: &str| format!("{prefix}{blocks}.");
        let [first, second] = scheme.blocks;
        let any = |stem: &String| checkpoint.names().any(|name| name.starts_with(stem));
        let stem = Some(stem(second))
            .filter(|stem| !second.is_empty() && any(stem))
            .unwrap_or(stem(first));
        Ok(Self {
            blocks: find_blocks(checkpoint, scheme, &stem)?,
            checkpoint,
            scheme,
            prefix: prefix.into(),
            stem,
        })
    }

    pub fn path(&self) -> PathBuf {
        self.checkpoint.path().to_path_buf()
    }

    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Whether the tower has a tensor with this name.
    pub fn has(&self, name: &str) -> bool {
        !name.is_empty() && self.checkpoint.contains(&self.full(name))
    }

    /// A tensor of the tower.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, VitError> {
        Ok(self.checkpoint.tensor(&self.full(name), shape)?)
    }

    /// A tensor of the tower, without the leading axes of size 1 that it has in some schemes.
    pub fn squeezed(&self, name: &str, shape: &[usize]) -> Result<Tensor, VitError> {
        let full = self.full(name);
        let found = self.checkpoint.shape(&full)?.to_vec();
        let ones = found.len().saturating_sub(shape.len());
        let expected = [&vec![1; ones], shape].concat();
        Ok(self.checkpoint.tensor(&full, &expected)?.reshaped(shape))
    }

    /// A tensor of a block.
    pub fn block_tensor(
        &self,
        block: usize,
        name: &str,
        shape: &[usize],
    ) -> Result<Tensor, VitError> {
        Ok(self
            .checkpoint
            .tensor(&(self.blocks[block].clone() + name), shape)?)
    }

    /// Whether a block has a tensor with this name.
    pub fn block_has(&self, block: usize, name: &str) -> bool {
        !name.is_empty()
            && self
                .checkpoint
                .contains(&(self.blocks[block].clone() + name))
    }

    /// Whether any block has a tensor with this name.
    pub fn any_block_has(&self, name: &str) -> bool {
        (0..self.depth()).any(|block| self.block_has(block, name))
    }

    /// Form and number of hidden channels of a block's MLP.
    pub fn mlp(&self, block: usize) -> Result<(MlpForm, usize), VitError> {
        let s = self.scheme;
        let shape = |name: &str| -> Result<&[usize], VitError> {
            let name = format!("{}{name}.weight", self.blocks[block]);
            Ok(self.checkpoint.shape(&name)?)
        };
        let rows = |name: &str| Ok::<_, VitError>(shape(name)?.first().copied().unwrap_or(0));
        match s.swiglu {
            Swiglu::Fused(names) if self.block_has(block, &format!("{}.weight", names[0])) => {
                return Ok((MlpForm::Fused(names), rows(names[0])? / 2));
            }
            Swiglu::Split(names) if self.block_has(block, &format!("{}.weight", names[0])) => {
                return Ok((MlpForm::Split(names), rows(names[0])?));
            }
            _ => {}
        }
        let names = [s.fc1, s.fc2];
        let hidden = rows(s.fc1)?;
        // timm stores SwiGLU MLPs under the names of plain ones.
        let inputs = shape(s.fc2)?.get(1).copied().unwrap_or(0);
        if s.swiglu != Swiglu::None && inputs > 0 && inputs.checked_mul(2) == Some(hidden) {
            return Ok((MlpForm::Fused(names), inputs));
        }
        Ok((MlpForm::Plain(names), hidden))
    }

    /// Number of the stored periods of rotary positions.
    pub fn stored_periods(&self) -> Result<Option<usize>, VitError> {
        let name = match self.scheme.position {
            Position::Rotary(name) if self.has(name) => self.full(name),
            _ => return Ok(None),
        };
        match *self.checkpoint.shape(&name)? {
            [count] if count > 0 => Ok(Some(count)),
            ref shape => Err(self.unsupported(format!(
                "the periods of the rotary positions {name} have shape {shape:?}; expected [head width / 4]"
            ))),
        }
    }

    /// Name of the learned position embeddings.
    pub fn position_name(&self) -> &'static str {
        match self.scheme.position {
            Position::Learned(name) | Position::Rotary(name) => name,
        }
    }

    /// Whether this is one of the archives published by OpenAI, which have three numbers next to
    /// CLIP's weights that no other library saves.
    pub fn is_openai_archive(&self) -> bool {
        ["input_resolution", "context_length", "vocab_size"]
            .iter()
            .all(|name| self.checkpoint.contains(name))
    }

    /// Channels of the transformer and side of a patch.
    pub fn patch_shape(&self) -> Result<(usize, usize), VitError> {
        let name = self.full(self.scheme.patch) + ".weight";
        match *self.checkpoint.shape(&name)? {
            [width, 3, rows, columns] if rows == columns && rows > 0 && width > 0 => {
                Ok((width, rows))
            }
            ref shape => Err(self.unsupported(format!(
                "the patch embedding {name} has shape {shape:?}; expected a convolution [width, 3, patch, patch] with square patches"
            ))),
        }
    }

    /// Name of the register tokens, if there are any.
    pub fn registers_name(&self) -> Option<&'static str> {
        self.scheme
            .registers
            .into_iter()
            .find(|name| self.has(name))
    }

    /// Number of register tokens.
    pub fn registers(&self, width: usize) -> Result<usize, VitError> {
        let Some(name) = self.registers_name() else {
            return Ok(0);
        };
        let name = self.full(name);
        match *self.checkpoint.shape(&name)? {
            [1, count, w] if w == width => Ok(count),
            ref shape => Err(self.unsupported(format!(
                "the register tokens {name} have shape {shape:?}; expected [1, count, {width}]"
            ))),
        }
    }

    /// Number of position embeddings: one per patch, and usually one for the class token.
    pub fn positions(&self, width: usize) -> Result<usize, VitError> {
        let name = self.full(self.position_name());
        match *self.checkpoint.shape(&name)? {
            [1, count, w] | [count, w] if w == width => Ok(count),
            ref shape => Err(self.unsupported(format!(
                "the position embeddings {name} have shape {shape:?}; expected [1, count, {width}]"
            ))),
        }
    }

    /// Side of the grid of patches of the position embeddings.
    pub fn grid(&self, width: usize) -> Result<usize, VitError> {
        let count = self.positions(width)?;
        let patches = if self.has(self.scheme.class) {
            count.saturating_sub(1)
        } else {
            count
        };
        // timm adds the class token's position embedding to the class token.
        [patches, count]
            .into_iter()
            .find(|&n| n > 0 && n.isqrt() * n.isqrt() == n)
            .map(usize::isqrt)
            .ok_or_else(|| {
                self.unsupported(format!(
                    "{} is for {patches} patches, which is not a square number; only models trained on square images are supported",
                    self.full(self.position_name())
                ))
            })
    }

    /// Channels of the feature map.
    pub fn output_dim(&self, family: Family, width: usize) -> Result<usize, VitError> {
        if family != Family::Clip {
            return Ok(width);
        }
        let (name, axis) = self.projection_name()?;
        let shape = self.checkpoint.shape(&name)?;
        match shape {
            [_, _] if shape[1 - axis] == width && shape[axis] > 0 => Ok(shape[axis]),
            _ => Err(self.unsupported(format!(
                "the visual projection {name} has shape {shape:?}, which does not match a width of {width}"
            ))),
        }
    }

    /// CLIP's visual projection, `[dim, width]`, and its bias, `[dim]`, which only timm has.
    pub fn projection(&self, dim: usize, width: usize) -> Result<Linear, VitError> {
        let (name, axis) = self.projection_name()?;
        let bias = name
            .strip_suffix("weight")
            .map(|stem| format!("{stem}bias"))
            .filter(|bias| self.checkpoint.contains(bias));
        if bias.is_some() && CLASSES.contains(&dim) {
            return Err(self.unsupported(format!(
                "{name} has {dim} outputs: a classifier for ImageNet, not CLIP's visual projection; use the CLIP model before fine-tuning"
            )));
        }
        Ok(Linear {
            weight: match axis {
                1 => self.checkpoint.tensor(&name, &[width, dim])?.transposed(),
                _ => self.checkpoint.tensor(&name, &[dim, width])?,
            },
            bias: match bias {
                Some(bias) => self.checkpoint.tensor(&bias, &[dim])?,
                None => Tensor::from_fn([dim], |_| 0.0),
            },
        })
    }

    /// Full name of the visual projection, and the index of its output axis.
    fn projection_name(&self) -> Result<(String, usize), VitError> {
        let name = self.scheme.projection;
        let axis = usize::from(!name.ends_with("weight"));
        let full = match name.strip_prefix("../") {
            None => self.full(name),
            Some(name) => {
                let parent = self.prefix.strip_suffix("vision_model.");
                parent.unwrap_or(&self.prefix).to_string() + name
            }
        };
        if self.checkpoint.contains(&full) {
            return Ok((full, axis));
        }
        Err(self.unsupported(format!(
            "a CLIP image encoder without its visual projection {full}, which is needed for CLIP's patch features; save a model that has it (transformers: CLIPModel or CLIPVisionModelWithProjection, timm: without num_classes=0)"
        )))
    }

    /// The name in the checkpoint.
    pub fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The error for an unsupported variant, with its name if known, and the reason.
    pub fn unsupported(&self, what: String) -> VitError {
        VitError::Unsupported {
            path: self.path(),
            what,
        }
    }
}

/// The prefix of each block's names: `blocks.7.`, or `blocks.1.7.` if training split the blocks
/// into chunks (with consecutive numbers).
fn find_blocks(
    checkpoint: &Checkpoint,
    scheme: &Scheme,
    stem: &str,
) -> Result<Vec<String>, VitError> {
    let tail = format!("{}.weight", scheme.norm1);
    let mut blocks: Vec<(usize, String)> = checkpoint
        .names()
        .filter_map(|name| {
            let path = name
                .strip_prefix(stem)?
                .strip_suffix(&tail)?
                .strip_suffix('.')?;
            let number = match path.split_once('.') {
                Some((chunk, number)) => chunk.parse::<usize>().ok().map(|_| number)?,
                None => path,
            };
            Some((number.parse().ok()?, format!("{stem}{path}.")))
        })
        .collect();
    blocks.sort();
    for (i, (number, _)) in blocks.iter().enumerate() {
        if *number != i {
            let what = if *number > i {
                format!("block {stem}{i} is missing: the next one is {number}")
            } else {
                format!("block {number} of {stem}* is duplicated")
            };
            return Err(VitError::Unsupported {
                path: checkpoint.path().to_path_buf(),
                what,
            });
        }
    }
    if blocks.is_empty() {
        let what = format!("no blocks: tensor {stem}0.{tail} is missing");
        return Err(VitError::Unsupported {
            path: checkpoint.path().to_path_buf(),
            what,
        });
    }
    Ok(blocks.into_iter().map(|(_, block)| block).collect())
}
