//! What a queries graph is made of, as it stands in the graph.

use loftup_spec::weights::QueriesWeights;

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

impl Shape {
    /// The shape, where all weights agree on it.
    pub(crate) fn of(weights: &QueriesWeights) -> Result<Self, KernelError> {
        let first = weights
            .layers
            .first()
            .ok_or(KernelError::Empty("the list of layers"))?;
        let heads = weights.heads.max(1);
        let shape = Shape {
            dim: weights.last.bias.len(),
            width: weights.conv2.bias.len(),
            heads,
            head_width: first.query.bias.len() / heads,
            hidden: first.mlp_in.bias.len(),
            frequencies: weights.frequencies.len(),
        };
        for (extent, what) in [
            (weights.heads, "the list of heads"),
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
            &weights.sine_phases,
            SOURCES * shape.frequencies,
        )?;
        expect(
            "cosine_phases",
            &weights.cosine_phases,
            SOURCES * shape.frequencies,
        )?;
        pair(
            "guidance_norm",
            &weights.guidance_norm.weight,
            channels,
            &weights.guidance_norm.bias,
            channels,
        )?;
        pair(
            "conv1",
            &weights.conv1.weight,
            width * channels * 9,
            &weights.conv1.bias,
            width,
        )?;
        pair(
            "conv2",
            &weights.conv2.weight,
            width * width * 9,
            &weights.conv2.bias,
            width,
        )?;
        for (i, layer) in weights.layers.iter().enumerate() {
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
            &weights.last.weight,
            width * shape.dim,
            &weights.last.bias,
            shape.dim,
        )?;
        pair(
            "last_norm",
            &weights.last_norm.weight,
            shape.dim,
            &weights.last_norm.bias,
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
