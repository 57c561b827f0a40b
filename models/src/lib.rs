//! What a model is: configurations, checkpoint readers, ONNX graphs and the bundle format.
//!
//! Data flows one way: a [`checkpoint::Checkpoint`] is read, a configuration and its weights
//! ([`loftup`], [`vit`]) are taken from it and checked, an ONNX graph is written ([`onnx`]), and
//! the graphs become a [`bundle`]. Names and shapes of graph inputs and outputs are defined here
//! and nowhere else.

#![forbid(unsafe_code)]

pub mod builtin;
pub mod bundle;
pub mod checkpoint;
pub mod loftup;
pub mod onnx;
mod tensor;

pub mod vit;

pub use tensor::Tensor;
