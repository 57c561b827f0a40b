//! Selects the outputs that a sink writes, and manages its numbered files.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::health::Reason;

use super::{
    SinkError, SinkStatus,
    files::{FileSystem, OutputFile, parent_directory},
};

/// Selects every n-th output, including the first.
#[derive(Debug)]
pub(super) struct EveryNth {
    step: u64,
    seen: u64,
}

impl EveryNth {
    /// Selects every `step`-th output; 0 counts as 1.
    pub(super) fn new(step: u64) -> Self {
        Self {
            step: step.max(1),
            seen: 0,
        }
    }

    /// Whether the current output is selected. Call it once per output.
    pub(super) fn is_due(&mut self) -> bool {
        self.seen += 1;
        (self.seen - 1).is_multiple_of(self.step)
    }
}

/// Interval between two attempts while a disk accepts no data.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Upper limit of that interval, which doubles if writing fails again soon after it succeeded.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(64);
/// Consecutive successes that reset the interval.
const STEADY: u32 = 32;
/// A retry requires space for this many times the data that did not fit, so that the next write
/// does not fail again.
const PROBE_FACTOR: u64 = 4;
/// Upper limit of the space required for a retry, in bytes.
const MAX_PROBE_BYTES: u64 = 16 << 20;

/// When to retry after a failed write, and whether a failure should be reported.
#[derive(Debug)]
pub(super) struct Retry {
    min_interval: Duration,
    interval: Duration,
    failing_until: Option<Instant>,
    successes: u32,
    /// Size of the data that did not fit.
    bytes: u64,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self::every(RETRY_INTERVAL)
    }

    /// Retries after `min_interval` instead of a second.
    pub(super) fn every(min_interval: Duration) -> Self {
        Self {
            min_interval,
            interval: min_interval,
            failing_until: None,
            successes: STEADY,
            bytes: 0,
        }
    }

    /// Checks before a retry that `directory` has enough space.
    pub(super) fn probe(&self, files: &dyn FileSystem, directory: &Path) -> io::Result<()> {
        match self.is_failing() {
            true => files.probe(directory, (PROBE_FACTOR * self.bytes).min(MAX_PROBE_BYTES)),
            false => Ok(()),
        }
    }

    /// Whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_until.is_some()
    }

    /// Whether a write may be attempted: always, unless the last one failed.
    pub(super) fn is_due(&self) -> bool {
        self.failing_until.is_none_or(|at| Instant::now() >= at)
    }

    /// The status of a sink that writes files.
    pub(super) fn status(&self, not_written: u64) -> SinkStatus {
        SinkStatus {
            healthy: !self.is_failing(),
            reason: Reason::Storage,
            not_written,
            ..SinkStatus::default()
        }
    }

    /// Records a successful write.
    pub(super) fn succeeded(&mut self) {
        self.failing_until = None;
        self.successes = self.successes.saturating_add(1);
    }

    /// Records that `bytes` could not be written. Returns the error only if the last write succeeded,
    /// so that a full disk is reported once.
    pub(super) fn failed<E>(&mut self, bytes: u64, e: E) -> Result<(), E> {
        let first = !self.is_failing();
        if first {
            self.interval = match self.successes {
                STEADY.. => self.min_interval,
                // Little space is left: do not change the state every second.
                _ => (2 * self.interval).min(MAX_RETRY_INTERVAL),
            };
            (self.successes, self.bytes) = (0, bytes);
        }
        self.failing_until = Some(Instant::now() + self.interval);
        if first { Err(e) } else { Ok(()) }
    }
}

/// Whether a block was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Written {
    /// The block is in the file.
    Yes,
    /// The block was not written, and its file is closed.
    No,
}

/// A series of files: `a.mcap`, `a-1.mcap`, `a-2.mcap`. Each run continues after the highest existing
/// number and creates only new files. A file is created for its first block and contains complete
/// blocks at any time; if a block does not fit, the file is closed before it.
pub(super) struct FileSeries {
    files: Box<dyn FileSystem>,
    path: PathBuf,
    limit: u64,
    /// Written to the end of a file that could not be finished.
    trailer: &'static [u8],
    /// Number of the next file.
    number: Option<u64>,
    open: Option<Open>,
    /// A closed file that still lacks its trailer.
    without_trailer: Option<Open>,
    retry: Retry,
}

struct Open {
    path: PathBuf,
    file: Box<dyn OutputFile>,
    length: u64,
}

impl FileSeries {
    /// Creates a series that begins with `path`. A file is full at `limit` bytes; 0 is no limit. `trailer`
    /// is appended to files that could not be finished.
    pub(super) fn new(
        files: Box<dyn FileSystem>,
        path: PathBuf,
        limit: u64,
        trailer: &'static [u8],
        retry: Retry,
    ) -> Self {
        Self {
            files,
            path,
            limit,
            trailer,
            number: None,
            open: None,
            without_trailer: None,
            retry,
        }
    }

    /// Whether the current file has reached the size limit.
    pub(super) fn is_full(&self) -> bool {
        let length = self.open.as_ref().map_or(0, |open| open.length);
        self.limit > 0 && length >= self.limit
    }

