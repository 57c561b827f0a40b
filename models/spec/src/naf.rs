//! The definition of NAF (Neighborhood Attention Filtering, CVPR 2026), shared by everything that
//! computes, reads, writes or trains it. DiveUp has the same network.
//!
//! Two convolutional branches encode the image; a rotary encoding adds the position; a key is the
//! mean of a cell's encodings; and every pixel attends to a window of 9x9 cells, whose values are
//! the backbone's features. Nothing depends on the number of channels of the features, and the
//! output is, for each head, a weighted mean of the features.

mod tiles;

use crate::{
    SplitMix64, rotary,
    weights::{AffineWeights, ConvWeights},
};

pub use tiles::{Axis, TileInputs, TileShape};

/// Channels of a branch.
pub const WIDTH: usize = 128;
/// Channels of the encoding of a pixel, from both branches.
pub const CHANNELS: usize = 2 * WIDTH;
/// Attention heads.
pub const HEADS: usize = 4;
/// Channels of a head in queries and keys.
pub const HEAD_WIDTH: usize = CHANNELS / HEADS;
/// Number of layers of a branch after its first convolution; each is group normalization, SiLU and
/// convolution. The checkpoint has them in blocks of two.
pub const LAYERS: usize = 4;
/// Groups of a group normalization.
pub const GROUPS: usize = 8;
/// Epsilon of the group normalizations.
pub const EPS: f32 = 1e-5;
/// Side of the window of cells that a pixel attends to.
pub const WINDOW: usize = 9;
/// Number of cells in the window.
pub const TAPS: usize = WINDOW * WINDOW;
/// Pixels around a pixel that its encoding depends on, apart from the statistics of the
/// normalizations: five 3x3 convolutions.
pub const HALO: usize = LAYERS + 1;
/// Number of periods of the rotary encoding per axis.
pub const PERIODS: usize = HEAD_WIDTH / 4;
/// Upper bound of the periods.
const LONGEST_PERIOD: f64 = 100.0;

/// A branch of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// 1x1 convolutions. Its channels come first.
    Pointwise,
    /// 3x3 convolutions.
    Spatial,
}

impl Branch {
    /// Both, in the order of their channels.
    pub const ALL: [Self; 2] = [Self::Pointwise, Self::Spatial];

    /// Side of its kernels.
    pub fn kernel(self) -> usize {
        match self {
            Self::Pointwise => 1,
            Self::Spatial => 3,
        }
    }

    /// Its name in checkpoints.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Pointwise => "image_encoder.encoder",
            Self::Spatial => "image_encoder.sem_encoder",
        }
    }
}

/// Name of the periods in checkpoints.
pub const PERIODS_NAME: &str = "image_encoder.rope.periods";

/// A group normalization and, after a SiLU, a convolution with reflect padding.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// The affine part of the normalization.
    pub norm: AffineWeights,
    /// The convolution, `[128, 128, k, k]`.
    pub conv: ConvWeights,
}

/// The weights of a branch.
#[derive(Debug, Clone, Default)]
pub struct BranchWeights {
    /// The first convolution, `[128, 3, k, k]`.
    pub first: ConvWeights,
    /// The layers after it.
    pub layers: [Layer; LAYERS],
}

/// All weights of NAF.
#[derive(Debug, Clone, Default)]
pub struct NafWeights {
    /// By [`Branch`].
    pub branches: [BranchWeights; 2],
    /// Periods of the rotary encoding.
    pub periods: Vec<f32>,
}

impl NafWeights {
    /// Reads the weights by their names in the published checkpoints. `read` gets the name and the
    /// shape of each.
    ///
    /// # Errors
    /// The first error of `read`.
    pub fn read<E>(mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>) -> Result<Self, E> {
        let mut weights = Self::default();
        weights.visit(|name, shape, values| {
            *values = read(name, shape)?;
            Ok(())
        })?;
        Ok(weights)
    }

    /// Names, shapes and values, as in the published checkpoints.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut all = Vec::new();
        let listed: Result<(), std::convert::Infallible> =
            self.clone().visit(|name, shape, values| {
                all.push((name.into(), shape.to_vec(), std::mem::take(values)));
                Ok(())
            });
        match listed {
            Ok(()) => all,
            Err(never) => match never {},
        }
    }

    /// Random weights for tests, deterministic for a seed. No normalization is trivial, no bias is zero,
    /// and attention is neither uniform nor on a single cell.
    pub fn random(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let made: Result<Self, std::convert::Infallible> = Self::read(|name, shape| {
            if name == PERIODS_NAME {
                return Ok(periods());
            }
            let inputs: usize = shape[1..].iter().product();
            let (mean, spread) = match (name.ends_with("weight"), shape.len()) {
                (true, 1) => (1.0, 0.4),
                (true, _) => (0.0, (2.5 / (inputs as f64).sqrt()) as f32),
                (false, _) => (0.0, 0.3),
            };
            let count = shape.iter().product();
            let value = |_| mean + spread * (2.0 * random.uniform() - 1.0);
            Ok((0..count).map(value).collect())
        });
        match made {
            Ok(weights) => weights,
            Err(never) => match never {},
        }
    }

    /// Calls `each` with the name, the shape and the values of every weight.
    fn visit<E>(
        &mut self,
        mut each: impl FnMut(&str, &[usize], &mut Vec<f32>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (branch, weights) in Branch::ALL.into_iter().zip(&mut self.branches) {
            let (prefix, k) = (branch.prefix(), branch.kernel());
            let first = &mut weights.first;
            each(
                &format!("{prefix}.0.weight"),
                &[WIDTH, 3, k, k],
                &mut first.weight,
            )?;
            each(&format!("{prefix}.0.bias"), &[WIDTH], &mut first.bias)?;
            for (i, Layer { norm, conv }) in weights.layers.iter_mut().enumerate() {
                let (block, n) = (i / 2 + 1, i % 2 + 1);
                let of = |part: &str| format!("{prefix}.{block}.{part}{n}");
                let square = [WIDTH, WIDTH, k, k];
                each(
                    &format!("{}.weight", of("norm")),
                    &[WIDTH],
                    &mut norm.weight,
                )?;
                each(&format!("{}.bias", of("norm")), &[WIDTH], &mut norm.bias)?;
                each(&format!("{}.weight", of("conv")), &square, &mut conv.weight)?;
                each(&format!("{}.bias", of("conv")), &[WIDTH], &mut conv.bias)?;
            }
        }
        each(PERIODS_NAME, &[PERIODS], &mut self.periods)
    }
}

