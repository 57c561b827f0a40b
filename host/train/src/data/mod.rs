//! Training images.
//!
//! A data set is a list of folders, which are searched recursively, and files: images; JSON files
//! next to images with their masks, as in SA-1B; and tar archives of such files, such as shards of
//! SA-1B and WebDataset. Archives are not unpacked.

mod scan;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicBool},
};

use loftup_bundle::{Size, sha256_hex};
use loftup_runtime::image::{self, Orientation, RgbImage};

pub use loftup_masks::{BrokenMask, read_masks};

use crate::{
    error::TrainError,
    regions::{Mask, Segmentation, Window, segment},
};

/// Maximum size of an image or JSON file in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// Maximum number of broken files that are logged individually.
const NAMED: usize = 20;

/// The location of data: a file, or a part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    offset: u64,
    /// Length in bytes.
    len: u64,
}

impl Place {
    fn read(&self) -> std::io::Result<Vec<u8>> {
        if self.len > MOST_BYTES {
            return Err(std::io::Error::other(format!(
                "{} bytes, more than the {MOST_BYTES} that are read",
                self.len
            )));
        }
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(self.len).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != self.len {
            return Err(std::io::Error::other(format!(
                "cut off at {} of {} bytes",
                bytes.len(),
                self.len
            )));
        }
        Ok(bytes)
    }
}

/// An image of the data set.
#[derive(Debug, Clone)]
struct Entry {
    /// The path; for a member of an archive, followed by its name there.
    name: String,
    image: Place,
    masks: Option<Place>,
}

/// How images and masks are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// Whether images are center-cropped to the aspect ratio, or stretched.
    pub crop: bool,
    /// Whether EXIF orientation is applied to images. Masks are used as stored.
    pub orientation: Orientation,
    /// Maximum number of masks per image.
    pub max_masks: usize,
    /// Segmentations for images without masks.
    pub segmentation: Vec<Segmentation>,
}

/// A data set.
#[derive(Debug)]
pub struct Dataset {
    root: PathBuf,
    entries: Vec<Entry>,
    preparation: Preparation,
    broken: Mutex<Broken>,
}

/// Skipped files.
#[derive(Debug, Default, Clone)]
pub struct Broken {
    /// Images that could not be read.
    pub images: std::collections::BTreeSet<String>,
    /// Files of masks that could not be read, or contain an invalid mask.
    pub masks: std::collections::BTreeSet<String>,
}

/// An image, cropped to the aspect ratio.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The path; for a member of an archive, followed by its name there.
    pub name: String,
    /// The cropped image in full resolution.
    pub photo: RgbImage,
    /// SHA-256 of the image file.
    pub sha256: String,
    masks: Option<Vec<crate::regions::Rle>>,
    window: (usize, usize),
    flipped: bool,
    preparation: Preparation,
}

