//! The weights of a queries graph, as kernels take them.

/// A linear map: `weight` `[inputs, outputs]`, `bias` `[outputs]`.
#[derive(Debug, Clone, Default)]
pub struct Linear {
    /// `[inputs, outputs]`.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// A factor and an offset for each channel.
#[derive(Debug, Clone, Default)]
pub struct Affine {
    /// Factors.
    pub weight: Vec<f32>,
    /// Offsets.
    pub bias: Vec<f32>,
}

/// A 3x3 convolution: `weight` `[outputs, inputs, 3, 3]`, `bias` `[outputs]`.
#[derive(Debug, Clone, Default)]
pub struct Conv {
    /// `[outputs, inputs, 3, 3]`.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// One layer of cross-attention and MLP. Layer normalisations have their affine part folded into
/// the maps; the query map has the attention scale in it.
#[derive(Debug, Clone, Default)]
pub struct LayerWeights {
    /// To the queries of all heads.
    pub query: Linear,
    /// From the heads back to the width.
    pub out: Linear,
    /// First map of the MLP.
    pub mlp_in: Linear,
    /// Second map of the MLP.
    pub mlp_out: Linear,
}

/// All weights of a queries graph.
#[derive(Debug, Clone, Default)]
pub struct QueriesWeights {
    /// Attention heads.
    pub heads: usize,
    /// Fourier frequencies.
    pub frequencies: Vec<f32>,
    /// Phases of the sines, `[frequencies, 5]`: row, column, red, green, blue.
    pub sine_phases: Vec<f32>,
    /// Phases of the cosines, likewise.
    pub cosine_phases: Vec<f32>,
    /// After the normalisation of the Fourier features: sines `[frequencies, 5]`, cosines, colours.
    pub guidance_norm: Affine,
    /// First convolution.
    pub conv1: Conv,
    /// Second convolution.
    pub conv2: Conv,
    /// Layers.
    pub layers: Vec<LayerWeights>,
    /// To the channels of the answer.
    pub last: Linear,
    /// After the normalisation of the answer.
    pub last_norm: Affine,
    /// Epsilon of all normalisations but the last.
    pub eps: f32,
    /// Epsilon of the last normalisation.
    pub last_eps: f32,
}
