//! Finds images, masks and archives.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use loftup_runtime::image::folders::Walk;

use super::{Entry, NAMED, Place};
use crate::error::TrainError;

/// File extensions of images. The actual format is detected when decoding.
const PICTURES: [&str; 10] = [
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pnm",
];

/// Files that belong together: they differ only in the extension.
#[derive(Default)]
struct Group {
    image: Option<(String, Place)>,
    masks: Option<Place>,
}

/// Sorts files into groups by name.
#[derive(Default)]
struct Groups(BTreeMap<String, Group>);

impl Groups {
    /// Adds a file. Files without a known extension are ignored. A second image with the same name is an error.
    fn add(&mut self, name: String, place: Place) -> Result<(), String> {
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return Ok(());
        };
        let extension = extension.to_ascii_lowercase();
        if extension != "json" && !PICTURES.contains(&extension.as_str()) {
            return Ok(());
        }
        let group = self.0.entry(stem.to_string()).or_default();
        if extension == "json" {
            group.masks = Some(place);
        } else {
            if let Some((other, _)) = &group.image {
                return Err(format!("{name}: {other} has the same name"));
            }
            group.image = Some((name, place));
        }
        Ok(())
    }

    fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.0.into_values().filter_map(|group| {
            let (name, image) = group.image?;
            Some(Entry {
                name,
                image,
                masks: group.masks,
            })
        })
    }
}

/// A search for images under any number of paths.
pub(super) struct Scan<'a> {
    walk: Walk<'a>,
    stop: &'a AtomicBool,
    left_out: usize,
}

impl<'a> Scan<'a> {
    /// Creates a search, which fails once `stop` is true.
    pub fn new(stop: &'a AtomicBool) -> Self {
        Self {
            walk: Walk::new(stop),
            stop,
            left_out: 0,
        }
    }

    /// Returns all images under a path, sorted by name. A folder that was already searched, also under
    /// another name, is skipped.
    pub fn path(&mut self, path: &Path) -> Result<Vec<Entry>, TrainError> {
        let metadata = std::fs::metadata(path).map_err(TrainError::io(path))?;
        let mut entries = Vec::new();
        if metadata.is_dir() {
            self.walk.add(path.into());
            while let Some(folder) = self.walk.next_folder() {
                let folder = folder.map_err(|(path, e)| TrainError::io(&path)(e))?;
                for (path, e) in folder.unusable {
                    self.leave_out(format_args!("{}: {e}", path.display()));
                }
                self.files(folder.files, &mut entries)?;
            }
        } else {
            self.files(vec![(path.into(), metadata.len())], &mut entries)?;
        }
        self.check()?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Returns the images among the files of one folder.
    fn files(
        &mut self,
        files: Vec<(PathBuf, u64)>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), TrainError> {
        let mut groups = Groups::default();
        for (file, len) in files {
            let name = file.to_string_lossy().into_owned();
            if name.to_ascii_lowercase().ends_with(".tar") {
                self.archive(&file, entries)?;
            } else {
                let place = Place {
                    file,
                    offset: 0,
                    len,
                };
                self.add(&mut groups, name, place);
            }
        }
        entries.extend(groups.into_entries());
        Ok(())
    }

    fn add(&mut self, groups: &mut Groups, name: String, place: Place) {
        if let Err(what) = groups.add(name, place) {
            self.leave_out(what);
        }
    }

    /// Logs a warning about a skipped file, up to a limit; the rest is only counted.
    fn leave_out(&mut self, what: impl std::fmt::Display) {
        self.left_out += 1;
        if self.left_out <= NAMED {
            log::warn!("left out: {what}");
        }
    }

    /// Logs the number of warnings that were suppressed.
    pub fn finish(self) {
        if self.left_out > NAMED {
            log::warn!("left out: {} more files", self.left_out - NAMED);
        }
        if self.walk.repeated() > 0 {
            log::info!(
                "{} links or paths lead to folders that were searched already",
                self.walk.repeated()
            );
        }
    }

    fn check(&self) -> Result<(), TrainError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(TrainError::Interrupted),
            false => Ok(()),
        }
    }

    /// Adds the images in an archive. If it is truncated or damaged, adds those before that point.
    fn archive(&mut self, path: &Path, entries: &mut Vec<Entry>) -> Result<(), TrainError> {
        let file = File::open(path).map_err(TrainError::io(path))?;
        let len = file.metadata().map_err(TrainError::io(path))?.len();
        let mut archive = tar::Archive::new(file);
        let mut groups = Groups::default();
        let members = archive.entries_with_seek().map_err(TrainError::io(path))?;
        for member in members {
            self.check()?;
            let member = match member {
                Ok(member) => member,
                Err(e) => {
                    self.leave_out(format_args!(
                        "{}: damaged, with what follows: {e}",
                        path.display()
                    ));
                    break;
                }
            };
            if !member.header().entry_type().is_file() {
                continue;
            }
            let Ok(name) = member.path() else { continue };
            let name = format!("{}/{}", path.display(), name.display());
            let place = Place {
                file: path.into(),
                offset: member.raw_file_position(),
                len: member.size(),
            };
            if place
                .offset
                .checked_add(place.len)
                .is_none_or(|end| end > len)
            {
                self.leave_out(format_args!("{name}: the archive is cut off"));
                continue;
            }
            self.add(&mut groups, name, place);
        }
        entries.extend(groups.into_entries());
        Ok(())
    }
}
