//! Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007): the features of a pixel are the mean of
//! the cells around it, weighted by distance and color similarity.
//!
//! It needs no training. FeatUp (ICLR 2024) uses the same form with a learned range kernel.

use std::borrow::Cow;

use loftup_spec::interpolate::pooled;

use crate::tiles::Rect;

/// How joint bilateral upsampling weights the cells around a pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JbuOptions {
    /// Number of cells on each side of the pixel's own cell.
    pub radius: usize,
    /// Standard deviation of the spatial Gaussian, in cells.
    pub sigma_spatial: f32,
    /// Standard deviation of the range Gaussian, in Euclidean distance of RGB colors from 0 to 1.
    pub sigma_range: f32,
}

impl Default for JbuOptions {
    fn default() -> Self {
        Self {
            radius: 2,
            sigma_spatial: 0.8,
            sigma_range: 0.15,
        }
    }
}

/// Joint bilateral upsampling from one grid to one image.
///
/// The color of a cell is the mean over its pixels. Cells outside the grid do not count.
#[derive(Debug, Clone)]
pub struct Jbu<'a> {
    options: JbuOptions,
    /// RGB, `[height * width * 3]`.
    image: Cow<'a, [u8]>,
    width: usize,
    height: usize,
    grid_width: usize,
    grid_height: usize,
    /// Mean color of each cell, 0 to 1.
    colors: Vec<[f32; 3]>,
}

/// A cell and its weight.
type Tap = (usize, f32);

impl<'a> Jbu<'a> {
    /// Creates an upsampler from a grid of `(width, height)` cells to the size of an RGB image of
    /// `(width, height)` pixels.
    ///
    /// # Panics
    /// If a side is 0, or `image` is not `3 * width * height` bytes.
    pub fn new(
        options: JbuOptions,
        (grid_width, grid_height): (usize, usize),
        image: impl Into<Cow<'a, [u8]>>,
        (width, height): (usize, usize),
    ) -> Self {
        let image = image.into();
        assert!(
            grid_width * grid_height * width * height > 0 && image.len() == 3 * width * height,
            "an RGB image of {width}x{height} and a grid of {grid_width}x{grid_height}"
        );
        let mut colors = Vec::with_capacity(grid_width * grid_height);
        for row in 0..grid_height {
            let (top, bottom) = pooled(row, grid_height, height);
            for column in 0..grid_width {
                let (left, right) = pooled(column, grid_width, width);
                let mut sum = [0u64; 3];
                for y in top..bottom {
                    for pixel in image[3 * (y * width + left)..3 * (y * width + right)]
                        .as_chunks::<3>()
                        .0
                    {
                        for (sum, value) in sum.iter_mut().zip(pixel) {
                            *sum += u64::from(*value);
                        }
                    }
                }
                let scale = 1.0 / (255.0 * ((bottom - top) * (right - left)) as f64);
                colors.push(sum.map(|s| (s as f64 * scale) as f32));
            }
        }
        Self {
            options,
            image,
            width,
            height,
            grid_width,
            grid_height,
            colors,
        }
    }

    /// Appends the features of pixel `(x, y)`, from cells `[h * w, dim]`.
    ///
    /// # Panics
    /// If the pixel is outside the image, or `cells` has the wrong size.
    pub fn pixel(&self, cells: &[f32], dim: usize, (x, y): (usize, usize), out: &mut Vec<f32>) {
        let mut taps = Vec::new();
        self.append(cells, dim, (x, y), &mut taps, out);
    }

    /// Appends the features of row `y`, `[width, dim]`, bit-identical to [`Self::pixel`].
    ///
    /// # Panics
    /// Like [`Self::pixel`].
    pub fn row(&self, cells: &[f32], dim: usize, y: usize, out: &mut Vec<f32>) {
        let mut taps = Vec::new();
        for x in 0..self.width {
            self.append(cells, dim, (x, y), &mut taps, out);
        }
    }

    /// Appends the features of a rectangle, `[rect.height * rect.width, dim]`.
    ///
    /// # Panics
    /// Like [`Self::pixel`].
    pub fn region(&self, cells: &[f32], dim: usize, rect: Rect, out: &mut Vec<f32>) {
        let mut taps = Vec::new();
        for y in rect.y..rect.y + rect.height {
            for x in rect.x..rect.x + rect.width {
                self.append(cells, dim, (x, y), &mut taps, out);
            }
        }
    }

