//! Bilateral initialization: attention that compares positions and colors.
//!
//! The upsampler starts as an approximation of joint bilateral upsampling (Kopf et al., SIGGRAPH
//! 2007), in which the weight of a token also depends on the difference between the color of the
//! pixel and the mean color of the token's patch. Attention knows the color of the pixel, but only
//! the features of the token. So the logit is bilinear in both: queries contain the positive and
//! negative parts of the pixel's color and a constant; keys contain as many linear maps of the
//! token's features. The maps minimize the cross-entropy between the weights of joint bilateral
//! upsampling and those of the attention, on pixels of a few images. A regression from features to
//! colors would be simpler, but its error, which all pixels around a token share, distorts the
//! weights.
//!
//! The fit uses the queries and position logits that the network actually computes, not the ideal
//! ones: layer normalization shifts and scales the colors, and the maps correct for it.

use super::{ANGLES, COLORS, Fit, SLOTS, Weights, change, layer};
use crate::{
    kernels::Grid,
    model::{Guidance, LoftUp, Mode, Tokens, host_values},
    rng::{Purpose, Rng},
};

/// Standard deviation of the spatial Gaussian, in tokens.
pub(super) const SIGMA_SPATIAL: f64 = 0.8;
/// Standard deviation of the range Gaussian, for colors that are scaled to a range of 1.
const SIGMA_RANGE: f32 = 0.15;
/// Steps of the optimizer.
const STEPS: usize = 1500;
/// Number of pixels per image; each step uses all of them.
const PIXELS: usize = 512;
/// Number and side of the windows of an image that pixels are taken from, since queries of the whole
/// image would take too long.
const WINDOWS: usize = 16;
const SIDE: usize = 16;
/// Initial learning rate; it decays to 0 along a cosine.
const LEARNING_RATE: f32 = 0.1;

/// Features and images that the color comparison is fitted to.
#[derive(Debug, Clone)]
pub struct Examples {
    /// The features.
    pub lr: Tokens,
    /// The images, one by one.
    pub guidance: Vec<Guidance>,
}

/// A pixel's query.
#[derive(Clone, Copy)]
struct Pixel {
    /// The part of the query that compares positions, divided by the square root of the head width.
    position: [f32; ANGLES],
    /// The part that compares colors; the last is 1.
    slots: [f32; SLOTS],
    color: [f32; COLORS],
    /// Row and column, in tokens.
    at: [f32; 2],
}

/// An image of the fit.
struct Example {
    /// Inputs of the key projection, `[tokens, e]`.
    keys: Vec<f32>,
    /// The part of the keys that compares positions, `[tokens, ANGLES]`.
    positions: Vec<[f32; ANGLES]>,
    /// Mean color of each token's patch.
    means: Vec<[f32; COLORS]>,
    /// Columns of the grid.
    columns: usize,
    pixels: Vec<Pixel>,
}

