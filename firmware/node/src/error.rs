//! Why a frame, or the node, failed.

use loftup_runtime::{RuntimeError, backend::BackendError};

/// Why a frame could not be processed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The runtime or its engine.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The engine gave scores or features that are not numbers.
    #[error("the engine gave {count} values that are not finite: the frame is not answered")]
    NotFinite {
        /// How many.
        count: usize,
    },
    /// The model was taken out of service, or is not what is needed.
    #[error("{0}")]
    Other(String),
}

impl ModelError {
    /// Whether the engine gave NaN or an infinity.
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

    /// A head of another kind where one of classes is needed.
    pub(crate) fn no_classes(head: &str) -> Self {
        Self::Other(format!(
            "head {head:?} gives descriptors: name one of kind classes under [model] head"
        ))
    }
}

/// A node that could not go on. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A thread or socket could not be had.
    #[error("{what}: {cause}")]
    Io {
        /// For what.
        what: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It gave up.
    #[error("the node failed: {0}")]
    Failed(String),
}
