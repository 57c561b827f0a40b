//! Segmentation of an object from clicks on it, without training.
//!
//! A pixel belongs to the object if its cosine similarity to a positive click exceeds a threshold
//! and its similarity to every negative click, and if it is connected to a positive click through
//! such pixels. The image is encoded once; each click then costs one pass over the features.

use loftup_bundle::Size;
use loftup_spec::interpolate::bilinear;

use crate::{
    EncodedFrame, Point, Rect, RuntimeError, dot::dot, error::check_finite, sinks::VecSink,
};

/// The threshold for bundles without a fitted one. The best value depends on the backbone: if you have
/// images with masks, fit it with `loftup head clicks`.
pub const DEFAULT_THRESHOLD: f32 = 0.6;

/// Maximum number of clicks on one image.
pub const MAX_CLICKS: usize = 256;

/// A click on a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Click {
    /// The pixel.
    pub point: Point,
    /// Whether the pixel belongs to the object.
    pub positive: bool,
}

/// The features of an image, and the clicks on it so far.
///
/// All memory is allocated with the features: a click allocates nothing.
///
/// ```no_run
/// # use std::path::Path;
/// use loftup_bundle::Size;
/// use loftup_runtime::{
///     ColorRange, ExecutionOptions, Perceptor, Point,
///     click::{Click, ClickSegmenter, DEFAULT_THRESHOLD},
///     image,
/// };
///
/// let perceptor = Perceptor::open(Path::new("robot.loftup"), ExecutionOptions::default())?;
/// let photo = image::open(Path::new("desk.jpg"))?;
/// let size = Size { width: 224, height: 224 };
/// let encoded = perceptor.encode(&photo, size, ColorRange::PerImage)?;
/// let threshold = perceptor.manifest().clicks.as_ref();
/// let threshold = threshold.and_then(|c| c.thresholds.get("loftup").copied());
/// let mut segmenter = ClickSegmenter::new(&encoded, threshold.unwrap_or(DEFAULT_THRESHOLD))?;
///
/// // Points are in pixels of the output, here 224x224.
/// segmenter.click(Click { point: Point { x: 100, y: 80 }, positive: true })?;
/// let mask = segmenter.click(Click { point: Point { x: 30, y: 30 }, positive: false })?;
/// println!("{} pixels", mask.iter().filter(|inside| **inside).count());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ClickSegmenter {
    size: Size,
    dim: usize,
    threshold: f32,
    /// Features of length 1, `[H, W, d]`.
    features: Vec<f32>,
    clicks: Vec<Click>,
    /// Greatest similarity to a positive click and to a negative click, `[H, W]`.
    positive: Vec<f32>,
    negative: Vec<f32>,
    mask: Vec<bool>,
    flood: Flood,
}

impl ClickSegmenter {
    /// Creates a segmenter for the whole output of an encoded frame without a head.
    ///
    /// # Errors
    /// If the features do not fit into memory, the engine fails, or the threshold is not in -1 to 1.
    pub fn new(frame: &EncodedFrame<'_>, threshold: f32) -> Result<Self, RuntimeError> {
        let size = frame.size();
        let mut sink = VecSink::new(Rect::whole(size), frame.dim())?;
        frame.frame(&mut |tile| sink.push(tile))?;
        Self::from_features(size, frame.dim(), sink.into_values(), threshold)
    }

