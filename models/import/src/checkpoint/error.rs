//! Checkpoint errors.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A checkpoint that cannot be read or lacks required tensors. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The checkpoint file.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// The file has none of the supported formats.
    #[error("{}: not a checkpoint: {found}; expected PyTorch (.bin .pth .pt .ckpt) or safetensors", path.display())]
    UnknownFormat {
        /// The checkpoint file.
        path: PathBuf,
        /// A description of the file.
        found: String,
    },
    /// The file has a known format, but is damaged.
    #[error("{}: damaged checkpoint: {what}; download or copy it again", path.display())]
    Damaged {
        /// The checkpoint file.
        path: PathBuf,
        /// The reason and location.
        what: String,
    },
    /// The file is valid, but contains something unsupported.
    #[error("{}: {what}; {remedy}", path.display())]
    Unsupported {
        /// The checkpoint file.
        path: PathBuf,
        /// What is unsupported, and where.
        what: String,
        /// A hint for the user.
        remedy: String,
    },
    /// The pickle names a class or function that is not part of a tensor. It was not called.
    #[error("{}: refused: {} {global}, which is not part of a tensor (code in checkpoints is never executed); in PyTorch, save only the tensors: torch.save(model.state_dict(), ...)", path.display(), if *.whole { "it is a whole object, as written by torch.save(model), of class" } else { "the pickle names" })]
    Refused {
        /// The checkpoint file.
        path: PathBuf,
        /// Module and name of the class or function.
        global: String,
        /// Whether the saved object itself is of that class.
        whole: bool,
    },
    /// A tensor that the model needs is not in the file.
    #[error("{}: tensor {name} is missing{}", path.display(), hint(.closest))]
    Missing {
        /// The checkpoint file.
        path: PathBuf,
        /// The requested name.
        name: String,
        /// The most similar existing name, if any is similar.
        closest: Option<String>,
    },
    /// A tensor has a different shape than the model requires.
    #[error("{}: tensor {name} has shape {found:?}, expected {expected:?}", path.display())]
    Misshapen {
        /// The checkpoint file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The required shape.
        expected: Vec<usize>,
    },
    /// A tensor contains NaN or infinity.
    #[error("{}: tensor {name} contains {value} at flat index {index}; the checkpoint is unusable", path.display())]
    NotFinite {
        /// The checkpoint file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Flat index of the first non-finite element.
        index: usize,
        /// The value.
        value: f32,
    },
}

fn hint(closest: &Option<String>) -> String {
    closest
        .as_ref()
        .map(|c| format!(" (the most similar name is {c})"))
        .unwrap_or_default()
}

/// An error of a reader, before the path is added.
#[derive(Debug)]
pub(super) enum Problem {
    Io(io::Error),
    UnknownFormat(String),
    Damaged(String),
    Unsupported { what: String, remedy: String },
    Refused { global: String, whole: bool },
}

impl Problem {
    pub fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    pub fn unsupported(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A failed read. Errors that can only come from a short or inconsistent file count as damage.
    pub fn reading(what: &str, error: io::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match error.kind() {
            InvalidData | InvalidInput | Other | UnexpectedEof => {
                Self::Damaged(format!("{what}: {}", printable(&error.to_string())))
            }
            _ => Self::Io(error),
        }
    }

    pub fn at(self, path: &Path) -> CheckpointError {
        let path = path.to_path_buf();
        match self {
            Self::Io(source) => CheckpointError::Io { path, source },
            Self::UnknownFormat(found) => CheckpointError::UnknownFormat { path, found },
            Self::Damaged(what) => CheckpointError::Damaged { path, what },
            Self::Unsupported { what, remedy } => {
                CheckpointError::Unsupported { path, what, remedy }
            }
            Self::Refused { global, whole } => CheckpointError::Refused {
                path,
                global,
                whole,
            },
        }
    }
}

/// Text from a file, escaped and limited to 80 characters, for a one-line message.
pub(super) fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut out: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|c| {
            let escape = c.is_control();
            escape
                .then(|| c.escape_default())
                .into_iter()
                .flatten()
                .chain((!escape).then_some(c))
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push_str("...");
    }
    out
}
