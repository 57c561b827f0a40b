//! Products of bfloat16 and of 8-bit integers.
//!
//! Both operands are words of 32 bits that hold a group of values each, neighbors in depth: two of
//! bfloat16, or four bytes. Otherwise they are packed as 32-bit floats are, and the same register tile
//! multiplies them. What is missing in the last group is zero.
//!
//! 8-bit integers: each row of A has a scale, and so has each column of B. Values of B are offset by 128,
//! because the instruction takes unsigned values, and the sums start with what takes the offset back. They
//! are exact: 2^31 is not reached below a depth of 66,000.

use super::{CACHE_LINE, Epilogue, Tile, chunks};
use crate::simd::{Format, Narrow, NarrowOp, Simd, SupportedFormat, bf16_bits, dispatch_narrow};

/// Rows and columns of the register tile of every format: 16 words per vector.
pub(super) const MR: usize = 12;
pub(crate) const NR: usize = 32;

/// The left operand `[rows][depth]`, packed as [`super::PackedA`].
#[derive(Debug, Clone)]
pub(crate) struct NarrowA {
    format: SupportedFormat,
    rows: usize,
    depth: usize,
    data: Vec<u32>,
    /// Scale of each row, and what its sums start with. Only for 8-bit integers.
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

impl NarrowA {
    /// Zeros.
    pub fn new(format: SupportedFormat, rows: usize, depth: usize) -> Self {
        let words = depth.div_ceil(format.format().group());
        let integers = match format.format() {
            Format::Bf16 => 0,
            Format::Int8 => rows,
        };
        Self {
            format,
            rows,
            depth,
            data: vec![0; rows * words],
            scales: vec![0.0; integers],
            offsets: vec![0; integers],
        }
    }

    /// Replaces the values: element (row, k) is `at(row, k)`.
    pub fn fill(&mut self, at: impl Fn(usize, usize) -> f32) {
        let format = self.format.format();
        let (group, words) = (format.group(), self.words());
        for (row, (scale, offset)) in self.scales.iter_mut().zip(&mut self.offsets).enumerate() {
            let row = (0..self.depth).map(|k| at(row, k));
            *scale = scale_of(row.clone());
            let sum: i32 = row.map(|x| i32::from(quantized(x, *scale))).sum();
            *offset = sum * -128;
        }
        let mut out = self.data.iter_mut();
        for (start, len) in chunks(self.rows, MR) {
            for word in 0..words {
                for (row, out) in (start..start + len).zip(&mut out) {
                    *out = 0;
                    for (i, k) in (word * group..self.depth.min((word + 1) * group)).enumerate() {
                        *out |= match format {
                            Format::Bf16 => u32::from(bf16_bits(at(row, k))) << (16 * i),
                            Format::Int8 => {
                                let byte = quantized(at(row, k), self.scales[row]);
                                u32::from(byte.cast_unsigned()) << (8 * i)
                            }
                        };
                    }
                }
            }
        }
    }

