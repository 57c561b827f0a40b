//! The definition of LoftUp (arXiv 2504.14032), shared by everything that computes, writes, reads
//! or trains it: constants, hyperparameters, coordinates, color scaling, names of graph inputs and
//! outputs, and interpolation kernels. [`naf`] defines NAF. No dependencies.

#![forbid(unsafe_code)]

mod config;
mod coords;
pub mod interpolate;
pub mod io;
pub mod naf;
mod random;
pub mod rotary;
pub mod weights;

pub use config::{Config, HEADS};
pub use coords::{frequencies, linspace};
pub use random::SplitMix64;

/// Halo of a tile in pixels, from two 3x3 convolutions.
pub const HALO: usize = 2;

/// Epsilon of all layer and batch normalizations except the last.
pub const EPS: f32 = 1e-5;

/// Epsilon of the layer normalization over the output channels.
pub const FINAL_EPS: f32 = 1e-6;

/// Minimum range by which the guidance is divided.
pub const MIN_RANGE: f32 = 1e-4;

/// Scales a guidance value from `min..max` to -0.5..0.5, with PyTorch's order of operations.
#[inline]
pub fn min_max_scale(x: f32, min: f32, max: f32) -> f32 {
    (x - min) / (max - min).max(MIN_RANGE) - 0.5
}
