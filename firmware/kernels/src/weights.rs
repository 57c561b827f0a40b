//! The weights of a queries graph, in the layout of the graph.

use crate::Isa;

/// Source values of a pixel: row, column, red, green, blue.
pub(crate) const SOURCES: usize = 5;

/// Invalid weights or inputs. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The CPU does not support an instruction set.
    #[error(
        "this CPU does not support {0}; choose another instruction set, or none for the fastest"
    )]
    Isa(Isa),
    /// Weights whose shapes are inconsistent.
    #[error("{what}: expected {expected} values, got {found}")]
    Weight {
        /// Name of the weight.
        what: String,
        /// Expected number of values.
        expected: usize,
        /// Actual number of values.
        found: usize,
    },
    /// A part of length zero.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// An input or output of the wrong size.
    #[error("{what}: expected {expected} values, got {found}")]
    Size {
        /// Name of the input or output.
        what: &'static str,
        /// Expected number of values.
        expected: usize,
        /// Actual number of values.
        found: usize,
    },
    /// A layer index out of range.
    #[error("layer index {layer} is out of range: the graph has {count} layers")]
    Layer {
        /// The index, from 0.
        layer: usize,
        /// Number of layers.
        count: usize,
    },
}

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

/// A 3x3 convolution.
#[derive(Debug, Clone, Default)]
pub struct ConvWeights {
    /// `[outputs, inputs, 3, 3]`.
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

/// The dimensions of a queries graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Output channels.
    pub dim: usize,
    /// Channels between layers.
    pub width: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Channels per head.
    pub head_width: usize,
    /// Hidden channels of the MLP.
    pub hidden: usize,
    /// Number of Fourier frequencies.
    pub frequencies: usize,
}

impl Dims {
    /// Input channels of the first convolution.
    pub fn guidance_channels(&self) -> usize {
        2 * SOURCES * self.frequencies + 3
    }
}

impl QueriesWeights {
    /// The dimensions, if the shapes of all weights agree.
    pub(crate) fn dims(&self) -> Result<Dims, KernelError> {
        let first = self
            .layers
            .first()
            .ok_or(KernelError::Empty("the list of layers"))?;
        let heads = self.heads.max(1);
        let dims = Dims {
            dim: self.last.bias.len(),
            width: self.conv2.bias.len(),
            heads,
            head_width: first.query.bias.len() / heads,
            hidden: first.mlp_in.bias.len(),
            frequencies: self.frequencies.len(),
        };
        for (len, what) in [
            (self.heads, "the list of heads"),
            (dims.dim, "last.bias"),
            (dims.width, "conv2.bias"),
            (dims.head_width, "query.bias"),
            (dims.hidden, "mlp_in.bias"),
            (dims.frequencies, "the list of frequencies"),
        ] {
            if len == 0 {
                return Err(KernelError::Empty(what));
            }
        }
        let (width, channels) = (dims.width, dims.guidance_channels());
        let attended = heads * dims.head_width;
        expect("sine_phases", &self.sine_phases, SOURCES * dims.frequencies)?;
        expect(
            "cosine_phases",
            &self.cosine_phases,
            SOURCES * dims.frequencies,
        )?;
        pair(
            "guidance_norm",
            &self.guidance_norm.weight,
            channels,
            &self.guidance_norm.bias,
            channels,
        )?;
        pair(
            "conv1",
            &self.conv1.weight,
            width * channels * 9,
            &self.conv1.bias,
            width,
        )?;
        pair(
            "conv2",
            &self.conv2.weight,
            width * width * 9,
            &self.conv2.bias,
            width,
        )?;
        for (i, layer) in self.layers.iter().enumerate() {
            for (name, linear, inputs, outputs) in [
                ("query", &layer.query, width, attended),
                ("out", &layer.out, attended, width),
                ("mlp_in", &layer.mlp_in, width, dims.hidden),
                ("mlp_out", &layer.mlp_out, dims.hidden, width),
            ] {
                let name = format!("layers.{i}.{name}");
                pair(
                    &name,
                    &linear.weight,
                    inputs * outputs,
                    &linear.bias,
                    outputs,
                )?;
            }
        }
        pair(
            "last",
            &self.last.weight,
            width * dims.dim,
            &self.last.bias,
            dims.dim,
        )?;
        pair(
            "last_norm",
            &self.last_norm.weight,
            dims.dim,
            &self.last_norm.bias,
            dims.dim,
        )?;
        Ok(dims)
    }
}

fn pair(
    name: &str,
    weight: &[f32],
    weights: usize,
    bias: &[f32],
    biases: usize,
) -> Result<(), KernelError> {
    expect(&format!("{name}.weight"), weight, weights)?;
    expect(&format!("{name}.bias"), bias, biases)
}

fn expect(name: &str, values: &[f32], expected: usize) -> Result<(), KernelError> {
    if values.len() == expected {
        return Ok(());
    }
    Err(KernelError::Weight {
        what: name.into(),
        expected,
        found: values.len(),
    })
}
