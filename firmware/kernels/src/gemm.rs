//! GEMM: `C = A B`, with A broadcast value by value and B loaded vector by vector.
//!
//! B and C are stored in panels of `NR` columns ([`nr`]), row-major within a panel. The register
//! tile is `MR x NR` ([`mr`], [`nr`]); both depend on the instruction set.

mod narrow;
mod narrow_rows;
mod packed;
mod row_major;
mod softmax;
mod tile;

pub(crate) use narrow_rows::{NarrowColumns, round_row};
pub(crate) use packed::{Packed, Scratch};
pub use row_major::SmallProducts;
pub(crate) use softmax::MAX_INT8_ROWS;

use crate::simd::{
    Fp32, Narrow, NarrowOp, Operand, Simd, SimdOp, SupportedFormat, SupportedIsa, dispatch,
    dispatch_narrow,
};
use narrow::NarrowB;
use tile::Tile;

/// Values per cache line.
const CACHE_LINE: usize = 16;

/// Splits `0..n` into as few near-equal chunks of at most `max` as possible; yields
/// `(start, length)`.
pub(crate) fn chunks(n: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = n.div_ceil(max).max(1);
    let (base, longer) = (n / count, n % count);
    (0..count).map(move |i| (i * base + i.min(longer), base + usize::from(i < longer)))
}

/// Rows of the register tile of an instruction set.
pub(crate) fn mr(isa: SupportedIsa) -> usize {
    struct Mr;
    impl SimdOp for Mr {
        type Output = usize;
        #[inline(always)]
        fn eval<S: Simd>(self) -> usize {
            S::MR
        }
    }
    dispatch(isa, Mr)
}

/// Columns of the register tile of an instruction set, which is the width of a panel.
pub(crate) fn nr(isa: SupportedIsa) -> usize {
    struct Nr;
    impl SimdOp for Nr {
        type Output = usize;
        #[inline(always)]
        fn eval<S: Simd>(self) -> usize {
            S::NR
        }
    }
    dispatch(isa, Nr)
}

/// The left operand `[rows][depth]`, packed in chunks of at most `MR` rows: each chunk is
/// `[depth][rows of the chunk]`.
#[derive(Debug, Clone)]
pub(crate) struct PackedA {
    rows: usize,
    depth: usize,
    data: Vec<f32>,
    isa: SupportedIsa,
}

impl PackedA {
    /// Packs the matrix whose element (row, k) is `at(row, k)`.
    pub fn new(
        isa: SupportedIsa,
        rows: usize,
        depth: usize,
        at: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let mut packed = Self {
            rows,
            depth,
            data: vec![0.0; rows * depth],
            isa,
        };
        packed.fill(at);
        packed
    }

    /// Replaces the values, keeping the shape.
    pub fn fill(&mut self, at: impl Fn(usize, usize) -> f32) {
        let mut out = self.data.iter_mut();
        for (start, len) in chunks(self.rows, mr(self.isa)) {
            for k in 0..self.depth {
                for (row, out) in (start..start + len).zip(&mut out) {
                    *out = at(row, k);
                }
            }
        }
    }

    /// Rows of A and C.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of A and rows of B.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

/// Operation on a product before it is stored. A bias has one value per row of C.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    /// `C = A B`
    Store,
    /// `C = A B + bias`
    Bias(&'a [f32]),
    /// `C += A B + bias`
    Accumulate(&'a [f32]),
}

impl<'a> Epilogue<'a> {
    /// The bias, and whether the product is added to C.
    fn parts(self) -> (Option<&'a [f32]>, bool) {
        match self {
            Self::Store => (None, false),
            Self::Bias(bias) => (Some(bias), false),
            Self::Accumulate(bias) => (Some(bias), true),
        }
    }
}

/// `C = A B` for `panels` panels of `NR` columns: panel p of B is `[depth][NR]` and starts at
/// `b[p * b_stride]`, panel p of C is `[rows][NR]` and starts at `c[p * c_stride]`.
pub(crate) fn gemm(
    a: &PackedA,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
    panels: usize,
    epilogue: Epilogue<'_>,
) {
    let columns = nr(a.isa);
    let Some(last) = panels.checked_sub(1) else {
        return;
    };
    assert!(b.len() >= last * b_stride + a.depth * columns);
    assert!(c.len() >= last * c_stride + a.rows * columns);
    if let Epilogue::Bias(bias) | Epilogue::Accumulate(bias) = epilogue {
        assert!(bias.len() >= a.rows);
    }
    dispatch(
        a.isa,
        GemmPackedA {
            a,
            b,
            b_stride,
            c,
            c_stride,
            panels,
            epilogue,
        },
    );
}

struct GemmPackedA<'a> {
    a: &'a PackedA,
    b: &'a [f32],
    b_stride: usize,
    c: &'a mut [f32],
    c_stride: usize,
    panels: usize,
    epilogue: Epilogue<'a>,
}

impl SimdOp for GemmPackedA<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let PackedA {
            rows, depth, data, ..
        } = self.a;
        for (start, len) in chunks(*rows, S::MR) {
            let lines = (len * depth).div_ceil(CACHE_LINE * self.panels);
            for panel in 0..self.panels {
                // SAFETY: `gemm` has checked the lengths of `b`, `c` and the bias; the packed data
                // hold `rows * depth` values, those of this chunk from `start * depth`.
                unsafe {
                    let (bias, accumulate) = self.epilogue.parts();
                    let tile = Tile {
                        depth: *depth,
                        a: data.as_ptr().add(start * depth),
                        a_row: 1,
                        a_k: len,
                        b: self.b.as_ptr().add(panel * self.b_stride),
                        b_k: S::NR,
                        c: (self.c.as_mut_ptr()).add(panel * self.c_stride + start * S::NR),
                        c_row: S::NR,
                        offsets: None,
                        scales: None,
                        bias: bias.map(|b| b.as_ptr().add(start)),
                        accumulate,
                        // All panels together prefetch the next chunk of A.
                        prefetch: data
                            .as_ptr()
                            .wrapping_add((start + len) * depth + panel * lines * CACHE_LINE),
                        prefetch_step: CACHE_LINE,
                        prefetch_count: lines,
                    };
                    tile.eval::<Fp32<S>>(len);
                }
            }
        }
    }
}

