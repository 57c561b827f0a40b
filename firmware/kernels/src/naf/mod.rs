//! NAF on the CPU: encodes an image once, then computes any of its pixels by attention.
//!
//! `loftup_spec::naf` defines the model. Group normalization needs statistics of the whole image
//! before each of the four layers, so [`Naf::encode`] makes one pass over the image per layer. It
//! stores the encodings of all pixels of images of up to [`KEPT_PIXELS`] pixels (one KiB per pixel).
//! For larger images, it only computes the statistics, from layers that are recomputed for each pass.
//!
//! Once the statistics are known, everything is local. With given statistics ([`EncodedImage::encode_next`]), and
//! for large images, encodings and keys are computed in blocks of cells when attention needs them, all
//! layers at once. The encodings of the last blocks are kept, to bound memory. Results differ only by
//! rounding.
//!
//! Work is split into jobs, which the caller distributes over threads ([`Jobs`]). Results do not depend
//! on the number of threads: statistics are summed in a fixed order.

mod attention;
mod blocks;
mod encode;
mod encoded;
mod frame;
mod keys;
mod layers;
mod pixels;
#[cfg(test)]
mod reference;
mod statistics;
#[cfg(test)]
mod tests;
mod values;

use std::sync::{Arc, Mutex, PoisonError};

use loftup_spec::naf::{Branch, NafWeights};

pub use encoded::EncodedImage;
pub use frame::{Area, Image};
pub use values::Values;

use self::{attention::Attention, layers::BranchLayers, pixels::Buffers};
use crate::{Isa, KernelError, simd::SupportedIsa};

/// Maximum number of pixels of an image whose encodings are stored (512x512). A pixel takes one KiB.
pub const KEPT_PIXELS: usize = 512 * 512;

/// Runs jobs 0 to `n - 1`, in any order and on any threads, and returns when all are done.
pub type Jobs<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Runs jobs one after the other.
pub fn in_order(jobs: usize, job: &(dyn Fn(usize) + Sync)) {
    (0..jobs).for_each(job);
}

/// The weights of NAF, packed for an instruction set. Create it once and share it between all images
/// and threads.
#[derive(Debug)]
pub struct Naf {
    isa: SupportedIsa,
    /// By [`Branch`].
    branches: [BranchLayers; 2],
    periods: Vec<f32>,
    kept_pixels: usize,
    /// Idle buffers of threads.
    idle: Mutex<Vec<Workspace>>,
    /// Idle buffers for the encodings of a branch.
    maps: Mutex<Vec<Vec<f32>>>,
}

/// The buffers of a thread.
#[derive(Debug, Default)]
struct Workspace {
    pixels: Buffers,
    attention: Attention,
}

impl Naf {
    /// Packs weights for an instruction set.
    ///
    /// # Errors
    /// If the CPU does not support `isa`, or a weight has the wrong size.
    pub fn new(isa: Isa, weights: &NafWeights) -> Result<Self, KernelError> {
        let isa = isa.supported().ok_or(KernelError::Isa(isa))?;
        for (name, shape, values) in weights.tensors() {
            let expected = shape.iter().product();
            if values.len() != expected {
                return Err(KernelError::Weight {
                    what: name,
                    expected,
                    found: values.len(),
                });
            }
        }
        Ok(Self {
            isa,
            branches: Branch::ALL.map(|b| BranchLayers::new(isa, b, &weights.branches[b as usize])),
            periods: weights.periods.clone(),
            kept_pixels: KEPT_PIXELS,
            idle: Mutex::default(),
            maps: Mutex::default(),
        })
    }

    /// Sets the maximum number of pixels of images whose encodings are stored.
    pub fn keeping(self, kept_pixels: usize) -> Self {
        Self {
            kept_pixels,
            ..self
        }
    }

    /// Runs `work` with the buffers of a thread.
    fn with_workspace<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let mut workspace = take(&self.idle).unwrap_or_default();
        let result = work(&mut workspace);
        give(&self.idle, workspace);
        result
    }

    /// Returns a map with this many arbitrary values.
    fn map(&self, values: usize) -> Vec<f32> {
        let mut map = take(&self.maps).unwrap_or_default();
        map.resize(values, 0.0);
        map
    }

    /// Encodes an image for features on a grid of `(rows, columns)`: statistics and keys.
    ///
    /// # Errors
    /// If the data does not match the image size, or the grid does not
    /// [fit it](loftup_spec::naf::fits).
    pub fn encode(
        self: &Arc<Self>,
        image: impl Into<Arc<Image>>,
        grid: (usize, usize),
        jobs: Jobs<'_>,
    ) -> Result<EncodedImage, KernelError> {
        encode::encode(self, image.into(), grid, jobs)
    }
}

fn take<T>(pool: &Mutex<Vec<T>>) -> Option<T> {
    pool.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn give<T>(pool: &Mutex<Vec<T>>, item: T) {
    pool.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(item);
}
