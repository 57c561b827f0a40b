//! A dataset of generated scenes, identical on every machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use loftup_bundle::Size;
use loftup_runtime::{class_map::save_classes, image::RgbImage};
use loftup_scenes::{CLASSES, Frame, Scene};

use super::stages::Watch;

/// The dataset, in the format of `loftup eval` and `loftup head`.
pub const FOLDER: &str = "scenes";
/// Scenes with instance masks, without class labels, for the training of the upsampler.
pub const UNLABELED: &str = "scenes/upsampler";
/// Their number.
const UNLABELED_SCENES: u64 = 64;
const UNLABELED_SEED: u64 = 1 << 43;
/// Size of the images.
pub const SIZE: Size = Size {
    width: 224,
    height: 224,
};
/// Scenes for training and evaluating probes: name, number, first seed.
const PARTS: [(&str, u64, u64); 2] = [("train", 24, 1 << 40), ("val", 12, 1 << 41)];
/// Seed of the scene of the video. All seeds differ from those of the built-in model.
pub const FILM: u64 = 1 << 42;

/// Writes the dataset to `at`.
pub fn write(at: &Path, watch: Watch<'_>) -> Result<()> {
    let folder = at.join(FOLDER);
    let labeled: u64 = PARTS.iter().map(|(_, count, _)| *count).sum();
    let total = (labeled + UNLABELED_SCENES) as usize;
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
    let unlabeled = at.join(UNLABELED);
    fs::create_dir_all(&unlabeled).with_context(|| unlabeled.display().to_string())?;
    for i in 0..UNLABELED_SCENES {
        watch("drawing", done, total);
        let frame = Scene::new(UNLABELED_SEED + i).frame(0.0, SIZE.width, SIZE.height);
        let image = unlabeled.join(format!("{i:03}.png"));
        let masks = image.with_extension("json");
        fs::write(&masks, frame.masks_json(&format!("{i:03}.png")))
            .with_context(|| masks.display().to_string())?;
        photo(frame)?.save_png(&image)?;
        done += 1;
    }
    let names = folder.join("classes.txt");
    fs::write(&names, CLASSES.join("\n") + "\n").with_context(|| names.display().to_string())
}

/// Paths of validation image `i` and its labels.
pub fn held_out(at: &Path, i: u64) -> (PathBuf, PathBuf) {
    let place = |kind: &str| {
        at.join(FOLDER)
            .join("val")
            .join(kind)
            .join(format!("{i:03}.png"))
    };
    (place("images"), place("labels"))
}

/// The image of a frame.
pub fn photo(frame: Frame) -> Result<RgbImage> {
    Ok(RgbImage::new(frame.width, frame.height, frame.rgb)?)
}
