//! Vision transformer backbones, from a checkpoint to an ONNX graph.
//!
//! DINOv2 (with and without registers), DINOv3, CLIP (with the patch encodings of MaskCLIP) and
//! SigLIP differ only in names, tokens, position embeddings and activation. A [`Checkpoint`] in any of the
//! common naming schemes is read into a [`Vit`]; [`Vit::graph`] writes it for one image size, with
//! position embeddings resampled and constants folded.
//!
//! The graph maps [`INPUT`], `[1, 3, H, W]`, normalized with the [`VitConfig`]'s mean and standard
//! deviation, to [`OUTPUT`], `[1, dim, H / patch, W / patch]`.

mod colors;
mod config;
mod config_file;
mod error;
mod family;
mod graph;
mod known;
mod model_config;
mod names;
mod options;
mod outline;
mod pooling;
mod position;
mod preset;
mod published;
mod rotary;
mod schemes;
mod search;
mod unsupported;
mod weights;

pub use config::VitConfig;
pub use config_file::ConfigFiles;
pub use error::{Undecided, VitError};
pub use loftup_bundle::{Activation, Family, Origin, Positions, Setting};
pub use options::VitOptions;
pub use outline::{Outline, PositionEmbedding};
pub use preset::{Dimensions, Preset};

use crate::checkpoint::Checkpoint;

/// Name of the graph's input: the normalized image, `[1, 3, H, W]`.
pub const INPUT: &str = "image";
/// Name of the graph's output: the feature map, `[1, dim, H / patch, W / patch]`.
pub const OUTPUT: &str = "features";

/// A vision transformer: its configuration and its weights, prepared for the graph.
#[derive(Debug, Clone)]
pub struct Vit {
    config: VitConfig,
    weights: weights::Weights,
}

impl Vit {
    /// Reads the backbone `preset` from a checkpoint. Dimensions come from the weights. Heads and
    /// activation, which are not in the weights, come from `options`, `files`, or the published
    /// model with these dimensions, in this order.
    ///
    /// Registers in the weights are used even if the preset's name does not mention them.
    ///
    /// # Errors
    /// The checkpoint contains no vision transformer, one of another family or an unsupported one,
    /// or (unless the options specify heads) one of another size than `preset`; heads or activation
    /// are unknown; a config file contradicts the weights; or a tensor is missing, has the wrong
    /// shape, or is not finite.
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

    /// The outline of the vision transformer in a checkpoint, without reading its weights.
    ///
    /// # Errors
    /// There is none, it is not supported, or a config file contradicts it.
    pub fn outline(
        checkpoint: &Checkpoint,
        options: &VitOptions,
        files: &ConfigFiles,
    ) -> Result<Outline, VitError> {
        let read = || Outline::of(&search::find(checkpoint, None)?, options, files);
        read().map_err(|error| unsupported::explained(error, checkpoint))
    }

    /// The configuration.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// The backbone for images of `width` x `height` pixels, as a serialized ONNX model with static
    /// shapes and batch size 1.
    ///
    /// # Errors
    /// A side is not a positive multiple of the patch size, or the image has more than
    /// [`VitConfig::MAX_PATCHES`] patches.
    pub fn graph(&self, width: usize, height: usize) -> Result<Vec<u8>, VitError> {
        let (columns, rows) = self.config.grid_of(width, height)?;
        Ok(graph::build(&self.config, &self.weights, columns, rows))
    }
}