    /// The features of all pixels, `[height * width, dim]`.
    ///
    /// # Panics
    /// Like [`Self::pixel`].
    pub fn image(&self, cells: &[f32], dim: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.width * self.height * dim);
        for y in 0..self.height {
            self.row(cells, dim, y, &mut out);
        }
        out
    }

    fn append(
        &self,
        cells: &[f32],
        dim: usize,
        at: (usize, usize),
        taps: &mut Vec<Tap>,
        out: &mut Vec<f32>,
    ) {
        assert_eq!(cells.len(), self.colors.len() * dim, "values of the cells");
        self.taps(at, taps);
        let start = out.len();
        out.resize(start + dim, 0.0);
        for &(cell, weight) in taps.iter() {
            for (sum, value) in out[start..].iter_mut().zip(&cells[cell * dim..][..dim]) {
                *sum += weight * value;
            }
        }
    }

    /// Computes the cells around a pixel and their weights, which add up to 1.
    fn taps(&self, (x, y): (usize, usize), taps: &mut Vec<Tap>) {
        assert!(x < self.width && y < self.height, "pixel ({x}, {y})");
        let pixel = &self.image[3 * (y * self.width + x)..][..3];
        let color = [0, 1, 2].map(|c| f32::from(pixel[c]) / 255.0);
        let (column, columns) = self.window(x, self.width, self.grid_width);
        let (row, rows) = self.window(y, self.height, self.grid_height);
        let square = |x: f32| x * x;
        let spatial = -0.5 / square(self.options.sigma_spatial);
        let range = -0.5 / square(self.options.sigma_range);
        taps.clear();
        for r in rows {
            for c in columns.clone() {
                let cell = r * self.grid_width + c;
                let distance = square(r as f32 - row) + square(c as f32 - column);
                let difference: f32 = (0..3)
                    .map(|k| square(color[k] - self.colors[cell][k]))
                    .sum();
                taps.push((cell, spatial * distance + range * difference));
            }
        }
        // Relative to the greatest, so that they do not all underflow.
        let greatest = taps.iter().map(|t| t.1).fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (_, weight) in taps.iter_mut() {
            *weight = (*weight - greatest).exp();
            sum += *weight;
        }
        taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }

    /// Returns the position of pixel `i` of `pixels` in units of cells, and the range of cells around it.
    fn window(&self, i: usize, pixels: usize, cells: usize) -> (f32, std::ops::Range<usize>) {
        let place = (i as f64 + 0.5) * cells as f64 / pixels as f64 - 0.5;
        let nearest = (place.round().max(0.0) as usize).min(cells - 1);
        let first = nearest.saturating_sub(self.options.radius);
        let end = (nearest + self.options.radius + 1).min(cells);
        (place as f32, first..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loftup_spec::SplitMix64;

    fn random(n: usize, seed: u64) -> Vec<u8> {
        let mut random = SplitMix64::new(seed);
        (0..n).map(|_| (random.next_u64() >> 56) as u8).collect()
    }

    /// The formula in 64 bit, over all cells of the grid.
    fn reference(
        options: JbuOptions,
        (gw, gh): (usize, usize),
        image: &[u8],
        (w, h): (usize, usize),
        cells: &[f32],
        dim: usize,
    ) -> Vec<f64> {
        let color = |x: usize, y: usize, c: usize| f64::from(image[3 * (y * w + x) + c]) / 255.0;
        let pooled = |cx: usize, cy: usize, c: usize| {
            let inside = |i: usize, at: usize, cells: usize, pixels: usize| {
                // Pixel i touches the cell: [i, i + 1) and [at, at + 1) * pixels / cells overlap.
                i * cells < (at + 1) * pixels && (i + 1) * cells > at * pixels
            };
            let (mut sum, mut count) = (0.0, 0.0);
            for y in (0..h).filter(|&y| inside(y, cy, gh, h)) {
                for x in (0..w).filter(|&x| inside(x, cx, gw, w)) {
                    sum += color(x, y, c);
                    count += 1.0;
                }
            }
            sum / count
        };
        let place = |i: usize, cells: usize, pixels: usize| {
            (i as f64 + 0.5) * cells as f64 / pixels as f64 - 0.5
        };
        let near = |at: f64, cell: usize, cells: usize| {
            let nearest = at.round().clamp(0.0, cells as f64 - 1.0);
            (cell as f64 - nearest).abs() <= options.radius as f64
        };
        let mut out = Vec::new();
        for y in 0..h {
            for x in 0..w {
                let (px, py) = (place(x, gw, w), place(y, gh, h));
                let (mut sum, mut total) = (vec![0.0; dim], 0.0);
                for cy in (0..gh).filter(|&c| near(py, c, gh)) {
                    for cx in (0..gw).filter(|&c| near(px, c, gw)) {
                        let distance = (px - cx as f64).powi(2) + (py - cy as f64).powi(2);
                        let difference: f64 = (0..3)
                            .map(|c| (color(x, y, c) - pooled(cx, cy, c)).powi(2))
                            .sum();
                        let weight = (-0.5 * distance / f64::from(options.sigma_spatial).powi(2)
                            - 0.5 * difference / f64::from(options.sigma_range).powi(2))
                        .exp();
                        total += weight;
                        for (s, v) in sum.iter_mut().zip(&cells[(cy * gw + cx) * dim..]) {
                            *s += weight * f64::from(*v);
                        }
                    }
                }
                out.extend(sum.iter().map(|s| s / total));
            }
        }
        out
    }

    #[test]
    fn it_agrees_with_the_formula_on_awkward_shapes() {
        // Grid, image, radius, sigmas. Sides that do not divide, fewer pixels than cells, one cell.
        let cases = [
            ((4, 3), (29, 17), 2, 0.8, 0.2),
            ((5, 5), (5, 5), 1, 0.5, 0.3),
            ((7, 2), (3, 5), 3, 1.0, 0.5),
            ((1, 1), (6, 4), 2, 0.8, 0.1),
            ((3, 4), (16, 1), 0, 0.8, 0.3),
        ];
        let dim = 3;
        for (i, (grid, size, radius, sigma_spatial, sigma_range)) in cases.into_iter().enumerate() {
            let options = JbuOptions {
                radius,
                sigma_spatial,
                sigma_range,
            };
            let image = random(3 * size.0 * size.1, i as u64);
            let cells: Vec<f32> = random(dim * grid.0 * grid.1, 99 + i as u64)
                .into_iter()
                .map(|v| f32::from(v) / 64.0 - 2.0)
                .collect();
            let jbu = Jbu::new(options, grid, &image, size);
            let found = jbu.image(&cells, dim);
            let expected = reference(options, grid, &image, size, &cells, dim);
            assert_eq!(found.len(), expected.len());
            let worst = found
                .iter()
                .zip(&expected)
                .map(|(a, b)| (f64::from(*a) - b).abs())
                .fold(0.0, f64::max);
            println!("case {i}: off by {worst:.1e}");
            // Exponents up to 60 in 32 bits are off by 60 * 2^-24; values are up to 2.
            assert!(worst < 2e-5, "case {i}");
            let mut one = Vec::new();
            let (x, y) = (size.0 - 1, size.1 / 2);
            jbu.pixel(&cells, dim, (x, y), &mut one);
            assert_eq!(one, found[(y * size.0 + x) * dim..][..dim]);
        }
    }

    #[test]
    fn edges_of_colors_are_edges_of_features() {
        // Left half dark, right half bright, the border inside the second of three cells.
        let (width, height) = (12, 4);
        let image: Vec<u8> = (0..width * height)
            .flat_map(|i| [if i % width < 5 { 20 } else { 220 }; 3])
            .collect();
        let jbu = Jbu::new(JbuOptions::default(), (3, 1), &image, (width, height));
        let out = jbu.image(&[0.0, 0.8, 1.0], 1);
        assert!(out[..5].iter().all(|v| *v < 0.01), "{:?}", &out[..width]);
        assert!(
            out[5..width].iter().all(|v| *v > 0.79),
            "{:?}",
            &out[..width]
        );
        // A constant stays one, even with colors unlike those of all cells.
        let narrow = JbuOptions {
            sigma_range: 1e-3,
            ..JbuOptions::default()
        };
        let out = Jbu::new(narrow, (3, 1), &image, (width, height)).image(&[2.5; 3], 1);
        assert!(out.iter().all(|v| (v - 2.5).abs() < 1e-6));
    }
}
