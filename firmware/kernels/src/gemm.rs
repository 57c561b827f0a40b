//! GEMM: `C = A B`, with A broadcast value by value and B loaded vector by vector.
//!
//! B and C are stored in panels of `NR` columns ([`nr`]), row-major within a panel. The register
//! tile is `MR x NR` ([`mr`], [`nr`]); both depend on the instruction set.

pub use row_major::SmallProducts;

use crate::simd::{Simd, SimdOp, SupportedIsa, dispatch};

/// Values per cache line.
const CACHE_LINE: usize = 16;
/// Upper limit of `MR`.
const MAX_MR: usize = 12;

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

    /// The instruction set that the matrix is packed for.
    pub fn isa(&self) -> SupportedIsa {
        self.isa
    }
}

/// What is done with a product before it is stored. A bias has one value per row of C.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    /// `C = A B`
    Store,
    /// `C = A B + bias`
    Bias(&'a [f32]),
    /// `C += A B + bias`
    Accumulate(&'a [f32]),
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
                    let bias = match self.epilogue {
                        Epilogue::Store => None,
                        Epilogue::Bias(b) | Epilogue::Accumulate(b) => Some(b.as_ptr().add(start)),
                    };
                    let tile = Tile {
                        depth: *depth,
                        a: data.as_ptr().add(start * depth),
                        a_row: 1,
                        a_k: len,
                        b: self.b.as_ptr().add(panel * self.b_stride),
                        b_k: S::NR,
                        c: (self.c.as_mut_ptr()).add(panel * self.c_stride + start * S::NR),
                        c_row: S::NR,
                        bias,
                        accumulate: matches!(self.epilogue, Epilogue::Accumulate(_)),
                        // All panels together prefetch the next chunk of A.
                        prefetch: data
                            .as_ptr()
                            .wrapping_add((start + len) * depth + panel * lines * CACHE_LINE),
                        prefetch_step: CACHE_LINE,
                        prefetch_count: lines,
                    };
                    tile.eval::<S>(len);
                }
            }
        }
    }
}

/// `C = A B` with row-major A `[rows][depth]` and C `[rows][cols]`, whose rows are `a_stride` and
/// `c_stride` values apart, and B in panels `[cols / NR][depth][NR]`. `cols` is a multiple of `NR`.
#[derive(Debug)]
pub(crate) struct GemmPackedB<'a> {
    pub rows: usize,
    pub depth: usize,
    pub cols: usize,
    pub a: &'a [f32],
    pub a_stride: usize,
    pub b: &'a [f32],
    pub c: &'a mut [f32],
    pub c_stride: usize,
}

impl GemmPackedB<'_> {
    pub fn run(self, isa: SupportedIsa) {
        assert_eq!(self.cols % nr(isa), 0);
        assert!(self.b.len() >= self.depth * self.cols);
        if let Some(last) = self.rows.checked_sub(1) {
            assert!(self.a.len() >= last * self.a_stride + self.depth);
            assert!(self.c.len() >= last * self.c_stride + self.cols);
            dispatch(isa, self);
        }
    }
}

impl SimdOp for GemmPackedB<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        for col in (0..self.cols).step_by(S::NR) {
            let tiles = self.rows.div_ceil(S::MR);
            for (i, (start, len)) in chunks(self.rows, S::MR).enumerate() {
                // SAFETY: `run` has checked that the last row of `a` and `c` and the last panel of
                // `b` are within their slices.
                unsafe {
                    let tile = Tile {
                        depth: self.depth,
                        a: self.a.as_ptr().add(start * self.a_stride),
                        a_row: self.a_stride,
                        a_k: 1,
                        b: self.b.as_ptr().add(col * self.depth),
                        b_k: S::NR,
                        c: self.c.as_mut_ptr().add(start * self.c_stride + col),
                        c_row: self.c_stride,
                        bias: None,
                        accumulate: false,
                        // All tiles of this panel together prefetch the next panel of B. Evenly
                        // spread steps of less than a cache line are faster here.
                        prefetch: (self.b.as_ptr())
                            .wrapping_add((col + S::NR + i * S::NR / tiles) * self.depth),
                        prefetch_step: S::NR.div_ceil(tiles),
                        prefetch_count: self.depth,
                    };
                    tile.eval::<S>(len);
                }
            }
        }
    }
}

