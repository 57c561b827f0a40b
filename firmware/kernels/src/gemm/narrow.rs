//! Matrix products in fp16, bfloat16 and integers.
//!
//! Both operands are 32-bit words with a group of values each that are neighbors in depth: two 16-bit values
//! or four 8-bit values. Otherwise they are packed like 32-bit floats and multiplied by the same register
//! tile. The last group is padded with zeros.
//!
//! Except with bfloat16, each row of A and each column of B has a scale: the largest magnitude divided by
//! [`Format::limit`], so that sums of integers are exact, and sums of fp16 in range. On x86-64, 8-bit values of
//! B are offset by 128, because the instruction expects unsigned values; the initial sums compensate for this.

use super::{CACHE_LINE, Epilogue, Tile, chunks, mr, nr};
use crate::simd::{
    Format, Narrow, NarrowOp, Simd, SupportedFormat, bf16_bits, dispatch_narrow, fp16_bits,
};

/// The left operand `[rows][depth]`, packed like [`super::PackedA`].
#[derive(Debug, Clone)]
pub(crate) struct NarrowA {
    format: SupportedFormat,
    rows: usize,
    depth: usize,
    data: Vec<u32>,
    /// Scale of each row, if the format has scales.
    scales: Vec<f32>,
    /// Initial value of the sums of each row. Only with [`Format::offset`].
    offsets: Vec<i32>,
}

impl NarrowA {
    /// Creates a matrix of zeros.
    pub fn new(format: SupportedFormat, rows: usize, depth: usize) -> Self {
        let words = depth.div_ceil(format.format().group());
        let only = |wanted: bool| if wanted { rows } else { 0 };
        Self {
            format,
            rows,
            depth,
            data: vec![0; rows * words],
            scales: vec![0.0; only(format.format().is_scaled())],
            offsets: vec![0; only(format.format().offset() != 0)],
        }
    }

