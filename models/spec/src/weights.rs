//! The weights of a queries graph, as kernels take them.

/// A linear layer, `x @ weight + bias`.
#[derive(Debug, Clone, Default)]
pub struct LinearWeights {
    /// `[inputs, outputs]`.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// The affine part of a normalization, `x * weight + bias`.
#[derive(Debug, Clone, Default)]
pub struct AffineWeights {
    /// `[channels]`.
    pub weight: Vec<f32>,
    /// `[channels]`.
    pub bias: Vec<f32>,
}

/// A convolution.
#[derive(Debug, Clone, Default)]
pub struct ConvWeights {
    /// `[outputs, inputs, k, k]`; in LoftUp, k is 3.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// One layer of cross-attention and MLP. The affine parts of the layer normalizations are folded into
/// the linear layers after them, and the attention scale into the query projection.
#[derive(Debug, Clone, Default)]
pub struct LayerWeights {
    /// Query projection, `[width, heads * head_width]`.
    pub query: LinearWeights,
    /// Output projection, `[heads * head_width, width]`.
    pub out: LinearWeights,
    /// First linear layer of the MLP, `[width, hidden]`.
    pub mlp_in: LinearWeights,
    /// Second linear layer of the MLP, `[hidden, width]`.
    pub mlp_out: LinearWeights,
}

/// All weights of a queries graph.
#[derive(Debug, Clone, Default)]
pub struct QueriesWeights {
    /// Number of attention heads.
    pub heads: usize,
    /// Fourier frequencies.
    pub frequencies: Vec<f32>,
    /// Phases of the sines, `[frequencies, 5]`: row, column, red, green, blue.
    pub sine_phases: Vec<f32>,
    /// Phases of the cosines, `[frequencies, 5]`.
    pub cosine_phases: Vec<f32>,
    /// Affine part of the normalization of the Fourier features. Channels: sines `[frequencies, 5]`,
    /// cosines `[frequencies, 5]`, colors `[3]`.
    pub guidance_norm: AffineWeights,
    /// First convolution.
    pub conv1: ConvWeights,
    /// Second convolution.
    pub conv2: ConvWeights,
    /// Cross-attention layers.
    pub layers: Vec<LayerWeights>,
    /// Output projection, `[width, dim]`.
    pub last: LinearWeights,
    /// Affine part of the output normalization, `[dim]`.
    pub last_norm: AffineWeights,
    /// Epsilon of all normalizations except the last.
    pub eps: f32,
    /// Epsilon of the last normalization.
    pub last_eps: f32,
}
