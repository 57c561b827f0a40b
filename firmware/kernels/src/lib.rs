//! The upsampler's arithmetic on the CPU.
//!
//! [`Queries`] computes what the queries graph of a bundle says (`loftup-models`, `loftup`), from
//! the weights that stand in it: Fourier features of values seen before are remembered, the 3x3
//! convolutions are done by Winograd's F(4x4, 3x3), and all that is per pixel is done for a few
//! tokens at a time, so that their activations stay in the cache.
//!
//! Kernels are written once and compiled for AVX-512, AVX2 and whatever the architecture always
//! has ([`Isa`]); the machine's best is chosen when the program runs. `unsafe` is confined to the
//! vector instructions and to the register block of the matrix product.
//!
//! The feature `matrix` adds products of any matrices ([`matrix`]), which training needs and a robot
//! does not.

mod fourier;
mod gemm;
mod math;
#[cfg(feature = "matrix")]
pub mod matrix;
mod queries;
#[cfg(test)]
mod reference;
mod simd;
mod stages;
mod tables;
mod tokens;
mod weights;
mod winograd;

pub use loftup_spec::weights::{Affine, Conv, LayerWeights, Linear, QueriesWeights};
pub use queries::{Queries, State};
pub use simd::Isa;
pub use stages::stages;
pub use weights::{KernelError, Shape};
