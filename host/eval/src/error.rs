//! What can go wrong.

use std::path::PathBuf;

use loftup_bundle::BundleError;
use loftup_runtime::{
    RuntimeError, image::ImageError, pca::PcaError, track::TrackError, video::VideoError,
};

/// An evaluation or a head that cannot be made. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A mask that is not one.
    #[error("{}: {what}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// A data set that nothing can be learnt from.
    #[error("{}: {what}", path.display())]
    Data {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// Something asked for that makes no sense.
    #[error("{0}")]
    Request(String),
    /// The bundle could not be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The bundle could not be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A video could not be decoded.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// Objects that cannot be tracked.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// Principal components.
    #[error(transparent)]
    Pca(#[from] PcaError),
}

/// What could be used. Where it could not, the reason goes to the log and to `skipped`.
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
