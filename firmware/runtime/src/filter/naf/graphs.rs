//! Runs NAF's graphs on an engine other than the CPU.

use std::sync::Arc;

use loftup_bundle::{Bundle, Precision, Size, UpsamplerFiles};
use loftup_kernels::naf::Values;
use loftup_spec::{
    io,
    naf::{Axis, CHANNELS, HEADS, LAYERS, PERIODS, TAPS, TileInputs, TileShape, WIDTH},
};

use crate::{
    Rect, RuntimeError,
    backend::{Backend, ShapeBounds, ShapeProfile},
    plan_cache::{PlanCache, SessionPool, Shapes, Source},
    upsampler::{POINTS, SMALL_TILE},
};

/// Maximum number of pixels of an image encoded on an engine: up to this size, TensorRT-RTX builds the
/// keys graph within the default workspace of 1 GiB.
pub(super) const MOST_PIXELS: usize = 640 * 480;
/// Maximum side of a tile. The halo is then 13 % of the pixels.
const LONGEST_SIDE: usize = 160;
/// Maximum number of groups in a tile; each has a copy of the keys and values of 81 cells.
const MOST_GROUPS: usize = 1200;
/// Linear heads with up to this many values share an engine with the features, or more if the features have more.
const USUAL_OUTPUTS: usize = 64;

/// NAF's graphs, loaded into an engine.
pub(super) struct NafGraphs {
    keys: PlanCache,
    /// The queries graph for features, and for linear heads.
    queries: [PlanCache; 2],
    pub backend: Arc<dyn Backend>,
    periods: Vec<f32>,
    /// Channels of the features.
    dim: usize,
}

/// The rows and columns of a frame.
pub(super) type Axes = [Axis; 2];

