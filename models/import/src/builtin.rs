//! The weights included with the project: a small DINOv2 and its LoftUp upsampler, both trained
//! only on generated scenes. `models/weights/README.md` describes their training and accuracy.
//!
//! They are files in formats that [`crate::checkpoint`] reads; nothing is decoded here.

/// A vision transformer, safetensors with DINOv2's names: patches of 14 pixels, trained on images
/// of 224x224.
pub const BACKBONE: &[u8] = include_bytes!("../../weights/backbone.safetensors");

/// Its upsampler, safetensors with the original LoftUp names.
pub const UPSAMPLER: &[u8] = include_bytes!("../../weights/upsampler.safetensors");

/// The kind of backbone, as for `loftup convert --backbone`.
pub const PRESET: &str = "dinov2";

/// Number of attention heads of the backbone, which is not in its weights.
pub const HEADS: usize = 4;