/// The periods of a new network: powers of 100^(1/16) from 1. Channels `c` and `c + 32` of a head are
/// rotated by angle `c`: 16 angles of the row, then 16 of the column ([`rotary::rotation`]).
pub fn periods() -> Vec<f32> {
    rotary::periods(LONGEST_PERIOD, PERIODS)
}

/// Whether NAF supports this number of cells along an axis: at least [`WINDOW`], and no more than
/// pixels.
pub fn fits(cells: usize, pixels: usize) -> bool {
    cells >= WINDOW && pixels >= cells
}

/// The rows (or columns) of cells that row (or column) `i` of `pixels` attends to.
///
/// This is neighborhood attention over the pixels with dilation `pixels / cells`, where each pixel has
/// the key and the value of its cell. The window is shifted inward at the border. If `pixels` is a
/// multiple of `cells`, these are 9 consecutive cells, the same for all pixels of a cell; otherwise, a
/// cell can occur twice.
///
/// # Panics
/// If the axis does not fit ([`fits`]).
pub fn window(i: usize, cells: usize, pixels: usize) -> [usize; WINDOW] {
    assert!(
        i < pixels && fits(cells, pixels),
        "{cells} cells, {pixels} pixels"
    );
    let dilation = pixels / cells;
    let (first, at) = (i % dilation, i / dilation);
    let along = (pixels - first).div_ceil(dilation);
    let start = at.saturating_sub(WINDOW / 2).min(along - WINDOW);
    std::array::from_fn(|t| cell_of((start + t) * dilation + first, cells, pixels))
}

/// The cell of pixel `i`, with the rounding of PyTorch's `nearest-exact`.
fn cell_of(i: usize, cells: usize, pixels: usize) -> usize {
    let scale = cells as f32 / pixels as f32;
    (((i as f32 + 0.5) * scale) as usize).min(cells - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_parameters_as_published() {
        let weights = NafWeights::random(1).tensors();
        let count: usize = weights
            .iter()
            .map(|(_, shape, _)| shape.iter().product::<usize>())
            .sum();
        // The periods are a buffer.
        assert_eq!(count - PERIODS, 662_528);
        assert!(
            weights
                .iter()
                .all(|(_, shape, values)| values.len() == shape.iter().product())
        );
        let mut names: Vec<_> = weights.iter().map(|(name, ..)| name.as_str()).collect();
        assert!(names.contains(&"image_encoder.sem_encoder.2.conv1.weight"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), weights.len());
    }

    #[test]
    fn of_multiples_all_pixels_of_a_cell_share_consecutive_cells() {
        for (cells, dilation) in [(9usize, 1), (9, 7), (16, 14), (32, 14), (37, 3)] {
            for i in 0..cells * dilation {
                let start = (i / dilation).saturating_sub(4).min(cells - 9);
                let expected: [usize; 9] = std::array::from_fn(|t| start + t);
                assert_eq!(window(i, cells, cells * dilation), expected);
            }
        }
    }

    #[test]
    fn the_window_is_that_of_dilated_neighborhood_attention() {
        for (cells, pixels) in [(9, 10), (9, 100), (11, 29), (16, 223), (10, 19), (13, 13)] {
            let dilation = pixels / cells;
            for i in 0..pixels {
                // The pixels in steps of the dilation from this one, 4 on each side where there are so
                // many, and more on the other side otherwise.
                let same: Vec<usize> = (0..pixels)
                    .filter(|p| p % dilation == i % dilation)
                    .collect();
                let at = same.iter().position(|p| *p == i).unwrap();
                let start = at.saturating_sub(4).min(same.len() - 9);
                let expected: Vec<usize> = same[start..start + 9]
                    .iter()
                    .map(|p| cell_of(*p, cells, pixels))
                    .collect();
                assert_eq!(window(i, cells, pixels)[..], expected);
                assert!(expected.iter().all(|c| *c < cells));
            }
        }
        assert!(!fits(8, 100) && !fits(20, 19) && fits(9, 9));
    }

    #[test]
    fn cells_are_rounded_like_in_pytorch() {
        // Where torch.nn.functional.interpolate(mode="nearest-exact") and exact arithmetic differ:
        // pixel 146 of 293 lies exactly between cells 31 and 32 of 64.
        let ties = (0..293).filter(|i| cell_of(*i, 64, 293) != (2 * i + 1) * 64 / (2 * 293));
        assert_eq!(ties.collect::<Vec<_>>(), [146]);
    }
}
