//! 3x3 convolution with padding 1, in channels-last layout.
//!
//! A block of pixels is unfolded to rows of 9 neighbors (im2col), followed by one matrix product.
//! In this layout the three neighbors in a row are contiguous, so unfolding is copying.

use burn::backend::flex::FlexTensor;
use loftup_kernels::matrix::{Beta, matmul};
use rayon::prelude::*;

use super::{
    Needs,
    matrix::{by_rows, column_sums, elements, extent, for_rows, matrix},
};

/// Pixels unfolded at once: enough for an efficient matrix product, few enough for the last-level
/// cache.
const BLOCK: usize = 1024;

/// A batch of images of the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Number of images.
    pub batch: usize,
    /// Rows per image.
    pub height: usize,
    /// Columns per image.
    pub width: usize,
}

impl Grid {
    /// Number of pixels in all images.
    pub fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }
}

/// Rows with the 9 neighbors of a block of pixels, `[len, 9 * c]`, row by row from the upper left;
/// zero outside the image. The buffer is reused for every block.
struct Unfolded(Vec<f32>);

impl Unfolded {
    fn new(c: usize, len: usize) -> Self {
        Self(vec![0.0; len * 9 * c])
    }

    /// Unfolds pixels `start..start + len` of `x`, `[pixels, c]`.
    fn of(&mut self, x: &[f32], c: usize, grid: Grid, start: usize, len: usize) -> &[f32] {
        let Grid { height, width, .. } = grid;
        let rows = &mut self.0[..len * 9 * c];
        rows.par_chunks_mut(9 * c)
            .with_min_len(32)
            .enumerate()
            .for_each(|(i, out)| {
                let pixel = start + i;
                let (row, col) = (pixel / width, pixel % width);
                let image = row / height * height;
                let first = col.max(1) - 1;
                let last = (col + 1).min(width - 1);
                for (ky, out) in out.chunks_exact_mut(3 * c).enumerate() {
                    let Some(y) = (row % height + ky).checked_sub(1).filter(|y| *y < height) else {
                        out.fill(0.0);
                        continue;
                    };
                    let at = ((image + y) * width + first) * c;
                    let source = &x[at..][..(last + 1 - first) * c];
                    let (before, rest) = out.split_at_mut((first + 1 - col) * c);
                    let (inside, after) = rest.split_at_mut(source.len());
                    before.fill(0.0);
                    inside.copy_from_slice(source);
                    after.fill(0.0);
                }
            });
        rows
    }
}

/// Transposes weights from `[out, in * 9]` to `[9 * in, out]`.
fn forward_weights(w: &[f32], out: usize, c: usize) -> Vec<f32> {
    let mut m = vec![0.0; w.len()];
    m.par_chunks_mut(out).enumerate().for_each(|(i, row)| {
        let (tap, ch) = (i / c, i % c);
        for (o, v) in row.iter_mut().enumerate() {
            *v = w[(o * c + ch) * 9 + tap];
        }
    });
    m
}

/// Rearranges weights from `[out, in * 9]` to `[9 * out, in]` with flipped taps, for the gradient
/// of the input.
fn backward_weights(w: &[f32], out: usize, c: usize) -> Vec<f32> {
    let mut m = vec![0.0; w.len()];
    m.par_chunks_mut(c).enumerate().for_each(|(i, row)| {
        let (tap, o) = (i / out, i % out);
        for (ch, v) in row.iter_mut().enumerate() {
            *v = w[(o * c + ch) * 9 + 8 - tap];
        }
    });
    m
}

fn blocks(grid: Grid) -> impl Iterator<Item = (usize, usize)> {
    let pixels = grid.pixels();
    (0..pixels)
        .step_by(BLOCK)
        .map(move |start| (start, BLOCK.min(pixels - start)))
}

/// Unfolds block by block and multiplies each with `weights`, `[9 * c, cols]`.
fn convolve(
    x: &[f32],
    c: usize,
    weights: &[f32],
    cols: usize,
    bias: Option<&[f32]>,
    grid: Grid,
) -> FlexTensor {
    let weights = by_rows(weights, cols);
    let mut out = vec![0.0; grid.pixels() * cols];
    let mut unfolded = Unfolded::new(c, BLOCK.min(grid.pixels()));
    for (start, len) in blocks(grid) {
        let neighbors = by_rows(unfolded.of(x, c, grid, start, len), 9 * c);
        let out = &mut out[start * cols..][..len * cols];
        matmul(neighbors, weights, out, Beta::Zero, true);
        if let Some(bias) = bias {
            for_rows(out, cols, |_, row| {
                for (out, b) in row.iter_mut().zip(bias) {
                    *out += b;
                }
            });
        }
    }
    matrix(out, grid.pixels(), cols)
}

/// Convolves x `[pixels, in]` with weight `[out, in * 9]` and bias `[1, out]`: `[pixels, out]`.
pub(super) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    grid: Grid,
) -> FlexTensor {
    let (out, c) = (extent(weight).0, extent(x).1);
    let weights = forward_weights(elements(weight), out, c);
    convolve(elements(x), c, &weights, out, Some(elements(bias)), grid)
}

/// Gradients of [`forward`] for x, weight and bias.
pub(super) fn backward(
    grad: &FlexTensor,
    x: &FlexTensor,
    weight: &FlexTensor,
    grid: Grid,
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let (out, c) = (extent(weight).0, extent(x).1);
    let dx = needs[0].then(|| {
        let weights = backward_weights(elements(weight), out, c);
        convolve(elements(grad), out, &weights, c, None, grid)
    });
    let dw = needs[1].then(|| {
        // Accumulated over blocks as [9 * in, out], then reordered like the weights.
        let mut sum = vec![0.0f32; 9 * c * out];
        let mut unfolded = Unfolded::new(c, BLOCK.min(grid.pixels()));
        for (start, len) in blocks(grid) {
            let neighbors = by_rows(unfolded.of(elements(x), c, grid, start, len), 9 * c);
            let grad = by_rows(&elements(grad)[start * out..][..len * out], out);
            matmul(neighbors.transposed(), grad, &mut sum, Beta::One, true);
        }
        let mut dw = vec![0.0; sum.len()];
        dw.par_chunks_mut(c * 9).enumerate().for_each(|(o, row)| {
            for (i, v) in row.iter_mut().enumerate() {
                *v = sum[(i % 9 * c + i / 9) * out + o];
            }
        });
        matrix(dw, out, c * 9)
    });
    let db = needs[2].then(|| matrix(column_sums(elements(grad), out), 1, out));
    [dx, dw, db]
}
