//! Atomic file writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file being written next to its destination. [`commit`](Self::commit) renames it; if it is
/// dropped before, it is removed and the destination is unchanged.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    temporary: NamedTempFile,
    destination: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will replace `path`. Links are followed: the target is replaced, not the
    /// link. Anything but a regular file (such as a directory or device) is rejected.
    pub fn create(path: &Path) -> io::Result<Self> {
        let destination = match path.canonicalize() {
            Ok(existing) => existing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        match destination.metadata() {
            Ok(existing) if !existing.is_file() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "exists and is not a regular file; it is not replaced",
                ));
            }
            _ => {}
        }
        let name = destination
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "is not a file name"))?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // Temporary files are private by default; this one becomes an output file and gets the
        // permissions of any new file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let directory = directory(&destination);
        let temporary = builder.tempfile_in(directory).map_err(|error| {
            use io::ErrorKind::{
                NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
                StorageFull,
            };
            // The builder's error names the temporary file, which means nothing to the user.
            match error.kind() {
                NotFound => io::Error::new(
                    NotFound,
                    format!(
                        "there is no directory {}; create it first",
                        directory.display()
                    ),
                ),
                kind @ (NotADirectory | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem
                | StorageFull) => io::Error::from(kind),
                _ => error,
            }
        })?;
        Ok(Self {
            temporary,
            destination,
        })
    }

    /// The file to write to.
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Its path until it is committed.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Syncs the file, renames it to its destination and syncs the directory, so that after a power
    /// failure either the old or the new file exists.
    pub fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        self.temporary
            .persist(&self.destination)
            .map_err(|error| error.error)?;
        // Windows cannot open directories as files, and does not need to sync them.
        if cfg!(unix) {
            OpenOptions::new()
                .read(true)
                .open(directory(&self.destination))?
                .sync_all()?;
        }
        Ok(())
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
