//! The generated scenes for each purpose, in memory and on disk.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context, Result};
use image::{ExtendedColorType, save_buffer};
use loftup_scenes::{CLASSES, Frame, Scene};
use rayon::prelude::*;

/// Side of an image, in pixels.
pub const SIDE: usize = 224;

/// First seeds. Training and evaluation use different scenes.
mod first {
    pub const BACKBONE: u64 = 1 << 40;
    pub const BACKBONE_CHECK: u64 = 2 << 40;
    pub const UPSAMPLER: u64 = 3 << 40;
    pub const PROBE: u64 = 4 << 40;
    pub const EVALUATION: u64 = 5 << 40;
}

/// The purpose of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Training of the backbone.
    Backbone,
    /// Validation during the training of the backbone.
    BackboneCheck,
    /// Training of the upsampler.
    Upsampler,
    /// Training of the probes.
    Probe,
    /// Evaluation of the probes.
    Evaluation,
}

impl Part {
    fn seed(self, scene: usize) -> u64 {
        let first = match self {
            Self::Backbone => first::BACKBONE,
            Self::BackboneCheck => first::BACKBONE_CHECK,
            Self::Upsampler => first::UPSAMPLER,
            Self::Probe => first::PROBE,
            Self::Evaluation => first::EVALUATION,
        };
        first + scene as u64
    }
}

/// Scene `index` of a part, at time 0.
fn frame(part: Part, index: usize) -> Frame {
    Scene::new(part.seed(index)).frame(0.0, SIDE, SIDE)
}

/// An image and its classes, row-major.
#[derive(Debug, Clone)]
pub struct Labeled {
    /// Three bytes per pixel.
    pub rgb: Vec<u8>,
    /// Indices into the scenes' classes.
    pub classes: Vec<u8>,
}

/// Renders scenes into memory, 200 kB each, on all cores.
pub fn labeled(part: Part, scenes: Range<usize>) -> Vec<Labeled> {
    scenes
        .into_par_iter()
        .map(|index| {
            let frame = frame(part, index);
            Labeled {
                rgb: frame.rgb,
                classes: frame.classes,
            }
        })
        .collect()
}

/// Writes images with the masks of all objects to a folder, as `loftup-train` reads them.
///
/// # Errors
/// A file cannot be written.
pub fn write_with_masks(dir: &Path, count: usize, progress: crate::Progress<'_>) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    in_blocks(count, "scenes with masks", progress, |index| {
        let frame = frame(Part::Upsampler, index);
        let path = dir.join(format!("{index:05}.png"));
        if path.exists() && path.with_extension("json").exists() {
            return Ok(());
        }
        let json = path.with_extension("json");
        fs::write(&json, frame.masks_json(&format!("{index:05}.png")))
            .with_context(|| json.display().to_string())?;
        save(&path, &frame.rgb, ExtendedColorType::Rgb8)
    })
}

/// Writes a dataset with `train` and `val` to a folder, as `loftup-eval` reads it.
///
/// # Errors
/// A file cannot be written.
pub fn write_labeled(
    dir: &Path,
    probe: usize,
    evaluation: usize,
    progress: crate::Progress<'_>,
) -> Result<()> {
    for (name, part, count) in [
        ("train", Part::Probe, probe),
        ("val", Part::Evaluation, evaluation),
    ] {
        let place = |kind: &str| -> Result<_> {
            let dir = dir.join(name).join(kind);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            Ok(dir)
        };
        let (images, labels) = (place("images")?, place("labels")?);
        in_blocks(count, "scenes with labels", progress, |index| {
            let frame = frame(part, index);
            let name = format!("{index:05}.png");
            save(&images.join(&name), &frame.rgb, ExtendedColorType::Rgb8)?;
            save(&labels.join(&name), &frame.classes, ExtendedColorType::L8)
        })?;
    }
    let file = dir.join("classes.txt");
    fs::write(&file, CLASSES.join("\n") + "\n").with_context(|| file.display().to_string())
}

fn save(path: &Path, bytes: &[u8], kind: ExtendedColorType) -> Result<()> {
    save_buffer(path, bytes, SIDE as u32, SIDE as u32, kind)
        .with_context(|| path.display().to_string())
}

/// Frames between two progress reports.
const BLOCK: usize = 32;

fn in_blocks(
    count: usize,
    stage: &str,
    progress: crate::Progress<'_>,
    make: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    for start in (0..count).step_by(BLOCK) {
        progress(stage, start as u64, count as u64, "");
        (start..count.min(start + BLOCK))
            .into_par_iter()
            .try_for_each(&make)?;
    }
    Ok(())
}
