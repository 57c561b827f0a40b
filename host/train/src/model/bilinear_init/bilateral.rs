//! Bilateral initialization: attention that compares positions and colors.
//!
//! The upsampler begins as an approximation of joint bilateral upsampling (Kopf et al., SIGGRAPH
//! 2007), where the weight of a token also depends on the difference between the color of the pixel
//! and the mean color of the token's patch. Attention knows the color of the pixel, but of the token
//! only the features. So the logit is bilinear in both: queries hold the positive and the negative
//! parts of the pixel's color and a constant, keys hold as many linear maps of the token's features.
//! The maps minimize the cross-entropy between the weights of joint bilateral upsampling and those
//! of the attention, on pixels of a few images. A regression from features to colors would be
//! simpler, but its error, which is the same for all pixels around a token, spoils the weights.

use super::{ANGLES, COLORS, Fit, SLOTS, Weights, change, layer};
use crate::{
    kernels::Grid,
    model::{Guidance, LoftUp, Tokens, host_values},
    rng::{Purpose, Rng},
};

/// Standard deviation of the spatial Gaussian, in tokens.
pub(super) const SIGMA_SPATIAL: f64 = 0.8;
/// Standard deviation of the range Gaussian, for colors that are scaled to a range of 1.
const SIGMA_RANGE: f32 = 0.15;
/// Steps of the optimizer.
const STEPS: usize = 1000;
/// Pixels per step.
const PIXELS: usize = 512;
/// Learning rate at the beginning; it decays to 0 along a cosine.
const LEARNING_RATE: f32 = 0.05;
/// Tokens on each side of a pixel's own that are compared.
const RADIUS: usize = 5;

/// Features and images from which the comparison is learned.
#[derive(Debug, Clone)]
pub struct Examples {
    /// The features.
    pub lr: Tokens,
    /// The images.
    pub guidance: Guidance,
}

/// Positive and negative parts of a color, and a constant.
fn query(color: &[f32]) -> [f32; SLOTS] {
    std::array::from_fn(|slot| match slot {
        _ if slot == 2 * COLORS => 1.0,
        _ if slot.is_multiple_of(2) => color[slot / 2].max(0.0),
        _ => (-color[slot / 2]).max(0.0),
    })
}

/// What the maps from keys to logits are fitted to.
struct Comparison<'a> {
    /// Inputs of the key projection, `[tokens, e]`.
    keys: &'a [f32],
    e: usize,
    grid: Grid,
    /// Colors of the pixels, `[pixels, 3]`.
    colors: &'a [f32],
    pixels: Grid,
    /// Mean color of each token's patch, `[tokens, 3]`.
    means: Vec<f32>,
}

impl<'a> Comparison<'a> {
    fn new(keys: &'a [f32], grid: Grid, colors: &'a [f32], pixels: Grid) -> Self {
        Self {
            keys,
            e: keys.len() / grid.pixels(),
            grid,
            colors,
            pixels,
            means: means(colors, grid, pixels),
        }
    }

    /// The maps, `[SLOTS, e + 1]`, with the constant last.
    fn fit(&self) -> Vec<f32> {
        let (columns, tokens) = (self.e + 1, self.grid.height * self.grid.width);
        let mut maps = vec![0.0; SLOTS * columns];
        let (mut first, mut second) = (maps.clone(), maps.clone());
        let mut rng = Rng::new(0, Purpose::Weights, 1);
        let mut slopes = vec![0.0; tokens * SLOTS];
        for step in 0..STEPS {
            let image = rng.below(self.grid.batch);
            let keys = &self.keys[image * tokens * self.e..][..tokens * self.e];
            let projected: Vec<f32> = keys
                .chunks_exact(self.e)
                .flat_map(|key| maps.chunks_exact(columns).map(|map| dot(map, key)))
                .collect();
            slopes.fill(0.0);
            for _ in 0..PIXELS {
                let pixel = rng.below(self.pixels.height * self.pixels.width);
                self.add_slopes(image, pixel, &projected, &mut slopes);
            }
            let mut gradient = vec![0.0; maps.len()];
            for (key, slopes) in keys.chunks_exact(self.e).zip(slopes.chunks_exact(SLOTS)) {
                for (row, slope) in gradient.chunks_exact_mut(columns).zip(slopes) {
                    for (g, k) in row.iter_mut().zip(key) {
                        *g += slope * k;
                    }
                    row[self.e] += slope;
                }
            }
            // Adam.
            let progress = step as f32 / STEPS as f32;
            let rate = LEARNING_RATE * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
            let correct = |decay: f32| 1.0 - decay.powi(step as i32 + 1);
            for (((map, g), m), v) in maps
                .iter_mut()
                .zip(&gradient)
                .zip(&mut first)
                .zip(&mut second)
            {
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                *map -= rate * (*m / correct(0.9)) / ((*v / correct(0.999)).sqrt() + 1e-8);
            }
        }
        maps
    }

