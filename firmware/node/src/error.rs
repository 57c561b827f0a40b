//! Errors of the model and of the node.

use std::{io, net::SocketAddr};

use loftup_runtime::{RuntimeError, backend::BackendError, track::TrackError};

/// Why a frame could not be processed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The runtime or its engine failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The tracker failed.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The scores or features contain NaN or infinity.
    #[error("the engine returned {count} values that are not finite: the frame is dropped")]
    NotFinite {
        /// Number of such values.
        count: usize,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl ModelError {
    /// Whether the engine returned NaN or infinity.
    pub fn is_not_finite(&self) -> bool {
        matches!(
            self,
            Self::NotFinite { .. }
                | Self::Runtime(
                    RuntimeError::NotFinite { .. }
                        | RuntimeError::Backend(BackendError::NotFinite { .. })
                )
        )
    }

    /// Returns the error for a head that is not a class head.
    pub(crate) fn no_classes(head: &str) -> Self {
        Self::Other(format!(
            "head {head:?} does not output classes: set [model] head to a head of kind classes"
        ))
    }
}

/// Why a node could not start or had to stop. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The address of the metrics server is not available.
    #[error(
        "metrics.listen: cannot listen on {address}: {cause}: choose another port, or stop the program that uses it"
    )]
    MetricsAddress {
        /// The configured address.
        address: SocketAddr,
        /// The cause.
        cause: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start thread {name}: {cause}")]
    Thread {
        /// Name of the thread.
        name: String,
        /// The cause.
        cause: io::Error,
    },
    /// The node failed while it was running.
    #[error("the node failed: {0}")]
    Failed(String),
}
