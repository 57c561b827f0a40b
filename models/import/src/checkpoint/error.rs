//! What can be wrong with a checkpoint.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A checkpoint that cannot be read or does not hold what it should. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The checkpoint file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is none of the formats read here.
    #[error("{}: not a checkpoint: {found}; expected PyTorch (.bin .pth .pt .ckpt) or safetensors", path.display())]
    UnknownFormat {
        /// The checkpoint file.
        path: PathBuf,
        /// What the file looks like.
        found: String,
    },
    /// The file is of a known format, and damaged.
    #[error("{}: damaged checkpoint: {what}; download or copy it again", path.display())]
    Damaged {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// The file is sound, and holds something that is not read here.
    #[error("{}: {what}; {remedy}", path.display())]
    Unsupported {
        /// The checkpoint file.
        path: PathBuf,
        /// What it holds, and where.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The pickle names a class or function that is not part of a tensor. It was not called.
    #[error("{}: refused: {} {global}, which is not part of a tensor, and nothing in a checkpoint is executed here; in PyTorch, save only the tensors: torch.save(model.state_dict(), ...)", path.display(), if *.whole { "it is a whole object, as torch.save(model) writes it, of the class" } else { "the pickle names" })]
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
        /// The name that was looked for.
        name: String,
        /// The most similar name that is there, if any is similar.
        closest: Option<String>,
    },
    /// A tensor has another shape than the model needs.
    #[error("{}: tensor {name} has shape {found:?}, expected {expected:?}", path.display())]
    Misshapen {
        /// The checkpoint file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape the model needs.
        expected: Vec<usize>,
    },
    /// A tensor holds NaN or an infinity.
    #[error("{}: tensor {name} holds {value} at flat index {index}; the checkpoint is unusable", path.display())]
    NotFinite {
        /// The checkpoint file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// The element.
        value: f32,
    },
}

fn hint(closest: &Option<String>) -> String {
    closest
        .as_ref()
        .map(|c| format!(" (the nearest name there is {c})"))
        .unwrap_or_default()
}

/// What a reader found wrong, before the path is put to it.
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

    /// A failed read. What only a file that is too short or inconsistent causes is damage.
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

/// Text from a file, made fit for one line of a message: escaped and at most 80 characters.
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
