//! What a queries graph is made of, as it stands in the graph.

use crate::{Isa, fourier::SOURCES};

/// Input that cannot be computed with. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The machine lacks an instruction set.
    #[error("this machine has no {0} instructions; choose another, or none to take the best")]
    Isa(Isa),
    /// Weights whose shapes do not go together.
    #[error("{what} holds {found} values, expected {expected}")]
    Weight {
        /// The weight.
        what: String,
        /// Values it should hold.
        expected: usize,
        /// Values it holds.
        found: usize,
    },
    /// A part without an extent.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// An input of another size.
    #[error("{what}: expected {expected} values, got {found}")]
    Size {
        /// The input.
        what: &'static str,
        /// Values it should hold.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
    /// A layer that is not there.
    #[error("layer {layer} of {count}")]
    Layer {
        /// Its number, from 0.
        layer: usize,
        /// How many there are.
        count: usize,
    },
}

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

/// What shapes a queries graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Channels of the answer.
    pub dim: usize,
    /// Channels between the layers.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_width: usize,
    /// Channels inside the MLP.
    pub hidden: usize,
    /// Fourier frequencies.
    pub frequencies: usize,
}

impl Shape {
    /// Channels that the first convolution sees.
    pub fn guidance_channels(&self) -> usize {
        2 * SOURCES * self.frequencies + 3
    }
}

impl QueriesWeights {
    /// The shape, where all weights agree on it.
    pub(crate) fn shape(&self) -> Result<Shape, KernelError> {
        let first = self
            .layers
            .first()
            .ok_or(KernelError::Empty("the list of layers"))?;
        let heads = self.heads.max(1);
        let shape = Shape {
            dim: self.last.bias.len(),
            width: self.conv2.bias.len(),
            heads,
            head_width: first.query.bias.len() / heads,
            hidden: first.mlp_in.bias.len(),
            frequencies: self.frequencies.len(),
        };
        for (extent, what) in [
            (self.heads, "the list of heads"),
            (shape.dim, "last.bias"),
            (shape.width, "conv2.bias"),
            (shape.head_width, "query.bias"),
            (shape.hidden, "mlp_in.bias"),
            (shape.frequencies, "the list of frequencies"),
        ] {
            if extent == 0 {
                return Err(KernelError::Empty(what));
            }
        }
        let (width, channels) = (shape.width, shape.guidance_channels());
        let attended = heads * shape.head_width;
        expect(
            "sine_phases",
            &self.sine_phases,
            SOURCES * shape.frequencies,
        )?;
        expect(
            "cosine_phases",
            &self.cosine_phases,
            SOURCES * shape.frequencies,
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
            for (name, map, inputs, outputs) in [
                ("query", &layer.query, width, attended),
                ("out", &layer.out, attended, width),
                ("mlp_in", &layer.mlp_in, width, shape.hidden),
                ("mlp_out", &layer.mlp_out, shape.hidden, width),
            ] {
                let name = format!("layers.{i}.{name}");
                pair(&name, &map.weight, inputs * outputs, &map.bias, outputs)?;
            }
        }
        pair(
            "last",
            &self.last.weight,
            width * shape.dim,
            &self.last.bias,
            shape.dim,
        )?;
        pair(
            "last_norm",
            &self.last_norm.weight,
            shape.dim,
            &self.last_norm.bias,
            shape.dim,
        )?;
        Ok(shape)
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
