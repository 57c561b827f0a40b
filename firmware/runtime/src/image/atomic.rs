//! Files that appear whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file being written beside its destination. [`commit`](Self::commit) puts it there; dropped
/// before that, it is removed and the destination stays as it was.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    temporary: NamedTempFile,
    destination: PathBuf,
}

impl AtomicFile {
    /// Starts a file that shall replace `path`. A link is followed, so that what it points to is
    /// replaced and not the link; anything but a regular file (a directory, a device) is refused.
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
                    "is there already and is not a regular file; it will not be replaced",
                ));
            }
            _ => {}
        }
        let name = destination.file_name().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "does not name a file to write")
        })?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // Temporary files are private by default; this one will be the user's answer, and gets
        // the permissions of any new file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let directory = directory(&destination);
        let temporary = builder.tempfile_in(directory).map_err(|error| {
            use io::ErrorKind::{
                NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
                StorageFull,
            };
            // The error of the builder names the temporary file, which nobody knows.
            match error.kind() {
                NotFound => io::Error::new(
                    NotFound,
                    format!(
                        "there is no directory {}; make it first",
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

    /// Syncs the file, renames it to its destination and syncs the directory, so that after a
    /// power cut there is the old file or the new one.
    pub fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        self.temporary
            .persist(&self.destination)
            .map_err(|error| error.error)?;
        // Windows cannot open directories as files and needs no sync of them.
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
