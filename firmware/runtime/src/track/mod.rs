//! Video object segmentation: follows objects through the frames of a video by propagating their labels
//! along similar features.
//!
//! The method is that of DINO's evaluation on DAVIS (Caron et al., ICCV 2021), which needs no training: the
//! label of a cell is the weighted mean of the labels of the most similar cells around it, in the frame in
//! which the objects were marked and in the last few frames. It runs on any grid of features: a backbone's
//! own, interpolated, or upsampled by JBU, NAF or LoftUp.
//!
//! ```
//! # use loftup_bundle::Size;
//! # use loftup_runtime::{Point, Rect, track::{Seed, TrackOptions, TrackedMask, Tracker}};
//! # let features = vec![1.0f32; 16 * 16 * 8];
//! # let camera = Size { width: 640, height: 480 };
//! let mut tracker = Tracker::new((16, 16), 8, TrackOptions::default())?;
//! let mut mask = TrackedMask::default();
//! tracker.update(&features)?;
//! tracker.start(&[(1, Seed::Box(Rect { x: 80, y: 60, width: 200, height: 120 }))], camera)?;
//! for _ in 0..3 {
//!     tracker.update(&features)?; // of the next frame
//!     tracker.mask(camera, &mut mask)?;
//!     let object = &mask.objects[0];
//!     println!("{} at {:?}, confidence {}", object.label, object.bounds, object.confidence);
//! }
//! # Ok::<(), loftup_runtime::track::TrackError>(())
//! ```

mod context;
mod error;
mod options;
mod output;
mod propagate;
mod seed;
#[cfg(test)]
mod tests;
mod top;

use std::collections::VecDeque;

use loftup_bundle::Size;
use loftup_kernels::SmallProducts;
use parking_lot::Mutex;

pub use error::TrackError;
pub use options::TrackOptions;
pub use output::{TrackedMask, TrackedObject};
pub use seed::Seed;

use crate::{error::check_finite, image::MAX_SIDE, threads::on_threads};
use context::{Context, Grid, normalize_row, zeros};
use output::Masks;
use propagate::Propagation;

/// Follows objects through a video.
///
/// All memory is allocated by [`Tracker::new`] and depends only on the size of the grid; see
/// [`Tracker::memory`]. With one thread, frames allocate nothing.
#[derive(Debug)]
pub struct Tracker {
    options: TrackOptions,
    grid: Grid,
    propagation: Propagation,
    masks: Masks,
    /// Normalized features of the current frame, `[cells, dim]`.
    tokens: Vec<f32>,
    /// The frame in which objects were started, if `has_key`.
    key: Context,
    has_key: bool,
    /// The context frames after it, oldest first.
    recent: VecDeque<Context>,
    current: Context,
    has_frame: bool,
    /// Whether objects were started in the current frame.
    started_now: bool,
    spare: Vec<Context>,
    /// Whether each label is an object.
    objects: Vec<bool>,
}

impl Tracker {
    /// Creates a tracker for features `[height * width, dim]` of a grid of `(width, height)` cells.
    ///
    /// # Errors
    /// An option or a size is out of range, or there is not enough memory.
    pub fn new(
        (width, height): (usize, usize),
        dim: usize,
        options: TrackOptions,
    ) -> Result<Self, TrackError> {
        options.check()?;
        let sides = 1..=MAX_SIDE;
        let channels = 1 + options.max_objects;
        let propagation = Propagation::new(&options, SmallProducts::new());
        let grid = Grid::new((width, height), dim, channels, propagation.columns);
        let fits = sides.contains(&width) && sides.contains(&height) && sides.contains(&dim);
        if !fits {
            return Err(TrackError::Option {
                name: "the grid",
                value: format!("{width} x {height} with {dim} channels"),
                expected: "each is 1 to 16384",
            });
        }
        let memory = || {
            let context = || Context::new(grid.lengths()?);
            let spare: Option<Vec<Context>> = (0..options.last_frames).map(|_| context()).collect();
            Some((zeros(grid.cells() * dim)?, context()?, context()?, spare?))
        };
        let (tokens, key, current, spare) = memory().ok_or(TrackError::TooLarge {
            frames: 2 + options.last_frames,
            height,
            width,
            dim,
        })?;
        Ok(Self {
            masks: Masks::new(&grid, options.output_scale, options.min_label),
            tokens,
            key,
            has_key: false,
            recent: VecDeque::with_capacity(options.last_frames + 1),
            current,
            has_frame: false,
            started_now: false,
            spare,
            objects: vec![false; channels],
            options,
            grid,
            propagation,
        })
    }

