//! Multi-head attention of many queries to few keys.
//!
//! Blocks of queries are done one after another and their scores forgotten: the backward pass
//! computes them again, which costs a fifth of it and saves `pixels x tokens` values per head.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::{
    Needs,
    linear::exp,
    matrix::{elements, elements_mut, extent, heads, matrix, product},
};

/// Queries that are done at once.
const BLOCK: usize = 2048;

/// Lesser weights are 0. They change no sum, and where attention is sharp they and what they are
/// multiplied by would be denormal numbers, on which products are several times slower.
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

fn swapped(x: &FlexTensor) -> FlexTensor {
    x.transpose(1, 2)
}

/// Copies `[heads, len, width]` to rows `start..start + len` of a `[n, heads * width]` matrix.
fn put_heads(out: &mut [f32], start: usize, x: &FlexTensor, count: usize) {
    let (len, width) = (x.layout().shape()[1], x.layout().shape()[2]);
    let cols = count * width;
    let x = elements(x);
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
fn add_heads(out: &mut [f32], start: usize, x: &FlexTensor, count: usize) {
    let (len, width) = (x.layout().shape()[1], x.layout().shape()[2]);
    let cols = count * width;
    let x = elements(x);
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

/// Where the queries and the keys of each picture lie: `(picture's keys, first query, queries)`.
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

/// q `[batch * n, e]`, k and v `[batch * m, e]` to `[batch * n, e]`.
pub(super) fn forward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    batch: usize,
    count: usize,
) -> FlexTensor {
    let ((n, e), m) = (extent(q), extent(k).0);
    let keys = m / batch;
    let mut out = vec![0.0; n * e];
    for (key, start, len) in blocks(n, m, batch) {
        let kh = heads(k, key, keys, count);
        let mut p = product(heads(q, start, len, count), swapped(&kh));
        softmax(elements_mut(&mut p), keys, scale(e, count));
        put_heads(
            &mut out,
            start,
            &product(p, heads(v, key, keys, count)),
            count,
        );
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
    let keys = m / batch;
    let factor = scale(e, count);
    let mut dq = vec![0.0; n * e];
    let (mut dk, mut dv) = (vec![0.0; m * e], vec![0.0; m * e]);
    for (key, start, len) in blocks(n, m, batch) {
        let (qh, gh) = (heads(q, start, len, count), heads(grad, start, len, count));
        let (kh, vh) = (heads(k, key, keys, count), heads(v, key, keys, count));
        let mut p = product(qh.clone(), swapped(&kh));
        softmax(elements_mut(&mut p), keys, factor);
        add_heads(&mut dv, key, &product(swapped(&p), gh.clone()), count);
        let mut ds = product(gh, swapped(&vh));
        let probabilities = elements(&p);
        elements_mut(&mut ds)
            .par_chunks_mut(keys)
            .with_min_len(64)
            .enumerate()
            .for_each(|(i, ds)| {
                let p = &probabilities[i * keys..][..keys];
                let mean: f32 = ds.iter().zip(p).map(|(d, p)| d * p).sum();
                for (d, p) in ds.iter_mut().zip(p) {
                    *d = (*d - mean) * p * factor;
                }
            });
        add_heads(&mut dk, key, &product(swapped(&ds), qh), count);
        put_heads(&mut dq, start, &product(ds, kh), count);
    }
    let keep = |need: bool, x: Vec<f32>, rows: usize| need.then(|| matrix(x, rows, e));
    [
        keep(needs[0], dq, n),
        keep(needs[1], dk, m),
        keep(needs[2], dv, m),
    ]
}
