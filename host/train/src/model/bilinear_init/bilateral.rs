//! Bilateral initialization: attention that compares positions and colors.
//!
//! The upsampler begins as joint bilateral upsampling (Kopf et al., SIGGRAPH 2007): the weight of
//! a token also depends on the difference between the color of the pixel and the mean color of the
//! token's patch. The exponent `-|p - q|^2 / (2 sigma^2)` of colors `p` and `q` differs from
//! `(p q - |q|^2 / 2) / sigma^2` by a constant for each pixel, which softmax removes. Queries
//! hold `p` and 1; keys hold `q` and `-|q|^2 / 2`, which two linear maps of the features estimate,
//! fitted to a few images by least squares.

use super::{ANGLES, COLORS, Fit, Weights, change, layer};
use crate::model::{Guidance, LoftUp, Tokens, host_values, least_squares::fit};

/// Standard deviation of the spatial Gaussian, in tokens.
pub(super) const SIGMA_SPATIAL: f64 = 0.6;
/// Standard deviation of the range Gaussian, for colors that are scaled to a range of 1.
const SIGMA_RANGE: f32 = 0.25;

/// Features and images from which colors are learned.
#[derive(Debug, Clone)]
pub struct Examples {
    /// The features.
    pub lr: Tokens,
    /// The images.
    pub guidance: Guidance,
}

impl Examples {
    /// Of each token its mean color and minus half its square, `[batch * h * w, 4]`.
    fn colors(&self, colors: &[f32]) -> Vec<f32> {
        let (grid, pixels) = (self.lr.grid, self.guidance.grid());
        // First and last pixel (exclusive) of a cell.
        let cell = |i: usize, cells: usize, pixels: usize| {
            i * pixels / cells..((i + 1) * pixels).div_ceil(cells)
        };
        let mut out = Vec::with_capacity(grid.pixels() * (COLORS + 1));
        for image in 0..grid.batch {
            for row in 0..grid.height {
                for column in 0..grid.width {
                    let (mut sum, mut count) = ([0.0; COLORS], 0.0);
                    for y in cell(row, grid.height, pixels.height) {
                        for x in cell(column, grid.width, pixels.width) {
                            let pixel = (image * pixels.height + y) * pixels.width + x;
                            for (s, v) in sum.iter_mut().zip(&colors[pixel * COLORS..]) {
                                *s += v;
                            }
                            count += 1.0;
                        }
                    }
                    let mean = sum.map(|s: f32| s / count);
                    out.extend(mean);
                    out.push(-0.5 * mean.iter().map(|v| v * v).sum::<f32>());
                }
            }
        }
        out
    }
}

impl Fit<'_> {
    /// Adds the comparison of colors to the first attention. `queries` are its inputs for the
    /// images of the fit.
    pub(super) fn compare_colors(
        &self,
        upsampler: &LoftUp,
        weights: &mut Weights,
        examples: &Examples,
        queries: &[f32],
    ) -> Option<()> {
        let e = self.config.width();
        let head = e / self.config.heads;
        let guidance = examples.guidance.colors(self.device);
        let wanted = examples.colors(&host_values(&guidance));
        let keys = host_values(&upsampler.first_keys(&examples.lr));
        let map = fit(&keys, e, &wanted, COLORS + 1)?;
        log::debug!(
            "colors of tokens: off by {:.3} (root mean square)",
            map.error(&keys, &wanted)
        );
        // The queries' colors are proportional to those of the guidance.
        let colors = host_values(&self.guidance.colors(self.device));
        let (mut product, mut square) = (0.0f64, 0.0f64);
        for (q, color) in queries.chunks_exact(e).zip(colors.chunks_exact(COLORS)) {
            for (c, color) in color.iter().enumerate() {
                let signal = q[2 * (ANGLES + c)] - q[2 * (ANGLES + c) + 1];
                product += f64::from(signal * color);
                square += f64::from(color * color);
            }
        }
        let strength = (head as f32).sqrt() / SIGMA_RANGE.powi(2);
        let weight = strength / (product / square.max(1e-12)) as f32;
        let slot = |row: usize| {
            (row % e % head)
                .checked_sub(ANGLES)
                .filter(|slot| row / e < 2 && *slot <= COLORS)
        };
        let name = format!("{}.0.attention.in_proj", layer(0));
        change(weights, &format!("{name}_weight"), |i, x| {
            let (row, column) = (i / e, i % e);
            match slot(row) {
                None => x,
                Some(slot) if row >= e => map.weight[slot * e + column],
                Some(COLORS) => 0.0,
                Some(slot) if column == 2 * (ANGLES + slot) => weight,
                Some(slot) if column == 2 * (ANGLES + slot) + 1 => -weight,
                Some(_) => 0.0,
            }
        });
        change(weights, &format!("{name}_bias"), |row, x| match slot(row) {
            None => x,
            Some(slot) if row >= e => map.bias[slot],
            Some(COLORS) => strength,
            Some(_) => 0.0,
        });
        Some(())
    }
}
