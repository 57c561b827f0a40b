//! The weights included with the project: two small models with their LoftUp upsamplers, and a NAF for any backbone.
//! `models/weights/README.md` describes their training and accuracy.
//!
//! They are files in formats that [`crate::checkpoint`] and [`crate::onnx`] read; nothing is decoded
//! here.

/// EfficientNet-Lite0 and a LoftUp trained on photographs: the default.
pub mod photos {
    /// EfficientNet-Lite0 to stride 16, ONNX: 112 channels.
    pub const BACKBONE: &[u8] = include_bytes!("../../weights/photos/backbone.onnx");
    /// Its upsampler, safetensors with the original LoftUp names.
    pub const UPSAMPLER: &[u8] = include_bytes!("../../weights/photos/upsampler.safetensors");
    /// Pixels per feature on each axis.
    pub const PATCH: usize = 16;
    /// Mean of each color, for colors of 0 to 1.
    pub const MEAN: [f32; 3] = [127.0 / 255.0; 3];
    /// Standard deviation of each color.
    pub const STD: [f32; 3] = [128.0 / 255.0; 3];
    /// License of the backbone, and one of the two of the upsampler, as an SPDX expression.
    pub const LICENSE: &str = "Apache-2.0";
}

/// A small DINOv2 and its LoftUp, both trained only on generated scenes: for the demo and for tests.
pub mod scenes {
    /// A vision transformer, safetensors with DINOv2's names: patches of 14 pixels, trained on images
    /// of 224x224.
    pub const BACKBONE: &[u8] = include_bytes!("../../weights/scenes/backbone.safetensors");
    /// Its upsampler, safetensors with the original LoftUp names.
    pub const UPSAMPLER: &[u8] = include_bytes!("../../weights/scenes/upsampler.safetensors");
    /// The kind of backbone, as for `loftup convert --backbone`.
    pub const PRESET: &str = "dinov2";
    /// Number of attention heads of the backbone, which is not in its weights.
    pub const HEADS: usize = 4;
    /// License of both, as an SPDX expression.
    pub const LICENSE: &str = "MIT OR Apache-2.0";
}

/// A NAF trained on photographs with synthetic features: an upsampler for any backbone.
pub mod naf {
    /// The upsampler, safetensors with the original NAF names.
    pub const UPSAMPLER: &[u8] = include_bytes!("../../weights/naf/upsampler.safetensors");
}
