//! Image files.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
};

use loftup_runtime::image::{self, Orientation, folders::Walk};

use super::{Clock, Pace, Poll, Source, SourceError};
use crate::frame::RawFrame;

/// Endings of the files that a folder is searched for.
const ENDINGS: [&str; 9] = [
    "bmp", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp",
];

/// The images of a folder, or the files that a pattern names, in the order of their names.
///
/// # Errors
/// Where the folder cannot be read or the pattern is none.
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
            let ending = file.extension().unwrap_or_default().to_ascii_lowercase();
            if ENDINGS.iter().any(|e| ending == *e) {
                files.push(file);
            }
        }
    }
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

/// The files under a pattern with `**`. Each real folder is searched once, whatever links say.
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
    // Folders of the working directory are named without `./`, as in the pattern.
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

/// Image files, one after the other.
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
    /// The images that `path` names, see [`list`].
    ///
    /// # Errors
    /// Where there is none.
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
        // Files wait: none is lost because the reader is slow.
        let Some((_, stamp_us)) = self.pace.wait(clock) else {
            return Ok(Poll::Nothing);
        };
        let file = &self.files[self.next];
        self.next += 1;
        into.number = self.number;
        self.number += 1;
        let picture = image::open_with(file, self.orientation)?.image;
        into.stamp_us = stamp_us;
        (into.width, into.height) = (picture.width(), picture.height());
        into.bytes.clear();
        into.bytes.extend_from_slice(picture.data());
        Ok(Poll::Frame)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn patterns_search_each_folder_once() {
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
