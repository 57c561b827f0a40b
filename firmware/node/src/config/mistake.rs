//! Mistakes in the configuration, and helpers of the checks that find them.

use std::path::{Path, PathBuf};

/// Largest side of an output.
const MAX_SIDE: usize = 4096;

/// A mistake in the configuration. The message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {key}: {what}{}{remedy}", path.display(), if remedy.is_empty() { "" } else { ": " })]
pub struct ConfigError {
    /// The configuration file.
    pub path: PathBuf,
    /// The key, with its tables.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do; empty where `what` says it.
    pub remedy: String,
}

/// A mistake, before the file is named.
pub struct Mistake {
    key: String,
    what: String,
    remedy: String,
}

impl Mistake {
    pub fn at(self, path: &Path) -> ConfigError {
        ConfigError {
            path: path.into(),
            key: printable(&self.key),
            what: printable(&self.what),
            remedy: self.remedy,
        }
    }
}

/// Text of the file without line breaks and terminal escapes.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(shown).collect()
}

pub fn wrong(
    key: impl Into<String>,
    what: impl Into<String>,
    remedy: impl Into<String>,
) -> Result<(), Mistake> {
    Err(Mistake {
        key: key.into(),
        what: what.into(),
        remedy: remedy.into(),
    })
}

pub fn within<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), Mistake> {
    if value >= least && value <= most {
        return Ok(());
    }
    wrong(
        key,
        format!("{value} is out of range"),
        format!("give {least} to {most}"),
    )
}

pub fn check_size(key: &str, [width, height]: [usize; 2]) -> Result<(), Mistake> {
    within(key, width, 8, MAX_SIDE)?;
    within(key, height, 8, MAX_SIDE)
}
