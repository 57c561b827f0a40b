//! The output directory, which appears complete or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::report;
use crate::interrupt;

/// A temporary directory next to the destination, to which it is renamed at the end. It is removed if
/// dropped before that.
pub struct Place {
    work: TempDir,
    out: PathBuf,
    // Dropped after the directory: fields are dropped in order.
    _writing: interrupt::Writing,
}

impl Place {
    /// Starts a demo with the output directory `out`. An existing demo is replaced only with `force`,
    /// and anything else never.
    pub fn begin(out: &Path, force: bool) -> Result<Self> {
        if out.symlink_metadata().is_ok() {
            if !is_demo(out) {
                bail!(
                    "{}: already exists and is not a demo, so it is not replaced; choose another --out",
                    out.display()
                );
            }
            if !force {
                bail!(
                    "{}: already exists; choose another --out, or replace the demo with --force",
                    out.display()
                );
            }
        }
        if out.file_name().is_none() {
            bail!("--out {:?}: expected the name of a new directory", out);
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !parent.is_dir() {
            bail!(
                "{}: no such directory; create it, or choose another --out",
                parent.display()
            );
        }
        let writing = interrupt::Writing::begin()?;
        let work = tempfile::Builder::new()
            .prefix(".loftup-demo-")
            .tempdir_in(parent)
            // Without the name of the temporary directory.
            .map_err(|e| std::io::Error::from(e.kind()))
            .with_context(|| format!("{}: cannot create a directory", parent.display()))?;
        Ok(Self {
            work,
            out: out.to_owned(),
            _writing: writing,
        })
    }

    /// The temporary directory.
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// Moves it to the destination.
    pub fn commit(self) -> Result<()> {
        interrupt::check()?;
        let name = || self.out.display().to_string();
        // Temporary directories are private to their owner; this one is the user's.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(self.work(), fs::Permissions::from_mode(0o755))
                .with_context(name)?;
        }
        if self.out.exists() {
            // Two renames: the demo may be missing for a moment, but old and new are never mixed.
            let old = self.work().with_extension("old");
            fs::rename(&self.out, &old).with_context(name)?;
            if let Err(e) = fs::rename(self.work(), &self.out) {
                let _ = fs::rename(&old, &self.out);
                return Err(e).with_context(name);
            }
            let _ = fs::remove_dir_all(&old);
        } else {
            fs::rename(self.work(), &self.out).with_context(name)?;
        }
        // It has been renamed, so there is nothing to remove.
        let _ = self.work.keep();
        Ok(())
    }
}

/// Whether `path` is the output of a demo, which may be replaced: a real directory with a file that
/// only a demo writes.
fn is_demo(path: &Path) -> bool {
    let real = path.symlink_metadata().is_ok_and(|m| m.is_dir());
    real && fs::read(path.join(report::FIGURES))
        .is_ok_and(|text| serde_json::from_slice::<report::Marker>(&text).is_ok())
}
