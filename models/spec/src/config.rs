//! Hyperparameters of LoftUp.

/// Every published LoftUp has four attention heads; checkpoints do not store the number.
pub const HEADS: usize = 4;

/// Head width is padded with zero weights to a multiple of this: a width of 101 would prevent fused
/// attention.
const HEAD_MULTIPLE: usize = 8;

/// Hyperparameters of LoftUp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Channels of the backbone features and of the output, `d`.
    pub dim: usize,
    /// Cross-attention layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Fourier frequencies of the guidance.
    pub frequencies: usize,
    /// Fourier frequencies of the feature grid.
    pub grid_frequencies: usize,
}

impl Config {
    /// Internal width, `e`: the features and their positional channels.
    pub fn width(&self) -> usize {
        self.dim + 4 * self.grid_frequencies
    }

    /// Input channels of the first convolution: sines, cosines and the colors themselves.
    pub fn guidance_channels(&self) -> usize {
        10 * self.frequencies + 3
    }

    /// Width of one attention head, as trained.
    pub fn head_width(&self) -> usize {
        self.width() / self.heads
    }

    /// Width of one attention head, as exported.
    pub fn padded_head_width(&self) -> usize {
        self.head_width().next_multiple_of(HEAD_MULTIPLE)
    }
}
