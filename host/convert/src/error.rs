//! Conversion errors.

use std::path::PathBuf;

use loftup_bundle::BundleError;
use loftup_import::{
    checkpoint::CheckpointError, convnext::ConvNextError, onnx::ImportError, vit::VitError,
};

/// Why a conversion failed. The message is one line. Nothing is left at the destination.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A vision transformer cannot be converted.
    #[error(transparent)]
    Vit(#[from] VitError),
    /// A ConvNeXt cannot be converted.
    #[error(transparent)]
    ConvNext(#[from] ConvNextError),
    /// The bundle cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// An ONNX file that cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An ONNX file that cannot be a backbone.
    #[error("{}: {what}", path.display())]
    ForeignOnnx {
        /// The file.
        path: PathBuf,
        /// The reason, and what to do.
        what: String,
    },
    /// Neither a backbone nor an upsampler was given.
    #[error(
        "nothing to convert: give a backbone (--backbone with --backbone-weights, or --backbone-onnx), --upsampler-weights, or both"
    )]
    Nothing,
    /// Backbone and upsampler differ in channels.
    #[error("{}: the upsampler expects features of {upsampler} channels, but the backbone has {backbone}; use the LoftUp checkpoint that was trained for this backbone", path.display())]
    Channels {
        /// The upsampler's checkpoint.
        path: PathBuf,
        /// Channels of the upsampler.
        upsampler: usize,
        /// Channels of the backbone.
        backbone: usize,
    },
    /// NAF without a backbone.
    #[error("{}: NAF takes features of any backbone, so the bundle needs one: give --backbone with --backbone-weights, or --backbone-onnx, as well", path.display())]
    NafAlone {
        /// The upsampler's checkpoint.
        path: PathBuf,
    },
    /// NAF does not support the backbone's features.
    #[error("{}: NAF takes a multiple of 4 channels and at least 9 patches per side, but the backbone has {dim} channels and {cells} patches on its shorter side; use a larger --size", path.display())]
    NafBackbone {
        /// The upsampler's checkpoint.
        path: PathBuf,
        /// Channels of the backbone.
        dim: usize,
        /// Patches on the shorter side of its input.
        cells: usize,
    },
    /// A compact bundle cannot be made.
    #[error("{}: {what}", path.display())]
    Compact {
        /// The bundle or checkpoint.
        path: PathBuf,
        /// The reason, and what to do.
        what: String,
    },
    /// Canceled.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The new bundle did not pass its own checks.
    #[error("the converted bundle fails its check {name:?}: {what}")]
    Verification {
        /// The check.
        name: String,
        /// How it failed.
        what: String,
    },
}
