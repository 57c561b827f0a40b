//! Writing arrays, whole or piece by piece.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{CHUNK, NpyError, elements, header};
use crate::image::atomic::AtomicFile;

/// Writes a float32 `.npy` file in pieces, from any thread. The file appears at its destination
/// complete or not at all.
///
/// It is written to a temporary file next to the destination, whose disk space is reserved first, so
/// that a full disk is found before the computation. [`finish`](Self::finish) renames it; if the
/// writer is dropped before, it is removed and the destination is unchanged.
#[derive(Debug)]
pub struct NpyWriter {
    file: AtomicFile,
    path: PathBuf,
    shape: Vec<usize>,
    elements: usize,
    /// Offset of the first element in bytes.
    start: u64,
    written: AtomicUsize,
}

impl NpyWriter {
    /// Starts writing an array of `shape` to `path`.
    ///
    /// # Errors
    /// The file cannot be created, or the disk is too full ([`NpyError::NoSpace`]).
    pub fn create(path: &Path, shape: &[usize]) -> Result<Self, NpyError> {
        let io = |source| NpyError::Io {
            path: path.to_owned(),
            source,
        };
        let too_large = || NpyError::TooLarge {
            path: path.to_owned(),
            shape: shape.to_vec(),
        };
        if shape.len() > header::MAX_AXES {
            return Err(NpyError::NotAnArray {
                path: path.to_owned(),
                what: format!("{} axes are over NumPy's {}", shape.len(), header::MAX_AXES),
            });
        }
        let header = header::of("<f4", shape);
        let elements = elements(shape).ok_or_else(too_large)?;
        let needed = (elements as u64)
            .checked_mul(4)
            .and_then(|bytes| bytes.checked_add(header.len() as u64))
            .filter(|&bytes| i64::try_from(bytes).is_ok())
            .ok_or_else(too_large)?;
        let file = AtomicFile::create(path).map_err(io)?;
        reserve(&file, needed).map_err(|error| match error {
            Reserve::NoSpace { free } => NpyError::NoSpace {
                path: path.to_owned(),
                shape: shape.to_vec(),
                needed,
                free,
            },
            Reserve::Io(source) => io(source),
        })?;
        write_all_at(&file, &header, 0).map_err(io)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            shape: shape.to_vec(),
            elements,
            start: header.len() as u64,
            written: AtomicUsize::new(0),
        })
    }

    /// Writes `values` starting at element `offset` in C order. Threads may write different parts at
    /// the same time. Values are converted in small chunks.
    ///
    /// # Errors
    /// The elements are not within the array, or the write fails.
    pub fn write_at(&self, offset: usize, values: &[f32]) -> Result<(), NpyError> {
        let end = offset.checked_add(values.len());
        if end.is_none_or(|end| end > self.elements) {
            return Err(NpyError::OutOfRange {
                path: self.path.clone(),
                shape: self.shape.clone(),
                offset,
                count: values.len(),
            });
        }
        let mut bytes = Vec::with_capacity(CHUNK.min(values.len()) * 4);
        let mut at = self.start + offset as u64 * 4;
        for chunk in values.chunks(CHUNK) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            write_all_at(&self.file, &bytes, at).map_err(|source| NpyError::Io {
                path: self.path.clone(),
                source,
            })?;
            at += bytes.len() as u64;
        }
        self.written.fetch_add(values.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Syncs the file, renames it to its destination and syncs the directory.
    ///
    /// # Errors
    /// Fewer elements were written than the array has (elements written twice count twice, so this check
    /// can miss a gap), or the system fails. The destination is then unchanged.
    pub fn finish(self) -> Result<(), NpyError> {
        let written = self.written.into_inner();
        if written < self.elements {
            return Err(NpyError::Unfinished {
                path: self.path,
                shape: self.shape,
                written,
            });
        }
        let path = self.path;
        self.file
            .commit()
            .map_err(|source| NpyError::Io { path, source })
    }
}

/// Writes an array atomically.
///
/// # Errors
/// The length of `data` does not match `shape`, the disk is full, or the system fails. The
/// destination is then unchanged.
pub fn write(path: &Path, shape: &[usize], data: &[f32]) -> Result<(), NpyError> {
    let writer = NpyWriter::create(path, shape)?;
    writer.write_at(0, data)?;
    writer.finish()
}

enum Reserve {
    NoSpace { free: u64 },
    Io(io::Error),
}

/// Sets the length of the file and, if the file system can, reserves its blocks.
fn reserve(file: &AtomicFile, bytes: u64) -> Result<(), Reserve> {
    use rustix::io::Errno;

    // Checked first, since a reservation that fails may fill the disk temporarily.
    let free = || match rustix::fs::fstatvfs(file.file()) {
        Ok(fs) if fs.f_blocks > 0 => fs.f_bavail.saturating_mul(fs.f_frsize),
        // Some file systems do not report this.
        _ => u64::MAX,
    };
    let available = free();
    if available < bytes {
        return Err(Reserve::NoSpace { free: available });
    }
    loop {
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(file.file(), flags, 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC | Errno::DQUOT) => return Err(Reserve::NoSpace { free: free() }),
            // Not supported by this file system: only the length is set.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                log::debug!("this file system cannot reserve space");
                return file.file().set_len(bytes).map_err(Reserve::Io);
            }
            Err(error) => return Err(Reserve::Io(error.into())),
        }
    }
}

fn write_all_at(file: &AtomicFile, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file.file(), bytes, at)
}

/// Writes a uint8 array to `out`.
pub(crate) fn write_u8(out: &mut impl io::Write, shape: &[usize], data: &[u8]) -> io::Result<()> {
    out.write_all(&header::of("|u1", shape))?;
    out.write_all(data)
}
