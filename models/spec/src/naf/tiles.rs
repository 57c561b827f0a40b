//! Tiles of NAF, for its graphs: the pixels of the image that a tile needs, and the groups of its pixels
//! that attend to the same cells.

use super::{HALO, PERIODS, TAPS, WINDOW, fits, window};
use crate::{interpolate::pooled, rotary};

/// Number of pixels that cost as much as the keys and values of a group.
const GROUP: usize = 50;

/// The rows (or columns) of an image.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Number of cells.
    pub cells: usize,
    /// Number of pixels.
    pub pixels: usize,
    /// The cells that each pixel attends to.
    windows: Vec<[usize; WINDOW]>,
    /// The index of each pixel's run. A run is neighboring pixels that attend to the same cells, up to a
    /// maximum length.
    runs: Vec<usize>,
    /// Cosines and sines of each pixel, `[pixels, PERIODS]`.
    rotation: [Vec<f32>; 2],
}

impl Axis {
    /// Creates an axis of `pixels` that attend to `cells`; `None` if they do not [fit](fits).
    pub fn new(cells: usize, pixels: usize, periods: &[f32]) -> Option<Self> {
        if !fits(cells, pixels) || periods.len() != PERIODS {
            return None;
        }
        let windows: Vec<_> = (0..pixels).map(|i| window(i, cells, pixels)).collect();
        let rotation = (0..pixels).flat_map(|i| rotary::rotation(i, pixels, periods));
        let (cosines, sines) = rotation.map(|[cos, sin]| (cos, sin)).unzip();
        Some(Self {
            cells,
            pixels,
            runs: runs(&windows),
            rotation: [cosines, sines],
            windows,
        })
    }

    /// The weight of each pixel in each cell, `[cells, pixels]`.
    pub fn pooling(&self) -> Vec<f32> {
        let mut shares = vec![0.0; self.cells * self.pixels];
        for cell in 0..self.cells {
            let (start, end) = pooled(cell, self.cells, self.pixels);
            let share = 1.0 / (end - start) as f32;
            shares[cell * self.pixels..][start..end].fill(share);
        }
        shares
    }

    /// Cosines, then sines, of all pixels, `[2, pixels, PERIODS]`.
    pub fn rotation(&self) -> Vec<f32> {
        self.rotation.concat()
    }

    /// Maximum number of pixels that the encodings of `len` pixels are computed from.
    pub fn extent(&self, len: usize) -> usize {
        (len + 2 * HALO).min(self.pixels)
    }

    /// The first of the [`Axis::extent`] pixels for the `len` pixels from `start`. If they end before
    /// the image does, there are [`HALO`] more pixels than needed on that side.
    fn first(&self, start: usize, len: usize) -> usize {
        start
            .saturating_sub(HALO)
            .min(self.pixels - self.extent(len))
    }

    /// The largest number of runs in `len` neighboring pixels, and the length of the longest.
    fn most_runs(&self, len: usize) -> (usize, usize) {
        let spans = self.runs.windows(len.clamp(1, self.pixels));
        let count = spans.map(|runs| runs[runs.len() - 1] - runs[0] + 1).max();
        let mut longest = vec![0; self.runs[self.pixels - 1] + 1];
        for run in &self.runs {
            longest[*run] += 1;
        }
        let longest = longest.into_iter().max().unwrap_or(1);
        (count.unwrap_or(1), longest.min(len))
    }
}

/// The index of the run of each pixel.
///
/// At the border, more pixels attend to the same cells than elsewhere. But all groups have the same size, so
/// the length of runs is limited to the one with the least total cost. The cost of a group is proportional to
/// its number of pixels plus [`GROUP`] for the keys and values of its cells.
fn runs(windows: &[[usize; WINDOW]]) -> Vec<usize> {
    let split = |longest: usize| {
        let (mut run, mut len) = (0, 0);
        let runs = windows.iter().enumerate().map(|(i, window)| {
            if i > 0 && (*window != windows[i - 1] || len == longest) {
                (run, len) = (run + 1, 0);
            }
            len += 1;
            run
        });
        runs.collect::<Vec<_>>()
    };
    let work = |longest: &usize| {
        let count = split(*longest).last().map_or(0, |last| last + 1);
        count * count * (GROUP + longest * longest)
    };
    let cell = windows
        .len()
        .div_ceil(windows[windows.len() - 1][WINDOW - 1] + 1);
    split((1..=cell).min_by_key(work).unwrap_or(1))
}

/// The shapes of tiles of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileShape {
    /// Number of tiles per run.
    pub tiles: usize,
    /// Rows and columns of a tile.
    pub size: (usize, usize),
    /// Rows and columns of the part of the image that a tile is computed from.
    pub window: (usize, usize),
    /// Numbers of groups along the rows and columns of a tile.
    grid: (usize, usize),
    /// Rows and columns of the largest group.
    group: (usize, usize),
}