    /// Adds the gradient of a pixel's cross-entropy for the projected keys, `[tokens, SLOTS]`.
    fn add_slopes(&self, image: usize, pixel: usize, projected: &[f32], slopes: &mut [f32]) {
        let (rows, columns) = (self.grid.height, self.grid.width);
        let (y, x) = (pixel / self.pixels.width, pixel % self.pixels.width);
        let at = |i: usize, pixels: usize, tokens: usize| {
            (i as f32 + 0.5) / pixels as f32 * tokens as f32 - 0.5
        };
        let (y, x) = (
            at(y, self.pixels.height, rows),
            at(x, self.pixels.width, columns),
        );
        let color = &self.colors
            [(image * self.pixels.height * self.pixels.width + pixel) * COLORS..][..COLORS];
        let query = query(color);
        let near = |center: f32, most: usize| {
            let center = center.round().max(0.0) as usize;
            center.saturating_sub(RADIUS)..(center + RADIUS + 1).min(most)
        };
        let mut found = [(0, 0.0, 0.0); (2 * RADIUS + 1) * (2 * RADIUS + 1)];
        let mut n = 0;
        for row in near(y, rows) {
            for column in near(x, columns) {
                let token = row * columns + column;
                let distance = (row as f32 - y).powi(2) + (column as f32 - x).powi(2);
                let spatial = -0.5 * distance / (SIGMA_SPATIAL * SIGMA_SPATIAL) as f32;
                let mean = &self.means[(image * rows * columns + token) * COLORS..][..COLORS];
                let range: f32 = color.iter().zip(mean).map(|(a, b)| (a - b).powi(2)).sum();
                let logit: f32 = projected[token * SLOTS..]
                    .iter()
                    .zip(&query)
                    .map(|(k, q)| k * q)
                    .sum();
                let wanted = spatial - 0.5 * range / SIGMA_RANGE.powi(2);
                found[n] = (token, spatial + logit, wanted);
                n += 1;
            }
        }
        let found = &found[..n];
        let softmax = |of: fn(&(usize, f32, f32)) -> f32| {
            let most = found.iter().map(of).fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = found.iter().map(|f| (of(f) - most).exp()).sum();
            move |f: &(usize, f32, f32)| (of(f) - most).exp() / sum
        };
        let (seen, wanted) = (softmax(|f| f.1), softmax(|f| f.2));
        for f in found {
            let slope = (seen(f) - wanted(f)) / PIXELS as f32;
            for (s, q) in slopes[f.0 * SLOTS..].iter_mut().zip(&query) {
                *s += slope * q;
            }
        }
    }
}

/// A row of the maps applied to a key; its last element is the constant.
fn dot(map: &[f32], key: &[f32]) -> f32 {
    map.iter().zip(key).map(|(m, k)| m * k).sum::<f32>() + map[key.len()]
}

/// The mean color of each token's patch, `[batch * h * w, 3]`.
fn means(colors: &[f32], grid: Grid, pixels: Grid) -> Vec<f32> {
    // First and last pixel (exclusive) of a cell.
    let cell = |i: usize, cells: usize, pixels: usize| {
        i * pixels / cells..((i + 1) * pixels).div_ceil(cells)
    };
    let mut out = Vec::with_capacity(grid.pixels() * COLORS);
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
                out.extend(sum.map(|s: f32| s / count));
            }
        }
    }
    out
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
    ) {
        let e = self.config.width();
        let head = e / self.config.heads;
        let colors = host_values(&examples.guidance.colors(self.device));
        let keys = host_values(&upsampler.first_keys(&examples.lr));
        let (grid, pixels) = (examples.lr.grid, examples.guidance.grid());
        let maps = Comparison::new(&keys, grid, &colors, pixels).fit();
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
        // Attention divides by the root of the head's width. Queries and keys share the strength.
        let strength = (head as f32).sqrt() / SIGMA_RANGE;
        let weight = strength / (product / square.max(1e-12)) as f32;
        let slot = |row: usize| {
            (row % e % head)
                .checked_sub(ANGLES)
                .filter(|slot| row / e < 2 && *slot < SLOTS)
        };
        let map = |slot: usize, column: usize| SIGMA_RANGE * maps[slot * (e + 1) + column];
        let name = format!("{}.0.attention.in_proj", layer(0));
        change(weights, &format!("{name}_weight"), |i, x| {
            let (row, column) = (i / e, i % e);
            match slot(row) {
                None => x,
                Some(slot) if row >= e => map(slot, column),
                Some(slot) if slot < 2 * COLORS && column == 2 * ANGLES + slot => weight,
                Some(_) => 0.0,
            }
        });
        change(weights, &format!("{name}_bias"), |row, x| match slot(row) {
            None => x,
            Some(slot) if row >= e => map(slot, e),
            Some(slot) if slot == 2 * COLORS => strength,
            Some(_) => 0.0,
        });
    }
}
