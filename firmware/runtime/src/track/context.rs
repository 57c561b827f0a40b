//! Context frames, from which labels are propagated.

use crate::dot::dot;

/// Shape of the features and of the labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub width: usize,
    pub height: usize,
    /// Channels of the features.
    pub dim: usize,
    /// Channels of the labels: the background, and one for each possible object.
    pub channels: usize,
    /// Distance between the channels of a row in [`Context::features`].
    pub stride: usize,
}

impl Grid {
    /// Creates a grid. `columns` is the number of columns that are read at a time, starting at any column.
    pub fn new(
        (width, height): (usize, usize),
        dim: usize,
        channels: usize,
        columns: usize,
    ) -> Self {
        // An odd number of cache lines: channels are then spread over all sets of the cache.
        const LINE: usize = 16;
        let stride = ((width + columns).div_ceil(LINE) | 1) * LINE;
        Self {
            width,
            height,
            dim,
            channels,
            stride,
        }
    }

    pub fn cells(&self) -> usize {
        self.width * self.height
    }

    /// Lengths of [`Context::features`] and [`Context::labels`]; `None` on overflow.
    pub fn lengths(&self) -> Option<(usize, usize)> {
        let cells = self.width.checked_mul(self.height)?;
        let features = self
            .height
            .checked_mul(self.dim)?
            .checked_mul(self.stride)?;
        let labels = cells.checked_mul(self.channels)?;
        cells.checked_mul(self.dim)?;
        Some((features, labels))
    }
}

/// A context frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    /// Normalized features, channel by channel for each row of the grid: `[height, dim, stride]`, zero
    /// beyond the width.
    pub features: Vec<f32>,
    /// Soft labels, `[height, width, channels]`; they sum to 1 in each cell.
    pub labels: Vec<f32>,
}

/// Allocates zeros; `None` if there is not enough memory.
pub(super) fn zeros(count: usize) -> Option<Vec<f32>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).ok()?;
    values.resize(count, 0.0);
    Some(values)
}

impl Context {
    /// Allocates a frame; `None` if there is not enough memory.
    pub fn new((features, labels): (usize, usize)) -> Option<Self> {
        Some(Self {
            features: zeros(features)?,
            labels: zeros(labels)?,
        })
    }

    /// Marks every cell as background.
    pub fn clear_labels(&mut self, channels: usize) {
        self.labels.fill(0.0);
        self.labels
            .iter_mut()
            .step_by(channels)
            .for_each(|l| *l = 1.0);
    }

    /// Turns an object into background.
    pub fn remove(&mut self, label: u8, channels: usize) {
        for labels in self.labels.chunks_exact_mut(channels) {
            labels[0] += std::mem::take(&mut labels[usize::from(label)]);
        }
    }
}

/// Normalizes one row of features `[width, dim]` to unit length, and writes it transposed.
pub(super) fn normalize_row(grid: &Grid, row: &[f32], unit: &mut [f32], transposed: &mut [f32]) {
    // Cells per step, so that writes to the transposed output fill cache lines.
    const CELLS: usize = 16;
    let dim = grid.dim;
    for (cell, unit) in row.chunks_exact(dim).zip(unit.chunks_exact_mut(dim)) {
        // PyTorch's `normalize`: the length is at least 1e-12.
        let scale = 1.0 / dot(cell, cell).sqrt().max(1e-12);
        for (unit, value) in unit.iter_mut().zip(cell) {
            *unit = value * scale;
        }
    }
    for (i, cells) in unit.chunks(CELLS * dim).enumerate() {
        for (channel, line) in transposed.chunks_exact_mut(grid.stride).enumerate() {
            let line = &mut line[i * CELLS..];
            for (out, cell) in line.iter_mut().zip(cells.chunks_exact(dim)) {
                *out = cell[channel];
            }
        }
    }
}
