//! Propagates labels from earlier frames to a frame.

use loftup_kernels::SmallProducts;
use parking_lot::Mutex;

use super::{
    TrackOptions,
    context::{Context, Grid},
    top::Top,
};
use crate::threads::on_threads;

/// Number of rows of a block of cells. The cells of a block share the features of the rows around them.
const ROWS: usize = 4;
/// Minimum number of columns of a block.
const COLUMNS: usize = 8;

/// Compares the cells of a frame with the cells around them in other frames.
#[derive(Debug)]
pub(super) struct Propagation {
    products: SmallProducts,
    radius: usize,
    temperature: f32,
    /// Columns of a block.
    width: usize,
    /// Number of columns that a block is compared with, a multiple of the kernels' vector width.
    pub columns: usize,
    /// One for each thread.
    scratch: Vec<Scratch>,
}

#[derive(Debug, Clone)]
struct Scratch {
    /// Similarities of one row of a block with one row of a frame, `[width, columns]`.
    scores: Vec<f32>,
    /// One for each cell of a block.
    tops: Vec<Top>,
}

impl Propagation {
    pub fn new(options: &TrackOptions, products: SmallProducts) -> Self {
        let around = 2 * options.radius;
        let columns = (around + COLUMNS).next_multiple_of(products.columns());
        let width = columns - around;
        let scratch = Scratch {
            scores: vec![0.0; width * columns],
            tops: vec![Top::new(options.top_k, 1 + options.max_objects); ROWS * width],
        };
        Self {
            products,
            radius: options.radius,
            temperature: options.temperature,
            width,
            columns,
            scratch: vec![scratch; options.threads.max(1)],
        }
    }

    /// Computes soft labels `[height, width, channels]` for the normalized features `tokens`. Only the first
    /// `used` channels can be nonzero.
    pub fn run<'a>(
        &mut self,
        grid: &Grid,
        tokens: &[f32],
        contexts: impl Iterator<Item = &'a Context> + Clone + Sync,
        used: usize,
        labels: &mut [f32],
    ) {
        let threads = self.scratch.len().min(grid.height.div_ceil(ROWS));
        let (radius, temperature, width) = (self.radius, self.temperature, self.width);
        let window = Window {
            grid,
            products: self.products,
            radius,
            columns: self.columns,
        };
        let blocks = labels.chunks_mut(ROWS * grid.width * grid.channels);
        let blocks = Mutex::new(blocks.enumerate());
        let scratch = Mutex::new(self.scratch.iter_mut());
        let next = || blocks.lock().next();
        let work = || -> Result<(), std::convert::Infallible> {
            let Some(Scratch { scores, tops }) = scratch.lock().next() else {
                return Ok(());
            };
            while let Some((i, labels)) = next() {
                let rows = labels.len() / (grid.width * grid.channels);
                for x in (0..grid.width).step_by(width) {
                    let block = Block {
                        x,
                        y: i * ROWS,
                        width: width.min(grid.width - x),
                        height: rows,
                    };
                    let tops = &mut tops[..rows * block.width];
                    tops.iter_mut().for_each(Top::clear);
                    for context in contexts.clone() {
                        window.compare(tokens, context, &block, used, scores, tops);
                    }
                    for (i, top) in tops.iter().enumerate() {
                        let cell = i / block.width * grid.width + x + i % block.width;
                        let labels = &mut labels[cell * grid.channels..][..grid.channels];
                        let (first, rest) = labels.split_at_mut(used);
                        top.mean(temperature, first);
                        rest.fill(0.0);
                    }
                }
            }
            Ok(())
        };
        let Ok(()) = on_threads(threads, work);
    }
}

/// A rectangle of cells.
#[derive(Debug, Clone, Copy)]
struct Block {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

struct Window<'a> {
    grid: &'a Grid,
    products: SmallProducts,
    radius: usize,
    columns: usize,
}

impl Window<'_> {
    /// Adds the cells of a frame within the window of each cell of the block.
    fn compare(
        &self,
        tokens: &[f32],
        context: &Context,
        block: &Block,
        used: usize,
        scores: &mut [f32],
        tops: &mut [Top],
    ) {
        let Grid {
            width,
            height,
            dim,
            channels,
            stride,
        } = *self.grid;
        let (radius, columns) = (self.radius, self.columns);
        let left = block.x.saturating_sub(radius);
        // From the middle outwards: the most similar cells are mostly near, and cells less similar than
        // those found so far cost only a comparison.
        let middle = block.y + block.height / 2;
        let rows = (0..=radius + block.height).flat_map(|d| {
            let below = (d > 0).then_some(middle + d);
            middle.checked_sub(d).into_iter().chain(below)
        });
        for row in rows.filter(|row| *row < height) {
            let line = &context.features[row * dim * stride..][..dim * stride];
            for y in block.y..block.y + block.height {
                if y.abs_diff(row) > radius {
                    continue;
                }
                self.products.multiply(
                    &tokens[(y * width + block.x) * dim..],
                    (&line[left..], stride),
                    scores,
                    (block.width, dim, columns),
                );
                let tops = &mut tops[(y - block.y) * block.width..][..block.width];
                for (i, (scores, top)) in scores.chunks_exact(columns).zip(tops).enumerate() {
                    let x = block.x + i;
                    let first = x.saturating_sub(radius);
                    let end = (x + radius + 1).min(width);
                    let scores = &scores[first - left..end - left];
                    if largest(scores) < top.threshold() {
                        continue;
                    }
                    for (x, score) in (first..end).zip(scores) {
                        if *score >= top.threshold() {
                            let cell = row * width + x;
                            top.push(*score, &context.labels[cell * channels..][..used]);
                        }
                    }
                }
            }
        }
    }
}

/// Returns the largest of finite values, in eight lanes, which the compiler vectorizes.
fn largest(values: &[f32]) -> f32 {
    let max = |a: f32, b: f32| if a > b { a } else { b };
    let (eights, rest) = values.as_chunks::<8>();
    let mut lanes = [f32::NEG_INFINITY; 8];
    for values in eights {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = max(*lane, *value);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().copied())
        .fold(f32::NEG_INFINITY, max)
}
