//! Resizing of maps. Feature maps are interpolated as in PyTorch's `F.interpolate(mode, align_corners=False)`.

use loftup_bundle::Size;
use loftup_spec::interpolate::{bilinear, cubic_weights};

/// Interpolation mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Nearest neighbor; the source index is rounded down, as in PyTorch.
    Nearest,
    /// Two taps per axis.
    Bilinear,
    /// Four taps per axis, with a = -0.75.
    Bicubic,
}

/// Source cells and weights for each output row or column.
#[derive(Debug, Clone)]
struct Taps {
    cells: [usize; 4],
    weights: [f32; 4],
    count: usize,
}

/// Resizes feature maps from one size to another.
#[derive(Debug, Clone)]
pub struct Resizer {
    rows: Vec<Taps>,
    columns: Vec<Taps>,
    grid_width: usize,
}

impl Resizer {
    /// Creates a resizer from `(width, height)` in cells to `(width, height)` in pixels.
    pub fn new(kernel: Kernel, from: (usize, usize), to: (usize, usize)) -> Self {
        Self {
            columns: (0..to.0).map(|i| taps(kernel, i, from.0, to.0)).collect(),
            rows: (0..to.1).map(|i| taps(kernel, i, from.1, to.1)).collect(),
            grid_width: from.0,
        }
    }

    /// Computes row `y` of the result, `[width, d]`, from cells `[h * w, d]`. Buffers are reused.
    pub fn row(
        &self,
        tokens: &[f32],
        dim: usize,
        y: usize,
        scratch: &mut Vec<f32>,
        out: &mut Vec<f32>,
    ) {
        let line = self.grid_width * dim;
        let Taps {
            cells,
            weights,
            count,
        } = &self.rows[y];
        scratch.clear();
        scratch.resize(line, 0.0);
        for (cell, weight) in cells.iter().zip(weights).take(*count) {
            add(scratch, &tokens[cell * line..][..line], *weight);
        }
        out.clear();
        out.resize(self.columns.len() * dim, 0.0);
        for (pixel, taps) in out.chunks_exact_mut(dim).zip(&self.columns) {
            for (cell, weight) in taps.cells.iter().zip(taps.weights).take(taps.count) {
                add(pixel, &scratch[cell * dim..][..dim], weight);
            }
        }
    }

    /// Appends the features of one pixel, bit-identical to [`Resizer::row`].
    pub fn pixel(&self, tokens: &[f32], dim: usize, (x, y): (usize, usize), out: &mut Vec<f32>) {
        let (rows, columns) = (&self.rows[y], &self.columns[x]);
        let start = out.len();
        out.resize(start + dim, 0.0);
        let mut column_sum = vec![0f32; dim];
        for (column, wx) in columns
            .cells
            .iter()
            .zip(columns.weights)
            .take(columns.count)
        {
            column_sum.fill(0.0);
            for (row, wy) in rows.cells.iter().zip(rows.weights).take(rows.count) {
                add(
                    &mut column_sum,
                    &tokens[(row * self.grid_width + column) * dim..][..dim],
                    wy,
                );
            }
            add(&mut out[start..], &column_sum, wx);
        }
    }
}

fn add(sum: &mut [f32], values: &[f32], weight: f32) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

fn taps(kernel: Kernel, i: usize, from: usize, to: usize) -> Taps {
    let last = from - 1;
    let scale = from as f32 / to as f32;
    let center = scale * (i as f32 + 0.5) - 0.5;
    match kernel {
        Kernel::Nearest => {
            let cell = ((i as f32 * scale) as usize).min(last);
            Taps {
                cells: [cell; 4],
                weights: [1.0, 0.0, 0.0, 0.0],
                count: 1,
            }
        }
        Kernel::Bilinear => {
            let (cell, t) = bilinear(i, from, to);
            let next = (cell + 1).min(last);
            Taps {
                cells: [cell, next, 0, 0],
                weights: [1.0 - t, t, 0.0, 0.0],
                count: 2,
            }
        }
        Kernel::Bicubic => {
            let floor = center.floor();
            let t = center - floor;
            let cell = |offset: isize| (floor as isize + offset).clamp(0, last as isize) as usize;
            Taps {
                cells: [cell(-1), cell(0), cell(1), cell(2)],
                weights: cubic_weights(t),
                count: 4,
            }
        }
    }
}

/// Resizes a map by nearest neighbor: each pixel gets the value under its center.
pub(crate) fn under_centers<T: Copy>(values: &[T], from: Size, to: Size) -> Vec<T> {
    let place = |i: usize, to: usize, from: usize| (2 * i + 1) * from / (2 * to);
    let columns: Vec<usize> = (0..to.width)
        .map(|x| place(x, to.width, from.width))
        .collect();
    (0..to.height)
        .flat_map(|y| {
            let row = place(y, to.height, from.height) * from.width;
            columns.iter().map(move |x| values[row + x])
        })
        .collect()
}
