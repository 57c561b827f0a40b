//! Configuration errors, and helpers of the checks that return them.

use std::path::{Path, PathBuf};

/// Maximum width and height of an output.
const MAX_SIDE: usize = 4096;

/// An error in the configuration. The message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {key}: {what}{}{hint}", path.display(), if hint.is_empty() { "" } else { ": " })]
pub struct ConfigError {
    /// The configuration file.
    pub path: PathBuf,
    /// The key, with its table.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// How to fix it; empty if `what` says so.
    pub hint: String,
}

/// An invalid value, before the file is known.
pub struct Invalid {
    key: String,
    what: String,
    hint: String,
}

impl Invalid {
    pub fn in_file(self, path: &Path) -> ConfigError {
        ConfigError {
            path: path.into(),
            key: printable(&self.key),
            what: printable(&self.what),
            hint: self.hint,
        }
    }
}

/// Escapes line breaks and terminal control characters.
pub fn printable(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

pub fn invalid(
    key: impl Into<String>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> Result<(), Invalid> {
    Err(Invalid {
        key: key.into(),
        what: what.into(),
        hint: hint.into(),
    })
}

pub fn check_range<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    min: T,
    max: T,
) -> Result<(), Invalid> {
    if value >= min && value <= max {
        return Ok(());
    }
    invalid(
        key,
        format!("{value} is out of range"),
        format!("must be {min} to {max}"),
    )
}

pub fn check_size(key: &str, [width, height]: [usize; 2]) -> Result<(), Invalid> {
    check_range(key, width, 8, MAX_SIDE)?;
    check_range(key, height, 8, MAX_SIDE)
}
