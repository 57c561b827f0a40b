//! Quantization errors.

use std::path::PathBuf;

use loftup_bundle::{BundleError, Precision};
use loftup_onnx::rewrite::RewriteError;
use loftup_runtime::{RuntimeError, npy::NpyError};

/// Why a quantization failed. The message is one line. Nothing is left at the destination.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The bundle cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle cannot be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An array file cannot be read or written.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// The bundle has no fp32 graphs.
    #[error("{}: the bundle is already {found}, and quantizing twice adds up errors; use the fp32 bundle that it was made from", path.display())]
    Already {
        /// The bundle.
        path: PathBuf,
        /// Its precisions.
        found: String,
    },
    /// The target precision is fp32.
    #[error("bundles are already created in fp32; use --precision fp16, int8 or fp16-weights")]
    Wide,
    /// A graph that cannot be rewritten.
    #[error("{}: {source}", path.display())]
    Rewrite {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: RewriteError,
    },
    /// A graph that does not run.
    #[error("{}: {what}", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// Error of the backend.
        what: String,
    },
    /// A weight that is NaN or infinite.
    #[error("{}: constant {name} holds NaN or an infinity at index {index}; convert from an intact checkpoint", path.display())]
    Weight {
        /// The file.
        path: PathBuf,
        /// The constant.
        name: String,
        /// Index of the value.
        index: usize,
    },
    /// An activation that is NaN or infinite.
    #[error("{}: value {value} is NaN or infinite at index {index} on calibration image {}; the fp32 graph itself produces it", path.display(), image.display())]
    Activation {
        /// The graph.
        path: PathBuf,
        /// The value in it.
        value: String,
        /// Index of the value.
        index: usize,
        /// The image.
        image: PathBuf,
    },
    /// No usable image.
    #[error("--calibrate: {0}")]
    Images(String),
    /// The bundle has no backbone.
    #[error(
        "the bundle has no backbone to calibrate through; convert backbone and upsampler into one bundle, and quantize that"
    )]
    NoBackbone,
    /// The error exceeds the limit.
    #[error(
        "the relative error of {precision} is {found:.4}, above --max-error {allowed}; {remedy}"
    )]
    MaxError {
        /// Target precision.
        precision: Precision,
        /// Measured error.
        found: f64,
        /// Limit.
        allowed: f64,
        /// What to do.
        remedy: &'static str,
    },
    /// The evaluation of the head failed.
    #[error("{0}")]
    Score(String),
    /// Canceled.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The new bundle did not pass its own checks.
    #[error("the new bundle fails its check {name:?}: {what}")]
    Verification {
        /// The check.
        name: String,
        /// How it failed.
        what: String,
    },
    /// A temporary file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}