impl Dataset {
    /// Finds the images under `paths` and keeps the first `limit`. Each real folder is searched once,
    /// even if several paths and links lead to it.
    ///
    /// # Errors
    /// If a path cannot be read, there are no images, or `stop` becomes true.
    pub fn open(
        paths: &[PathBuf],
        limit: Option<usize>,
        preparation: Preparation,
        stop: &AtomicBool,
    ) -> Result<Self, TrainError> {
        let mut entries = Vec::new();
        let mut scan = scan::Scan::new(stop);
        for path in paths {
            entries.extend(scan.path(path)?);
        }
        scan.finish();
        entries.truncate(limit.unwrap_or(usize::MAX));
        let root = paths.first().cloned().unwrap_or_default();
        if entries.is_empty() {
            return Err(TrainError::NoData {
                path: root,
                what: "no images (.jpg, .jpeg, .png, .webp, .bmp, .tif, .ppm) and no .tar with any; set data.paths to where they are".into(),
            });
        }
        Ok(Self {
            root,
            entries,
            preparation,
            broken: Mutex::default(),
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Always `false`: a data set without images cannot be opened.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of images with masks.
    pub fn with_masks(&self) -> usize {
        self.entries.iter().filter(|e| e.masks.is_some()).count()
    }

    /// SHA-256 over names and sizes of all files, to detect changes of the data.
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for e in &self.entries {
            let name = Path::new(&e.name)
                .strip_prefix(&self.root)
                .unwrap_or(Path::new(&e.name));
            let masks = e.masks.as_ref().map_or(0, |m| m.len);
            text += &format!("{}\t{}\t{masks}\n", name.display(), e.image.len);
        }
        sha256_hex(text.as_bytes())
    }

    /// The files skipped so far.
    pub fn broken(&self) -> Broken {
        self.broken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Reads image `index`, cropped to the aspect ratio of `size`. If it is broken, reads the next one
    /// that is not.
    ///
    /// # Errors
    /// If every image is broken.
    pub fn sample(&self, index: usize, size: Size) -> Result<Sample, TrainError> {
        let n = self.entries.len();
        for entry in (0..n).map(|i| &self.entries[(index + i) % n]) {
            match self.load(entry, size) {
                Ok(sample) => return Ok(sample),
                Err(what) => self.note(&entry.name, &what, |b| &mut b.images),
            }
        }
        Err(TrainError::NoData {
            path: self.root.clone(),
            what: format!(
                "none of the {n} images can be read; the log says what is wrong with each"
            ),
        })
    }

    fn note(
        &self,
        name: &str,
        what: &str,
        which: impl Fn(&mut Broken) -> &mut std::collections::BTreeSet<String>,
    ) {
        let mut broken = self
            .broken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let set = which(&mut broken);
        if set.insert(name.into()) && set.len() <= NAMED {
            log::warn!("left out: {what}");
        }
        if set.len() == NAMED + 1 {
            log::warn!("more files are broken: they are counted, and named at the end");
        }
    }

    fn load(&self, entry: &Entry, size: Size) -> Result<Sample, String> {
        let bytes = entry
            .image
            .read()
            .map_err(|e| format!("{}: {e}", entry.name))?;
        let decoded = image::decode_with(&bytes, &entry.name, self.preparation.orientation)
            .map_err(|e| e.to_string())?;
        let photo = &decoded.image;
        let (x, y, width, height) = match self.preparation.crop {
            true => middle(photo.width(), photo.height(), size),
            false => (0, 0, photo.width(), photo.height()),
        };
        let full = (photo.height(), photo.width());
        let masks = entry.masks.as_ref().and_then(|place| {
            let read = place.read().map_err(|e| e.to_string());
            match read.and_then(|bytes| read_masks(&bytes, full, self.preparation.max_masks)) {
                Ok((masks, broken)) => {
                    if let Some(what) = broken.first() {
                        let text = format!(
                            "{}: {} masks, the first: {}{}",
                            entry.name,
                            broken.len(),
                            what.what,
                            what.size
                                .map_or(String::new(), |size| decoded.why_labels_differ(size))
                        );
                        self.note(&entry.name, &text, |b| &mut b.masks);
                    }
                    (!masks.is_empty()).then_some(masks)
                }
                Err(what) => {
                    let text = format!("{}: its masks: {what}", entry.name);
                    self.note(&entry.name, &text, |b| &mut b.masks);
                    None
                }
            }
        });
        let photo = part(photo, x, y, width, height).map_err(|e| format!("{}: {e}", entry.name))?;
        Ok(Sample {
            name: entry.name.clone(),
            photo,
            sha256: sha256_hex(&bytes),
            masks,
            window: (x, y),
            flipped: false,
            preparation: self.preparation.clone(),
        })
    }
}

impl Sample {
    /// Identifies the pixels of the photo: the file and the part of it.
    pub fn identity(&self) -> String {
        let (x, y) = self.window;
        format!(
            "{} {x},{y} {}x{}{}",
            self.sha256,
            self.photo.width(),
            self.photo.height(),
            if self.flipped { " flipped" } else { "" }
        )
    }

    /// Flips the image and its regions horizontally.
    pub fn flip(&mut self) {
        for y in 0..self.photo.height() {
            self.photo.row_mut(y).as_chunks_mut::<3>().0.reverse();
        }
        self.flipped = !self.flipped;
    }

    /// Flips a mask of the original image if the image is flipped.
    fn flipped(&self, mask: Mask, width: usize) -> Mask {
        if !self.flipped {
            return mask;
        }
        let flip = |p: u32| {
            let (row, column) = (p as usize / width, p as usize % width);
            (row * width + width - 1 - column) as u32
        };
        let mut pixels: Vec<u32> = mask.pixels().iter().map(|&p| flip(p)).collect();
        pixels.sort_unstable();
        Mask::new(pixels)
    }

    /// Returns the regions of a square part `(x, y, side)` of the photo, in coordinates of the photo at
    /// `high x high` pixels. `image` is that part.
    pub fn segmentations_of_part(
        &self,
        (x, y, side): (usize, usize, usize),
        high: usize,
        image: &RgbImage,
    ) -> Vec<Vec<Mask>> {
        let Some(masks) = &self.masks else {
            return self.by_color(image);
        };
        let (width, height) = (self.photo.width(), self.photo.height());
        // The part of the original image.
        let x = if self.flipped { high - side - x } else { x };
        let window = Window {
            x: self.window.0 + x * width / high,
            y: self.window.1 + y * height / high,
            width: (side * width / high).max(1),
            height: (side * height / high).max(1),
            out_width: side,
            out_height: side,
        };
        let seen = masks.iter().map(|m| self.flipped(m.seen(&window), side));
        vec![seen.collect()]
    }

    fn by_color(&self, image: &RgbImage) -> Vec<Vec<Mask>> {
        let all = self.preparation.segmentation.iter();
        all.map(|how| segment(image, *how)).collect()
    }

    /// Returns the regions of the image, resized to `image`: one list of its masks, or else one list per
    /// segmentation by color.
    pub fn segmentations(&self, image: &RgbImage) -> Vec<Vec<Mask>> {
        let Some(masks) = &self.masks else {
            return self.by_color(image);
        };
        let window = Window {
            x: self.window.0,
            y: self.window.1,
            width: self.photo.width(),
            height: self.photo.height(),
            out_width: image.width(),
            out_height: image.height(),
        };
        let seen = masks
            .iter()
            .map(|m| self.flipped(m.seen(&window), image.width()));
        vec![seen.collect()]
    }

    /// Resizes the image to `size`.
    ///
    /// # Errors
    /// If the size is invalid.
    pub fn resized(&self, size: Size) -> Result<RgbImage, TrainError> {
        Ok(self
            .photo
            .resized(size.width, size.height)
            .map_err(loftup_runtime::RuntimeError::from)?)
    }
}

/// Returns the largest centered crop with the aspect ratio of `size`: `(x, y, width, height)`.
fn middle(width: usize, height: usize, size: Size) -> (usize, usize, usize, usize) {
    // Compares width / height with size.width / size.height without division.
    let (w, h) = if width * size.height > height * size.width {
        ((height * size.width / size.height).max(1), height)
    } else {
        (width, (width * size.height / size.width).max(1))
    };
    ((width - w) / 2, (height - h) / 2, w, h)
}

/// Crops an image.
pub(crate) fn part(
    photo: &RgbImage,
    x: usize,
    y: usize,
    width: usize,
    height: usize,
) -> Result<RgbImage, image::ImageError> {
    let rows = (y..y + height).flat_map(|r| photo.row(r)[x * 3..][..width * 3].iter().copied());
    RgbImage::new(width, height, rows.collect())
}
