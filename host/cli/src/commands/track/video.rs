//! The frames of a video.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

/// The images of a directory, or those that match a glob, in the order of their names, each with the
/// name of its mask.
pub fn frames(video: &Path) -> Result<Vec<(PathBuf, String)>> {
    let shown = video.display();
    let paths = if video.is_dir() {
        loftup_eval::data::image_files(video)?
    } else {
        let pattern = video.to_string_lossy();
        ensure!(
            pattern.contains(['*', '?', '[']),
            "{shown}: no such directory; --video takes a directory of images or a glob"
        );
        let found = glob::glob(&pattern).with_context(|| shown.to_string())?;
        let mut paths = found
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| shown.to_string())?;
        paths.retain(|path| path.is_file());
        paths.sort();
        paths
    };
    ensure!(!paths.is_empty(), "{shown}: no images");
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut frames = Vec::new();
    for path in paths {
        let Some(stem) = path.file_stem().and_then(|s| s.to_str()) else {
            bail!("{}: not a name in UTF-8", path.display());
        };
        let name = format!("{stem}.png");
        if let Some(other) = names.insert(name.clone(), path.clone()) {
            bail!(
                "{} and {} would have the same mask {name}; rename one of them",
                other.display(),
                path.display()
            );
        }
        frames.push((path, name));
    }
    Ok(frames)
}
