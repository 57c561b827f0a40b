//! NAF as one graph, for a fixed size.

use loftup_spec::{
    io,
    naf::{Axis, HEADS, NafWeights, PERIODS, TAPS, TileInputs, TileShape, fits},
};

use super::encode::{Groups, Norms, Rotary, attention, encodings, keys};
use crate::{Graph, Tensor};

/// The sizes of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NafShape {
    /// Channels of the features, a multiple of 4.
    pub dim: usize,
    /// Rows and columns of the grid.
    pub grid: (usize, usize),
    /// Rows and columns of the output, multiples of the grid's.
    pub size: (usize, usize),
}

impl NafShape {
    /// Whether a graph can be written for this shape: all pixels of a patch must attend to the same
    /// patches, otherwise the graph would be too large.
    pub fn is_supported(&self) -> bool {
        let axis =
            |cells: usize, pixels: usize| fits(cells, pixels) && pixels.is_multiple_of(cells);
        self.dim > 0
            && self.dim.is_multiple_of(HEADS)
            && axis(self.grid.0, self.size.0)
            && axis(self.grid.1, self.size.1)
    }
}

/// Writes the whole upsampler: inputs [`io::FEATURES`] `[1, d, h, w]` and [`io::GUIDANCE`] `[1, 3, H, W]`,
/// with ImageNet's normalization, output [`io::UPSAMPLED`] `[1, d, H, W]`. `None` if the shape is not
/// [supported](NafShape::is_supported).
pub fn whole_graph(weights: &NafWeights, shape: NafShape) -> Option<Vec<u8>> {
    if !shape.is_supported() {
        return None;
    }
    let NafShape { dim, grid, size } = shape;
    let axes = [
        &Axis::new(grid.0, size.0, &weights.periods)?,
        &Axis::new(grid.1, size.1, &weights.periods)?,
    ];
    let tile = TileShape::new(axes, 1, size);
    let mut inputs = TileInputs::default();
    let image = vec![0.0; 3 * size.0 * size.1];
    inputs.fill(axes, &image, tile, std::iter::once((0, 0)));

    let map = |channels: usize, (rows, columns): (usize, usize)| {
        [1.into(), channels.into(), rows.into(), columns.into()]
    };
    let mut g = Graph::new("naf");
    let features = g.input(io::FEATURES, &map(dim, grid));
    let image = g.input(io::GUIDANCE, &map(3, size));
    let constant = |g: &mut Graph, name: &str, shape: &[usize], values: Vec<f32>| {
        g.constant(name, &Tensor::from_fn(shape.to_vec(), |i| values[i]))
    };
    let rotary = Rotary {
        rows: constant(&mut g, "rows", &[2, 1, size.0, PERIODS], inputs.rows),
        columns: constant(&mut g, "columns", &[2, 1, size.1, PERIODS], inputs.columns),
    };
    let x = encodings(&mut g, &image, weights, &mut Norms::computed(), &rotary);
    let keys = g.scope("keys", |g| {
        let rows = constant(g, "rows", &[grid.0, size.0], axes[0].pooling());
        let columns = constant(g, "columns", &[grid.1, size.1], axes[1].pooling());
        keys(g, &x, &rows, &columns)
    });
    let x = g.scope("attention", |g| {
        let (groups, pixels) = (tile.groups(), tile.group_pixels());
        let groups = Groups {
            pixels: constant(g, "pixels", &[groups, pixels], inputs.pixels),
            cells: constant(g, "cells", &[groups, TAPS], inputs.cells),
            order: constant(g, "order", &[tile.pixels()], inputs.order),
        };
        let values = g.reshape(&features, &[dim as i64, -1]);
        let values = g.transpose(&values, &[1, 0]);
        attention(g, &x, &keys, &values, &groups)
    });
    let x = g.transpose(&x, &[1, 0]);
    let x = g.reshape(&x, &[1, dim as i64, size.0 as i64, size.1 as i64]);
    g.output(&x, io::UPSAMPLED, &map(dim, size));
    Some(g.finish())
}
