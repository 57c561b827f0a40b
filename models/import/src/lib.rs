//! Reads what others have trained: checkpoint files ([`checkpoint`]), the LoftUp upsampler
//! ([`loftup`]) and vision transformers ([`vit`]) in them, ONNX files of other tools ([`onnx`]), and
//! the weights that are built in ([`builtin`]). Nothing on the robot uses it: a bundle has the graphs.

#![forbid(unsafe_code)]

pub mod builtin;
pub mod bundle;
pub mod checkpoint;
pub mod loftup;
pub mod onnx;
pub mod vit;
