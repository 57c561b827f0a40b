//! Names of the inputs and outputs of the ONNX graphs.

/// Keys and whole: backbone features, `[1, d, h, w]`.
pub const FEATURES: &str = "features";
/// Keys: coordinates of the feature grid, rows then columns, `[2, h, w]`, each -1 to 1.
pub const GRID: &str = "grid";
/// Queries: min-max scaled guidance with halo, `[t, 3, H + 4, W + 4]`.
/// Whole: the normalized image, `[1, 3, H, W]`.
pub const GUIDANCE: &str = "guidance";
/// Queries: coordinates in the whole image, rows then columns, `[t, 2, H + 4, W + 4]`.
pub const COORDS: &str = "coords";
/// Queries: 1 inside the image, 0 outside, `[t, 1, H + 4, W + 4]`.
pub const MASK: &str = "mask";
/// Queries: features of the tiles, tokens by channels, `[t * H * W, d]`.
/// Whole: `[1, d, H, W]`.
pub const UPSAMPLED: &str = "upsampled";

/// Queries with a head, inputs: weights of the head, `[k, d]`.
pub const HEAD_WEIGHT: &str = "head_weight";
/// Queries with a head, inputs: bias of the head, `[k]`.
pub const HEAD_BIAS: &str = "head_bias";
/// Queries with a head, inputs: factors of the features before the head, `[d]`.
pub const HEAD_SCALE: &str = "head_scale";
/// Queries with a head, inputs: offsets added after that, `[d]`.
pub const HEAD_OFFSET: &str = "head_offset";
/// Queries with a head: the inputs of the head, in this order after those of the queries.
pub const HEAD_INPUTS: [&str; 4] = [HEAD_WEIGHT, HEAD_BIAS, HEAD_SCALE, HEAD_OFFSET];
/// Queries with a head: outputs of the head, `[t * H * W, k]`.
pub const HEAD: &str = "head";
/// Queries with a head: mean and mean square over the channels of the scaled features,
/// `[t * H * W, 2]`.
pub const MOMENTS: &str = "moments";

/// Keys of layer `i`, transposed: `[heads, head width, h * w]`.
pub fn key(layer: usize) -> String {
    format!("key{layer}")
}

/// Values of layer `i`: `[heads, h * w, head width]`.
pub fn value(layer: usize) -> String {
    format!("value{layer}")
}

/// Names of the inputs and outputs of NAF's keys and queries graphs, besides [`GUIDANCE`],
/// [`UPSAMPLED`] and [`HEAD`]. `docs/bundle-format.md` has the shapes.
pub mod naf {
    use super::{GUIDANCE, HEAD, UPSAMPLED};

    /// Cosines and sines of the rows of the image.
    pub const ROTARY_ROWS: &str = "rotary_rows";
    /// Cosines and sines of its columns.
    pub const ROTARY_COLUMNS: &str = "rotary_columns";
    /// Weight of each row of pixels in each row of cells.
    pub const POOL_ROWS: &str = "pool_rows";
    /// Weight of each column of pixels in each column of cells.
    pub const POOL_COLUMNS: &str = "pool_columns";
    /// Scales of the group normalizations of this frame.
    pub const SCALES: &str = "scales";
    /// Shifts of the group normalizations of this frame.
    pub const SHIFTS: &str = "shifts";
    /// Keys of the cells.
    pub const KEYS: &str = "keys";
    /// Values of the cells.
    pub const VALUES: &str = "values";
    /// Bias of a head.
    pub const BIAS: &str = "bias";
    /// Pixels of each group.
    pub const PIXELS: &str = "pixels";
    /// Cells that each group attends to.
    pub const CELLS: &str = "cells";
    /// Position of each output pixel in the groups.
    pub const ORDER: &str = "order";

    /// Inputs of the keys graph.
    pub const KEYS_INPUTS: [&str; 5] = [
        GUIDANCE,
        ROTARY_ROWS,
        ROTARY_COLUMNS,
        POOL_ROWS,
        POOL_COLUMNS,
    ];
    /// Outputs of the keys graph.
    pub const KEYS_OUTPUTS: [&str; 3] = [SCALES, SHIFTS, KEYS];
    /// Inputs of the queries graph: of the tiles, of the frame, and of the requested output.
    pub const QUERIES_INPUTS: [&str; 11] = [
        GUIDANCE,
        ROTARY_ROWS,
        ROTARY_COLUMNS,
        PIXELS,
        CELLS,
        ORDER,
        SCALES,
        SHIFTS,
        KEYS,
        VALUES,
        BIAS,
    ];
    /// Outputs of the queries graph: features, or the outputs of a head.
    pub const QUERIES_OUTPUTS: [&str; 2] = [UPSAMPLED, HEAD];
}

/// Names of the input and outputs of a frame graph.
pub mod frame {
    /// The camera image, RGB, uint8 `[1, rows, columns, 3]`.
    pub const IMAGE: &str = "image";
    /// The class of each pixel, uint8 `[1, H, W]`; 255 if its scores are not finite.
    pub const CLASSES: &str = "classes";
    /// The outputs of the head for each pixel, float32 `[1, H, W, k]`.
    pub const SCORES: &str = "scores";
    /// The features of each pixel, float32 `[1, H, W, d]`.
    pub const FEATURES: &str = "features";
}
