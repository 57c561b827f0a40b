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

/// Keys of layer `i`, transposed: `[heads, head width, h * w]`.
pub fn key(layer: usize) -> String {
    format!("key{layer}")
}

/// Values of layer `i`: `[heads, h * w, head width]`.
pub fn value(layer: usize) -> String {
    format!("value{layer}")
}
