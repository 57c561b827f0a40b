//! The keys of cells.

use loftup_spec::naf::{HEAD_WIDTH, WIDTH};

use super::frame::{Axis, Patch};
use crate::simd::{Simd, SimdOp, SupportedIsa, dispatch};

/// One over the square root of the head width.
const SCALE: f32 = 0.125;
const _: () = assert!(HEAD_WIDTH == 64);

/// Computes the key of a cell: the mean of the encodings of its pixels, times the scale of the attention.
pub(super) fn write_key(
    isa: SupportedIsa,
    patches: [Patch<'_>; 2],
    (rows, columns): (&Axis, &Axis),
    (row, column): (usize, usize),
    key: &mut [f32],
) {
    let (y, x) = (rows.pooled(row), columns.pooled(column));
    for (key, patch) in key.chunks_exact_mut(WIDTH).zip(patches) {
        let mean = dispatch(isa, Mean { patch, y, x });
        key.iter_mut()
            .zip(mean)
            .for_each(|(to, from)| *to = from * SCALE);
    }
}

/// The mean encoding over rows `y.0..y.1` and columns `x.0..x.1`.
struct Mean<'a> {
    patch: Patch<'a>,
    y: (usize, usize),
    x: (usize, usize),
}

impl SimdOp for Mean<'_> {
    type Output = [f32; WIDTH];

    #[inline(always)]
    fn eval<S: Simd>(self) -> [f32; WIDTH] {
        let mut sum = [0f32; WIDTH];
        let width = self.x.1 - self.x.0;
        for y in self.y.0..self.y.1 {
            for pixel in self.patch.row(y, self.x.0, width).as_chunks::<WIDTH>().0 {
                for (sum, x) in sum.iter_mut().zip(pixel) {
                    *sum += x;
                }
            }
        }
        let over = 1.0 / (width * (self.y.1 - self.y.0)) as f32;
        sum.map(|sum| sum * over)
    }
}
