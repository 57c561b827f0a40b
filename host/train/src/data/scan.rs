//! Finding pictures, masks and archives.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use super::{Entry, Place};
use crate::error::TrainError;

/// Ends of names that are taken for pictures. What they hold is found out on decoding.
const PICTURES: [&str; 10] = [
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pnm",
];
/// Folders inside each other that are searched.
const DEPTH: usize = 32;

/// Files that belong together: they have one name up to the ending.
#[derive(Default)]
struct Group {
    picture: Option<(String, Place)>,
    masks: Option<Place>,
}

/// Sorts files into groups by name.
#[derive(Default)]
struct Groups(BTreeMap<String, Group>);

impl Groups {
    fn add(&mut self, name: String, place: Place) {
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return;
        };
        let extension = extension.to_ascii_lowercase();
        let group = self.0.entry(stem.to_string()).or_default();
        if extension == "json" {
            group.masks = Some(place);
        } else if PICTURES.contains(&extension.as_str()) {
            if let Some((other, _)) = &group.picture {
                log::warn!("{name}: left out: {other} has the same name");
                return;
            }
            group.picture = Some((name, place));
        }
    }

    fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.0.into_values().filter_map(|group| {
            let (name, picture) = group.picture?;
            Some(Entry {
                name,
                picture,
                masks: group.masks,
            })
        })
    }
}

/// All pictures under a path, sorted by name.
pub(super) fn scan(path: &Path) -> Result<Vec<Entry>, TrainError> {
    let metadata = std::fs::metadata(path).map_err(TrainError::io(path))?;
    let mut files = Vec::new();
    if metadata.is_dir() {
        walk(path, DEPTH, &mut files)?;
    } else {
        files.push((path.to_path_buf(), metadata.len()));
    }
    let (mut groups, mut entries) = (Groups::default(), Vec::new());
    for (file, len) in files {
        let name = file.to_string_lossy().into_owned();
        if name.to_ascii_lowercase().ends_with(".tar") {
            entries.extend(archive(&file)?);
        } else {
            groups.add(
                name,
                Place {
                    file,
                    offset: 0,
                    len,
                },
            );
        }
    }
    entries.extend(groups.into_entries());
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, u64)>) -> Result<(), TrainError> {
    if depth == 0 {
        log::warn!(
            "{}: more than {DEPTH} folders deep: not searched",
            folder.display()
        );
        return Ok(());
    }
    for item in std::fs::read_dir(folder).map_err(TrainError::io(folder))? {
        let path = item.map_err(TrainError::io(folder))?.path();
        // What a link points to counts; a broken link does not.
        match std::fs::metadata(&path) {
            Ok(m) if m.is_dir() => walk(&path, depth - 1, files)?,
            Ok(m) if m.is_file() => files.push((path, m.len())),
            Ok(_) => {}
            Err(e) => log::warn!("{}: left out: {e}", path.display()),
        }
    }
    Ok(())
}

/// The pictures in an archive. One that is cut off or damaged gives what comes before that.
fn archive(path: &Path) -> Result<Vec<Entry>, TrainError> {
    let file = File::open(path).map_err(TrainError::io(path))?;
    let len = file.metadata().map_err(TrainError::io(path))?.len();
    let mut archive = tar::Archive::new(file);
    let mut groups = Groups::default();
    let members = archive.entries_with_seek().map_err(TrainError::io(path))?;
    for member in members {
        let member = match member {
            Ok(member) => member,
            Err(e) => {
                log::warn!("{}: damaged, what follows is left out: {e}", path.display());
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
            log::warn!("{name}: left out: the archive is cut off");
            continue;
        }
        groups.add(name, place);
    }
    Ok(groups.into_entries().collect())
}