impl TileShape {
    /// Computes the shapes for `tiles` tiles of `(rows, columns)` at any position.
    pub fn new(axes: [&Axis; 2], tiles: usize, size: (usize, usize)) -> Self {
        let [(down, height), (across, width)] =
            [axes[0].most_runs(size.0), axes[1].most_runs(size.1)];
        Self {
            tiles,
            size,
            window: (axes[0].extent(size.0), axes[1].extent(size.1)),
            grid: (down, across),
            group: (height, width),
        }
    }

    /// Number of groups of all tiles.
    pub fn groups(&self) -> usize {
        self.tiles * self.grid.0 * self.grid.1
    }

    /// Number of pixels of a group.
    pub fn group_pixels(&self) -> usize {
        self.group.0 * self.group.1
    }

    /// Number of pixels of all tiles.
    pub fn pixels(&self) -> usize {
        self.tiles * self.size.0 * self.size.1
    }
}

/// Inputs of a run of the queries graph, except the frame's norms, keys and values. Indices are exact in
/// 32-bit floats.
#[derive(Debug, Clone, Default)]
pub struct TileInputs {
    /// The image around each tile, `[tiles, 3, rows, columns]`.
    pub image: Vec<f32>,
    /// Cosines, then sines, of its rows, `[2, tiles, rows, PERIODS]`.
    pub rows: Vec<f32>,
    /// Cosines, then sines, of its columns, `[2, tiles, columns, PERIODS]`.
    pub columns: Vec<f32>,
    /// The pixels of each group, as indices of pixels of the images, `[groups, pixels]`.
    pub pixels: Vec<f32>,
    /// The cells that each group attends to, `[groups, TAPS]`.
    pub cells: Vec<f32>,
    /// Position of each pixel of the tiles in the groups, row by row.
    pub order: Vec<f32>,
}

