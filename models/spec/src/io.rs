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
/// Queries with a head, inputs: what the features are multiplied by before the head, `[d]`.
pub const HEAD_SCALE: &str = "head_scale";
/// Queries with a head, inputs: what is then added, `[d]`.
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
