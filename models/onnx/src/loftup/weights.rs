//! The weights of an upsampler, in the form of its graphs.

use loftup_spec::Config;

use crate::Tensor;

/// Scale and offset per channel.
#[derive(Debug, Clone)]
pub struct Affine {
    /// Scales.
    pub weight: Tensor,
    /// Offsets.
    pub bias: Tensor,
}

/// A linear layer or a convolution: `weight` `[out, in, ...]`, `bias` `[out]`.
pub type Linear = Affine;

/// A cross-attention layer with its MLP. Normalizations are folded into the following layers.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Query projection, including the attention scale; heads are padded.
    pub query: Linear,
    /// Key projection; heads are padded.
    pub key: Linear,
    /// Value projection; heads are padded.
    pub value: Linear,
    /// Output projection.
    pub out: Linear,
    /// First linear layer of the MLP.
    pub mlp_in: Linear,
    /// Second linear layer of the MLP.
    pub mlp_out: Linear,
}

/// A LoftUp upsampler, prepared for its graphs.
///
/// Constants are folded in 64 bits: batch normalization into the convolutions, the affine part of
/// layer normalizations into the following linear layers, and the attention scale into the query
/// projection. Attention heads are padded with zeros.
#[derive(Debug, Clone)]
pub struct LoftUp {
    /// Its hyperparameters.
    pub config: Config,
    /// Normalization of the backbone's features.
    pub channel_norm: Affine,
    /// Sine and cosine phases of the feature grid, `[2, grid frequencies * 2]`, frequency-major.
    pub grid_phases: Tensor,
    /// Sine and cosine phases of the guidance, `[2, frequencies * 5]`, frequency-major.
    pub phases: Tensor,
    /// Normalization of the guidance's Fourier features.
    pub guidance_norm: Affine,
    /// First 3x3 convolution.
    pub conv1: Linear,
    /// Second 3x3 convolution.
    pub conv2: Linear,
    /// Cross-attention layers.
    pub layers: Vec<Layer>,
    /// Output projection.
    pub last: Linear,
    /// Normalization of the output.
    pub last_norm: Affine,
}

impl LoftUp {
    /// Its hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
