//! Frozen backbones: vision transformers from a checkpoint to an ONNX graph.
//!
//! DINOv2 (with and without registers), CLIP (with the patch encodings of MaskCLIP) and SigLIP
//! differ in names, tokens, position embeddings and activation, and in nothing else. A
//! [`Checkpoint`] in any of the usual naming schemes becomes one [`Vit`]; [`Vit::graph`] writes it
//! for one picture size, position embeddings resampled and constants folded.
//!
//! The graph takes [`INPUT`], `[1, 3, H, W]`, already normalized with the [`VitConfig`]'s mean and
//! standard deviation, and gives [`OUTPUT`], `[1, dim, H / patch, W / patch]`.

mod config;
mod config_file;
mod error;
mod graph;
mod linear;
mod names;
mod options;
mod outline;
mod position;
mod preset;
mod published;
mod schemes;
mod search;
mod unsupported;
mod weights;

pub use config::VitConfig;
pub use config_file::ConfigFiles;
pub use error::{Undecided, VitError};
pub use loftup_bundle::{Activation, Family, Origin, Positions, Setting};
pub use options::VitOptions;
pub use outline::Outline;
pub use preset::{Dimensions, Preset};

use crate::checkpoint::Checkpoint;

/// Name of the graph's input: the normalized picture, `[1, 3, H, W]`.
pub const INPUT: &str = "image";
/// Name of the graph's output: the feature map, `[1, dim, H / patch, W / patch]`.
pub const OUTPUT: &str = "features";

/// A vision transformer: its configuration and its weights, ready to be written as a graph.
#[derive(Debug, Clone)]
pub struct Vit {
    config: VitConfig,
    weights: weights::Weights,
}

impl Vit {
    /// Takes the backbone called `preset` out of a checkpoint. Dimensions are those of the
    /// weights. Heads and activation, which cannot be seen in them, are those of `options`, else
    /// of `files`, else of the published model with these dimensions.
    ///
    /// Registers that the weights have and the preset's name does not mention are used.
    ///
    /// # Errors
    /// Where the checkpoint holds no vision transformer, one of another family, one that the
    /// graph cannot express, or (unless the options give heads) one of another size than `preset`;
    /// where heads or activation are not known; where a config file contradicts the weights; and
    /// where a tensor is missing, misshapen or not finite.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        preset: Preset,
        options: &VitOptions,
        files: &ConfigFiles,
    ) -> Result<Self, VitError> {
        let read = || {
            let tower = search::find(checkpoint, Some(preset))?;
            let config = VitConfig::read(&tower, preset, options, files)?;
            let weights = weights::Weights::read(&tower, &config)?;
            Ok(Self { config, weights })
        };
        read().map_err(|error| unsupported::explained(error, checkpoint))
    }

    /// What is known about the vision transformer in a checkpoint, before its weights are read.
    ///
    /// # Errors
    /// Where there is none, one that is not supported, or a config file contradicts it.
    pub fn outline(
        checkpoint: &Checkpoint,
        options: &VitOptions,
        files: &ConfigFiles,
    ) -> Result<Outline, VitError> {
        let read = || Outline::of(&search::find(checkpoint, None)?, options, files);
        read().map_err(|error| unsupported::explained(error, checkpoint))
    }

    /// What the backbone is, and how its input is prepared.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// The backbone for pictures of `width` x `height` pixels, as a serialized ONNX model with
    /// static shapes and batch 1.
    ///
    /// # Errors
    /// Where a side is not a positive multiple of the patch, or the picture has more than
    /// [`VitConfig::MAX_PATCHES`] patches.
    pub fn graph(&self, width: usize, height: usize) -> Result<Vec<u8>, VitError> {
        let (columns, rows) = self.config.grid_of(width, height)?;
        Ok(graph::build(&self.config, &self.weights, columns, rows))
    }
}