impl TileInputs {
    /// Fills all inputs for tiles whose first (row, column) are `places`; `image` is `[3, H, W]`. Places
    /// beyond `shape.tiles` are ignored, and tiles without a place are zero.
    ///
    /// # Panics
    /// If a tile is not in the image, or the size of the image does not match the axes.
    pub fn fill(
        &mut self,
        axes: [&Axis; 2],
        image: &[f32],
        shape: TileShape,
        places: impl Iterator<Item = (usize, usize)>,
    ) {
        let [vertical, horizontal] = axes;
        let (height, width) = shape.window;
        let (down, across) = shape.grid;
        let group = shape.group_pixels();
        let reset = |values: &mut Vec<f32>, len: usize| {
            values.clear();
            values.resize(len, 0.0);
        };
        reset(&mut self.image, shape.tiles * 3 * height * width);
        reset(&mut self.rows, 2 * shape.tiles * height * PERIODS);
        reset(&mut self.columns, 2 * shape.tiles * width * PERIODS);
        reset(&mut self.pixels, shape.groups() * group);
        reset(&mut self.cells, shape.groups() * TAPS);
        reset(&mut self.order, shape.pixels());
        for (tile, (y, x)) in places.take(shape.tiles).enumerate() {
            let top = vertical.first(y, shape.size.0);
            let left = horizontal.first(x, shape.size.1);
            let planes = image.chunks_exact(vertical.pixels * horizontal.pixels);
            let parts = self.image[tile * 3 * height * width..].chunks_exact_mut(height * width);
            for (part, plane) in parts.zip(planes) {
                for (i, row) in part.chunks_exact_mut(width).enumerate() {
                    let from = (top + i) * horizontal.pixels + left;
                    row.copy_from_slice(&plane[from..from + width]);
                }
            }
            for (axis, first, len, table) in [
                (vertical, top, height, &mut self.rows),
                (horizontal, left, width, &mut self.columns),
            ] {
                for (part, all) in axis.rotation.iter().enumerate() {
                    let to = (part * shape.tiles + tile) * len * PERIODS;
                    table[to..to + len * PERIODS]
                        .copy_from_slice(&all[first * PERIODS..(first + len) * PERIODS]);
                }
            }
            // The group of a pixel and its place in it, along each axis.
            let places = |axis: &Axis, start: usize, len: usize| -> Vec<(usize, usize)> {
                let mut at = (0, 0);
                let pixels = (start..start + len).map(|i| {
                    if i > start {
                        at = match axis.runs[i] == axis.runs[i - 1] {
                            true => (at.0, at.1 + 1),
                            false => (at.0 + 1, 0),
                        };
                    }
                    at
                });
                pixels.collect()
            };
            let (rows, columns) = (
                places(vertical, y, shape.size.0),
                places(horizontal, x, shape.size.1),
            );
            for (i, (r, in_r)) in rows.iter().enumerate() {
                for (j, (c, in_c)) in columns.iter().enumerate() {
                    let index = (tile * down + r) * across + c;
                    let at = index * group + in_r * shape.group.1 + in_c;
                    let pixel = (tile * height + y + i - top) * width + x + j - left;
                    self.pixels[at] = pixel as f32;
                    self.order[(tile * shape.size.0 + i) * shape.size.1 + j] = at as f32;
                    if (*in_r, *in_c) == (0, 0) {
                        let windows = (&vertical.windows[y + i], &horizontal.windows[x + j]);
                        let cells = windows
                            .0
                            .iter()
                            .flat_map(|r| windows.1.iter().map(move |c| r * horizontal.cells + c));
                        let to = &mut self.cells[index * TAPS..][..TAPS];
                        to.iter_mut().zip(cells).for_each(|(to, c)| *to = c as f32);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::periods, *};

    fn axis(cells: usize, pixels: usize) -> Axis {
        Axis::new(cells, pixels, &periods()).unwrap()
    }

    #[test]
    fn every_pixel_is_in_a_group_of_its_cells_once() {
        for (cells, pixels, size) in [
            ((9, 10), (27, 40), (27, 40)),
            ((9, 10), (27, 40), (7, 9)),
            ((9, 11), (31, 47), (12, 20)),
            ((13, 10), (13, 19), (1, 1)),
            ((9, 9), (9, 9), (9, 9)),
        ] {
            let axes = [&axis(cells.0, pixels.0), &axis(cells.1, pixels.1)];
            let shape = TileShape::new(axes, 2, size);
            let image: Vec<f32> = (0..3 * pixels.0 * pixels.1).map(|i| i as f32).collect();
            let mut inputs = TileInputs::default();
            let last = (pixels.0 - size.0, pixels.1 - size.1);
            for places in [[(0, 0), last], [(last.0 / 2, last.1 / 3), (last.0, 0)]] {
                inputs.fill(axes, &image, shape, places.into_iter());
                let mut seen = std::collections::BTreeSet::new();
                for (i, at) in inputs.order.iter().enumerate() {
                    let at = *at as usize;
                    assert!(seen.insert(at), "{at} twice");
                    let tile = i / (size.0 * size.1);
                    let (y, x) = (
                        places[tile].0 + i / size.1 % size.0,
                        places[tile].1 + i % size.1,
                    );
                    // The pixel of the part of the image is that of the image.
                    let (area, pixel) = (shape.window.0 * shape.window.1, inputs.pixels[at]);
                    let (of, inside) = (pixel as usize / area, pixel as usize % area);
                    let found = inputs.image[of * 3 * area + inside];
                    assert_eq!((of, found), (tile, (y * pixels.1 + x) as f32));
                    let cells: Vec<f32> = window(y, cells.0, pixels.0)
                        .iter()
                        .flat_map(|r| {
                            window(x, cells.1, pixels.1).map(|c| (r * cells.1 + c) as f32)
                        })
                        .collect();
                    let group = at / shape.group_pixels();
                    assert_eq!(inputs.cells[group * TAPS..][..TAPS], cells);
                }
            }
        }
    }

    #[test]
    fn groups_are_not_much_larger_than_their_pixels() {
        for (cells, pixels) in [
            (32, 448),
            (16, 224),
            (34, 480),
            (46, 640),
            (37, 224),
            (9, 9),
        ] {
            let axis = axis(cells, pixels);
            let (count, longest) = axis.most_runs(pixels);
            assert!(
                2 * count * longest <= 5 * pixels,
                "{cells} {pixels}: {count} x {longest}"
            );
        }
    }

    #[test]
    fn a_tile_has_a_halo_or_ends_with_the_image() {
        let axis = axis(9, 40);
        for len in [1, 5, 29, 30, 31, 40] {
            for start in 0..=40 - len {
                let (first, extent) = (axis.first(start, len), axis.extent(len));
                assert!(first == 0 || first + HALO <= start);
                let end = first + extent;
                assert!(end == 40 || end >= start + len + HALO);
            }
        }
    }

    #[test]
    fn of_multiples_groups_are_cells_and_pooling_is_a_mean() {
        let axes = [&axis(10, 140), &axis(9, 63)];
        let whole = TileShape::new(axes, 1, (140, 63));
        assert_eq!((whole.groups(), whole.group_pixels()), (90, 14 * 7));
        let part = TileShape::new(axes, 3, (28, 1));
        assert_eq!((part.groups(), part.group_pixels()), (3 * 3, 14));
        let pooling = axis(9, 31).pooling();
        for row in pooling.chunks_exact(31) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}
