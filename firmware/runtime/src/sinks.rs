//! What to do with the tiles of an answer.

use crate::{
    Rect, SinkError, TileFeatures,
    npy::{NpyError, NpyWriter},
    pca::CommonBasis,
};

/// Collects an answer in memory, `[d, H, W]`.
#[derive(Debug)]
pub struct InMemory {
    rect: Rect,
    values: Vec<f32>,
}

impl InMemory {
    /// For the answer to a question about `rect`.
    pub fn new(rect: Rect, dim: usize) -> Self {
        Self {
            rect,
            values: vec![0.0; dim * rect.area()],
        }
    }

    /// Takes a tile.
    pub fn take(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        scatter(tile, self.rect, &mut self.values);
        Ok(())
    }

    /// What of the answer has come so far; zeros elsewhere.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The answer.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// Writes a tile into channel planes `[d, H, W]` that cover `rect`.
fn scatter(tile: &TileFeatures<'_>, rect: Rect, planes: &mut [f32]) {
    let x = tile.rect.x - rect.x;
    for row in 0..tile.rect.height {
        let y = tile.rect.y - rect.y + row;
        let pixels = tile.row(row);
        for (c, plane) in planes.chunks_exact_mut(rect.area()).enumerate() {
            let line = &mut plane[y * rect.width + x..][..tile.rect.width];
            for (value, pixel) in line.iter_mut().zip(pixels.chunks_exact(tile.dim())) {
                *value = pixel[c];
            }
        }
    }
}

/// Streams an answer into a `.npy` file `[1, d, H, W]`. Only some groups of tiles are in memory.
#[derive(Debug)]
pub struct ToNpy {
    rect: Rect,
    writer: NpyWriter,
    open: Vec<Group>,
    spare: Vec<Vec<f32>>,
}

/// A group of tiles that is not complete yet.
#[derive(Debug)]
struct Group {
    rect: Rect,
    missing: usize,
    /// `[d, h, w]` of the group.
    values: Vec<f32>,
}

impl ToNpy {
    /// For the answer to a question about `rect`; `writer` was created for `[1, d, H, W]`.
    pub fn new(rect: Rect, writer: NpyWriter) -> Self {
        Self {
            rect,
            writer,
            open: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Takes a tile.
    pub fn take(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        let i = match self.open.iter().position(|g| g.rect == tile.group) {
            Some(i) => i,
            None => {
                let mut values = self.spare.pop().unwrap_or_default();
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
            self.spare.push(group.values);
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

    /// Puts the finished file in its place.
    pub fn finish(self) -> Result<(), NpyError> {
        self.writer.finish()
    }
}

/// Keeps three principal components of an answer, for a picture of it.
#[derive(Debug)]
pub struct Components<'a> {
    basis: &'a CommonBasis,
    set: usize,
    rect: Rect,
    /// `[H, W, 3]`.
    values: Vec<f32>,
}

impl<'a> Components<'a> {
    /// For the answer to a question about `rect`; the answer is set `set` of `basis`.
    pub fn new(rect: Rect, basis: &'a CommonBasis, set: usize) -> Self {
        Self {
            basis,
            set,
            rect,
            values: vec![0.0; 3 * rect.area()],
        }
    }

    /// Takes a tile.
    pub fn take(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        let x = tile.rect.x - self.rect.x;
        for row in 0..tile.rect.height {
            let y = tile.rect.y - self.rect.y + row;
            let line = &mut self.values[3 * (y * self.rect.width + x)..][..3 * tile.rect.width];
            self.basis.project(self.set, tile.row(row), line)?;
        }
        Ok(())
    }

    /// The components, `[H, W, 3]`.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}
