//! Multithreaded matrix products with arbitrary strides, for training.

/// A strided view of a slice: element (row, column) is `data[row * strides[0] + column * strides[1]]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// `shape` is `[rows, columns]`; `strides` are the distances in values between rows and between
    /// columns.
    ///
    /// # Panics
    /// If the last element is outside `data`.
    pub fn new(data: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        if shape.iter().all(|&n| n > 0) {
            let last = (0..2).try_fold(0usize, |at, i| {
                at.checked_add((shape[i] - 1).checked_mul(strides[i])?)
            });
            assert!(
                last.is_some_and(|last| last < data.len() && last <= isize::MAX as usize / 4),
                "a matrix of shape {shape:?} with strides {strides:?} does not fit in {} values",
                data.len()
            );
        }
        Self {
            data,
            shape,
            strides,
        }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The transpose, as a view of the same data.
    #[must_use]
    pub fn transposed(self) -> Self {
        let ([rows, cols], [row, col]) = (self.shape, self.strides);
        Self {
            data: self.data,
            shape: [cols, rows],
            strides: [col, row],
        }
    }
}

/// The factor of the previous contents of the output, as in BLAS: `C = A B + beta C`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beta {
    /// Overwrite the output.
    Zero,
    /// Add the product to the output.
    One,
}

/// Products with fewer multiplications than this run on one thread.
const MIN_PARALLEL_WORK: usize = 192 * 192 * 192;

/// `out = a b + beta out` with row-major `out` `[rows of a][columns of b]`. Runs on rayon's thread pool
/// if `parallel` is set and the product is large enough.
///
/// # Panics
/// If the shapes of `a`, `b` and `out` do not match.
pub fn matmul(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], beta: Beta, parallel: bool) {
    let ([m, k], [rows, n]) = (a.shape, b.shape);
    assert_eq!(k, rows, "columns of `a` and rows of `b`");
    assert_eq!(out.len(), m * n, "length of `out`");
    let work = m.saturating_mul(n).saturating_mul(k);
    let parallelism = match parallel && work >= MIN_PARALLEL_WORK {
        true => gemm::Parallelism::Rayon(0),
        false => gemm::Parallelism::None,
    };
    let read_out = beta == Beta::One;
    let signed = |stride: usize| stride as isize;
    // SAFETY: `Matrix::new` has checked that every element of `a` and `b` is in its slice and that
    // the strides fit in an `isize`; `out` is initialized, exclusively borrowed, and holds m
    // contiguous rows of n values.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            signed(n),
            read_out,
            a.data.as_ptr(),
            signed(a.strides[1]),
            signed(a.strides[0]),
            b.data.as_ptr(),
            signed(b.strides[1]),
            signed(b.strides[0]),
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(n).collect()
    }

    fn element(x: &Matrix<'_>, r: usize, c: usize) -> f64 {
        f64::from(x.data[r * x.strides[0] + c * x.strides[1]])
    }

    /// One element of the product, in 64 bit.
    fn reference(a: &Matrix<'_>, b: &Matrix<'_>, r: usize, c: usize) -> f64 {
        (0..a.shape[1])
            .map(|k| element(a, r, k) * element(b, k, c))
            .sum()
    }

    #[test]
    fn matmul_matches_the_definition() {
        let mut worst = 0.0f64;
        for [m, k, n] in [
            [1, 1, 1],
            [1, 7, 1],
            [3, 1, 5],
            [5, 1000, 3],
            [17, 33, 65],
            [200, 300, 210],
            [2, 0, 3],
        ] {
            let (left, right) = (noise(2 * m * k + 3, 1), noise(k * n + n + 1, 2));
            // Rows with a gap between them, and a column-major matrix.
            let a = Matrix::new(&left, [m, k], [2 * k, 1]);
            let b = Matrix::new(&right, [n, k], [k, 1]).transposed();
            for parallel in [false, true] {
                let mut out = noise(m * n, 3);
                let before = out.clone();
                matmul(a, b, &mut out, Beta::One, parallel);
                let mut product = vec![f32::NAN; m * n];
                matmul(a, b, &mut product, Beta::Zero, parallel);
                for i in 0..m * n {
                    let expected = reference(&a, &b, i / n, i % n);
                    let limit = 1e-6 * (k as f64).sqrt() + 1e-6;
                    let error = (f64::from(product[i]) - expected).abs();
                    assert!(error < limit, "{m}x{k}x{n}: {error}");
                    worst = worst.max(error / limit);
                    let error = (f64::from(out[i]) - expected - f64::from(before[i])).abs();
                    assert!(error < 2.0 * limit, "{m}x{k}x{n}, added: {error}");
                }
            }
        }
        println!("maximum error {worst:.2} of 1e-6 (1 + sqrt(k))");
    }

    #[test]
    fn matrices_outside_their_slice_are_rejected() {
        let data = [0.0; 12];
        Matrix::new(&data, [3, 4], [4, 1]);
        Matrix::new(&data, [0, 4], [100, 1]);
        for (shape, strides) in [
            ([3, 5], [4, 1]),
            ([4, 3], [4, 1]),
            ([2, 2], [usize::MAX, 1]),
            ([usize::MAX, 2], [2, 1]),
        ] {
            let made = std::panic::catch_unwind(|| Matrix::new(&data, shape, strides).shape);
            assert!(made.is_err(), "{shape:?} {strides:?}");
        }
    }
}
