//! What can go wrong in training.

use std::path::{Path, PathBuf};

use loftup_bundle::BundleError;
use loftup_import::checkpoint::CheckpointError;
use loftup_runtime::RuntimeError;

/// A training that cannot start or go on. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings are wrong.
    #[error("{}: {key}: {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// What is wrong, and what to write instead.
        what: String,
    },
    /// No image can be used.
    #[error("{}: {what}", path.display())]
    NoData {
        /// The data set.
        path: PathBuf,
        /// What was found there, and the remedy.
        what: String,
    },
    /// A checkpoint of a training that cannot be gone on with.
    #[error("{}: {what}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        what: String,
    },
    /// The loss is no longer a number.
    #[error(
        "step {step}: the loss is {loss}; lower the learning rate, and go on from the last checkpoint with --resume"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// The loss.
        loss: f32,
    },
    /// The device that was asked for is not there.
    #[error("device {device:?}: {what}")]
    Device {
        /// What was asked for.
        device: String,
        /// Why it cannot be had, and the remedy.
        what: String,
    },
    /// It was stopped before the first step.
    #[error("interrupted before the first step; nothing was trained")]
    Interrupted,
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Weights cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The backbone failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl TrainError {
    /// For `map_err`: a failure at a file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