/// `C = A B` with row-major A `[rows][depth]` and C `[rows][cols]`, whose rows are `a_stride` and
/// `c_stride` values apart, and B in panels `[cols / NR][depth][NR]`. `cols` is a multiple of `NR`. A and B
/// are 32-bit floats, or words of narrow values; depth and strides are then in words.
#[derive(Debug)]
pub(crate) struct GemmPackedB<'a, T> {
    pub rows: usize,
    pub depth: usize,
    pub cols: usize,
    pub a: &'a [T],
    pub a_stride: usize,
    pub b: &'a [T],
    pub c: &'a mut [f32],
    pub c_stride: usize,
    /// Factors of each row and of each column of the product.
    pub scales: Option<[&'a [f32]; 2]>,
}

impl GemmPackedB<'_, f32> {
    pub fn run(self, isa: SupportedIsa) {
        if self.check(nr(isa)) {
            dispatch(isa, self);
        }
    }
}

impl GemmPackedB<'_, u32> {
    fn run_narrow(self, format: SupportedFormat) {
        if self.check(nr(format.isa())) {
            dispatch_narrow(format, self);
        }
    }
}

impl SimdOp for GemmPackedB<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        self.tiles::<Fp32<S>>();
    }
}

impl NarrowOp for GemmPackedB<'_, u32> {
    type Output = ();

    #[inline(always)]
    fn eval<N: Narrow>(self) {
        self.tiles::<N>();
    }
}

impl<T: Copy> GemmPackedB<'_, T> {
    /// Whether there is anything to compute.
    fn check(&self, columns: usize) -> bool {
        assert_eq!(self.cols % columns, 0);
        assert!(self.b.len() >= self.depth * self.cols);
        let Some(last) = self.rows.checked_sub(1) else {
            return false;
        };
        assert!(self.a.len() >= last * self.a_stride + self.depth);
        assert!(self.c.len() >= last * self.c_stride + self.cols);
        if let Some([rows, columns]) = self.scales {
            assert!(rows.len() >= self.rows && columns.len() >= self.cols);
        }
        true
    }

    #[inline(always)]
    fn tiles<O: Operand<Word = T>>(self) {
        let (columns, most) = (<O::S as Simd>::NR, <O::S as Simd>::MR);
        for col in (0..self.cols).step_by(columns) {
            let tiles = self.rows.div_ceil(most);
            for (i, (start, len)) in chunks(self.rows, most).enumerate() {
                // SAFETY: `check` has checked that the last row of `a` and `c`, the last panel of `b` and
                // the last scales are within their slices.
                unsafe {
                    let tile = Tile {
                        depth: self.depth,
                        a: self.a.as_ptr().add(start * self.a_stride),
                        a_row: self.a_stride,
                        a_k: 1,
                        b: self.b.as_ptr().add(col * self.depth),
                        b_k: columns,
                        c: self.c.as_mut_ptr().add(start * self.c_stride + col),
                        c_row: self.c_stride,
                        offsets: None,
                        scales: (self.scales).map(|[row, column]| {
                            [row.as_ptr().add(start), column.as_ptr().add(col)]
                        }),
                        bias: None,
                        accumulate: false,
                        // All tiles of this panel together prefetch the next panel of B. Evenly
                        // spread steps of less than a cache line are faster here.
                        prefetch: (self.b.as_ptr())
                            .wrapping_add((col + columns + i * columns / tiles) * self.depth),
                        prefetch_step: columns.div_ceil(tiles),
                        prefetch_count: self.depth,
                    };
                    tile.eval::<O>(len);
                }
            }
        }
    }
}

#[cfg(test)]
mod narrow_tests;
#[cfg(test)]
mod same_bits_tests;
#[cfg(test)]
mod tests;
