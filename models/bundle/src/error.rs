//! What can be wrong with a bundle.

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
        /// What the system said.
        source: std::io::Error,
    },
    /// The path is no bundle.
    #[error("{}: not a bundle: {what}; make one with `loftup convert`", path.display())]
    NotABundle {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        what: String,
    },
    /// The manifest cannot be understood.
    #[error("{}: {what}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong in it, and what to do.
        what: String,
    },
    /// A file is not what the manifest says.
    #[error("{}: damaged: {what}; copy or convert the bundle again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it differs.
        what: String,
    },
    /// The place to write to is taken.
    #[error("{}: already exists; choose another --out, or replace the bundle with --force", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The destination is to be replaced, but is no bundle.
    #[error("{}: exists and is not a bundle, or holds other files beside one: it will not be replaced; choose another --out", path.display())]
    WouldReplace {
        /// The destination.
        path: PathBuf,
    },
    /// A head that was asked for is not in the bundle.
    #[error("{}: there is no head {name:?}; {}", path.display(), heads(known))]
    NoHead {
        /// The bundle.
        path: PathBuf,
        /// The head.
        name: String,
        /// The heads that there are.
        known: Vec<String>,
    },
    /// A part that was asked for is not in the bundle.
    #[error("{}: the bundle has no {part}; {remedy}", path.display())]
    Lacks {
        /// The bundle.
        path: PathBuf,
        /// What it lacks.
        part: &'static str,
        /// What to do about it.
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
