//! Matrices on the CPU: slices and their products.

use burn::backend::{TensorData, flex::FlexTensor};
use loftup_kernels::matrix::{Beta, Matrix, matmul};
use rayon::prelude::*;

/// Rows that one thread reduces before the partial results are added. It is fixed so that sums do
/// not depend on the number of threads.
const REDUCE: usize = 512;

/// Rows and columns of a 2-D tensor.
pub(super) fn extent(x: &FlexTensor) -> (usize, usize) {
    let shape = x.layout().shape();
    (shape[0], shape[1])
}

/// The elements of a contiguous tensor, row-major.
pub(super) fn elements(x: &FlexTensor) -> &[f32] {
    let layout = x.layout();
    &x.storage::<f32>()[layout.start_offset()..][..layout.num_elements()]
}

/// Creates a 2-D tensor from its elements.
pub(super) fn matrix(data: Vec<f32>, rows: usize, cols: usize) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, [rows, cols]))
}

/// A matrix from rows of `cols` elements.
pub(super) fn by_rows(x: &[f32], cols: usize) -> Matrix<'_> {
    Matrix::new(x, [x.len() / cols, cols], [cols, 1])
}

/// The matrix product on all cores. The framework's own product zeroes its output and copies it to
/// another buffer before computing.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let ([rows, _], [_, cols]) = (a.shape(), b.shape());
    let mut out = vec![0.0; rows * cols];
    matmul(a, b, &mut out, Beta::Zero, true);
    out
}

/// Calls `row` for `n` rows to add to `sums` accumulators, always in the same order.
pub(super) fn reduce(n: usize, sums: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let partial: Vec<Vec<f32>> = (0..n.div_ceil(REDUCE))
        .into_par_iter()
        .map(|chunk| {
            let mut acc = vec![0.0; sums];
            for i in chunk * REDUCE..n.min((chunk + 1) * REDUCE) {
                row(i, &mut acc);
            }
            acc
        })
        .collect();
    let mut total = vec![0.0f64; sums];
    for acc in partial {
        for (t, a) in total.iter_mut().zip(acc) {
            *t += f64::from(a);
        }
    }
    total.into_iter().map(|t| t as f32).collect()
}

/// Sum of each column.
pub(super) fn column_sums(x: &[f32], cols: usize) -> Vec<f32> {
    reduce(x.len() / cols, cols, |i, acc| {
        for (a, v) in acc.iter_mut().zip(&x[i * cols..][..cols]) {
            *a += v;
        }
    })
}

/// Calls `f` with the index and the elements of each row, in parallel.
pub(super) fn for_rows(x: &mut [f32], cols: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    const CHUNK: usize = 64;
    x.par_chunks_mut(CHUNK * cols)
        .enumerate()
        .for_each(|(chunk, part)| {
            for (i, row) in part.chunks_exact_mut(cols).enumerate() {
                f(chunk * CHUNK + i, row);
            }
        });
}