    /// Propagates the labels to the next frame, given its features.
    ///
    /// # Errors
    /// The features have the wrong size or contain NaN or infinity; the frame is then skipped.
    pub fn update(&mut self, features: &[f32]) -> Result<(), TrackError> {
        let grid = self.grid;
        if features.len() != self.tokens.len() {
            return Err(TrackError::FeatureCount {
                found: features.len(),
                height: grid.height,
                width: grid.width,
                dim: grid.dim,
            });
        }
        check_finite("the features", features)?;
        self.keep_current();
        self.normalize(features);
        self.has_frame = true;
        if !self.has_key {
            self.current.clear_labels(grid.channels);
            return Ok(());
        }
        let contexts = self.recent.iter().rev().chain([&self.key]);
        let used = used(&self.objects);
        let labels = &mut self.current.labels;
        self.propagation
            .run(&grid, &self.tokens, contexts, used, labels);
        Ok(())
    }

    /// Starts or restarts objects in the current frame. The label identifies an object and is the value of its
    /// pixels in masks. If two objects overlap, the later one wins. `size` is the size of the image that the
    /// seeds refer to.
    ///
    /// From now on, labels are propagated from this frame and later ones. Objects that were started before
    /// continue from their position in this frame. On error, nothing changes.
    ///
    /// # Errors
    /// There is no frame yet, or a seed has no pixel in the image.
    pub fn start(&mut self, seeds: &[(u8, Seed<'_>)], size: Size) -> Result<(), TrackError> {
        if !self.has_frame {
            return Err(TrackError::NoFrame);
        }
        let most = self.options.max_objects;
        let mut found = Vec::with_capacity(seeds.len());
        for &(label, seed) in seeds {
            if label == 0 || usize::from(label) > most {
                return Err(TrackError::Label { label, most });
            }
            found.push((label, seed.cells(label, size, &self.grid, &self.tokens)?));
        }
        if found.is_empty() {
            return Ok(());
        }
        let channels = self.grid.channels;
        for (label, _) in &found {
            self.current.remove(*label, channels);
        }
        for (label, cells) in found {
            self.objects[usize::from(label)] = true;
            for cell in cells {
                let labels = &mut self.current.labels[cell * channels..][..channels];
                labels.fill(0.0);
                labels[usize::from(label)] = 1.0;
            }
        }
        self.started_now = true;
        Ok(())
    }

    /// Starts an object for each value from 1 to [`TrackOptions::max_objects`] in a mask. 0 and 255 (void)
    /// are background.
    ///
    /// # Errors
    /// Same as for [`Tracker::start`], or a value is larger.
    pub fn start_mask(&mut self, values: &[u8], size: Size) -> Result<(), TrackError> {
        let found = values.len();
        if found != size.area() {
            return Err(TrackError::MaskLength { found, size });
        }
        let mut present = [false; 256];
        values.iter().for_each(|v| present[usize::from(*v)] = true);
        let seeds: Vec<(u8, Seed<'_>)> = (1..255)
            .filter(|value| present[usize::from(*value)])
            .map(|value| (value, Seed::Mask { values, value }))
            .collect();
        self.start(&seeds, size)
    }

    /// Turns an object into background and returns whether it existed. Its label can be reused.
    pub fn remove(&mut self, label: u8) -> bool {
        let there = self.objects.get_mut(usize::from(label));
        if !there.is_some_and(std::mem::take) {
            return false;
        }
        let channels = self.grid.channels;
        let contexts = [&mut self.key, &mut self.current];
        for context in contexts.into_iter().chain(&mut self.recent) {
            context.remove(label, channels);
        }
        if !self.objects.contains(&true) {
            (self.has_key, self.started_now) = (false, false);
            self.spare.extend(self.recent.drain(..));
        }
        true
    }

    /// The labels of the objects.
    pub fn objects(&self) -> impl Iterator<Item = u8> {
        labels(&self.objects)
    }

    /// The smallest unused label; `None` if the number of objects is at its maximum.
    pub fn free_label(&self) -> Option<u8> {
        (1..self.objects.len())
            .find(|i| !self.objects[*i])
            .map(|i| i as u8)
    }

    /// Writes the mask of the current frame at any size. Soft labels are upsampled bilinearly to
    /// [`TrackOptions::output_scale`] times the grid, each is scaled to 0 to 1, and the largest wins; the
    /// result is resized to `size` by nearest neighbor.
    ///
    /// # Errors
    /// There is no frame yet, or a side is 0 or more than [`MAX_SIDE`].
    pub fn mask(&mut self, size: Size, out: &mut TrackedMask) -> Result<(), TrackError> {
        if !self.has_frame {
            return Err(TrackError::NoFrame);
        }
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&size.width) || !sides.contains(&size.height) {
            return Err(TrackError::Option {
                name: "the size of the mask",
                value: size.to_string(),
                expected: "each side is 1 to 16384",
            });
        }
        let (soft, used) = (&self.current.labels, used(&self.objects));
        let objects = labels(&self.objects);
        self.masks.write(&self.grid, soft, used, size, objects, out);
        Ok(())
    }

    /// The soft labels of the current frame, `[height, width, 1 + max_objects]`, background first. They sum
    /// to 1 in each cell.
    pub fn soft_labels(&self) -> &[f32] {
        &self.current.labels
    }

    /// Memory of the frames that the tracker keeps, in bytes.
    pub fn memory(&self) -> usize {
        let contexts = 2 + self.options.last_frames;
        let context = self.key.features.len() + self.key.labels.len();
        4 * (contexts * context + self.tokens.len())
    }

    /// Turns the current frame into a context frame before the next one replaces it.
    fn keep_current(&mut self) {
        if self.started_now {
            std::mem::swap(&mut self.key, &mut self.current);
            (self.has_key, self.started_now) = (true, false);
            self.spare.extend(self.recent.drain(..));
        } else if self.has_key {
            let next = self.spare.pop().or_else(|| self.recent.pop_front());
            if let Some(next) = next {
                let last = std::mem::replace(&mut self.current, next);
                self.recent.push_back(last);
            }
        }
    }

    /// Normalizes the features of the current frame.
    fn normalize(&mut self, features: &[f32]) {
        let grid = self.grid;
        let line = grid.width * grid.dim;
        let transposed = self
            .current
            .features
            .chunks_exact_mut(grid.dim * grid.stride);
        let tokens = self.tokens.chunks_exact_mut(line);
        let rows = Mutex::new(features.chunks_exact(line).zip(tokens).zip(transposed));
        let next = || rows.lock().next();
        let work = || -> Result<(), std::convert::Infallible> {
            while let Some(((row, unit), transposed)) = next() {
                normalize_row(&grid, row, unit, transposed);
            }
            Ok(())
        };
        let Ok(()) = on_threads(self.options.threads.min(grid.height), work);
    }
}

fn labels(objects: &[bool]) -> impl Iterator<Item = u8> {
    let of = |(i, there): (usize, &bool)| there.then_some(i as u8);
    objects.iter().enumerate().filter_map(of)
}

/// Number of channels up to the largest label.
fn used(objects: &[bool]) -> usize {
    objects
        .iter()
        .rposition(|there| *there)
        .map_or(1, |i| i + 1)
}
