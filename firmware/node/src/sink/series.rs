//! Which outputs a sink takes, and the files that it puts them into.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    SinkError,
    disk::{Disk, Output, folder},
};

/// Every n-th output, the first among them.
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

    /// Whether the output that comes now is one of them.
    pub(super) fn is_due(&mut self) -> bool {
        self.seen += 1;
        (self.seen - 1).is_multiple_of(self.step)
    }
}

/// Between two attempts while a disk takes nothing.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that becomes where it fails again soon after it worked.
const LONGEST: Duration = Duration::from_secs(64);
/// It works well again after so many successes in a row.
const STEADY: u32 = 32;
/// There is room again where there is so many times what did not fit, so that the next failure is
/// not the next block.
const ROOM: u64 = 4;
/// The most that is asked for.
const MOST_ROOM: u64 = 16 << 20;

/// When writing is tried again after it failed, and whether a failure is news.
#[derive(Debug)]
pub(super) struct Retry {
    shortest: Duration,
    wait: Duration,
    failing_until: Option<Instant>,
    successes: u32,
    /// Bytes that did not fit.
    bytes: u64,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self::every(AGAIN)
    }

    /// Tries again after so long, instead of after a second.
    pub(super) fn every(shortest: Duration) -> Self {
        Self {
            shortest,
            wait: shortest,
            failing_until: None,
            successes: STEADY,
            bytes: 0,
        }
    }

    /// Before an attempt: fails at once where there is too little room in `folder` for more than a
    /// little.
    pub(super) fn probe(&self, disk: &dyn Disk, folder: &Path) -> io::Result<()> {
        match self.is_failing() {
            true => disk.probe(folder, (ROOM * self.bytes).min(MOST_ROOM)),
            false => Ok(()),
        }
    }

    /// Whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_until.is_some()
    }

    /// Whether it is time to write: always, unless it fails.
    pub(super) fn is_due(&self) -> bool {
        self.failing_until.is_none_or(|at| Instant::now() >= at)
    }

    pub(super) fn worked(&mut self) {
        self.failing_until = None;
        self.successes = self.successes.saturating_add(1);
    }

    /// So many bytes could not be written. An error only where it worked before: a disk that stays
    /// full is told once.
    pub(super) fn failed<E>(&mut self, bytes: u64, e: E) -> Result<(), E> {
        let news = !self.is_failing();
        if news {
            self.wait = match self.successes {
                STEADY.. => self.shortest,
                // Room for a little and no more: the state would change every second.
                _ => (2 * self.wait).min(LONGEST),
            };
            (self.successes, self.bytes) = (0, bytes);
        }
        self.failing_until = Some(Instant::now() + self.wait);
        if news { Err(e) } else { Ok(()) }
    }
}

/// What became of a block of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Written {
    /// It is in the file.
    Yes,
    /// It is not, and the file that it was meant for is closed.
    No,
}

/// A row of files: `a.mcap`, `a-1.mcap`, `a-2.mcap`. Each start goes on after the highest number
/// that exists, and creates only new files. A file is made when its first block is written, holds
/// whole blocks at any time, and where one does not fit is closed before it.
pub(super) struct Series {
    disk: Box<dyn Disk>,
    path: PathBuf,
    limit: u64,
    /// Closes a file that was cut off.
    end: &'static [u8],
    /// Of the next file.
    number: Option<u64>,
    open: Option<Open>,
    /// A file that still lacks `end`.
    cut: Option<Open>,
    retry: Retry,
}

struct Open {
    path: PathBuf,
    file: Box<dyn Output>,
    length: u64,
}

impl Series {
    /// Files of some `limit` bytes (0: one file), of which `path` is the first. Where a file is cut
    /// off because there is no room, `end` closes it.
    pub(super) fn new(
        disk: Box<dyn Disk>,
        path: PathBuf,
        limit: u64,
        end: &'static [u8],
        retry: Retry,
    ) -> Self {
        Self {
            disk,
            path,
            limit,
            end,
            number: None,
            open: None,
            cut: None,
            retry,
        }
    }

    /// Whether the present file is to be followed by the next.
    pub(super) fn is_full(&self) -> bool {
        let length = self.open.as_ref().map_or(0, |open| open.length);
        self.limit > 0 && length >= self.limit
    }

    /// Whether the next block goes into a file that has some already.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the last attempt to write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.retry.is_failing()
    }

    /// Whether it is worth making a block.
    pub(super) fn is_due(&self) -> bool {
        self.retry.is_due()
    }

    /// Appends a block, given in parts.
    ///
    /// # Errors
    /// Names the file, where writing worked before. While it goes on failing that is no error any
    /// more, but [`Written::No`].
    pub(super) fn append(&mut self, block: &[&[u8]]) -> Result<Written, SinkError> {
        let result = self.try_append(block);
        self.conclude(size(block), result)
    }

    /// Appends the last block and closes the file. Where that does not fit, the file is closed with
    /// the `end` of the series.
    ///
    /// # Errors
    /// As [`append`](Self::append).
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
                self.retry.worked();
                Ok(Written::Yes)
            }
            Err((path, cause)) => {
                self.retry.failed(bytes, SinkError::Io { path, cause })?;
                Ok(Written::No)
            }
        }
    }

    fn try_append(&mut self, block: &[&[u8]]) -> Result<(), (PathBuf, io::Error)> {
        if let Some(mut cut) = self.cut.take()
            && let Err(e) = append(&mut cut, &[self.end])
        {
            let path = cut.path.clone();
            self.cut = Some(cut);
            return Err((path, e));
        }
        let mut open = match self.open.take() {
            Some(open) if open.file.is_removed() => {
                let cause = "it was removed while it was written; a new file follows";
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
                self.give_up(open);
                Err((path, e))
            }
        }
    }

    /// Closes a file after its last whole block. One without any is this series' own and empty.
    fn give_up(&mut self, mut open: Open) {
        if open.length == 0 {
            drop(open.file);
            if std::fs::remove_file(&open.path).is_ok() {
                self.number = self.number.map(|n| n.saturating_sub(1));
            }
        } else if append(&mut open, &[self.end]).is_err() {
            self.cut = Some(open);
        }
    }

    fn create(&mut self) -> Result<Open, (PathBuf, io::Error)> {
        let room = self.retry.probe(&*self.disk, folder(&self.path));
        room.map_err(|e| (self.path.clone(), e))?;
        let mut number = match self.number {
            Some(number) => number,
            None => next_number(&self.path),
        };
        loop {
            let path = name(&self.path, number);
            match self.disk.create_new(&path) {
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

/// Appends all of a block, or leaves the file as it was.
fn append(open: &mut Open, block: &[&[u8]]) -> io::Result<()> {
    let written = block.iter().try_for_each(|part| open.file.write_all(part));
    match written {
        Ok(()) => {
            open.length += size(block);
            Ok(())
        }
        Err(e) => {
            // Where even that fails, readers stop at the incomplete block.
            if let Err(e) = open.file.cut(open.length) {
                log::debug!("{}: {e}", open.path.display());
            }
            Err(e)
        }
    }
}

/// The file of a number.
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

/// The number after the highest that exists. Where the folder cannot be listed, 0.
fn next_number(path: &Path) -> u64 {
    let numbers = entries(folder(path)).filter_map(|file| number_of(path, &file));
    numbers.max().map_or(0, |highest| highest.saturating_add(1))
}

/// The names in a folder; none where it cannot be listed.
pub(super) fn entries(folder: &Path) -> impl Iterator<Item = std::ffi::OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.file_name()))
}

/// The number of a file of the series that begins with `path`.
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
