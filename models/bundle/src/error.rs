//! Errors of bundles.

use std::path::PathBuf;

/// A bundle that cannot be read or written. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file or the directory could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The path is not a bundle.
    #[error("{}: not a bundle: {what}; make one with `loftup convert`", path.display())]
    NotABundle {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// The manifest is invalid.
    #[error("{}: {what}", path.display())]
    Manifest {
        /// Path of the manifest.
        path: PathBuf,
        /// What is wrong, with a hint.
        what: String,
    },
    /// A file does not match the manifest.
    #[error("{}: damaged: {what}; copy or convert the bundle again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The difference.
        what: String,
    },
    /// The destination exists.
    #[error("{}: already exists; choose another --out, or replace the bundle with --force", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The destination should be replaced, but is not a bundle.
    #[error("{}: exists and is not a bundle, or contains other files as well: it is not replaced; choose another --out", path.display())]
    WouldReplace {
        /// The destination.
        path: PathBuf,
    },
    /// The bundle does not have the requested head.
    #[error("{}: there is no head {name:?}; {}", path.display(), heads(known))]
    NoHead {
        /// The bundle.
        path: PathBuf,
        /// The head.
        name: String,
        /// Names of the existing heads.
        known: Vec<String>,
    },
    /// The bundle does not have the requested part.
    #[error("{}: the bundle has no {part}; {remedy}", path.display())]
    Lacks {
        /// The bundle.
        path: PathBuf,
        /// The missing part.
        part: &'static str,
        /// A hint.
        remedy: &'static str,
    },
}

fn heads(known: &[String]) -> String {
    if known.is_empty() {
        "the bundle has none; make one with `loftup head`".into()
    } else {
        format!("the bundle has: {}", known.join(", "))
    }
}
