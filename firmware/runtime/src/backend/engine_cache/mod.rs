//! Caches built TensorRT engines on disk.
//!
//! One file per key: graph, library, GPU, precision, shapes and settings ([`EngineKey`]). A file is
//! written under a temporary name, synced and renamed, so that it is always complete, even after a
//! crash or power failure. Header and checksum are verified before it is used. If several processes
//! need the same engine, one builds it and the others wait.
//!
//! TensorRT trusts the contents of an engine: anyone who can write to the directory can run code in
//! this process. The directory is created with access for its owner only.

mod file;
mod key;
mod watch;

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

pub use self::{
    key::EngineKey,
    watch::{BuildEvent, BuildWatch, LogWatch},
};
use super::BackendError;
use crate::user_cache;
use file::Unusable;

/// Polling interval while another process is building.
const POLL: Duration = Duration::from_millis(100);

/// The cache directory cannot be used. The message is one line.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; use another engine directory, or make this one writable", path.display())]
pub struct CacheError {
    path: PathBuf,
    source: io::Error,
}

/// A directory of engines, or no cache.
#[derive(Debug, Clone)]
pub struct EngineCache {
    directory: Option<PathBuf>,
}

/// How an engine was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Read from the cache, possibly after another process built it.
    Cache,
    /// Built by this process, in this time.
    Built(Duration),
}

/// A file in the cache.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The path.
    pub path: PathBuf,
    /// Length in bytes.
    pub bytes: u64,
    /// Time of the last modification.
    pub modified: Option<SystemTime>,
    /// The key, or why the file cannot be used.
    pub content: Result<EngineKey, String>,
}

/// The result of [`EngineCache::clean`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Number of engines removed.
    pub engines: usize,
    /// Bytes freed, including the remains of interrupted builds.
    pub bytes: u64,
    /// Number of engines kept because another process is building or waiting for them.
    pub in_use: usize,
}

