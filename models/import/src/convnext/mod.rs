//! ConvNeXt backbones (Liu et al., 2022), as DINOv3's, from a checkpoint to an ONNX graph.
//!
//! The features are the output of the third of four stages: a grid with a stride of 16 pixels, without a final
//! norm. The fourth stage, with a stride of 32, is not read.
//!
//! The graph maps [`INPUT`], `[1, 3, H, W]`, of any size in multiples of 16, to [`OUTPUT`],
//! `[1, dim, H / 16, W / 16]`.

mod graph;
mod names;
mod preset;
mod weights;

pub use crate::vit::{INPUT, OUTPUT};
pub use preset::Preset;

use std::path::PathBuf;

use crate::checkpoint::{Checkpoint, CheckpointError};

/// Number of stages that are read.
const STAGES: usize = 3;
/// Stride of the features, in pixels.
pub const STRIDE: usize = 16;
/// Epsilon of all layer norms.
const EPS: f32 = 1e-6;

/// The backbone cannot be created. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvNextError {
    /// A tensor is missing, has the wrong shape, or is not finite.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The names in the checkpoint do not match a ConvNeXt.
    #[error("{}: no ConvNeXt in a known naming scheme (facebookresearch, timm, transformers); it contains tensors such as {}", path.display(), found.join(", "))]
    NotAConvNext {
        /// The checkpoint file.
        path: PathBuf,
        /// A few names in it.
        found: Vec<String>,
    },
    /// The checkpoint contains several ConvNeXts.
    #[error("{}: contains several ConvNeXts, at {prefixes}; select one with --prefix, such as --prefix {example}", path.display())]
    Ambiguous {
        /// The checkpoint file.
        path: PathBuf,
        /// The prefix of each.
        prefixes: String,
        /// One of them, as a command-line argument.
        example: String,
    },
    /// The sizes of the weights do not match the requested backbone.
    #[error("{}: contains a ConvNeXt with {found}, not {asked}; use the backbone name {suggestion}", path.display())]
    WrongSize {
        /// The checkpoint file.
        path: PathBuf,
        /// Channels and blocks of the weights.
        found: String,
        /// The requested name.
        asked: &'static str,
        /// The name that fits.
        suggestion: &'static str,
    },
    /// A tensor with a shape that no ConvNeXt has.
    #[error("{}: {name} has shape {shape:?}; expected {expected}", path.display())]
    Shape {
        /// The checkpoint file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The expected shape.
        expected: &'static str,
    },
    /// A setting that only vision transformers have.
    #[error("{option} is for vision transformers, and {asked} has none of that: leave it out")]
    Setting {
        /// The command-line option.
        option: &'static str,
        /// The requested name.
        asked: &'static str,
    },
    /// ConvNeXt V2.
    #[error("{}: contains a ConvNeXt V2, which is not supported; export the model to ONNX and use --backbone-onnx and --patch", path.display())]
    V2 {
        /// The checkpoint file.
        path: PathBuf,
    },
}

/// A ConvNeXt up to its third stage.
#[derive(Debug, Clone)]
pub struct ConvNext {
    preset: Preset,
    weights: weights::Weights,
}

impl ConvNext {
    /// Reads the backbone `preset` from a checkpoint. All sizes come from the weights.
    ///
    /// # Errors
    /// The checkpoint contains no ConvNeXt, several, or one of another size; or a tensor is missing, has the
    /// wrong shape, or is not finite.
    pub fn from_checkpoint(checkpoint: &Checkpoint, preset: Preset) -> Result<Self, ConvNextError> {
        let tower = names::Tower::find(checkpoint)?;
        let found = tower.sizes()?;
        if !preset.fits(found) {
            return Err(ConvNextError::WrongSize {
                path: checkpoint.path().into(),
                found: found.to_string(),
                asked: preset.name(),
                suggestion: Preset::fitting(found).name(),
            });
        }
        let weights = weights::Weights::read(&tower, found)?;
        Ok(Self { preset, weights })
    }

    /// Whether a checkpoint contains a ConvNeXt.
    pub fn found(checkpoint: &Checkpoint) -> bool {
        names::Tower::find(checkpoint).is_ok()
    }

    /// Describes the ConvNeXt in a checkpoint in one line, without reading its weights.
    ///
    /// # Errors
    /// The checkpoint contains no ConvNeXt, several, or one of another version.
    pub fn outline(checkpoint: &Checkpoint) -> Result<String, ConvNextError> {
        let found = names::Tower::find(checkpoint)?.sizes()?;
        let name = Preset::fitting(found).name();
        Ok(format!("ConvNeXt ({name}), {found} to stage {STAGES}"))
    }

    /// The preset that it was read with.
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// Number of feature channels.
    pub fn dim(&self) -> usize {
        self.weights.dim()
    }

    /// The backbone as a serialized ONNX model for one image of any size in multiples of [`STRIDE`].
    pub fn graph(&self) -> Vec<u8> {
        graph::build(&self.weights)
    }
}