/// The computation of one register tile: at most `MR` rows by two vectors. Strides are in values.
#[derive(Clone, Copy)]
struct Tile {
    depth: usize,
    /// Element (row, k) of A is at `row * a_row + k * a_k`.
    a: *const f32,
    a_row: usize,
    a_k: usize,
    /// Row k of B is at `k * b_k`.
    b: *const f32,
    b_k: usize,
    c: *mut f32,
    c_row: usize,
    bias: Option<*const f32>,
    accumulate: bool,
    /// First address to prefetch, the step to the next, and how many; at most one for each k.
    prefetch: *const f32,
    prefetch_step: usize,
    prefetch_count: usize,
}

impl Tile {
    /// # Safety
    /// The elements of `rows` rows and two vectors of columns are in bounds of their allocations.
    #[inline(always)]
    unsafe fn eval<S: Simd>(self, rows: usize) {
        debug_assert!(rows <= S::MR && S::MR <= MAX_MR);
        // SAFETY: guaranteed by the caller for `rows` rows.
        unsafe {
            match rows {
                1 => self.rows::<S, 1>(),
                2 => self.rows::<S, 2>(),
                3 => self.rows::<S, 3>(),
                4 => self.rows::<S, 4>(),
                5 => self.rows::<S, 5>(),
                6 => self.rows::<S, 6>(),
                7 if S::MR >= 7 => self.rows::<S, 7>(),
                8 if S::MR >= 8 => self.rows::<S, 8>(),
                9 if S::MR >= 9 => self.rows::<S, 9>(),
                10 if S::MR >= 10 => self.rows::<S, 10>(),
                11 if S::MR >= 11 => self.rows::<S, 11>(),
                12 if S::MR >= 12 => self.rows::<S, 12>(),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As for [`Tile::eval`], with `M` rows.
    #[inline(always)]
    unsafe fn rows<S: Simd, const M: usize>(self) {
        let mut sums = [[S::splat(0.0); 2]; M];
        let mut prefetch = self.prefetch;
        // SAFETY: guaranteed by the caller.
        unsafe {
            if self.a_row == 1 {
                // A prefetch occupies a slot of the memory queue even if the line is already in
                // flight, so each line is prefetched once.
                let prefetched = self.prefetch_count.min(self.depth);
                let (mut a, mut b) = (self.a, self.b);
                for ks in [0..prefetched, prefetched..self.depth] {
                    let prefetching = ks.start == 0;
                    for _ in ks {
                        if prefetching {
                            S::prefetch(prefetch);
                            prefetch = prefetch.wrapping_add(self.prefetch_step);
                        }
                        let r = [S::load_ptr(b), S::load_ptr(b.wrapping_add(S::LANES))];
                        for (m, sum) in sums.iter_mut().enumerate() {
                            let l = S::splat_ptr(a.wrapping_add(m));
                            *sum = [S::fma(l, r[0], sum[0]), S::fma(l, r[1], sum[1])];
                        }
                        // After the last k these point past the end and are not read.
                        a = a.wrapping_add(self.a_k);
                        b = b.wrapping_add(self.b_k);
                    }
                }
            } else {
                let rows: [*const f32; M] =
                    std::array::from_fn(|m| self.a.wrapping_add(m * self.a_row));
                let mut b = self.b;
                for k in 0..self.depth {
                    S::prefetch(prefetch);
                    prefetch = prefetch.wrapping_add(self.prefetch_step);
                    let r = [S::load_ptr(b), S::load_ptr(b.wrapping_add(S::LANES))];
                    for (row, sum) in rows.iter().zip(&mut sums) {
                        let l = S::splat_ptr(row.wrapping_add(k));
                        *sum = [S::fma(l, r[0], sum[0]), S::fma(l, r[1], sum[1])];
                    }
                    b = b.wrapping_add(self.b_k);
                }
            }
            for (m, [mut low, mut high]) in sums.into_iter().enumerate() {
                let c = self.c.wrapping_add(m * self.c_row);
                if let Some(bias) = self.bias {
                    let bias = S::splat_ptr(bias.wrapping_add(m));
                    (low, high) = (S::add(low, bias), S::add(high, bias));
                }
                if self.accumulate {
                    low = S::add(S::load_ptr(c), low);
                    high = S::add(S::load_ptr(c.wrapping_add(S::LANES)), high);
                }
                S::store_ptr(c, low);
                S::store_ptr(c.wrapping_add(S::LANES), high);
            }
        }
    }
}

mod row_major;
#[cfg(test)]
mod tests;
