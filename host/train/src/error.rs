//! Errors of training.

use std::path::{Path, PathBuf};

use loftup_bundle::BundleError;
use loftup_import::checkpoint::CheckpointError;
use loftup_runtime::RuntimeError;

/// Why a training cannot start or continue. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
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
    /// A training cannot be resumed from a checkpoint.
    #[error("{}: {what}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        what: String,
    },
    /// The loss is not finite.
    #[error(
        "step {step}: the loss is {loss}; lower the learning rate, and go on from the last checkpoint with --resume"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// The loss.
        loss: f32,
    },
    /// The requested device is not available.
    #[error("device {device:?}: {what}")]
    Device {
        /// The requested device.
        device: String,
        /// The reason, and the remedy.
        what: String,
    },
    /// The training was stopped before the first step.
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
    /// Returns a function for `map_err`: an I/O error of a file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
