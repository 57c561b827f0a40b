//! Writes bundles atomically.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use super::{BundleError, FileEntry, MANIFEST, Manifest, sha256_hex};

/// A bundle under construction, in a temporary directory next to its destination. It is removed if
/// dropped before [`BundleWriter::commit`].
#[derive(Debug)]
pub struct BundleWriter {
    destination: PathBuf,
    replace: bool,
    work: tempfile::TempDir,
    files: BTreeMap<String, FileEntry>,
}

impl BundleWriter {
    /// Starts a bundle at `destination`. An existing bundle there is replaced only if `replace` is
    /// set, and only when the new one is complete; anything else there is never replaced.
    pub fn create(destination: &Path, replace: bool) -> Result<Self, BundleError> {
        if destination.symlink_metadata().is_ok() {
            let path = destination.to_owned();
            if !replace {
                return Err(BundleError::Exists { path });
            }
            if !holds_only_a_bundle(destination) {
                return Err(BundleError::WouldReplace { path });
            }
        }
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let work = tempfile::Builder::new()
            .prefix(".loftup-bundle-")
            .tempdir_in(parent)
            .map_err(|error| {
                use std::io::ErrorKind::{
                    NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
                    StorageFull,
                };
                // The builder's error names the temporary directory, which means nothing to the
                // user.
                let source = match error.kind() {
                    NotFound => std::io::Error::new(
                        NotFound,
                        "there is no such directory; create it first, or choose another --out",
                    ),
                    kind @ (NotADirectory | PermissionDenied | QuotaExceeded
                    | ReadOnlyFilesystem | StorageFull) => kind.into(),
                    _ => error,
                };
                BundleError::Io {
                    path: parent.into(),
                    source,
                }
            })?;
        Ok(Self {
            destination: destination.into(),
            replace,
            work,
            files: BTreeMap::new(),
        })
    }

    /// Adds a file.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        self.write(name, bytes)?;
        let entry = FileEntry {
            bytes: bytes.len() as u64,
            sha256: sha256_hex(bytes),
        };
        self.files.insert(name.into(), entry);
        Ok(())
    }

    /// Writes the manifest, filling in its `files`. The bundle is then complete and can be opened
    /// under the returned path, but is not yet at its destination. Adding more files requires
    /// sealing it again.
    pub fn seal(&mut self, mut manifest: Manifest) -> Result<&Path, BundleError> {
        manifest.files = self.files.clone();
        let mut text =
            serde_json::to_string_pretty(&manifest).map_err(|e| self.failed(MANIFEST, e.into()))?;
        text.push('\n');
        match fs::remove_file(self.work.path().join(MANIFEST)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(self.failed(MANIFEST, e));
            }
            _ => {}
        }
        self.write(MANIFEST, text.as_bytes())?;
        sync_directory(self.work.path()).map_err(|e| self.failed("", e))?;
        Ok(self.work.path())
    }

    /// Moves the sealed bundle to its destination.
    pub fn commit(self) -> Result<(), BundleError> {
        let destination = self.destination.clone();
        let io = |source| BundleError::Io {
            path: destination.clone(),
            source,
        };
        // Temporary directories are private to their owner; a bundle is an ordinary directory.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(self.work.path(), fs::Permissions::from_mode(0o755)).map_err(io)?;
        }
        if self.replace && destination.exists() {
            // Two renames: in between, the bundle is missing for a moment, but never mixed.
            let old = self.work.path().with_extension("old");
            fs::rename(&destination, &old).map_err(io)?;
            if let Err(e) = fs::rename(self.work.path(), &destination) {
                let _ = fs::rename(&old, &destination);
                return Err(io(e));
            }
            let _ = fs::remove_dir_all(&old);
        } else {
            fs::rename(self.work.path(), &destination).map_err(io)?;
        }
        // The directory has been moved, so there is nothing to remove under the temporary name.
        let _ = self.work.keep();
        let parent = destination.parent().filter(|p| !p.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new("."))).map_err(io)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let write = || {
            let mut file = File::create_new(self.work.path().join(name))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|e| self.failed(name, e))
    }

    /// An error with the path at the destination instead of the temporary directory.
    fn failed(&self, name: &str, source: std::io::Error) -> BundleError {
        BundleError::Io {
            path: self.destination.join(name),
            source,
        }
    }
}

/// Whether a directory can be deleted: it has a manifest of this program, of any version, and only
/// the files listed there. (Other programs use the name `manifest.json` too.)
fn holds_only_a_bundle(path: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Listing {
        #[serde(rename = "format")]
        _format: u32,
        files: BTreeMap<String, serde::de::IgnoredAny>,
    }
    let Some(listing) = fs::read(path.join(MANIFEST))
        .ok()
        .and_then(|text| serde_json::from_slice::<Listing>(&text).ok())
    else {
        return false;
    };
    let listed = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|name| name == MANIFEST || listing.files.contains_key(name))
                && entry.file_type().is_ok_and(|kind| !kind.is_dir())
        })
    };
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(listed))
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