    pub fn format(&self) -> SupportedFormat {
        self.format
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Words per row.
    fn words(&self) -> usize {
        self.depth.div_ceil(self.format.format().group())
    }
}

/// The scale of a row of 8-bit integers, the largest of which is 127; not finite if a value is not.
fn scale_of(row: impl Iterator<Item = f32>) -> f32 {
    let largest = row.fold(0.0, |max: f32, x| match x.is_finite() {
        true => max.max(x.abs()),
        false => f32::NAN,
    });
    largest / 127.0
}

/// `x / scale` as an 8-bit integer; 0 if the scale is.
fn quantized(x: f32, scale: f32) -> i8 {
    // Out of -127..=127 only by a rounding error of the scale; casts saturate.
    (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

/// The right operand: panels `[panels][words][NR]`, and for 8-bit integers the scale of each column.
#[derive(Debug, Default)]
pub(crate) struct NarrowB {
    data: Vec<u32>,
    /// `[panels][NR]`.
    scales: Vec<f32>,
}

impl NarrowB {
    /// Packs panels of 32-bit floats: panel p is `[depth][NR]` and starts at `b[p * stride]`.
    pub fn pack(
        &mut self,
        format: SupportedFormat,
        b: &[f32],
        stride: usize,
        depth: usize,
        panels: usize,
    ) {
        let words = depth.div_ceil(format.format().group());
        self.data.resize(panels * words * NR, 0);
        self.scales.resize(panels * NR, 1.0);
        let data = self.data.chunks_exact_mut((words * NR).max(1));
        for (panel, (out, scales)) in data.zip(self.scales.chunks_exact_mut(NR)).enumerate() {
            let b = &b[panel * stride..][..depth * NR];
            dispatch_narrow(format, PackPanel { b, out, scales });
        }
    }
}

/// Rounds a panel `[depth][NR]` to words.
struct PackPanel<'a> {
    b: &'a [f32],
    out: &'a mut [u32],
    /// Scales of the columns, for 8-bit integers.
    scales: &'a mut [f32],
}

impl NarrowOp for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<N: Narrow>(self) {
        let lanes = N::S::LANES;
        assert_eq!((N::S::NR, N::S::MR), (NR, MR));
        let group = N::FORMAT.group();
        for at in [0, lanes] {
            let mut factor = N::S::splat(1.0);
            if N::FORMAT == Format::Int8 {
                let (zero, mut max) = (N::S::splat(0.0), N::S::splat(0.0));
                // Zero, or NaN if a value is not finite: the maximum can lose it.
                let mut invalid = zero;
                for row in self.b.chunks_exact(NR) {
                    let x = N::S::load(&row[at..]);
                    max = N::S::max(max, N::S::max(x, N::S::sub(zero, x)));
                    invalid = N::S::fma(x, zero, invalid);
                }
                let scale = N::S::mul(max, N::S::splat(1.0 / 127.0));
                N::S::store(&mut self.scales[at..], N::S::add(scale, invalid));
                // A column of zeros has no finite factor and needs none.
                let inverse = N::S::div(N::S::splat(127.0), max);
                factor = N::S::select_lt(zero, max, inverse, zero);
            }
            let words = self.out.chunks_exact_mut(NR);
            for (rows, out) in self.b.chunks(group * NR).zip(words) {
                let mut vectors = [N::S::splat(0.0); 4];
                for (vector, row) in vectors.iter_mut().zip(rows.chunks_exact(NR)) {
                    *vector = N::S::load(&row[at..]);
                }
                let out = &mut out[at..];
                assert!(out.len() >= lanes);
                // SAFETY: `out` holds at least a vector of words.
                unsafe { N::store(out.as_mut_ptr(), N::pack(vectors, factor)) }
            }
        }
    }
}

/// `C = A B` as [`super::gemm`], with panels of B that [`NarrowB::pack`] has packed.
pub(crate) fn gemm_narrow(
    a: &NarrowA,
    b: &NarrowB,
    c: &mut [f32],
    c_stride: usize,
    panels: usize,
    epilogue: Epilogue<'_>,
) {
    let Some(last) = panels.checked_sub(1) else {
        return;
    };
    assert!(b.data.len() >= panels * a.words() * NR);
    assert!(b.scales.len() >= panels * NR);
    assert!(c.len() >= last * c_stride + a.rows * NR);
    if let Epilogue::Bias(bias) | Epilogue::Accumulate(bias) = epilogue {
        assert!(bias.len() >= a.rows);
    }
    dispatch_narrow(
        a.format,
        GemmNarrow {
            a,
            b,
            c,
            c_stride,
            panels,
            epilogue,
        },
    );
}

struct GemmNarrow<'a> {
    a: &'a NarrowA,
    b: &'a NarrowB,
    c: &'a mut [f32],
    c_stride: usize,
    panels: usize,
    epilogue: Epilogue<'a>,
}

impl NarrowOp for GemmNarrow<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<N: Narrow>(self) {
        let (a, words) = (self.a, self.a.words());
        let integers = N::FORMAT == Format::Int8;
        for (start, len) in chunks(a.rows, MR) {
            let lines = (len * words).div_ceil(CACHE_LINE * self.panels);
            for panel in 0..self.panels {
                // SAFETY: `gemm_narrow` has checked the lengths of `b`, its scales, `c` and the bias; A
                // holds `rows * words` words, those of this chunk from `start * words`, and for integers
                // a scale and an offset per row. Register tiles have `MR` rows at most, `NR` columns.
                unsafe {
                    let (bias, accumulate) = self.epilogue.parts();
                    let tile = Tile {
                        depth: words,
                        a: a.data.as_ptr().add(start * words),
                        a_row: 1,
                        a_k: len,
                        b: self.b.data.as_ptr().add(panel * words * NR),
                        b_k: NR,
                        c: (self.c.as_mut_ptr()).add(panel * self.c_stride + start * NR),
                        c_row: NR,
                        offsets: integers.then(|| a.offsets.as_ptr().add(start)),
                        scales: integers.then(|| {
                            [
                                a.scales.as_ptr().add(start),
                                self.b.scales.as_ptr().add(panel * NR),
                            ]
                        }),
                        bias: bias.map(|b| b.as_ptr().add(start)),
                        accumulate,
                        // As in `GemmPackedA`.
                        prefetch: a
                            .data
                            .as_ptr()
                            .wrapping_add((start + len) * words + panel * lines * CACHE_LINE),
                        prefetch_step: CACHE_LINE,
                        prefetch_count: lines,
                    };
                    tile.eval::<N>(len);
                }
            }
        }
    }
}
