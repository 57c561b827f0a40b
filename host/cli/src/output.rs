//! Results on standard output and in small files.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use loftup_eval::bootstrap::Interval;

/// Prints a line. A closed pipe (`| head`) is not an error.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}

/// A difference with its interval, multiplied by `scale`.
pub fn interval(i: Interval, scale: f64, digits: usize) -> String {
    let [value, low, high] = [i.value, i.low, i.high].map(|x| scale * x);
    format!("{value:+.digits$} ({low:+.digits$} to {high:+.digits$})")
}

/// The same of a difference that may be missing, as that of a method from itself: then empty.
pub fn difference(i: Option<Interval>, scale: f64, digits: usize) -> String {
    i.map_or_else(String::new, |i| interval(i, scale, digits))
}

/// Writes a file atomically.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = std::fs::write(&part, contents).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("{}: cannot be written", path.display()))
}
