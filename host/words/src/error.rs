//! Errors of words.

use std::path::PathBuf;

use loftup_import::{checkpoint::CheckpointError, text::TextError};
use loftup_runtime::backend::BackendError;

/// Why words cannot be encoded. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// The text encoder cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The file of the text encoder cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The engine that runs the text encoder failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A file that cannot be used.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A text that has too many tokens.
    #[error("{text:?} has {tokens} tokens; the text encoder reads at most {most}: use fewer words")]
    TooLong {
        /// The text.
        text: String,
        /// Its number of tokens.
        tokens: usize,
        /// The maximum number of tokens.
        most: usize,
    },
    /// Words that cannot be used.
    #[error("{0}")]
    Words(String),
}

impl WordsError {
    /// Checks that a text with this many tokens is not too long.
    pub(crate) fn check_length(text: &str, tokens: usize, most: usize) -> Result<(), Self> {
        match tokens > most {
            true => Err(Self::TooLong {
                text: text.into(),
                tokens,
                most,
            }),
            false => Ok(()),
        }
    }
}
