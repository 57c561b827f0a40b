//! Products with row-major activations on the left and packed weights on the right, for convolutions.

use super::{
    GemmPackedB,
    narrow::{Range, Rounding},
    nr,
};
use crate::simd::{Format, Narrow, Simd, SupportedFormat};

/// The right operand `[depth][columns]` in panels `[columns / NR][words][NR]`, in a 16-bit format.
#[derive(Debug, Clone)]
pub(crate) struct NarrowColumns {
    format: SupportedFormat,
    depth: usize,
    columns: usize,
    data: Vec<u32>,
    /// Scale of each column, if the format has scales.
    scales: Vec<f32>,
}

impl NarrowColumns {
    /// Packs the matrix whose element (k, column) is `at(k, column)`. `columns` is a multiple of `NR`.
    pub fn new(
        format: SupportedFormat,
        depth: usize,
        columns: usize,
        at: impl Fn(usize, usize) -> f32,
    ) -> Self {
        // The instruction for bytes needs an offset of one operand, which is not implemented here.
        assert_ne!(format.format(), Format::Int8, "a format of 16 bits");
        let rounding = Rounding::new(format, depth);
        let words = depth.div_ceil(format.format().group());
        let scales = match format.format().is_scaled() {
            false => Vec::new(),
            true => (0..columns)
                .map(|column| rounding.scale((0..depth).map(|k| at(k, column))))
                .collect(),
        };
        let width = nr(format.isa());
        let mut data = Vec::with_capacity(words * columns);
        for panel in (0..columns).step_by(width) {
            for word in 0..words {
                data.extend((panel..panel + width).map(|column| {
                    let scale = scales.get(column).copied().unwrap_or(1.0);
                    rounding.word(word, scale, |k| at(k, column))
                }));
            }
        }
        // A panel has two vectors.
        for words in data.chunks_exact_mut(width / 2) {
            format.format().arrange(words);
        }
        Self {
            format,
            depth,
            columns,
            data,
            scales,
        }
    }

    /// The format.
    pub fn format(&self) -> SupportedFormat {
        self.format
    }

    /// Largest magnitude of scaled values of the left operand; 1 for bfloat16.
    pub fn limit(&self) -> f32 {
        self.format.format().limit(self.depth).unwrap_or(1) as f32
    }

    /// `C = A B` for `rows` rows of A, which are `a_stride` words apart and have a scale each in scaled formats.
    pub fn multiply(
        &self,
        rows: usize,
        (a, a_stride): (&[u32], usize),
        scales: &[f32],
        (c, c_stride): (&mut [f32], usize),
    ) {
        let scaled = self.format.format().is_scaled();
        let gemm = GemmPackedB {
            rows,
            depth: self.depth.div_ceil(self.format.format().group()),
            cols: self.columns,
            a,
            a_stride,
            b: &self.data,
            c,
            c_stride,
            scales: scaled.then_some([scales, &self.scales]),
        };
        gemm.run_narrow(self.format);
    }
}

/// Rounds a row of values that are neighbors in depth to words and returns the scale. The length is a
/// multiple of the vector length; `limit` is [`NarrowColumns::limit`].
#[inline(always)]
pub(crate) fn round_row<N: Narrow>(row: &[f32], limit: f32, out: &mut [u32]) -> f32 {
    let lanes = N::S::LANES;
    let (mut scale, mut factor) = (1.0, N::S::splat(1.0));
    if N::FORMAT.is_scaled() {
        let mut range = Range::new::<N::S>();
        for x in row.chunks_exact(lanes) {
            range.add::<N::S>(N::S::load(x));
        }
        (scale, factor) = range.across::<N::S>(limit);
    }
    let words = lanes / N::FORMAT.group();
    for (x, out) in row.chunks_exact(lanes).zip(out.chunks_exact_mut(words)) {
        // SAFETY: `out` holds a vector of values.
        unsafe { N::store_row(out.as_mut_ptr(), N::S::load(x), factor) }
    }
    scale
}
