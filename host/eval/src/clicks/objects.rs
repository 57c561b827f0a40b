//! Images with masks of objects.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::Size;
use loftup_masks::{Window, read_masks};
use loftup_runtime::image::{self, Orientation, RgbImage};
use serde::Deserialize;

use super::protocol::Target;
use crate::{
    EvalError, data,
    labels::{Labels, UNLABELED},
    resize::under_centers,
};

/// Maximum number of masks read per image.
const MOST_MASKS: usize = 4096;

/// An image and the file with its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub image: PathBuf,
    masks: Masks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Masks {
    /// A PNG with segment ids, which are listed in a JSON file of the same name.
    Panoptic(PathBuf),
    /// A PNG: each value is an object, 0 is background, 255 is void.
    Instances(PathBuf),
    /// A JSON file in the format of SA-1B.
    Sa1b(PathBuf),
}

/// The objects of an image at the size of the output.
pub(crate) struct Objects {
    /// Pixels of each object.
    pub masks: Vec<Vec<bool>>,
    /// Pixels that are ignored.
    pub void: Vec<bool>,
}

impl Objects {
    /// Iterates over the objects.
    pub fn targets(&self, size: Size) -> impl Iterator<Item = Target<'_>> {
        self.masks.iter().map(move |truth| Target {
            truth,
            void: &self.void,
            size,
        })
    }
}

/// Lists the images of the split `part` of `dir`: from `dir/part` if it exists, otherwise from `dir`. It
/// contains `images` with `panoptic` (PNG and JSON) or `masks` (PNG), or images next to JSON files.
///
/// # Errors
/// There are no such images.
pub(crate) fn items(dir: &Path, part: &str) -> Result<Vec<Item>, EvalError> {
    let own = dir.join(part);
    let base = if own.is_dir() { own } else { dir.to_owned() };
    for folder in ["panoptic", "masks"] {
        if base.join(folder).is_dir() {
            let pairs = data::paired(dir, part, (folder, "mask"))?;
            let item = |pair: data::Pair| Item {
                image: pair.image,
                masks: match folder {
                    "panoptic" => Masks::Panoptic(pair.labels),
                    _ => Masks::Instances(pair.labels),
                },
            };
            return Ok(pairs.into_iter().map(item).collect());
        }
    }
    let images = base.join("images");
    let images = data::image_files(if images.is_dir() { &images } else { &base })?;
    let items: Vec<Item> = images
        .into_iter()
        .filter_map(|image| {
            let json = image.with_extension("json");
            json.is_file().then_some(Item {
                image,
                masks: Masks::Sa1b(json),
            })
        })
        .collect();
    if items.is_empty() {
        return Err(EvalError::Data {
            path: base,
            what: "no masks of objects: put images in images/ with PNG masks in masks/ or panoptic/, or a JSON of masks as in SA-1B beside each image".into(),
        });
    }
    Ok(items)
}

/// An entry of the JSON of a panoptic mask.
#[derive(Deserialize)]
struct Segment {
    value: u8,
    thing: bool,
    #[serde(default)]
    crowd: bool,
}

impl Item {
    /// Reads the image and its objects of at least `least` output pixels.
    pub fn open(
        &self,
        size: Size,
        orientation: Orientation,
        least: usize,
    ) -> Result<(RgbImage, Objects), EvalError> {
        let decoded = image::open_with(&self.image, orientation)?;
        let found = Size {
            width: decoded.image.width(),
            height: decoded.image.height(),
        };
        let mut void = vec![false; size.area()];
        let mut masks = match &self.masks {
            Masks::Panoptic(path) => {
                let labels = same_size(path, found)?.resized(size);
                let segments = segments(&path.with_extension("json"))?;
                let things = segments.iter().filter(|s| s.thing && !s.crowd);
                things.map(|s| mask_of(&labels, s.value)).collect()
            }
            Masks::Instances(path) => {
                let labels = same_size(path, found)?;
                let mut used = [false; 256];
                labels
                    .values
                    .iter()
                    .for_each(|v| used[usize::from(*v)] = true);
                let mut values: Vec<u8> =
                    (1..UNLABELED).filter(|v| used[usize::from(*v)]).collect();
                let labels = labels.resized(size);
                if values.is_empty() {
                    // A black-and-white mask.
                    values.push(UNLABELED);
                } else {
                    void = mask_of(&labels, UNLABELED);
                }
                values.iter().map(|v| mask_of(&labels, *v)).collect()
            }
            Masks::Sa1b(path) => run_lengths(path, found, size)?,
        };
        masks.retain(|mask: &Vec<bool>| mask.iter().filter(|m| **m).count() >= least.max(1));
        Ok((decoded.image, Objects { masks, void }))
    }
}

fn mask_of(labels: &Labels, value: u8) -> Vec<bool> {
    labels.values.iter().map(|v| *v == value).collect()
}

fn same_size(path: &Path, size: Size) -> Result<Labels, EvalError> {
    let labels = Labels::open(path)?;
    match labels.size == size {
        true => Ok(labels),
        false => Err(EvalError::Labels {
            path: path.into(),
            what: format!("a mask of {} for an image of {size}", labels.size),
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EvalError> {
    fs::read(path).map_err(|source| EvalError::Io {
        path: path.into(),
        source,
    })
}

fn segments(path: &Path) -> Result<Vec<Segment>, EvalError> {
    serde_json::from_slice(&read(path)?).map_err(|e| EvalError::Data {
        path: path.into(),
        what: format!("not a list of segments with value, thing and crowd: {e}"),
    })
}

fn run_lengths(path: &Path, from: Size, to: Size) -> Result<Vec<Vec<bool>>, EvalError> {
    let wrong = |what: String| EvalError::Data {
        path: path.into(),
        what,
    };
    let size = (from.height, from.width);
    let (masks, broken) = read_masks(&read(path)?, size, MOST_MASKS).map_err(wrong)?;
    if let Some(first) = broken.first() {
        let what = format!(
            "{} masks cannot be read, the first: {}",
            broken.len(),
            first.what
        );
        return Err(wrong(what));
    }
    let whole = Window {
        x: 0,
        y: 0,
        width: from.width,
        height: from.height,
        out_width: from.width,
        out_height: from.height,
    };
    let mut full = vec![false; from.area()];
    let unpack = |mask: &loftup_masks::Rle| {
        full.fill(false);
        let pixels = mask.seen(&whole);
        pixels
            .pixels()
            .iter()
            .for_each(|i| full[*i as usize] = true);
        under_centers(&full, from, to)
    };
    Ok(masks.iter().map(unpack).collect())
}
