//! Made-up scenes as a data set: the same on every machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use loftup_bundle::Size;
use loftup_runtime::{class_map::save_classes, image::Rgb8};
use loftup_scenes::{CLASSES, Frame, Scene};

use super::stages::Watch;

/// The data set, in the form that `loftup eval` and `loftup head` take.
pub const FOLDER: &str = "scenes";
/// Size of its pictures.
pub const SIZE: Size = Size {
    width: 224,
    height: 224,
};
/// Scenes to train on, and to be judged by.
const PARTS: [(&str, u64, u64); 2] = [("train", 24, 1 << 40), ("val", 12, 1 << 41)];
/// The scene that the camera moves through. All seeds are others than those of the built-in model.
pub const FILM: u64 = 1 << 42;

/// Writes the data set into `at`.
pub fn write(at: &Path, watch: Watch<'_>) -> Result<()> {
    let folder = at.join(FOLDER);
    let total = PARTS.iter().map(|(_, count, _)| *count as usize).sum();
    let mut done = 0;
    for (part, count, first) in PARTS {
        let place = |kind: &str| -> Result<PathBuf> {
            let path = folder.join(part).join(kind);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            Ok(path)
        };
        let (images, labels) = (place("images")?, place("labels")?);
        for i in 0..count {
            watch("drawing", done, total);
            let frame = Scene::new(first + i).frame(0.0, SIZE.width, SIZE.height);
            let name = format!("{i:03}.png");
            save_classes(
                &labels.join(&name),
                frame.width,
                frame.height,
                &frame.classes,
            )?;
            photo(frame)?.save_png(&images.join(&name))?;
            done += 1;
        }
    }
    let names = folder.join("classes.txt");
    fs::write(&names, CLASSES.join("\n") + "\n").with_context(|| names.display().to_string())
}

/// Picture and mask `i` that the model is judged by.
pub fn held_out(at: &Path, i: u64) -> (PathBuf, PathBuf) {
    let place = |kind: &str| {
        at.join(FOLDER)
            .join("val")
            .join(kind)
            .join(format!("{i:03}.png"))
    };
    (place("images"), place("labels"))
}

/// What the camera sees.
pub fn photo(frame: Frame) -> Result<Rgb8> {
    Ok(Rgb8::new(frame.width, frame.height, frame.rgb)?)
}