    /// Replaces the values: element (row, k) is `at(row, k)`.
    pub fn fill(&mut self, at: impl Fn(usize, usize) -> f32) {
        let (rounding, words) = (Rounding::new(self.format, self.depth), self.words());
        for (row, scale) in self.scales.iter_mut().enumerate() {
            *scale = rounding.scale((0..self.depth).map(|k| at(row, k)));
        }
        for (row, (offset, scale)) in self.offsets.iter_mut().zip(&self.scales).enumerate() {
            let values = (0..self.depth).map(|k| rounding.integer(at(row, k), *scale));
            *offset = values.sum::<i32>() * -rounding.format.offset();
        }
        let mut out = self.data.iter_mut();
        for (start, len) in chunks(self.rows, mr(self.format.isa())) {
            for word in 0..words {
                for (row, out) in (start..start + len).zip(&mut out) {
                    let scale = self.scales.get(row).copied().unwrap_or(1.0);
                    *out = rounding.word(word, scale, |k| at(row, k));
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

/// Rounding of an operand for products of one depth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounding {
    format: Format,
    depth: usize,
    /// Largest magnitude of a scaled value; 0 for bfloat16.
    limit: i32,
}

impl Rounding {
    pub fn new(format: SupportedFormat, depth: usize) -> Self {
        let format = format.format();
        Self {
            format,
            depth,
            limit: format.limit(depth).unwrap_or(0),
        }
    }

    /// Returns the scale that brings values to at most the limit; not finite if a value is not.
    pub fn scale(&self, values: impl Iterator<Item = f32>) -> f32 {
        let largest = values.fold(0.0, |max: f32, x| match x.is_finite() {
            // NaN propagates.
            true if max.is_finite() => max.max(x.abs()),
            _ => f32::NAN,
        });
        largest / self.limit as f32
    }

    /// Returns `x / scale`, rounded; 0 if the scale is 0.
    pub fn integer(&self, x: f32, scale: f32) -> i32 {
        // Exceeds the limit only by a rounding error of the scale; NaN becomes 0.
        let rounded = (x / scale).round_ties_even() as i32;
        rounded.clamp(-self.limit, self.limit)
    }

    /// Returns word `word` of a row or column with elements `at(k)`.
    pub fn word(&self, word: usize, scale: f32, at: impl Fn(usize) -> f32) -> u32 {
        let group = self.format.group();
        let bits = 32 / group;
        let elements = word * group..self.depth.min((word + 1) * group);
        elements.enumerate().fold(0, |word, (i, k)| {
            let value = match self.format {
                Format::Bf16 => u32::from(bf16_bits(at(k))),
                Format::Fp16 if scale == 0.0 => 0,
                Format::Fp16 => u32::from(fp16_bits(at(k) / scale)),
                _ => self.integer(at(k), scale).cast_unsigned() & (u32::MAX >> (32 - bits)),
            };
            word | value << (bits * i)
        })
    }
}

/// Upper limit of `LANES`.
const MAX_LANES: usize = 16;

/// The right operand: panels `[panels][words][NR]`, and the scale of each column.
#[derive(Debug, Default)]
pub(crate) struct NarrowB {
    pub(super) data: Vec<u32>,
    /// `[panels][NR]`.
    pub(super) scales: Vec<f32>,
    /// Whether the values contain no [`Format::offset`], as those of [`NarrowB::pack_softmax`].
    pub(super) unsigned: bool,
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
        let limit = format.format().limit(depth).unwrap_or(1) as f32;
        let columns = nr(format.isa());
        self.unsigned = false;
        self.data.resize(panels * words * columns, 0);
        self.scales.resize(panels * columns, 1.0);
        let data = self.data.chunks_exact_mut((words * columns).max(1));
        let scales = self.scales.chunks_exact_mut(columns);
        for (panel, (out, scales)) in data.zip(scales).enumerate() {
            let b = &b[panel * stride..][..depth * columns];
            let op = PackPanel {
                b,
                limit,
                out,
                scales,
            };
            dispatch_narrow(format, op);
        }
    }
}

/// Running maximum magnitude of each lane, and a term that makes it NaN.
#[derive(Clone, Copy)]
pub(super) struct Range<V> {
    max: V,
    /// Zero, or NaN if a value is not finite, since the maximum may drop NaN.
    invalid: V,
}

impl<V: Copy> Range<V> {
    #[inline(always)]
    pub fn new<S: Simd<V = V>>() -> Self {
        Self {
            max: S::splat(0.0),
            invalid: S::splat(0.0),
        }
    }

    #[inline(always)]
    pub fn add<S: Simd<V = V>>(&mut self, x: V) {
        let zero = S::splat(0.0);
        self.max = S::max(self.max, S::max(x, S::sub(zero, x)));
        self.invalid = S::fma(x, zero, self.invalid);
    }

    /// Returns the scale that brings values to at most `limit`, and the corresponding factor.
    #[inline(always)]
    pub fn finish<S: Simd<V = V>>(self, limit: f32) -> (V, V) {
        let zero = S::splat(0.0);
        let scale = S::mul(self.max, S::splat(1.0 / limit));
        // Lanes with only zeros or tiny values have no finite factor: they become zero.
        let least = S::splat(limit / f32::MAX);
        let inverse = S::div(S::splat(limit), self.max);
        (
            S::add(scale, self.invalid),
            S::select_lt(least, self.max, inverse, zero),
        )
    }

    /// Same as [`Range::finish`], over all lanes.
    #[inline(always)]
    pub fn across<S: Simd<V = V>>(self, limit: f32) -> (f32, V) {
        let mut lanes = [[0.0; MAX_LANES]; 2];
        S::store(&mut lanes[0], self.max);
        S::store(&mut lanes[1], self.invalid);
        let mut max: f32 = 0.0;
        let mut invalid: f32 = 0.0;
        for (m, i) in lanes[0].iter().zip(&lanes[1]).take(S::LANES) {
            max = if *m > max { *m } else { max };
            invalid += i;
        }
        let factor = if max > limit / f32::MAX {
            limit / max
        } else {
            0.0
        };
        (max / limit + invalid, S::splat(factor))
    }
}

/// Rounds a panel `[depth][NR]` to words.
struct PackPanel<'a> {
    b: &'a [f32],
    /// Largest magnitude of scaled values.
    limit: f32,
    out: &'a mut [u32],
    /// Scales of the columns.
    scales: &'a mut [f32],
}

impl NarrowOp for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<N: Narrow>(self) {
        let (lanes, columns) = (N::S::LANES, N::S::NR);
        let group = N::FORMAT.group();
        for at in [0, lanes] {
            let mut factor = N::S::splat(1.0);
            if N::FORMAT.is_scaled() {
                let mut range = Range::new::<N::S>();
                for row in self.b.chunks_exact(columns) {
                    range.add::<N::S>(N::S::load(&row[at..]));
                }
                let scale;
                (scale, factor) = range.finish::<N::S>(self.limit);
                N::S::store(&mut self.scales[at..], scale);
            }
            let words = self.out.chunks_exact_mut(columns);
            for (rows, out) in self.b.chunks(group * columns).zip(words) {
                let mut vectors = [N::S::splat(0.0); 4];
                for (vector, row) in vectors.iter_mut().zip(rows.chunks_exact(columns)) {
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

/// `C = A B` as in [`super::gemm`], with panels of B packed by [`NarrowB::pack`].
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
    let columns = nr(a.format.isa());
    assert!(b.data.len() >= panels * a.words() * columns);
    assert!(b.scales.len() >= panels * columns);
    assert!(c.len() >= last * c_stride + a.rows * columns);
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
        let (a, words, columns) = (self.a, self.a.words(), N::S::NR);
        let scaled = N::FORMAT.is_scaled();
        let offset = N::FORMAT.offset() != 0 && !self.b.unsigned;
        for (start, len) in chunks(a.rows, N::S::MR) {
            let lines = (len * words).div_ceil(CACHE_LINE * self.panels);
            for panel in 0..self.panels {
                // SAFETY: `gemm_narrow` has checked the lengths of `b`, its scales, `c` and the bias; A
                // holds `rows * words` words, those of this chunk from `start * words`, and where the
                // format has them a scale and an offset per row. Register tiles have `MR` rows at most, `NR` columns.
                unsafe {
                    let (bias, accumulate) = self.epilogue.parts();
                    let tile = Tile {
                        depth: words,
                        a: a.data.as_ptr().add(start * words),
                        a_row: 1,
                        a_k: len,
                        b: self.b.data.as_ptr().add(panel * words * columns),
                        b_k: columns,
                        c: (self.c.as_mut_ptr()).add(panel * self.c_stride + start * columns),
                        c_row: columns,
                        offsets: offset.then(|| a.offsets.as_ptr().add(start)),
                        scales: scaled.then(|| {
                            [
                                a.scales.as_ptr().add(start),
                                self.b.scales.as_ptr().add(panel * columns),
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
