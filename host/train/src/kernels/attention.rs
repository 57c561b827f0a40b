//! Multi-head attention of many queries to few keys.
//!
//! Queries are processed in blocks, and their scores are discarded. The backward pass recomputes them,
//! which takes a fifth of its time and saves `pixels x tokens` values per head.

use burn::backend::flex::FlexTensor;
use loftup_kernels::matrix::{Beta, Matrix, matmul};
use rayon::prelude::*;

use super::{
    Needs,
    linear::exp,
    matrix::{by_rows, elements, extent, matrix},
};

/// Queries per block.
const BLOCK: usize = 2048;

/// Attention weights below this become 0. They do not change any sum, but with sharp attention their
/// products would be denormal numbers, which are several times slower.
const LEAST: f32 = 1e-20;

/// Softmax of each row in place, after scaling.
fn softmax(scores: &mut [f32], keys: usize, scale: f32) {
    scores
        .par_chunks_mut(keys)
        .with_min_len(64)
        .for_each(|row| {
            let most = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
            let mut sum = 0.0;
            for x in row.iter_mut() {
                *x = exp((*x - most) * scale);
            }
            for x in row.iter() {
                sum += x;
            }
            let inv = 1.0 / sum;
            for x in row {
                let p = *x * inv;
                *x = if p < LEAST { 0.0 } else { p };
            }
        });
}

/// Copies `[heads, len, width]` to rows `start..start + len` of a `[n, heads * width]` matrix.
fn put_heads(out: &mut [f32], (start, len): (usize, usize), x: &[f32], count: usize) {
    let width = x.len() / (count * len);
    let cols = count * width;
    out[start * cols..][..len * cols]
        .par_chunks_mut(cols)
        .with_min_len(64)
        .enumerate()
        .for_each(|(i, row)| {
            for (h, part) in row.chunks_exact_mut(width).enumerate() {
                part.copy_from_slice(&x[(h * len + i) * width..][..width]);
            }
        });
}

/// Adds `[heads, len, width]` to rows `start..start + len` of a `[n, heads * width]` matrix.
fn add_heads(out: &mut [f32], (start, len): (usize, usize), x: &[f32], count: usize) {
    let width = x.len() / (count * len);
    let cols = count * width;
    for (i, row) in out[start * cols..][..len * cols]
        .chunks_exact_mut(cols)
        .enumerate()
    {
        for (h, part) in row.chunks_exact_mut(width).enumerate() {
            for (o, v) in part.iter_mut().zip(&x[(h * len + i) * width..]) {
                *o += v;
            }
        }
    }
}

/// Iterates over blocks of queries of each image: `(image's keys, first query, queries)`.
fn blocks(
    queries: usize,
    keys: usize,
    batch: usize,
) -> impl Iterator<Item = (usize, usize, usize)> {
    let (n, m) = (queries / batch, keys / batch);
    (0..batch).flat_map(move |b| {
        (0..n)
            .step_by(BLOCK)
            .map(move |start| (b * m, b * n + start, BLOCK.min(n - start)))
    })
}

fn scale(cols: usize, count: usize) -> f32 {
    (1.0 / (cols / count) as f64).sqrt() as f32
}

/// Rows `start..start + len` of a `[n, heads * width]` matrix, as one matrix per head.
struct Heads<'a> {
    x: &'a [f32],
    len: usize,
    cols: usize,
    width: usize,
}

impl<'a> Heads<'a> {
    fn new(x: &'a FlexTensor, start: usize, len: usize, count: usize) -> Self {
        let (_, cols) = extent(x);
        Self {
            x: &elements(x)[start * cols..][..len * cols],
            len,
            cols,
            width: cols / count,
        }
    }

    /// `[len, width]`.
    fn of(&self, head: usize) -> Matrix<'a> {
        Matrix::new(
            &self.x[head * self.width..],
            [self.len, self.width],
            [self.cols, 1],
        )
    }
}

/// A buffer for the results of all heads for a block, `[heads, rows, cols]`, reused for every
/// block.
#[derive(Default)]
struct Room(Vec<f32>);

