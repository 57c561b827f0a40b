//! Image files.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
};

use loftup_runtime::image::{self, Orientation, folders::Walk};

use super::{Clock, Pace, Poll, Source, SourceError};
use crate::frame::RawFrame;

/// File extensions of images in a directory.
const EXTENSIONS: [&str; 9] = [
    "bmp", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp",
];

/// The images in a directory, or the files that match a glob, sorted by path.
///
/// # Errors
/// If the directory cannot be read or the glob is invalid.
pub fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    let text = path.to_string_lossy();
    let mut files = Vec::new();
    if !path.exists() && text.contains("**") {
        files = matching(path)?;
    } else if !path.exists() && text.contains(['*', '?', '[']) {
        let found =
            glob::glob(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        for file in found {
            files.push(file.map_err(io::Error::from)?);
        }
    } else {
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
            if EXTENSIONS.iter().any(|e| extension == *e) {
                files.push(file);
            }
        }
    }
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

/// The files that match a glob with `**`. Each directory is searched once, even with symlink cycles.
fn matching(path: &Path) -> io::Result<Vec<PathBuf>> {
    let pattern = glob::Pattern::new(&path.to_string_lossy())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..Default::default()
    };
    let plain = |part: &Component<'_>| {
        let text = part.as_os_str().to_string_lossy();
        !text.contains(['*', '?', '['])
    };
    let root: PathBuf = path.components().take_while(plain).collect();
    // Paths relative to the working directory have no `./`, like the glob.
    let here = root.as_os_str().is_empty();
    let stop = AtomicBool::new(false);
    let mut walk = Walk::new(&stop);
    walk.add(if here { ".".into() } else { root });
    let mut files = Vec::new();
    while let Some(folder) = walk.next_folder() {
        for (file, _) in folder.map_err(|(_, error)| error)?.files {
            let file = match file.strip_prefix(".") {
                Ok(file) if here => file.to_path_buf(),
                _ => file,
            };
            if pattern.matches_path_with(&file, options) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// A sequence of image files.
#[derive(Debug)]
pub struct Images {
    files: Vec<PathBuf>,
    next: usize,
    number: u64,
    pace: Pace,
    repeat: bool,
    orientation: Orientation,
}

impl Images {
    /// Opens the images that [`list`] finds for `path`.
    ///
    /// # Errors
    /// If there are none.
    pub fn open(
        path: &Path,
        pace: Pace,
        repeat: bool,
        orientation: Orientation,
    ) -> Result<Self, SourceError> {
        let io = |cause| SourceError::Io {
            path: path.into(),
            cause,
        };
        let files = list(path).map_err(io)?;
        if files.is_empty() {
            return Err(SourceError::Other(format!(
                "{}: no image found",
                path.display()
            )));
        }
        Ok(Self {
            files,
            next: 0,
            number: 0,
            pace,
            repeat,
            orientation,
        })
    }
}

impl Source for Images {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        if self.next == self.files.len() {
            if !self.repeat {
                return Ok(Poll::End);
            }
            self.next = 0;
        }
        // Files are never skipped, however slow the reader is.
        let Some((_, stamp_us)) = self.pace.wait(clock) else {
            return Ok(Poll::Nothing);
        };
        let file = &self.files[self.next];
        self.next += 1;
        into.number = self.number;
        self.number += 1;
        let image = image::open_with(file, self.orientation)?.image;
        into.stamp_us = stamp_us;
        (into.width, into.height) = (image.width(), image.height());
        into.bytes.clear();
        into.bytes.extend_from_slice(image.data());
        Ok(Poll::Frame)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn globs_search_each_directory_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("day/left")).unwrap();
        for name in ["day/left/b.png", "day/a.png", "c.png", "day/notes.txt"] {
            std::fs::write(at(name), "x").unwrap();
        }
        for link in ["loop", "day/loop", "day/left/loop"] {
            symlink(root.path(), at(link)).unwrap();
        }
        for (pattern, expected) in [
            ("**/*.png", &["c.png", "day/a.png", "day/left/b.png"][..]),
            ("day/**/b.*", &["day/left/b.png"]),
            ("day/*.png", &["day/a.png"]),
            ("day", &["day/a.png"]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(|name| at(name)).collect();
            assert_eq!(list(&at(pattern)).unwrap(), expected, "{pattern}");
        }
    }
}
