//! CPU kernels for the upsamplers LoftUp and NAF.
//!
//! [`Queries`] computes the queries graph of a bundle (see `loftup-onnx`, module `loftup`) from its
//! weights. Fourier features of repeated values are cached, 3x3 convolutions use Winograd's
//! F(4x4, 3x3), and everything after them runs on small blocks of tokens, so that their activations
//! stay in the cache.
//!
//! [`naf`] computes NAF from its weights.
//!
//! Kernels are written once and compiled for AVX-512, AVX2, AVX-VNNI, NEON and the architecture's baseline
//! ([`Isa`]); the instruction set is chosen at run time. `unsafe` is confined to vector instructions and to
//! the GEMM register tile.
//!
//! The feature `matrix` adds general matrix products (the module `matrix`), which only training needs.

// 16-bit and 8-bit products have instructions on these architectures only.
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code)
)]

mod arithmetic;
pub mod cpu_time;
mod fourier;
mod gemm;
mod lut;
mod math;
#[cfg(feature = "matrix")]
pub mod matrix;
pub mod naf;
mod queries;
#[cfg(test)]
mod reference;
mod simd;
mod stages;
mod tokens;
mod weights;
mod winograd;

pub use arithmetic::Arithmetic;
pub use gemm::SmallProducts;
pub use loftup_spec::weights::{
    AffineWeights, ConvWeights, LayerWeights, LinearWeights, QueriesWeights,
};
pub use queries::{Context, Queries};
pub use simd::Isa;
pub use stages::stages;
pub use weights::{Dims, KernelError};
