//! A dataset of generated scenes, identical on every machine.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use loftup_bundle::Size;
use loftup_runtime::{
    class_map::{save_classes, save_palette},
    depth::save_depth,
    image::RgbImage,
};
use loftup_scenes::{CLASSES, Frame, OBJECTS, Scene};

use super::stages::Watch;

/// The dataset, in the format of `loftup eval` and `loftup head`.
pub const FOLDER: &str = "scenes";
/// A clip of [`FILM`] with masks of objects, in the layout of DAVIS.
pub const CLIP: &str = "scenes/clip";
/// Its frames, and how many of them are a second.
pub const CLIP_FRAMES: usize = 12;
const CLIP_RATE: f64 = 5.0;
/// Objects of the clip.
const CLIP_OBJECTS: usize = 3;
/// Masks of objects of fewer pixels are not written.
const LEAST_AREA: usize = 100;
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
const PARTS: [(&str, u64, u64); 2] = [("train", 24, 1 << 40), ("val", 12, HELD_OUT)];
/// Seed of the first scene of the evaluation.
pub const HELD_OUT: u64 = 1 << 41;
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
        let (depth, masks) = (place("depth")?, place("masks")?);
        for i in 0..count {
            watch("drawing", done, total);
            let scene = Scene::new(first + i);
            let frame = scene.frame(0.0, SIZE.width, SIZE.height);
            let name = format!("{i:03}.png");
            save_depth(
                &depth.join(&name),
                frame.width,
                frame.height,
                &depth_of(&scene),
            )?;
            let objects: Vec<u16> = areas(&frame)
                .into_iter()
                .filter(|(_, n)| *n >= LEAST_AREA)
                .map(|(id, _)| id)
                .collect();
            save_palette(
                &masks.join(&name),
                frame.width,
                frame.height,
                &numbered(&frame, &objects),
            )?;
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
    clip(&at.join(CLIP))?;
    let names = folder.join("classes.txt");
    fs::write(&names, CLASSES.join("\n") + "\n").with_context(|| names.display().to_string())
}

/// Writes the clip: the objects are those whose smallest area in it is the largest.
fn clip(at: &Path) -> Result<()> {
    let scene = Scene::new(FILM);
    let frames: Vec<Frame> = (0..CLIP_FRAMES)
        .map(|i| scene.frame(i as f64 / CLIP_RATE, SIZE.width, SIZE.height))
        .collect();
    let mut smallest = areas(&frames[0]);
    for frame in &frames {
        let areas = areas(frame);
        smallest.retain_mut(|(id, least)| {
            let area = areas.iter().find(|(other, _)| other == id);
            area.inspect(|(_, area)| *least = (*least).min(*area))
                .is_some()
        });
    }
    smallest.sort_by_key(|(_, area)| std::cmp::Reverse(*area));
    let objects: Vec<u16> = smallest
        .iter()
        .take(CLIP_OBJECTS)
        .map(|(id, _)| *id)
        .collect();
    let place = |kind: &str| -> Result<PathBuf> {
        let path = at.join(kind).join("480p/walk");
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    };
    let (images, masks) = (place("JPEGImages")?, place("Annotations")?);
    for (i, frame) in frames.into_iter().enumerate() {
        let name = format!("{i:05}.png");
        let labels = numbered(&frame, &objects);
        save_palette(&masks.join(&name), frame.width, frame.height, &labels)?;
        photo(frame)?.save_png(&images.join(&name))?;
    }
    Ok(())
}

/// Depth in meters of the first frame of a scene; NaN for the sky.
pub fn depth_of(scene: &Scene) -> Vec<f32> {
    let depth = scene.depth(0.0, SIZE.width, SIZE.height);
    let known = |d: f32| if d.is_finite() { d } else { f32::NAN };
    depth.into_iter().map(known).collect()
}

/// Instance and area of each object in a frame.
fn areas(frame: &Frame) -> Vec<(u16, usize)> {
    let mut found = BTreeMap::new();
    for (class, instance) in frame.classes.iter().zip(&frame.instances) {
        if *class >= OBJECTS {
            *found.entry(*instance).or_insert(0) += 1;
        }
    }
    found.into_iter().collect()
}

/// A mask of these instances, numbered from 1; at most 254 of them.
fn numbered(frame: &Frame, objects: &[u16]) -> Vec<u8> {
    let number = |id: &u16| objects.iter().take(254).position(|o| o == id);
    let label = |id: &u16| number(id).map_or(0, |i| (i + 1) as u8);
    frame.instances.iter().map(label).collect()
}

/// Image and mask of frame `i` of the clip.
pub fn of_clip(at: &Path, i: usize) -> (PathBuf, PathBuf) {
    let place = |kind: &str| {
        at.join(CLIP)
            .join(kind)
            .join(format!("480p/walk/{i:05}.png"))
    };
    (place("JPEGImages"), place("Annotations"))
}

/// Paths of validation image `i` and its labels.
pub fn held_out(at: &Path, i: u64) -> (PathBuf, PathBuf) {
    (held_out_as(at, i, "images"), held_out_as(at, i, "labels"))
}

/// Path of a file of validation image `i`: `images`, `labels`, `masks` or `depth`.
pub fn held_out_as(at: &Path, i: u64, kind: &str) -> PathBuf {
    let folder = at.join(FOLDER).join("val").join(kind);
    folder.join(format!("{i:03}.png"))
}

/// The image of a frame.
pub fn photo(frame: Frame) -> Result<RgbImage> {
    Ok(RgbImage::new(frame.width, frame.height, frame.rgb)?)
}
