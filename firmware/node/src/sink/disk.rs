//! Where sinks put their files. Nothing that exists is overwritten, truncated or removed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

/// A file system. Tests have one that is full at will.
pub(super) trait Disk: Send {
    /// A new, empty file. Fails with `AlreadyExists` where there is anything of that name, a
    /// dangling link included.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn Output>>;

    /// A new file with these bytes: whole, or not there at all. Fails as
    /// [`create_new`](Self::create_new) does.
    fn put_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Fails where a file of so many bytes does not fit into `folder`. Writes one, without a name, so
    /// that quotas count too.
    fn probe(&self, folder: &Path, bytes: u64) -> io::Result<()>;
}

/// A file that grows.
pub(super) trait Output: Write + Send {
    /// Cuts the file to its first `length` bytes; what is written next follows them.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Waits until everything is on the device.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether the file was removed, so that what is written to it is lost.
    fn is_removed(&self) -> bool;
}

/// Whether an open file has no name any more.
fn has_no_name(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|m| m.nlink() == 0)
}

/// The file system of this machine.
pub(super) struct Local;

impl Disk for Local {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        // Appending: after a cut, writing goes on at the new end.
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn put_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = folder(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".part");
        // Temporary files are private by default; this one becomes an ordinary file.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder).map_err(plain)?;
        file.as_file_mut().write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|e| e.error)?;
        File::open(folder)?.sync_all()
    }

    fn probe(&self, folder: &Path, bytes: u64) -> io::Result<()> {
        let mut file = tempfile::tempfile_in(folder).map_err(plain)?;
        io::copy(&mut io::repeat(0).take(bytes), &mut file).map(drop)
    }
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The error without the name of the temporary file, which changes with every attempt.
fn plain(e: io::Error) -> io::Error {
    let inner = e.get_ref().and_then(|inner| inner.source());
    match inner.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) if cause.raw_os_error().is_some() => {
            io::Error::from_raw_os_error(cause.raw_os_error().unwrap_or_default())
        }
        _ => io::Error::from(e.kind()),
    }
}

impl Output for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn is_removed(&self) -> bool {
        has_no_name(self)
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A disk with a quota.

    use std::{
        path::PathBuf,
        sync::{Arc, Mutex},
    };

    use rustix::io::Errno;

    use super::*;

    #[derive(Debug, Default)]
    struct Room {
        left: u64,
        error: i32,
        syncs_fail: bool,
    }

    /// Files of the local disk, as long as there is room. As on a real one, a write that does not
    /// fit is cut short, and the next one fails.
    #[derive(Debug, Clone, Default)]
    pub struct Quota(Arc<Mutex<Room>>);

    impl Quota {
        pub fn new(left: u64) -> Self {
            let quota = Self::default();
            quota.set(left, Errno::NOSPC);
            quota
        }

        /// Room for so many bytes more; then writes fail with `error`.
        pub fn set(&self, left: u64, error: Errno) {
            let mut room = self.0.lock().unwrap();
            (room.left, room.error) = (left, error.raw_os_error());
        }

        pub fn fail_syncs(&self, fail: bool) {
            self.0.lock().unwrap().syncs_fail = fail;
        }

        fn take(&self, wanted: usize) -> io::Result<usize> {
            let mut room = self.0.lock().unwrap();
            let given = room.left.min(wanted as u64);
            if given == 0 && wanted > 0 {
                return Err(io::Error::from_raw_os_error(room.error));
            }
            room.left -= given;
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

    impl Output for Limited {
        fn cut(&mut self, length: u64) -> io::Result<()> {
            let before = std::fs::metadata(&self.path).map_or(length, |m| m.len());
            self.quota.0.lock().unwrap().left += before - length;
            self.file.set_len(length)
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.quota.0.lock().unwrap().syncs_fail {
                return Err(Errno::IO.into());
            }
            self.file.sync_all()
        }

        fn is_removed(&self) -> bool {
            has_no_name(&self.file)
        }
    }

    impl Disk for Quota {
        fn create_new(&self, path: &Path) -> io::Result<Box<dyn Output>> {
            let file = OpenOptions::new()
                .append(true)
                .create_new(true)
                .open(path)?;
            let (quota, path) = (self.clone(), path.to_owned());
            Ok(Box::new(Limited { quota, path, file }))
        }

        fn put_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            let given = self.take(bytes.len())?;
            if given < bytes.len() {
                self.0.lock().unwrap().left += given as u64;
                return Err(io::Error::from_raw_os_error(self.0.lock().unwrap().error));
            }
            Local.put_new(path, bytes)
        }

        fn probe(&self, _: &Path, bytes: u64) -> io::Result<()> {
            let room = self.0.lock().unwrap();
            match room.left >= bytes {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(room.error)),
            }
        }
    }
}
