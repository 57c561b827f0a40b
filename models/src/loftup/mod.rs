//! The LoftUp upsampler (arXiv 2504.14032): configuration, weights, ONNX graphs.
//!
//! Symbols: `d` backbone channels, `e = d + 20` internal width, `h x w` the grid of backbone
//! features, `H x W` the guidance, whose size is the size of the answer.
//!
//! The upsampler is cut in two graphs so that any part of an answer can be computed exactly, at a
//! cost proportional to its area: [`LoftUp::keys_graph`] runs once per frame,
//! [`LoftUp::queries_graph`] once per tile. Only two 3x3 convolutions mix pixels, hence a halo of
//! [`HALO`] pixels. [`LoftUp::whole_graph`] is the same arithmetic as one standard file.

mod graphs;
mod weights;
mod whole;

pub use weights::{Config, LoftUp, upsampler_prefix};

/// Pixels around a tile that its features depend on.
pub const HALO: usize = 2;

/// Names of the inputs and outputs of the graphs.
pub mod io {
    /// Keys and whole: backbone features, `[1, d, h, w]`.
    pub const FEATURES: &str = "features";
    /// Keys: coordinates of the feature grid, rows then columns, `[2, h, w]`, each -1 to 1.
    pub const GRID: &str = "grid";
    /// Queries: min-max scaled guidance with halo, `[t, 3, H + 4, W + 4]`.
    /// Whole: the normalised picture, `[1, 3, H, W]`.
    pub const GUIDANCE: &str = "guidance";
    /// Queries: coordinates in the whole picture, rows then columns, `[t, 2, H + 4, W + 4]`.
    pub const COORDS: &str = "coords";
    /// Queries: 1 inside the picture, 0 outside, `[t, 1, H + 4, W + 4]`.
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
}

/// `n` points from `start` to `end` as `torch.linspace` computes them in 32 bit: from both ends
/// towards the middle, each point with one rounding. With frequencies up to e^10 the last bit
/// matters. One point is `start`.
pub fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    let middle = (n / 2).max(1);
    (0..n)
        .map(|i| {
            if i < middle {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((n - 1 - i) as f32, end)
            }
        })
        .collect()
}

/// The `n` Fourier frequencies, e^-2 to e^10.
fn frequencies(n: usize) -> Vec<f32> {
    linspace(-2.0, 10.0, n)
        .into_iter()
        .map(|x| f64::from(x).exp() as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a over the bits of each value.
    fn fingerprint(values: &[f32]) -> u64 {
        values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| {
            (hash ^ u64::from(x.to_bits())).wrapping_mul(0x100_0000_01b3)
        })
    }

    #[test]
    fn linspace_has_the_bits_of_pytorch() {
        let bits = |n| {
            linspace(-1.0, 1.0, n)
                .iter()
                .map(|x| x.to_bits())
                .collect::<Vec<_>>()
        };
        assert!(bits(0).is_empty());
        assert_eq!(bits(1), [0xbf80_0000]);
        assert_eq!(bits(2), [0xbf80_0000, 0x3f80_0000]);
        assert_eq!(
            bits(7),
            [
                0xbf80_0000,
                0xbf2a_aaaa,
                0xbeaa_aaaa,
                0xb300_0000,
                0x3eaa_aaaa,
                0x3f2a_aaaa,
                0x3f80_0000
            ]
        );
        // Of torch.linspace(-1, 1, n) in PyTorch 2.7.1.
        for (n, expected) in [
            (43, 0x88dc_e34d_31d6_554f),
            (61, 0x2fe2_79d2_7944_cb8f),
            (180, 0xf45d_b28a_f410_33fd),
            (224, 0x3d28_223c_ccea_54e5),
            (310, 0xf3b8_c9e4_28b9_a757),
            (448, 0x665d_7eaa_4e65_1ccb),
            (1024, 0x1efd_c4d1_ebfb_95d5),
        ] {
            assert_eq!(fingerprint(&linspace(-1.0, 1.0, n)), expected, "{n} points");
        }
    }
}
