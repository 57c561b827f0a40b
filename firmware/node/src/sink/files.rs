//! File access of the sinks. Existing files are never overwritten, truncated or removed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

/// A file system. Tests use one with a quota.
pub(super) trait FileSystem: Send {
    /// Creates an empty file. Fails with `AlreadyExists` if the name exists, even as a dangling link.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OutputFile>>;

    /// Creates a file with these bytes atomically. Fails like [`create_new`](Self::create_new).
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Fails if a file of this size does not fit into `directory`. Writes an unnamed temporary file, so
    /// that quotas are respected.
    fn probe(&self, directory: &Path, bytes: u64) -> io::Result<()>;
}

/// A file that is appended to.
pub(super) trait OutputFile: Write + Send {
    /// Truncates the file to `length` bytes; the next write appends after them.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Flushes the file to the device.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether the file was removed, so that further data would be lost.
    fn is_removed(&self) -> bool;
}

/// Whether an open file has been unlinked.
fn is_unlinked(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|m| m.nlink() == 0)
}

/// The file system of the operating system.
pub(super) struct LocalFiles;

impl FileSystem for LocalFiles {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        // Append mode: after a truncation, writing continues at the new end.
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let directory = parent_directory(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".part");
        // Temporary files are private by default; this one becomes a regular file.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(directory).map_err(without_path)?;
        file.as_file_mut().write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|e| e.error)?;
        File::open(directory)?.sync_all()
    }

    fn probe(&self, directory: &Path, bytes: u64) -> io::Result<()> {
        let mut file = tempfile::tempfile_in(directory).map_err(without_path)?;
        io::copy(&mut io::repeat(0).take(bytes), &mut file).map(drop)
    }
}

/// The directory of a file.
pub(super) fn parent_directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes the path of the temporary file, which differs in every attempt, from an error.
fn without_path(e: io::Error) -> io::Error {
    let inner = e.get_ref().and_then(|inner| inner.source());
    match inner.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) if cause.raw_os_error().is_some() => {
            io::Error::from_raw_os_error(cause.raw_os_error().unwrap_or_default())
        }
        _ => io::Error::from(e.kind()),
    }
}

impl OutputFile for File {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn is_removed(&self) -> bool {
        is_unlinked(self)
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A file system with a quota.

    use std::{path::PathBuf, sync::Arc};

    use parking_lot::Mutex;
    use rustix::io::Errno;

    use super::*;

    #[derive(Debug, Default)]
    struct State {
        left: u64,
        error: i32,
        syncs_fail: bool,
    }

    /// Local files within a quota. As on a real disk, a write that does not fit is short, and the next
    /// one fails.
    #[derive(Debug, Clone, Default)]
    pub struct Quota(Arc<Mutex<State>>);

    impl Quota {
        pub fn new(left: u64) -> Self {
            let quota = Self::default();
            quota.set(left, Errno::NOSPC);
            quota
        }

        /// Allows `left` more bytes; then writes fail with `error`.
        pub fn set(&self, left: u64, error: Errno) {
            let mut state = self.0.lock();
            (state.left, state.error) = (left, error.raw_os_error());
        }

        pub fn fail_syncs(&self, fail: bool) {
            self.0.lock().syncs_fail = fail;
        }

        fn take(&self, wanted: usize) -> io::Result<usize> {
            let mut state = self.0.lock();
            let given = state.left.min(wanted as u64);
            if given == 0 && wanted > 0 {
                return Err(io::Error::from_raw_os_error(state.error));
            }
            state.left -= given;
            Ok(given as usize)
        }
    }

    struct Limited {
        quota: Quota,
        path: PathBuf,
        file: File,
    }

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let given = self.quota.take(bytes.len())?;
            self.file.write_all(&bytes[..given])?;
            Ok(given)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl OutputFile for Limited {
        fn truncate(&mut self, length: u64) -> io::Result<()> {
            let before = std::fs::metadata(&self.path).map_or(length, |m| m.len());
            self.quota.0.lock().left += before - length;
            self.file.set_len(length)
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.quota.0.lock().syncs_fail {
                return Err(Errno::IO.into());
            }
            self.file.sync_all()
        }

        fn is_removed(&self) -> bool {
            is_unlinked(&self.file)
        }
    }

    impl FileSystem for Quota {
        fn create_new(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
            let file = OpenOptions::new()
                .append(true)
                .create_new(true)
                .open(path)?;
            let (quota, path) = (self.clone(), path.to_owned());
            Ok(Box::new(Limited { quota, path, file }))
        }

        fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            let given = self.take(bytes.len())?;
            if given < bytes.len() {
                self.0.lock().left += given as u64;
                return Err(io::Error::from_raw_os_error(self.0.lock().error));
            }
            LocalFiles.write_new(path, bytes)
        }

        fn probe(&self, _: &Path, bytes: u64) -> io::Result<()> {
            let state = self.0.lock();
            match state.left >= bytes {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(state.error)),
            }
        }
    }
}
