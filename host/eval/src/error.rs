//! Errors of evaluations.

use std::path::PathBuf;

use loftup_bundle::BundleError;
use loftup_runtime::{
    RuntimeError, image::ImageError, pca::PcaError, track::TrackError, video::VideoError,
};

/// Why an evaluation or a head cannot be computed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An invalid mask.
    #[error("{}: {what}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// An unusable data set.
    #[error("{}: {what}", path.display())]
    Data {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// An invalid request.
    #[error("{0}")]
    Request(String),
    /// The bundle could not be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The bundle could not be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A video could not be decoded.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// Objects cannot be tracked.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// Principal components cannot be computed.
    #[error(transparent)]
    Pca(#[from] PcaError),
}

/// Returns the value. On error, logs the reason and adds it to `skipped`.
pub(crate) fn or_skip<T, E: std::fmt::Display>(
    result: Result<T, E>,
    skipped: &mut Vec<String>,
) -> Option<T> {
    result
        .map_err(|e| {
            log::warn!("skipped: {e}");
            skipped.push(e.to_string());
        })
        .ok()
}
