//! Which answers a sink takes, and the files that it puts them into.

use std::path::PathBuf;

/// Every so many-th answer, the first among them.
#[derive(Debug)]
pub(super) struct Every {
    step: u64,
    seen: u64,
}

impl Every {
    /// Every `step`-th; 0 counts as 1.
    pub(super) fn new(step: u64) -> Self {
        Self {
            step: step.max(1),
            seen: 0,
        }
    }

    /// Whether the answer that comes now is one of them.
    pub(super) fn is_due(&mut self) -> bool {
        self.seen += 1;
        (self.seen - 1).is_multiple_of(self.step)
    }
}

/// A row of files: `a.mcap`, `a-1.mcap`, `a-2.mcap`.
#[derive(Debug)]
pub(super) struct Series {
    path: PathBuf,
    limit: u64,
    number: u64,
}

impl Series {
    /// Files of some `limit` bytes (0: one file), of which `path` is the first.
    pub(super) fn new(path: PathBuf, limit: u64) -> Self {
        Self {
            path,
            limit,
            number: 0,
        }
    }

    /// The present file.
    pub(super) fn path(&self) -> PathBuf {
        if self.number == 0 {
            return self.path.clone();
        }
        let (path, number) = (&self.path, self.number);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = match path.extension() {
            Some(ending) => format!("{stem}-{number}.{}", ending.to_string_lossy()),
            None => format!("{stem}-{number}"),
        };
        path.with_file_name(name)
    }

    /// Whether a file of so many bytes is to be followed by the next.
    pub(super) fn is_full(&self, written: u64) -> bool {
        self.limit > 0 && written >= self.limit
    }

    /// Goes on to the next file.
    pub(super) fn advance(&mut self) {
        self.number += 1;
    }
}
