//! Products of row-major matrices without packing.

use super::{Tile, chunks, nr};
use crate::simd::{Fp32, Isa, Simd, SimdOp, SupportedIsa, dispatch};

/// `C = A B` on row-major matrices without packing, for many small products with parts of one large B.
#[derive(Debug, Clone, Copy)]
pub struct SmallProducts {
    isa: SupportedIsa,
}

impl SmallProducts {
    /// Uses the fastest instruction set of this CPU.
    pub fn new() -> Self {
        Self::with_isa(Isa::detect()).unwrap_or_else(|| unreachable!("a detected instruction set"))
    }

    /// Uses an instruction set; `None` if this CPU does not have it.
    pub fn with_isa(isa: Isa) -> Option<Self> {
        isa.supported().map(|isa| Self { isa })
    }

    /// The number of columns of B and C must be a multiple of this.
    pub fn columns(&self) -> usize {
        nr(self.isa)
    }

    /// `c = a b`, where `a` is `[rows][depth]`, `c` is `[rows][columns]`, and the rows of `b` are
    /// `b_stride` values apart. A product does not depend on the position of its row and column.
    ///
    /// # Panics
    /// If `columns` is not a multiple of [`SmallProducts::columns`], or a matrix is outside its slice.
    pub fn multiply(
        &self,
        a: &[f32],
        (b, b_stride): (&[f32], usize),
        c: &mut [f32],
        (rows, depth, columns): (usize, usize, usize),
    ) {
        assert_eq!(columns % self.columns(), 0, "columns of a product");
        assert!(a.len() >= rows * depth && c.len() >= rows * columns);
        if let Some(last) = depth.checked_sub(1) {
            assert!(b.len() >= last * b_stride + columns);
        }
        dispatch(
            self.isa,
            RowMajor {
                a,
                b,
                b_stride,
                c,
                rows,
                depth,
                columns,
            },
        );
    }
}

impl Default for SmallProducts {
    fn default() -> Self {
        Self::new()
    }
}

struct RowMajor<'a> {
    a: &'a [f32],
    b: &'a [f32],
    b_stride: usize,
    c: &'a mut [f32],
    rows: usize,
    depth: usize,
    columns: usize,
}

impl SimdOp for RowMajor<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        for column in (0..self.columns).step_by(S::NR) {
            for (start, len) in chunks(self.rows, S::MR) {
                // SAFETY: `multiply` has checked that the last row of each matrix is in its slice.
                unsafe {
                    let b = self.b.as_ptr().wrapping_add(column);
                    let tile = Tile {
                        depth: self.depth,
                        a: self.a.as_ptr().add(start * self.depth),
                        a_row: self.depth,
                        a_k: 1,
                        b,
                        b_k: self.b_stride,
                        c: self.c.as_mut_ptr().add(start * self.columns + column),
                        c_row: self.columns,
                        offsets: None,
                        scales: None,
                        bias: None,
                        accumulate: false,
                        // The next columns of the same rows.
                        prefetch: b.wrapping_add(S::NR),
                        prefetch_step: self.b_stride,
                        prefetch_count: self.depth,
                    };
                    tile.eval::<Fp32<S>>(len);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::noise;

    #[test]
    fn products_match_the_definition_and_do_not_depend_on_the_place() {
        for isa in SupportedIsa::all() {
            let products = SmallProducts::with_isa(isa.isa()).unwrap();
            let nr = products.columns();
            for (rows, depth, panels) in [
                (1, 1, 1),
                (7, 3, 2),
                (8, 112, 1),
                (13, 384, 3),
                (25, 0, 1),
                (0, 5, 1),
            ] {
                let (columns, stride) = (panels * nr, panels * nr + 5);
                // Row r of A is the same as row r - 3, column c of B as column c - 5.
                let a = noise(1, (rows + 3) * depth);
                let a: Vec<f32> = (0..rows * depth)
                    .map(|i| a[i / depth % 3 * depth + i % depth])
                    .collect();
                let b = noise(2, (depth + 1) * stride);
                let b: Vec<f32> = (0..depth * stride)
                    .map(|i| b[i / stride * stride + i % stride % 5])
                    .collect();
                let mut c = vec![f32::NAN; rows * columns];
                products.multiply(&a, (&b, stride), &mut c, (rows, depth, columns));
                for (i, found) in c.iter().enumerate() {
                    let (row, column) = (i / columns, i % columns);
                    let exact: f64 = (0..depth)
                        .map(|k| f64::from(a[row * depth + k]) * f64::from(b[k * stride + column]))
                        .sum();
                    // Each of `depth` additions of values below about sqrt(depth) rounds.
                    let limit = 1e-6 + 1e-7 * depth as f64;
                    assert!(
                        (f64::from(*found) - exact).abs() < limit,
                        "{isa} {rows}x{depth}"
                    );
                    let same = c[row % 3 * columns + column % 5];
                    assert_eq!(
                        found.to_bits(),
                        same.to_bits(),
                        "{isa}: row {row}, column {column}"
                    );
                }
            }
        }
    }
}