/// The outputs of the keys graph for an image.
pub(super) struct GraphFrame {
    pub axes: Axes,
    /// Longest side of a tile.
    pub tile: usize,
    scales: Vec<f32>,
    shifts: Vec<f32>,
    keys: Vec<f32>,
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct GraphBuffers {
    inputs: TileInputs,
    zeros: Vec<f32>,
}

impl NafGraphs {
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        files: &UpsamplerFiles,
        (periods, dim): (Vec<f32>, usize),
    ) -> Self {
        let plans = |file: &str, inputs: &[&str], outputs: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let source = Source {
                file: file.into(),
                head: false,
                precision: Precision::Fp32,
                inputs: names(inputs),
                outputs: names(outputs),
            };
            PlanCache::new(bundle, backend, source)
        };
        let (inputs, outputs) = (io::naf::KEYS_INPUTS, io::naf::KEYS_OUTPUTS);
        Self {
            keys: plans(&files.keys, &inputs, &outputs),
            queries: io::naf::QUERIES_OUTPUTS
                .map(|output| plans(&files.queries, &io::naf::QUERIES_INPUTS, &[output])),
            backend: backend.clone(),
            periods,
            dim,
        }
    }

    /// Whether the engine itself is in use. Its fallback, the CPU, uses the kernels instead.
    pub fn usable(&self) -> bool {
        self.backend.health().reason().is_none()
    }

    /// Returns `None` if NAF does not support a grid of `(rows, columns)` for an output of this size.
    pub fn axes(&self, grid: (usize, usize), output: Size) -> Option<Axes> {
        Some([
            Axis::new(grid.0, output.height, &self.periods)?,
            Axis::new(grid.1, output.width, &self.periods)?,
        ])
    }

    /// Compiles the graphs for a frame, with tiles of at most this side.
    pub fn compile(&self, axes: &Axes, tile: Option<usize>) -> Result<(), RuntimeError> {
        self.keys_plan(axes)?;
        let tile = self.tile(axes, tile);
        let shape = TileShape::new(axes.each_ref(), 1, largest(axes, tile));
        self.plan(axes, tile, shape, (self.dim / HEADS, false))?;
        Ok(())
    }

    fn keys_plan(&self, axes: &Axes) -> Result<Arc<SessionPool>, RuntimeError> {
        let [rows, columns] = axes;
        let shapes = vec![
            vec![1, 3, rows.pixels, columns.pixels],
            vec![2, 1, rows.pixels, PERIODS],
            vec![2, 1, columns.pixels, PERIODS],
            vec![rows.cells, rows.pixels],
            vec![columns.cells, columns.pixels],
        ];
        self.keys.get(&shapes, &[])
    }

    /// Encodes an image `[3, H, W]`, with tiles of at most this side.
    pub fn encode(
        &self,
        axes: Axes,
        image: &[f32],
        tile: Option<usize>,
    ) -> Result<GraphFrame, RuntimeError> {
        let pool = self.keys_plan(&axes)?;
        let [rows, columns] = &axes;
        let session = pool.run(&[
            image,
            &rows.rotation(),
            &columns.rotation(),
            &rows.pooling(),
            &columns.pooling(),
        ])?;
        let [scales, shifts, keys] = [0, 1, 2].map(|i| session.output(i).to_vec());
        Ok(GraphFrame {
            tile: self.tile(&axes, tile),
            axes,
            scales,
            shifts,
            keys,
        })
    }

    /// Returns the side of a tile: as requested or the engine's preferred side, at most [`LONGEST_SIDE`], and
    /// less if neighboring pixels attend to different cells.
    fn tile(&self, axes: &Axes, wanted: Option<usize>) -> usize {
        let wanted = wanted.unwrap_or_else(|| self.backend.tiling_hint().frame);
        let mut side = wanted.clamp(1, LONGEST_SIDE);
        let groups = |side: usize| TileShape::new(axes.each_ref(), 1, largest(axes, side)).groups();
        while side > 8 && groups(side) > MOST_GROUPS {
            side = side * 7 / 8;
        }
        side
    }

    /// Returns the plan for tiles of this shape and `(width of the values, whether they come from a linear head)`.
    fn plan(
        &self,
        axes: &Axes,
        tile: usize,
        shape: TileShape,
        (width, linear): (usize, bool),
    ) -> Result<Arc<SessionPool>, RuntimeError> {
        let cells = axes[0].cells * axes[1].cells;
        let asked = shapes(shape, cells, width);
        let own = self.dim / HEADS;
        let profile = |tiles: usize, side: usize| {
            let least = TileShape::new(axes.each_ref(), 1, (1, 1));
            let most = TileShape::new(axes.each_ref(), tiles, largest(axes, side));
            let min = shapes(least, cells, 1);
            let opt = shapes(most, cells, own);
            let max = shapes(most, cells, own.max(USUAL_OUTPUTS));
            let ranges = min.into_iter().zip(opt).zip(max);
            ShapeProfile {
                inputs: ranges
                    .map(|((min, opt), max)| ShapeBounds { min, opt, max })
                    .collect(),
            }
        };
        let mut profiles = vec![profile(POINTS, 1), profile(1, tile.min(SMALL_TILE))];
        if tile > SMALL_TILE {
            profiles.push(profile(1, tile));
        }
        self.queries[usize::from(linear)].get(&asked, &profiles)
    }

    /// Computes tiles of one size and appends their outputs to `out`, row by row.
    pub fn run(
        &self,
        frame: &GraphFrame,
        (image, values): (&[f32], &Values),
        tiles: &[Rect],
        buffers: &mut GraphBuffers,
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        let Some(first) = tiles.first() else {
            return Ok(());
        };
        let axes = frame.axes.each_ref();
        let shape = TileShape::new(axes, tiles.len(), (first.height, first.width));
        let places = tiles.iter().map(|rect| (rect.y, rect.x));
        buffers.inputs.fill(axes, image, shape, places);
        buffers.zeros.resize(values.width(), 0.0);
        let asked = (values.width(), values.bias().is_some());
        let pool = self.plan(&frame.axes, frame.tile, shape, asked)?;
        let TileInputs {
            image,
            rows,
            columns,
            pixels,
            cells,
            order,
        } = &buffers.inputs;
        let session = pool.run(&[
            image,
            rows,
            columns,
            pixels,
            cells,
            order,
            &frame.scales,
            &frame.shifts,
            &frame.keys,
            values.data(),
            values.bias().unwrap_or(&buffers.zeros),
        ])?;
        out.extend_from_slice(session.output(0));
        Ok(())
    }
}

/// Returns the rows and columns of the largest tile with this side.
fn largest(axes: &Axes, side: usize) -> (usize, usize) {
    (side.min(axes[0].pixels), side.min(axes[1].pixels))
}

/// Returns the shapes of [`io::naf::QUERIES_INPUTS`].
fn shapes(shape: TileShape, cells: usize, width: usize) -> Shapes {
    let TileShape { tiles, window, .. } = shape;
    let norms = vec![2 * LAYERS, WIDTH];
    vec![
        vec![tiles, 3, window.0, window.1],
        vec![2, tiles, window.0, PERIODS],
        vec![2, tiles, window.1, PERIODS],
        vec![shape.groups(), shape.group_pixels()],
        vec![shape.groups(), TAPS],
        vec![shape.pixels()],
        norms.clone(),
        norms,
        vec![cells, CHANNELS],
        vec![cells, HEADS * width],
        vec![width],
    ]
}