/// Fits the maps from keys to logits, `[SLOTS, e + 1]`, with the constant last.
fn fit(examples: &[Example], e: usize) -> Vec<f32> {
    let columns = e + 1;
    let mut maps = vec![0.0; SLOTS * columns];
    let (mut first, mut second) = (maps.clone(), maps.clone());
    let mut rng = Rng::new(0, Purpose::Weights, 1);
    let (mut slopes, mut recent) = (Vec::new(), 0.0);
    for step in 0..STEPS {
        let example = &examples[rng.below(examples.len())];
        let divergence = example.add_slopes(&maps, &mut slopes);
        recent += (divergence - recent) / (step + 1).min(100) as f32;
        let mut gradient = vec![0.0; maps.len()];
        for (key, slopes) in example.keys.chunks_exact(e).zip(&slopes) {
            for (row, slope) in gradient.chunks_exact_mut(columns).zip(slopes) {
                for (g, k) in row.iter_mut().zip(key) {
                    *g += slope * k;
                }
                row[e] += slope;
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
    log::debug!(
        "bilateral initialization: Kullback-Leibler divergence of {recent:.3} from the weights of joint bilateral upsampling"
    );
    maps
}

impl Example {
    /// Adds the gradient of the cross-entropy with respect to the projected keys, `[tokens, SLOTS]`. Returns
    /// the Kullback-Leibler divergence.
    fn add_slopes(&self, maps: &[f32], slopes: &mut Vec<[f32; SLOTS]>) -> f32 {
        let columns = maps.len() / SLOTS;
        let projected: Vec<[f32; SLOTS]> = self
            .keys
            .chunks_exact(columns - 1)
            .map(|key| std::array::from_fn(|slot| affine(&maps[slot * columns..][..columns], key)))
            .collect();
        slopes.clear();
        slopes.resize(projected.len(), [0.0; SLOTS]);
        let mut divergence = 0.0;
        for pixel in &self.pixels {
            let seen: Vec<f32> = projected
                .iter()
                .zip(&self.positions)
                .map(|(keys, position)| dot(keys, &pixel.slots) + dot(position, &pixel.position))
                .collect();
            let (seen, wanted) = (softmax(seen), softmax(self.wanted(pixel)));
            for ((seen, wanted), slopes) in seen.iter().zip(&wanted).zip(slopes.iter_mut()) {
                let slope = (seen - wanted) / self.pixels.len() as f32;
                for (s, q) in slopes.iter_mut().zip(&pixel.slots) {
                    *s += slope * q;
                }
                divergence += wanted * (wanted.max(1e-9) / seen.max(1e-9)).ln();
            }
        }
        divergence / self.pixels.len() as f32
    }

    /// The logits of joint bilateral upsampling.
    fn wanted(&self, pixel: &Pixel) -> Vec<f32> {
        let logit = |(token, mean): (usize, &[f32; COLORS])| {
            let place = [token / self.columns, token % self.columns];
            let distance: f32 = place
                .iter()
                .zip(&pixel.at)
                .map(|(&token, pixel)| (token as f32 - pixel).powi(2))
                .sum();
            let range: f32 = pixel
                .color
                .iter()
                .zip(mean)
                .map(|(a, b)| (a - b).powi(2))
                .sum();
            -0.5 * (distance / (SIGMA_SPATIAL * SIGMA_SPATIAL) as f32 + range / SIGMA_RANGE.powi(2))
        };
        self.means.iter().enumerate().map(logit).collect()
    }
}

fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|x| *x /= sum);
    logits
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Applies a row of weights to `x`; its last element is the constant.
fn affine(row: &[f32], x: &[f32]) -> f32 {
    dot(row, x) + row[x.len()]
}

/// Computes the mean color of each token's patch in the first image, `[h * w]`.
fn means(colors: &[f32], grid: Grid, pixels: Grid) -> Vec<[f32; COLORS]> {
    // First and last pixel (exclusive) of a cell.
    let cell = |i: usize, cells: usize, pixels: usize| {
        i * pixels / cells..((i + 1) * pixels).div_ceil(cells)
    };
    let mut out = Vec::with_capacity(grid.height * grid.width);
    for row in 0..grid.height {
        for column in 0..grid.width {
            let (mut sum, mut count) = ([0.0; COLORS], 0.0);
            for y in cell(row, grid.height, pixels.height) {
                for x in cell(column, grid.width, pixels.width) {
                    for (s, v) in sum
                        .iter_mut()
                        .zip(&colors[(y * pixels.width + x) * COLORS..])
                    {
                        *s += v;
                    }
                    count += 1.0;
                }
            }
            out.push(sum.map(|s: f32| s / count));
        }
    }
    out
}

impl Fit<'_> {
    /// Adds the comparison of colors to the first attention, whose position projections are already in
    /// `weights`.
    pub(super) fn compare_colors(
        &self,
        upsampler: &LoftUp,
        weights: &mut Weights,
        examples: &Examples,
    ) {
        let e = self.config.width();
        let head = e / self.config.heads;
        let name = format!("{}.0.attention.in_proj", layer(0));
        // All heads are equal. Rows of the projections, with the constant last.
        let part = |what: &str| weights[&format!("{name}_{what}")].data();
        let (matrix, bias) = (part("weight"), part("bias"));
        let row = |i: usize| [&matrix[i * e..][..e], &bias[i..=i]].concat();
        let queries: [Vec<f32>; ANGLES] = std::array::from_fn(row);
        let keys: [Vec<f32>; ANGLES] = std::array::from_fn(|i| row(e + i));
        let found = self.examples(upsampler, examples, &queries, &keys);
        let maps = fit(&found, e);

        // Attention divides by the square root of the head width. Queries and keys share the factor.
        let strength = (head as f32).sqrt() / SIGMA_RANGE;
        let slot = |row: usize| {
            (row % e % head)
                .checked_sub(ANGLES)
                .filter(|slot| row / e < 2 && *slot < SLOTS)
        };
        let map = |slot: usize, column: usize| SIGMA_RANGE * maps[slot * (e + 1) + column];
        change(weights, &format!("{name}_weight"), |i, x| {
            let (row, column) = (i / e, i % e);
            match slot(row) {
                None => x,
                Some(slot) if row >= e => map(slot, column),
                Some(slot) if slot < 2 * COLORS && column == 2 * ANGLES + slot => strength,
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

    /// Computes queries of pixels and keys of tokens for the fit. `queries` and `keys` are the rows of
    /// the projections that compare positions.
    fn examples(
        &self,
        upsampler: &LoftUp,
        examples: &Examples,
        queries: &[Vec<f32>; ANGLES],
        keys: &[Vec<f32>; ANGLES],
    ) -> Vec<Example> {
        let e = self.config.width();
        let root = ((e / self.config.heads) as f32).sqrt();
        let grid = examples.lr.grid;
        let tokens = grid.height * grid.width;
        let inputs = host_values(&upsampler.first_keys(&examples.lr));
        let mut rng = Rng::new(0, Purpose::Weights, 2);
        let mut one = |(guidance, inputs): (&Guidance, &[f32])| {
            let pixels = guidance.grid();
            let [height, width] = [pixels.height, pixels.width].map(|side| side.min(SIDE));
            let colors = host_values(&guidance.colors(self.device));
            let (mut corner, mut seen) = ((0, 0), Vec::new());
            let pixel = |i: usize| {
                if i.is_multiple_of(PIXELS / WINDOWS) {
                    corner = (
                        rng.below(pixels.height - height + 1),
                        rng.below(pixels.width - width + 1),
                    );
                    let window = guidance.windows(&[corner], height, width);
                    let queries = self.queries(upsampler, &window, Mode::Eval, &mut Vec::new());
                    seen = host_values(&queries);
                }
                let place = rng.below(height * width);
                let query = &seen[place * e..][..e];
                let (y, x) = (corner.0 + place / width, corner.1 + place % width);
                let at = |i: usize, pixels: usize, tokens: usize| {
                    (i as f32 + 0.5) / pixels as f32 * tokens as f32 - 0.5
                };
                let color = &colors[(y * pixels.width + x) * COLORS..];
                Pixel {
                    position: std::array::from_fn(|i| affine(&queries[i], query) / root),
                    slots: std::array::from_fn(|slot| match slot {
                        _ if slot == 2 * COLORS => 1.0,
                        _ => query[2 * ANGLES + slot],
                    }),
                    color: std::array::from_fn(|c| color[c]),
                    at: [
                        at(y, pixels.height, grid.height),
                        at(x, pixels.width, grid.width),
                    ],
                }
            };
            let pixels: Vec<Pixel> = (0..PIXELS).map(pixel).collect();
            let position = |key: &[f32]| std::array::from_fn(|i| affine(&keys[i], key));
            Example {
                keys: inputs.to_vec(),
                positions: inputs.chunks_exact(e).map(position).collect(),
                means: means(&colors, grid, guidance.grid()),
                columns: grid.width,
                pixels,
            }
        };
        let images = examples.guidance.iter();
        images
            .zip(inputs.chunks_exact(tokens * e))
            .map(&mut one)
            .collect()
    }
}
