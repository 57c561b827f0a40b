//! The weights that ship with the project: a small DINOv2 and the LoftUp trained for it, both from
//! generated scenes alone. `models/weights/README.md` says how they were made and how good they
//! are.
//!
//! They are files as [`crate::checkpoint`] reads them; nothing here is decoded.

/// A vision transformer, safetensors with DINOv2's names: patches of 14 pixels, made for pictures
/// of 224x224.
pub const BACKBONE: &[u8] = include_bytes!("../../weights/backbone.safetensors");

/// Its upsampler, safetensors with the LoftUp authors' names.
pub const UPSAMPLER: &[u8] = include_bytes!("../../weights/upsampler.safetensors");

/// Which kind of backbone it is, as `loftup convert --backbone` takes it.
pub const PRESET: &str = "dinov2";

/// Attention heads of the backbone, which its weights do not tell.
pub const HEADS: usize = 4;