impl Room {
    /// One matrix product per head, in parallel.
    fn products<'m>(
        &mut self,
        count: usize,
        (rows, cols): (usize, usize),
        pair: impl Fn(usize) -> (Matrix<'m>, Matrix<'m>) + Sync,
    ) -> &mut [f32] {
        let size = rows * cols;
        if self.0.len() < count * size {
            self.0.resize(count * size, 0.0);
        }
        let out = &mut self.0[..count * size];
        // If there are fewer heads than threads, each head uses several threads.
        let shared = count < rayon::current_num_threads();
        out.par_chunks_mut(size).enumerate().for_each(|(h, out)| {
            let (a, b) = pair(h);
            matmul(a, b, out, Beta::Zero, shared);
        });
        out
    }
}

/// Returns head `h` of `[heads, rows, cols]`.
fn plane(x: &[f32], h: usize, rows: usize, cols: usize) -> Matrix<'_> {
    by_rows(&x[h * rows * cols..][..rows * cols], cols)
}

/// Computes attention of q `[batch * n, e]` to k and v `[batch * m, e]`: `[batch * n, e]`.
pub(super) fn forward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    batch: usize,
    count: usize,
) -> FlexTensor {
    let ((n, e), m) = (extent(q), extent(k).0);
    let (keys, width) = (m / batch, e / count);
    let mut out = vec![0.0; n * e];
    let (mut scores, mut mixed) = (Room::default(), Room::default());
    for (key, start, len) in blocks(n, m, batch) {
        let heads = |x, start, len| Heads::new(x, start, len, count);
        let (q, k, v) = (
            heads(q, start, len),
            heads(k, key, keys),
            heads(v, key, keys),
        );
        let p = scores.products(count, (len, keys), |h| (q.of(h), k.of(h).transposed()));
        softmax(p, keys, scale(e, count));
        let p = &*p;
        let mixed = mixed.products(count, (len, width), |h| (plane(p, h, len, keys), v.of(h)));
        put_heads(&mut out, (start, len), mixed, count);
    }
    matrix(out, n, e)
}

/// Gradients of [`forward`] for queries, keys and values.
pub(super) fn backward(
    grad: &FlexTensor,
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    (batch, count): (usize, usize),
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let ((n, e), m) = (extent(q), extent(k).0);
    let (keys, width) = (m / batch, e / count);
    let factor = scale(e, count);
    let mut dq = vec![0.0; n * e];
    let (mut dk, mut dv) = (vec![0.0; m * e], vec![0.0; m * e]);
    let (mut scores, mut slopes, mut found) = (Room::default(), Room::default(), Room::default());
    for (key, start, len) in blocks(n, m, batch) {
        let heads = |x, start, len| Heads::new(x, start, len, count);
        let (q, g) = (heads(q, start, len), heads(grad, start, len));
        let (k, v) = (heads(k, key, keys), heads(v, key, keys));
        let p = scores.products(count, (len, keys), |h| (q.of(h), k.of(h).transposed()));
        softmax(p, keys, factor);
        let p = &*p;
        let of_keys = (keys, width);
        let dvh = found.products(count, of_keys, |h| {
            (plane(p, h, len, keys).transposed(), g.of(h))
        });
        add_heads(&mut dv, (key, keys), dvh, count);
        let ds = slopes.products(count, (len, keys), |h| (g.of(h), v.of(h).transposed()));
        ds.par_chunks_mut(keys)
            .with_min_len(64)
            .enumerate()
            .for_each(|(i, ds)| {
                let p = &p[i * keys..][..keys];
                let mean: f32 = ds.iter().zip(p).map(|(d, p)| d * p).sum();
                for (d, p) in ds.iter_mut().zip(p) {
                    *d = (*d - mean) * p * factor;
                }
            });
        let ds = &*ds;
        let dkh = found.products(count, of_keys, |h| {
            (plane(ds, h, len, keys).transposed(), q.of(h))
        });
        add_heads(&mut dk, (key, keys), dkh, count);
        let dqh = found.products(count, (len, width), |h| (plane(ds, h, len, keys), k.of(h)));
        put_heads(&mut dq, (start, len), dqh, count);
    }
    let keep = |need: bool, x: Vec<f32>, rows: usize| need.then(|| matrix(x, rows, e));
    [
        keep(needs[0], dq, n),
        keep(needs[1], dk, m),
        keep(needs[2], dv, m),
    ]
}