    /// Whether the next block is appended to an existing file.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the last attempt to write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.retry.is_failing()
    }

    /// Whether a write may be attempted.
    pub(super) fn is_due(&self) -> bool {
        self.retry.is_due()
    }

    /// The status of the sink that writes the series.
    pub(super) fn status(&self, not_written: u64) -> SinkStatus {
        self.retry.status(not_written)
    }

    /// Appends a block, given as several slices.
    ///
    /// # Errors
    /// Names the file, if the last write succeeded. While writing keeps failing, the result is
    /// [`Written::No`] instead.
    pub(super) fn append(&mut self, block: &[&[u8]]) -> Result<Written, SinkError> {
        let result = self.try_append(block);
        self.conclude(size(block), result)
    }

    /// Appends the last block and closes the file. If the block does not fit, the file ends with the
    /// trailer.
    ///
    /// # Errors
    /// Same as for [`append`](Self::append).
    pub(super) fn close(&mut self, block: &[u8]) -> Result<Written, SinkError> {
        if self.open.is_none() {
            return Ok(Written::No);
        }
        let result = self.try_append(&[block]).and_then(|()| {
            let Some(mut open) = self.open.take() else {
                return Ok(());
            };
            open.file.sync().map_err(|e| (open.path, e))
        });
        self.conclude(size(&[block]), result)
    }

    fn conclude(
        &mut self,
        bytes: u64,
        result: Result<(), (PathBuf, io::Error)>,
    ) -> Result<Written, SinkError> {
        match result {
            Ok(()) => {
                self.retry.succeeded();
                Ok(Written::Yes)
            }
            Err((path, cause)) => {
                self.retry.failed(bytes, SinkError::Io { path, cause })?;
                Ok(Written::No)
            }
        }
    }

    fn try_append(&mut self, block: &[&[u8]]) -> Result<(), (PathBuf, io::Error)> {
        if let Some(mut file) = self.without_trailer.take()
            && let Err(e) = append(&mut file, &[self.trailer])
        {
            let path = file.path.clone();
            self.without_trailer = Some(file);
            return Err((path, e));
        }
        let mut open = match self.open.take() {
            Some(open) if open.file.is_removed() => {
                let cause = "it was removed while it was being written: starting a new file";
                return Err((open.path, io::Error::new(ErrorKind::NotFound, cause)));
            }
            Some(open) => open,
            None => self.create()?,
        };
        match append(&mut open, block) {
            Ok(()) => {
                self.open = Some(open);
                Ok(())
            }
            Err(e) => {
                let path = open.path.clone();
                self.abandon(open);
                Err((path, e))
            }
        }
    }

    /// Closes a file after its last complete block. An empty file is removed.
    fn abandon(&mut self, mut open: Open) {
        if open.length == 0 {
            drop(open.file);
            if std::fs::remove_file(&open.path).is_ok() {
                self.number = self.number.map(|n| n.saturating_sub(1));
            }
        } else if append(&mut open, &[self.trailer]).is_err() {
            self.without_trailer = Some(open);
        }
    }

    fn create(&mut self) -> Result<Open, (PathBuf, io::Error)> {
        let probed = self.retry.probe(&*self.files, parent_directory(&self.path));
        probed.map_err(|e| (self.path.clone(), e))?;
        let mut number = match self.number {
            Some(number) => number,
            None => next_number(&self.path),
        };
        loop {
            let path = name(&self.path, number);
            match self.files.create_new(&path) {
                Ok(file) => {
                    self.number = Some(number + 1);
                    let length = 0;
                    return Ok(Open { path, file, length });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err((path, e)),
            }
        }
    }
}

fn size(block: &[&[u8]]) -> u64 {
    block.iter().map(|part| part.len() as u64).sum()
}

/// Appends a complete block, or leaves the file as it was.
fn append(open: &mut Open, block: &[&[u8]]) -> io::Result<()> {
    let written = block.iter().try_for_each(|part| open.file.write_all(part));
    match written {
        Ok(()) => {
            open.length += size(block);
            Ok(())
        }
        Err(e) => {
            // If this fails too, readers stop at the incomplete block.
            if let Err(e) = open.file.truncate(open.length) {
                log::debug!("{}: {e}", open.path.display());
            }
            Err(e)
        }
    }
}

/// The path of a file of the series.
fn name(path: &Path, number: u64) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(ending) => format!("{stem}-{number}.{}", ending.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    path.with_file_name(name)
}

/// The number after the highest existing one, or 0 if the directory cannot be listed.
fn next_number(path: &Path) -> u64 {
    let numbers = entries(parent_directory(path)).filter_map(|file| number_of(path, &file));
    numbers.max().map_or(0, |highest| highest.saturating_add(1))
}

/// The file names in a directory; none if it cannot be listed.
pub(super) fn entries(directory: &Path) -> impl Iterator<Item = std::ffi::OsString> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.file_name()))
}

/// The number of a file in the series of `path`.
fn number_of(path: &Path, file: &OsStr) -> Option<u64> {
    if Some(file) == path.file_name() {
        return Some(0);
    }
    let file = Path::new(file);
    if file.extension() != path.extension() {
        return None;
    }
    let stem = path.file_stem()?.to_string_lossy();
    let number = file.file_stem()?.to_str()?.strip_prefix(&*stem)?;
    let number = number.strip_prefix('-')?;
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    number.parse().ok().filter(|n| digits && *n < u64::MAX)
}

#[cfg(test)]
mod tests;
