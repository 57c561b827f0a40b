//! Results on standard output.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Prints a line. A reader that has seen enough (`| head`) is no error: what was promised is in
/// files.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}
