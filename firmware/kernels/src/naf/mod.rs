//! NAF on the CPU: encodes an image once, and attends for any pixels of it.
//!
//! The definition is `loftup_spec::naf`. Group normalization needs statistics of the whole image
//! before each of the four layers, so [`Naf::encode`] goes over the image once per layer. It keeps
//! the encodings of all pixels if they take at most [`KEPT_PIXELS`] KiB, and computes them again, tile
//! by tile, when the image is larger: memory is then bounded. Both compute the same, up to rounding.
//!
//! Work is handed out in jobs, so that the caller decides about threads ([`Jobs`]). What is computed
//! does not depend on them: statistics are added up in a fixed order.

mod attention;
mod encode;
mod frame;
mod layers;
mod pixels;
#[cfg(test)]
mod reference;
mod statistics;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use loftup_spec::naf::{Branch, NafWeights};

pub use attention::Values;
pub use frame::{Area, EncodedImage, Image};

use self::{attention::Attention, layers::BranchLayers, pixels::Buffers};
use crate::{Isa, KernelError, simd::SupportedIsa};

/// The largest image whose encodings are kept, in pixels: of 512x512. A pixel takes one KiB.
pub const KEPT_PIXELS: usize = 512 * 512;

/// Runs jobs 0 to `n - 1`, in any order and on any threads, and returns when all are done.
pub type Jobs<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// Runs jobs one after the other.
pub fn in_order(jobs: usize, job: &(dyn Fn(usize) + Sync)) {
    (0..jobs).for_each(job);
}

/// The weights of NAF, packed for an instruction set. Created once, and shared by all images and
/// threads.
#[derive(Debug)]
pub struct Naf {
    isa: SupportedIsa,
    /// By [`Branch`].
    branches: [BranchLayers; 2],
    periods: Vec<f32>,
    kept_pixels: usize,
    /// Idle buffers of threads.
    idle: Mutex<Vec<Workspace>>,
    /// Idle maps of the encodings of a branch.
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

    /// The same, keeping the encodings of images of at most this many pixels.
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

    /// A map of this many values, whose values are arbitrary.
    fn map(&self, values: usize) -> Vec<f32> {
        let mut map = take(&self.maps).unwrap_or_default();
        map.resize(values, 0.0);
        map
    }

    /// Encodes an image for features on a grid of `(rows, columns)`: statistics and keys.
    ///
    /// # Errors
    /// Where the image has another size than it says, or the grid is not
    /// [for it](loftup_spec::naf::fits).
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