    /// Creates a segmenter for a map of features, `[H, W, d]`.
    ///
    /// # Errors
    /// If the map has the wrong number of values, is empty or contains NaN, or the threshold is not in -1 to 1.
    pub fn from_features(
        size: Size,
        dim: usize,
        mut features: Vec<f32>,
        threshold: f32,
    ) -> Result<Self, RuntimeError> {
        let area = size.width.checked_mul(size.height);
        let pixels = area.filter(|n| *n > 0 && dim > 0 && u32::try_from(*n).is_ok());
        let Some(area) = pixels.filter(|n| n.checked_mul(dim) == Some(features.len())) else {
            return Err(RuntimeError::ClickFeatures {
                values: features.len(),
                size,
                dim,
            });
        };
        check_threshold(threshold)?;
        check_finite("the features", &features)?;
        for pixel in features.chunks_exact_mut(dim) {
            let norm = dot(pixel, pixel).sqrt();
            // A zero feature has similarity 0 to everything.
            let scale = if norm > 0.0 { norm.recip() } else { 0.0 };
            pixel.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(Self {
            size,
            dim,
            threshold,
            features,
            clicks: Vec::with_capacity(MAX_CLICKS),
            positive: vec![f32::NEG_INFINITY; area],
            negative: vec![f32::NEG_INFINITY; area],
            mask: vec![false; area],
            flood: Flood::new(area),
        })
    }

    /// Size of the features and of the mask.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The clicks so far.
    pub fn clicks(&self) -> &[Click] {
        &self.clicks
    }

    /// Adds a click and returns the mask of the object, `[H, W]`.
    ///
    /// # Errors
    /// If the point is outside, or there are [`MAX_CLICKS`] clicks already.
    pub fn click(&mut self, click: Click) -> Result<&[bool], RuntimeError> {
        let (Point { x, y }, size) = (click.point, self.size);
        if x >= size.width || y >= size.height {
            let index = self.clicks.len();
            return Err(RuntimeError::PointOutside { index, x, y, size });
        }
        if self.clicks.len() >= MAX_CLICKS {
            return Err(RuntimeError::TooManyClicks(MAX_CLICKS));
        }
        self.clicks.push(click);
        let clicked = &self.features[(y * size.width + x) * self.dim..][..self.dim];
        let greatest = match click.positive {
            true => &mut self.positive,
            false => &mut self.negative,
        };
        for (greatest, pixel) in greatest
            .iter_mut()
            .zip(self.features.chunks_exact(self.dim))
        {
            *greatest = greatest.max(dot(clicked, pixel));
        }
        self.segment();
        Ok(&self.mask)
    }

    /// The mask of the object for the clicks so far, `[H, W]`.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// The greatest cosine similarity of each pixel to a positive click, `[H, W]`; negative infinity if
    /// there is none.
    pub fn similarity(&self) -> &[f32] {
        &self.positive
    }

    /// Changes the threshold.
    ///
    /// # Errors
    /// If it is not in -1 to 1.
    pub fn set_threshold(&mut self, threshold: f32) -> Result<(), RuntimeError> {
        check_threshold(threshold)?;
        self.threshold = threshold;
        self.segment();
        Ok(())
    }

    /// Forgets all clicks; the features are kept.
    pub fn clear(&mut self) {
        self.clicks.clear();
        self.positive.fill(f32::NEG_INFINITY);
        self.negative.fill(f32::NEG_INFINITY);
        self.mask.fill(false);
    }

    /// The mask at another size, such as the size of the original image, with scores interpolated
    /// bilinearly. A pixel under a positive click is inside if it is inside in [`ClickSegmenter::mask`].
    pub fn mask_at(&self, size: Size) -> Vec<bool> {
        let area = size.width * size.height;
        let (mut mask, mut flood) = (vec![false; area], Flood::new(area));
        let taps = |from: usize, to: usize| -> Vec<(usize, usize, f32)> {
            let tap = |i| {
                let (first, t) = bilinear(i, from, to);
                (first, (first + 1).min(from - 1), t)
            };
            (0..to).map(tap).collect()
        };
        let columns = taps(self.size.width, size.width);
        let center = |i: usize, from: usize, to: usize| (2 * i + 1) * to / (2 * from);
        let seed = |p: Point| Point {
            x: center(p.x, self.size.width, size.width),
            y: center(p.y, self.size.height, size.height),
        };
        let seeds = self.seeds().filter(|p| self.mask[self.index(*p)]).map(seed);
        let index = |p: Point| p.y * size.width + p.x;
        let mut inside = vec![false; area];
        let mut line = vec![0f32; self.size.width];
        for (row, (top, below, t)) in inside
            .chunks_exact_mut(size.width.max(1))
            .zip(taps(self.size.height, size.height))
        {
            for (x, score) in line.iter_mut().enumerate() {
                let at = |y: usize| self.score(y * self.size.width + x);
                *score = (1.0 - t) * at(top) + t * at(below);
            }
            for (inside, (left, right, t)) in row.iter_mut().zip(&columns) {
                *inside = (1.0 - t) * line[*left] + t * line[*right] > 0.0;
            }
        }
        for seed in seeds.clone() {
            inside[index(seed)] = true;
        }
        flood.fill(size, seeds, |i| inside[i], &mut mask);
        mask
    }

    /// Positive if the pixel's similarity to a positive click exceeds the threshold and its similarity to
    /// every negative click.
    fn score(&self, i: usize) -> f32 {
        // Finite even without a positive click, so that it can be interpolated.
        self.positive[i].max(-1.0) - self.negative[i].max(self.threshold)
    }

    fn seeds(&self) -> impl Iterator<Item = Point> + Clone {
        self.clicks.iter().filter(|c| c.positive).map(|c| c.point)
    }

    fn index(&self, p: Point) -> usize {
        p.y * self.size.width + p.x
    }

    fn segment(&mut self) {
        let seeds = self.clicks.iter().filter(|c| c.positive).map(|c| c.point);
        let (positive, negative) = (&self.positive, &self.negative);
        let threshold = self.threshold;
        let inside = |i: usize| positive[i] > negative[i].max(threshold);
        self.flood.fill(self.size, seeds, inside, &mut self.mask);
    }
}

fn check_threshold(threshold: f32) -> Result<(), RuntimeError> {
    match (-1.0..=1.0).contains(&threshold) {
        true => Ok(()),
        false => Err(RuntimeError::ClickThreshold(threshold)),
    }
}

/// Connected components with 4-connectivity.
#[derive(Debug, Clone)]
struct Flood {
    /// Pixels to visit; each is pushed at most once.
    stack: Vec<u32>,
}

impl Flood {
    fn new(pixels: usize) -> Self {
        Self {
            stack: Vec::with_capacity(pixels),
        }
    }

    /// Writes the components of `inside` that contain a seed to `mask`.
    fn fill(
        &mut self,
        Size { width, height }: Size,
        seeds: impl Iterator<Item = Point>,
        inside: impl Fn(usize) -> bool,
        mask: &mut [bool],
    ) {
        mask.fill(false);
        for Point { x, y } in seeds {
            let mut visit = |stack: &mut Vec<u32>, i: usize| {
                if !mask[i] && inside(i) {
                    mask[i] = true;
                    stack.push(i as u32);
                }
            };
            visit(&mut self.stack, y * width + x);
            while let Some(i) = self.stack.pop() {
                let i = i as usize;
                let (x, y) = (i % width, i / width);
                if x > 0 {
                    visit(&mut self.stack, i - 1);
                }
                if x + 1 < width {
                    visit(&mut self.stack, i + 1);
                }
                if y > 0 {
                    visit(&mut self.stack, i - width);
                }
                if y + 1 < height {
                    visit(&mut self.stack, i + width);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
