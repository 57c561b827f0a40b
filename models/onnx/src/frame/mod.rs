//! One graph for a whole frame: from the camera's `uint8` image to class ids, the outputs of a head, or
//! features.
//!
//! It contains the graphs of a bundle unchanged, with the preprocessing before and the head after them.
//! Everything is fixed: the size of the camera image, the size of the output, and the head. An engine
//! then runs a frame with one call, and only the image and the result cross the bus.

mod error;
mod part;
mod resize;
mod write;

pub use error::FrameError;
pub use resize::{Weights, resized};

use crate::Tensor;

/// Rows and columns.
pub type Extent = (usize, usize);

/// The contents of a frame graph.
#[derive(Debug, Clone)]
pub struct FrameGraph<'a> {
    /// The camera image.
    pub camera: Extent,
    /// The output, in pixels.
    pub size: Extent,
    /// Weights of the resize to the backbone's input and to the output.
    pub resize: [Resize; 2],
    /// Mean and standard deviation of each channel, for the backbone.
    pub normalization: ([f32; 3], [f32; 3]),
    /// The backbone.
    pub backbone: Backbone<'a>,
    /// The upsampler.
    pub upsampler: Upsampler<'a>,
    /// The output.
    pub output: Output<'a>,
    /// Key-value pairs to store in the file.
    pub metadata: Vec<(String, String)>,
}

/// Weights of a resize along both axes; `None` if the side stays the same.
#[derive(Debug, Clone)]
pub struct Resize {
    /// Along the columns, which come first.
    pub columns: Option<Weights>,
    /// Along the rows.
    pub rows: Option<Weights>,
}

/// The graph of a backbone.
#[derive(Debug, Clone, Copy)]
pub struct Backbone<'a> {
    /// The ONNX file.
    pub onnx: &'a [u8],
    /// Its input, `[1, 3, H, W]`.
    pub input: &'a str,
    /// Its output.
    pub output: &'a str,
    /// Size of its input.
    pub size: Extent,
    /// Rows and columns of its features.
    pub grid: Extent,
    /// Channels of its features.
    pub dim: usize,
    /// Number of tokens before those of the patches; `None` if the output is a map `[1, d, h, w]`.
    pub extra_tokens: Option<usize>,
}

/// The graphs of an upsampler.
#[derive(Debug, Clone)]
pub enum Upsampler<'a> {
    /// LoftUp.
    LoftUp(LoftUp<'a>),
    /// NAF for this size.
    Naf(Naf<'a>),
}

/// The graphs of LoftUp, with queries tile by tile.
#[derive(Debug, Clone)]
pub struct LoftUp<'a> {
    /// The keys graph.
    pub keys: &'a [u8],
    /// The queries graph.
    pub queries: &'a [u8],
    /// Number of layers.
    pub layers: usize,
    /// Minimum and maximum of each channel, normalized, if the guidance is scaled by a fixed range.
    pub range: Option<[[f32; 3]; 2]>,
    /// The tiles, row by row.
    pub tiles: Vec<Tile>,
    /// Number of tiles in a row.
    pub columns: usize,
}

/// NAF.
#[derive(Debug, Clone, Copy)]
pub struct Naf<'a> {
    /// The whole graph for this size.
    pub whole: &'a [u8],
    /// Mean and standard deviation of each channel of its guidance.
    pub normalization: ([f32; 3], [f32; 3]),
}

/// A tile: the queries graph runs on `compute`, and `keep` is the part of it in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The pixels to compute.
    pub compute: Area,
    /// The pixels in the output.
    pub keep: Area,
}

/// A rectangle of output pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Top row.
    pub row: usize,
    /// Left column.
    pub column: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

/// What a frame graph returns.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// The features.
    Features,
    /// The outputs of a head.
    Scores(Linear<'a>),
    /// The class with the largest output of a head, and with `scores` also the outputs.
    Classes {
        /// The head.
        head: Linear<'a>,
        /// Whether the outputs of the head are outputs of the graph as well.
        scores: bool,
    },
}

/// A head: `weight` `[k, d]`, `bias` `[k]`.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// Its weights.
    pub weight: &'a Tensor,
    /// Its bias.
    pub bias: &'a Tensor,
}
