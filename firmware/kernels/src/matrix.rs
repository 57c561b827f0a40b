//! Products of plain matrices, for training: any strides, all cores.

/// A matrix in a slice: element (r, c) is `data[r * strides[0] + c * strides[1]]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    extent: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// `extent` is rows and columns, `strides` the steps from row to row and from column to column.
    ///
    /// # Panics
    /// Where the last element lies outside of `data`.
    pub fn new(data: &'a [f32], extent: [usize; 2], strides: [usize; 2]) -> Self {
        if extent.iter().all(|&n| n > 0) {
            let last = (0..2).try_fold(0usize, |at, i| {
                at.checked_add((extent[i] - 1).checked_mul(strides[i])?)
            });
            assert!(
                last.is_some_and(|last| last < data.len() && last <= isize::MAX as usize / 4),
                "{extent:?} elements by steps of {strides:?} in {}",
                data.len()
            );
        }
        Self {
            data,
            extent,
            strides,
        }
    }

    /// Rows and columns.
    pub fn extent(&self) -> [usize; 2] {
        self.extent
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        let ([rows, cols], [row, col]) = (self.extent, self.strides);
        Self {
            data: self.data,
            extent: [cols, rows],
            strides: [col, row],
        }
    }
}

/// What becomes of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// It is overwritten.
    Replaced,
    /// The product is added to it.
    AddedTo,
}

/// From so many multiplications on it is worth waking other threads.
const WORTH_SHARING: usize = 192 * 192 * 192;

/// `out = a * b`, row by row, or `out += a * b`; on all threads of rayon's pool where `shared` is set
/// and there is enough to do.
///
/// # Panics
/// Where the extents do not fit each other, or `out`.
pub fn multiply(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], there: There, shared: bool) {
    let ([m, k], [rows, n]) = (a.extent, b.extent);
    assert_eq!(k, rows, "columns of the left matrix, rows of the right one");
    assert_eq!(out.len(), m * n, "elements of the product");
    let work = m.saturating_mul(n).saturating_mul(k);
    let parallelism = match shared && work >= WORTH_SHARING {
        true => gemm::Parallelism::Rayon(0),
        false => gemm::Parallelism::None,
    };
    let adds = there == There::AddedTo;
    let step = |stride: usize| stride as isize;
    // SAFETY: `Matrix::new` has checked that every element of `a` and `b` lies in its slice, in steps
    // that an `isize` holds; `out` has m rows of n elements side by side, is initialised, and is
    // borrowed by nobody else.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            step(n),
            adds,
            a.data.as_ptr(),
            step(a.strides[1]),
            step(a.strides[0]),
            b.data.as_ptr(),
            step(b.strides[1]),
            step(b.strides[0]),
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

    /// In 64 bits, element by element.
    fn reference(a: &Matrix<'_>, b: &Matrix<'_>, r: usize, c: usize) -> f64 {
        (0..a.extent[1])
            .map(|k| element(a, r, k) * element(b, k, c))
            .sum()
    }

    #[test]
    fn products_are_those_of_the_definition_on_awkward_shapes() {
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
            // Rows that lie apart, and columns before rows.
            let a = Matrix::new(&left, [m, k], [2 * k, 1]);
            let b = Matrix::new(&right, [n, k], [k, 1]).transposed();
            for shared in [false, true] {
                let mut out = noise(m * n, 3);
                let before = out.clone();
                multiply(a, b, &mut out, There::AddedTo, shared);
                let mut alone = vec![f32::NAN; m * n];
                multiply(a, b, &mut alone, There::Replaced, shared);
                for i in 0..m * n {
                    let expected = reference(&a, &b, i / n, i % n);
                    let limit = 1e-6 * (k as f64).sqrt() + 1e-6;
                    let error = (f64::from(alone[i]) - expected).abs();
                    assert!(error < limit, "{m}x{k}x{n}: {error}");
                    worst = worst.max(error / limit);
                    let error = (f64::from(out[i]) - expected - f64::from(before[i])).abs();
                    assert!(error < 2.0 * limit, "{m}x{k}x{n}, added: {error}");
                }
            }
        }
        println!("worst error {worst:.2} of 1e-6 for each root of a summand");
    }

    #[test]
    fn matrices_outside_of_their_slice_are_refused() {
        let data = [0.0; 12];
        Matrix::new(&data, [3, 4], [4, 1]);
        Matrix::new(&data, [0, 4], [100, 1]);
        for (extent, strides) in [
            ([3, 5], [4, 1]),
            ([4, 3], [4, 1]),
            ([2, 2], [usize::MAX, 1]),
            ([usize::MAX, 2], [2, 1]),
        ] {
            let made = std::panic::catch_unwind(|| Matrix::new(&data, extent, strides).extent);
            assert!(made.is_err(), "{extent:?} {strides:?}");
        }
    }
}