impl EngineCache {
    /// A cache in `directory`, which is created on first use.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(directory.into()),
        }
    }

    /// `loftup-edge/engines` in the user's cache directory (`XDG_CACHE_HOME`, or `~/.cache`); no
    /// cache if neither is known.
    pub fn of_user() -> Self {
        Self {
            directory: user_cache::directory("engines"),
        }
    }

    /// No cache.
    pub fn none() -> Self {
        Self { directory: None }
    }

    /// The directory.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Returns the engine for `key`: reads it, or builds it with `build` and stores it. A file that
    /// cannot be used is replaced, and `watch` is told the reason. If the engine cannot be stored,
    /// it is built nevertheless, with a warning.
    ///
    /// # Errors
    /// Errors of `build`; [`BackendError::Cancelled`] while waiting for another process.
    pub fn get_or_build<E: AsRef<[u8]>>(
        &self,
        key: &EngineKey,
        watch: &dyn BuildWatch,
        build: impl FnOnce() -> Result<E, BackendError>,
    ) -> Result<(Vec<u8>, Origin), BackendError> {
        let Some(directory) = &self.directory else {
            let start = Instant::now();
            return Ok((build()?.as_ref().to_vec(), Origin::Built(start.elapsed())));
        };
        let path = directory.join(key.file_name());
        // First without the lock: reading needs none, so that a read-only directory works.
        if let Ok(bytes) = file::read(&path, key) {
            return Ok((loaded(key, watch, bytes), Origin::Cache));
        }
        let lock = match make(directory).and_then(|()| wait_for_lock(&path, key, watch)) {
            Ok(Locked::Mine(lock)) => Some(lock),
            Ok(Locked::Cancelled) => {
                return Err(BackendError::Cancelled {
                    graph: key.graph.clone(),
                });
            }
            Err(e) => {
                log::warn!(
                    "{}: {e}; the engine is built but not cached",
                    path.display()
                );
                None
            }
        };
        match file::read(&path, key) {
            Ok(bytes) => return Ok((loaded(key, watch, bytes), Origin::Cache)),
            Err(Unusable::Missing) => {
                if let Some(why) = self.outdated(directory, key) {
                    let file = &path;
                    watch.event(&BuildEvent::Rebuilding { file, why: &why });
                }
            }
            Err(Unusable::Invalid(why)) => {
                let file = &path;
                watch.event(&BuildEvent::Rebuilding { file, why: &why });
            }
        }
        let start = Instant::now();
        let engine = build()?;
        let (bytes, elapsed) = (engine.as_ref().to_vec(), start.elapsed());
        if lock.is_some()
            && let Err(e) = file::write(&path, key, &bytes)
        {
            log::warn!("{}: {e}; the engine is not cached", path.display());
        }
        watch.event(&BuildEvent::Built {
            graph: &key.graph,
            elapsed,
            bytes: bytes.len(),
        });
        Ok((bytes, Origin::Built(elapsed)))
    }

    /// Removes the engine for `key`, which is intact but was rejected by the library.
    pub fn reject(&self, key: &EngineKey, watch: &dyn BuildWatch, why: &str) {
        if let Some(directory) = &self.directory {
            let file = &directory.join(key.file_name());
            watch.event(&BuildEvent::Rebuilding { file, why });
            if let Err(e) = fs::remove_file(file) {
                log::warn!("{}: {e}", file.display());
            }
        }
    }

    /// Whether there is an intact engine for `key`.
    pub fn contains(&self, key: &EngineKey) -> bool {
        let path = self.directory.as_ref().map(|d| d.join(key.file_name()));
        path.is_some_and(|path| file::read(&path, key).is_ok())
    }

    /// All engines, sorted by name; each is read and verified.
    ///
    /// # Errors
    /// The directory cannot be read. A missing directory counts as empty.
    pub fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let mut entries = Vec::new();
        for path in self.files(".engine")? {
            let meta = fs::metadata(&path).ok();
            entries.push(Entry {
                bytes: meta.as_ref().map_or(0, fs::Metadata::len),
                modified: meta.and_then(|m| m.modified().ok()),
                content: file::describe(&path),
                path,
            });
        }
        Ok(entries)
    }

    /// Removes all engines and the remains of interrupted builds, except those that another process
    /// is using.
    ///
    /// # Errors
    /// The directory cannot be read or modified.
    pub fn clean(&self) -> Result<Cleaned, CacheError> {
        let mut cleaned = Cleaned::default();
        let engines = self.files(".engine")?.into_iter().map(|path| (path, ""));
        let parts = self.files(".engine.part")?.into_iter();
        for (path, end) in engines.chain(parts.map(|path| (path, ".part"))) {
            let Ok(Some(_lock)) = try_lock(&without(&path, end)) else {
                cleaned.in_use += usize::from(end.is_empty());
                continue;
            };
            cleaned.bytes += fs::metadata(&path).map_or(0, |m| m.len());
            remove(&path)?;
            cleaned.engines += usize::from(end.is_empty());
        }
        // Last: a process that is waiting for a lock file keeps it open and then builds the engine
        // itself.
        for path in self.files(".engine.lock")? {
            if let Ok(Some(_lock)) = try_lock(&without(&path, ".lock")) {
                remove(&path)?;
            }
        }
        Ok(cleaned)
    }

    /// The files in the directory whose names end with `end`, sorted.
    fn files(&self, end: &str) -> Result<Vec<PathBuf>, CacheError> {
        let Some(directory) = &self.directory else {
            return Ok(Vec::new());
        };
        let failed = |source| CacheError {
            path: directory.clone(),
            source,
        };
        let listing = match fs::read_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut files = Vec::new();
        for entry in listing {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().ends_with(end) {
                files.push(entry.path());
            }
        }
        files.sort();
        Ok(files)
    }

    /// Describes why an existing engine for the same graph, shapes and settings cannot be used.
    fn outdated(&self, directory: &Path, key: &EngineKey) -> Option<String> {
        let start = format!("{}-", key.graph_in_file_name());
        self.files(".engine").ok()?.into_iter().find_map(|path| {
            let name = path.strip_prefix(directory).ok()?.to_str()?;
            let other = file::header(&path)
                .ok()
                .filter(|_| name.starts_with(&start))?;
            let same = (&other.sha256, &other.profiles, &other.precision)
                == (&key.sha256, &key.profiles, &key.precision);
            same.then(|| format!("{name}: {}", key.difference(&other)))
        })
    }
}

/// The path without `end`. Names in the cache are ASCII.
fn without(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(name.strip_suffix(end).unwrap_or(&name))
}

fn loaded(key: &EngineKey, watch: &dyn BuildWatch, bytes: Vec<u8>) -> Vec<u8> {
    watch.event(&BuildEvent::Loaded {
        graph: &key.graph,
        bytes: bytes.len(),
    });
    bytes
}

fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn remove(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CacheError {
            path: path.into(),
            source: e,
        }),
        _ => Ok(()),
    }
}

enum Locked {
    /// Held until it is dropped.
    Mine(#[allow(dead_code, reason = "held, not read")] File),
    Cancelled,
}

/// Tries to acquire the lock for building the engine at `path`; `None` if another process holds it.
/// The system releases it when the process exits.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(name)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn wait_for_lock(path: &Path, key: &EngineKey, watch: &dyn BuildWatch) -> io::Result<Locked> {
    let start = Instant::now();
    loop {
        if let Some(lock) = try_lock(path)? {
            return Ok(Locked::Mine(lock));
        }
        // Not immediately: a process that is being started elsewhere may hold a copy of our file
        // descriptor for a moment.
        if start.elapsed() >= POLL {
            watch.event(&BuildEvent::Waiting {
                graph: &key.graph,
                file: path,
                elapsed: start.elapsed(),
            });
        }
        if watch.cancelled() {
            return Ok(Locked::Cancelled);
        }
        thread::sleep(POLL);
    }
}
