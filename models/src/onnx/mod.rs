//! Writing ONNX: a small graph builder over the protobuf types of `tract-onnx`; and rewriting it
//! into other precisions ([`rewrite`]).
//!
//! Graphs use opset 17 without the operators that TensorRT 8.5 to 10.3 lack
//! (`LayerNormalization`, `Gelu`): those are spelled out in older ones.

mod blocks;
mod graph;
mod inspect;
pub mod rewrite;

pub use graph::{Attr, Dim, Graph, Value};
pub use inspect::{Interface, Port};
