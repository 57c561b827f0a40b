//! Errors of text encoders.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;

/// The text encoder cannot be created or used. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A tensor is missing, has the wrong shape, or is not finite.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The names in the checkpoint do not match any supported text encoder.
    #[error("{}: no text encoder with the names of OpenAI's CLIP, open_clip or Hugging Face transformers; {found}; use the file of the whole model, not that of its image encoder", path.display())]
    NotAText {
        /// The checkpoint file.
        path: PathBuf,
        /// A few names in it.
        found: String,
    },
    /// The checkpoint contains several text encoders.
    #[error("{}: contains several text encoders, at {prefixes}; select one with --prefix, such as --prefix {example}", path.display())]
    Ambiguous {
        /// The checkpoint file.
        path: PathBuf,
        /// The prefix of each.
        prefixes: String,
        /// One of them, as a command-line argument.
        example: String,
    },
    /// The activation is not in the weights, and not determined otherwise.
    #[error("{}: the activation of this {model} is not in the weights; give --activation {candidates}, or put the model's config.json (or open_clip_config.json) next to the weights", path.display())]
    Activation {
        /// The checkpoint file.
        path: PathBuf,
        /// Family and dimensions.
        model: String,
        /// The candidates, and the models that use them.
        candidates: &'static str,
    },
    /// The number of attention heads is impossible.
    #[error("{}: {heads} attention heads ({from}) are impossible for a width of {width}; give the number that the model was trained with (--heads)", path.display())]
    Heads {
        /// The checkpoint file.
        path: PathBuf,
        /// The number.
        heads: usize,
        /// Its origin.
        from: String,
        /// Channels of the transformer.
        width: usize,
    },
    /// An invalid config file, or one that belongs to other weights.
    #[error("{}: {what}; correct this file or move it away from the weights", path.display())]
    ConfigFile {
        /// The config file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The weights are of an unsupported variant.
    #[error("{}: unsupported: {what}", path.display())]
    Unsupported {
        /// The checkpoint file.
        path: PathBuf,
        /// The variant, and how it was recognized.
        what: String,
    },
    /// Tokens that do not fit the text encoder.
    #[error("{what}")]
    Tokens {
        /// What is wrong.
        what: String,
    },
}
