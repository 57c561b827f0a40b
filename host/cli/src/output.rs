//! Results on standard output.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Prints a line. A closed pipe (`| head`) is not an error.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}
