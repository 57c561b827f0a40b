//! What can go wrong while a bundle is quantised.

use std::path::PathBuf;

use loftup_bundle::{BundleError, Precision};
use loftup_onnx::rewrite::RewriteError;
use loftup_runtime::{RuntimeError, npy::NpyError};

/// A quantisation that failed. The message is one line. Nothing is left at the destination.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Running it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An array file.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// There are no 32-bit graphs to start from.
    #[error("{}: the bundle is already {found}, and rounding twice adds up: give the fp32 bundle that it was made from", path.display())]
    Already {
        /// The bundle.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// 32 bits were asked for.
    #[error("fp32 is what bundles are made in; give --precision fp16, int8 or fp16-weights")]
    Wide,
    /// A graph that cannot be rewritten.
    #[error("{}: {source}", path.display())]
    Rewrite {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: RewriteError,
    },
    /// A graph that does not run.
    #[error("{}: {what}", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        what: String,
    },
    /// A weight that is no number.
    #[error("{}: constant {name} holds NaN or an infinity at index {index}; convert from a sound checkpoint", path.display())]
    Weight {
        /// The file.
        path: PathBuf,
        /// The constant.
        name: String,
        /// Where in it.
        index: usize,
    },
    /// An activation that is no number.
    #[error("{}: value {value} is NaN or infinite at index {index} on calibration image {}; the fp32 graph itself is unsound there", path.display(), image.display())]
    Activation {
        /// The graph.
        path: PathBuf,
        /// The value in it.
        value: String,
        /// Where in it.
        index: usize,
        /// The image.
        image: PathBuf,
    },
    /// No image can be used.
    #[error("--calibrate: {0}")]
    Images(String),
    /// A part of the output on which nothing can be measured.
    #[error(
        "the bundle has no backbone to calibrate through; convert backbone and upsampler into one bundle, and quantise that"
    )]
    NoBackbone,
    /// Too much is lost.
    #[error(
        "{precision} costs a relative error of {found:.4}, more than --max-error {allowed}; {remedy}"
    )]
    MaxError {
        /// What was asked for.
        precision: Precision,
        /// The loss.
        found: f64,
        /// What it may be.
        allowed: f64,
        /// What to do.
        remedy: &'static str,
    },
    /// Judging the head failed.
    #[error("{0}")]
    Score(String),
    /// Whoever watches the stages asked to stop.
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
    /// A temporary file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
