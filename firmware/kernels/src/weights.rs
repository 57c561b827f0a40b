//! Dimensions of a queries graph, and errors.

use loftup_spec::weights::QueriesWeights;

use crate::{Arithmetic, Isa};

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
    /// The CPU, or the instruction set, has no instructions for an arithmetic.
    #[error("{0}: needs {needs}, which this CPU or the chosen instruction set does not have; use fp32", needs = .0.needs())]
    Arithmetic(Arithmetic),
    /// The shapes of the weights are inconsistent.
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
    /// The number of channels is not a multiple of the four attention heads.
    #[error(
        "features of {0} channels: the attention has four heads, so channels must be a multiple of 4"
    )]
    Channels(usize),
    /// A grid of features that is too small, or finer than the image.
    #[error(
        "a grid of {}x{} cells for an output of {}x{}: neighborhood attention takes at least 9 cells per side, and no more cells than pixels", grid.1, grid.0, image.1, image.0
    )]
    Grid {
        /// Rows and columns of the grid.
        grid: (usize, usize),
        /// Rows and columns of the image.
        image: (usize, usize),
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

impl Dims {
    /// Returns the dimensions, if the shapes of all weights are consistent.
    pub(crate) fn of(weights: &QueriesWeights) -> Result<Self, KernelError> {
        let first = weights
            .layers
            .first()
            .ok_or(KernelError::Empty("the list of layers"))?;
        let heads = weights.heads.max(1);
        let dims = Dims {
            dim: weights.last.bias.len(),
            width: weights.conv2.bias.len(),
            heads,
            head_width: first.query.bias.len() / heads,
            hidden: first.mlp_in.bias.len(),
            frequencies: weights.frequencies.len(),
        };
        for (len, what) in [
            (weights.heads, "the list of heads"),
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
        expect(
            "sine_phases",
            &weights.sine_phases,
            SOURCES * dims.frequencies,
        )?;
        expect(
            "cosine_phases",
            &weights.cosine_phases,
            SOURCES * dims.frequencies,
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
            &weights.last.weight,
            width * dims.dim,
            &weights.last.bias,
            dims.dim,
        )?;
        pair(
            "last_norm",
            &weights.last_norm.weight,
            dims.dim,
            &weights.last_norm.bias,
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
