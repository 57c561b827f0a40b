//! Sinks for the tiles of an output.

use crate::{
    Rect, RuntimeError, SinkError, TileFeatures,
    features::transposed,
    npy::{NpyError, NpyWriter},
    pca::CommonBasis,
};

/// Collects an output in memory.
#[derive(Debug)]
pub struct VecSink {
    rect: Rect,
    dim: usize,
    values: Vec<f32>,
}

impl VecSink {
    /// Creates a sink for `rect` with `dim` channels.
    ///
    /// # Errors
    /// If the output does not fit into memory.
    pub fn new(rect: Rect, dim: usize) -> Result<Self, RuntimeError> {
        let mut values = Vec::new();
        let count = rect.area().checked_mul(dim);
        match count.map(|n| (n, values.try_reserve_exact(n))) {
            Some((n, Ok(()))) => values.resize(n, 0.0),
            _ => {
                return Err(RuntimeError::OutputTooLarge {
                    width: rect.width,
                    height: rect.height,
                    dim,
                });
            }
        }
        Ok(Self { rect, dim, values })
    }

    /// Adds a tile.
    pub fn push(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        for (pixel, line) in tile.rows_in(self.rect) {
            self.values[pixel * self.dim..][..line.len()].copy_from_slice(line);
        }
        Ok(())
    }

    /// The values so far, `[H, W, d]`; zero where no tile has arrived yet.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, `[H, W, d]`.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The values as a map, `[d, H, W]`.
    pub fn to_map(&self) -> Vec<f32> {
        transposed(&self.values, self.rect.area(), self.dim)
    }
}

/// Writes a tile into a map `[d, H, W]` that covers `rect`.
fn scatter(tile: &TileFeatures<'_>, rect: Rect, planes: &mut [f32]) {
    for (first, pixels) in tile.rows_in(rect) {
        for (c, plane) in planes.chunks_exact_mut(rect.area()).enumerate() {
            let line = &mut plane[first..][..tile.rect.width];
            for (value, pixel) in line.iter_mut().zip(pixels.chunks_exact(tile.dim())) {
                *value = pixel[c];
            }
        }
    }
}

/// Streams an output into a `.npy` file `[1, d, H, W]`. Only a few groups of tiles are in memory.
#[derive(Debug)]
pub struct NpySink {
    rect: Rect,
    writer: NpyWriter,
    open: Vec<Group>,
    free: Vec<Vec<f32>>,
}

/// A group of tiles that is not complete yet.
#[derive(Debug)]
struct Group {
    rect: Rect,
    missing: usize,
    /// `[d, h, w]` of the group.
    values: Vec<f32>,
}

impl NpySink {
    /// Creates a sink for `rect`; `writer` was created for `[1, d, H, W]`.
    pub fn new(rect: Rect, writer: NpyWriter) -> Self {
        Self {
            rect,
            writer,
            open: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Adds a tile.
    pub fn push(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        let i = match self.open.iter().position(|g| g.rect == tile.group) {
            Some(i) => i,
            None => {
                let mut values = self.free.pop().unwrap_or_default();
                values.resize(tile.dim() * tile.group.area(), 0.0);
                self.open.push(Group {
                    rect: tile.group,
                    missing: tile.group.area(),
                    values,
                });
                self.open.len() - 1
            }
        };
        let group = &mut self.open[i];
        scatter(tile, group.rect, &mut group.values);
        group.missing -= tile.rect.area();
        if group.missing == 0 {
            let group = self.open.swap_remove(i);
            self.write(&group)?;
            self.free.push(group.values);
        }
        Ok(())
    }

    fn write(&self, group: &Group) -> Result<(), NpyError> {
        let (x, y) = (group.rect.x - self.rect.x, group.rect.y - self.rect.y);
        for (c, plane) in group.values.chunks_exact(group.rect.area()).enumerate() {
            for (row, line) in plane.chunks_exact(group.rect.width).enumerate() {
                let offset = (c * self.rect.height + y + row) * self.rect.width + x;
                self.writer.write_at(offset, line)?;
            }
        }
        Ok(())
    }

    /// Completes the file under its final name.
    pub fn finish(self) -> Result<(), NpyError> {
        self.writer.finish()
    }
}

/// Keeps three principal components of an output, to show it in colors.
#[derive(Debug)]
pub struct PcaSink<'a> {
    basis: &'a CommonBasis,
    set: usize,
    rect: Rect,
    /// `[H, W, 3]`.
    values: Vec<f32>,
}

impl<'a> PcaSink<'a> {
    /// Creates a sink for `rect`, projected as set `set` of `basis`.
    pub fn new(rect: Rect, basis: &'a CommonBasis, set: usize) -> Self {
        Self {
            basis,
            set,
            rect,
            values: vec![0.0; 3 * rect.area()],
        }
    }

    /// Adds a tile.
    pub fn push(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        for (pixel, row) in tile.rows_in(self.rect) {
            let line = &mut self.values[3 * pixel..][..3 * tile.rect.width];
            self.basis.project(self.set, row, line)?;
        }
        Ok(())
    }

    /// The components, `[H, W, 3]`.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}
