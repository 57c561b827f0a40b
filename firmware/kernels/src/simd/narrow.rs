//! Dot products of narrow values: pairs of bfloat16 or of 16-bit integers, or groups of four 8-bit integers, in
//! words of 32 bits.
//!
//! A [`NarrowOp`] is written once, generic over [`Narrow`], and [`dispatch_narrow`] compiles it for the
//! instructions of a [`Format`]. It takes a [`SupportedFormat`], which can be constructed only on a CPU
//! that has them. Other architectures' instructions go here: bfloat16 and dot products of bytes on ARM.

use std::fmt;

use super::Simd;

/// How the values of a matrix are stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// bfloat16, accumulated in 32-bit floating point: AVX512-BF16.
    Bf16,
    /// 16-bit integers, accumulated exactly: AVX512-VNNI.
    Int16,
    /// 8-bit integers, accumulated exactly: AVX512-VNNI.
    Int8,
}

impl Format {
    /// Every format.
    #[cfg(test)]
    pub const ALL: [Self; 3] = [Self::Bf16, Self::Int16, Self::Int8];

    /// Values per word.
    pub const fn group(self) -> usize {
        match self {
            Self::Bf16 | Self::Int16 => 2,
            Self::Int8 => 4,
        }
    }

    /// The largest magnitude of integers whose dot product over `depth` does not overflow; `None` for
    /// floats, which have no scale.
    pub fn limit(self, depth: usize) -> Option<i32> {
        let exact = (i32::MAX as usize / depth.max(1)).isqrt();
        match self {
            Self::Bf16 => None,
            Self::Int16 => Some(exact.min(32767) as i32),
            // Half as large as the depth would allow for any depth below 66,000, where values are offset.
            Self::Int8 => Some(127),
        }
    }

    /// Proof that this CPU has the instructions, or `None` if it does not.
    pub fn supported(self) -> Option<SupportedFormat> {
        #[cfg(target_arch = "x86_64")]
        let available = is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && super::Isa::Avx512.is_available()
            && match self {
                Self::Bf16 => is_x86_feature_detected!("avx512bf16"),
                Self::Int16 | Self::Int8 => is_x86_feature_detected!("avx512vnni"),
            };
        #[cfg(not(target_arch = "x86_64"))]
        let available = false;
        available.then_some(SupportedFormat(self))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        })
    }
}

/// A format whose instructions this CPU has. Constructed only by [`Format::supported`], which checks the
/// CPU; [`dispatch_narrow`] relies on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SupportedFormat(Format);

impl SupportedFormat {
    /// The format.
    pub fn format(self) -> Format {
        self.0
    }
}

/// The operands of a register tile: 32-bit floats, or words of narrow values.
///
/// Every method of every implementation is `inline(always)`, as for [`Simd`].
pub(crate) trait Operand: Copy + 'static {
    /// Vectors of 32-bit floats of the same instruction set.
    type S: Simd;
    /// A value of a matrix in memory, 32 bits wide: one float, or a word of narrow values.
    type Word: Copy;
    /// A vector of words.
    type W: Copy;
    /// A vector of sums.
    type Sum: Copy;

    /// Sums that start with zero.
    fn zero() -> Self::Sum;
    /// Sums of integers that start with the value at `offset`; with floats, zero.
    ///
    /// # Safety
    /// `offset` is valid for reading one value.
    unsafe fn start(offset: *const i32) -> Self::Sum;
    /// Broadcasts the word at `p`.
    ///
    /// # Safety
    /// `p` is valid for reading one word.
    unsafe fn splat(p: *const Self::Word) -> Self::W;
    /// # Safety
    /// `p` is valid for reading a vector of words; it need not be aligned.
    unsafe fn load(p: *const Self::Word) -> Self::W;
    /// `sum` plus the dot product of each word of `a` with that of `b`.
    fn dot(a: Self::W, b: Self::W, sum: Self::Sum) -> Self::Sum;
    /// The sums as 32-bit floats.
    fn finish(sum: Self::Sum) -> <Self::S as Simd>::V;
}

/// Narrow operands: those of a [`Format`].
pub(crate) trait Narrow: Operand<Word = u32> {
    /// Their format.
    const FORMAT: Format;

    /// Rounds the rows and joins them: one word per column. Formats of 16 bits use the first two rows.
    /// Integers are rounded after multiplication by `factor`; those of 8 bits are offset by 128.
    fn pack(rows: [<Self::S as Simd>::V; 4], factor: <Self::S as Simd>::V) -> Self::W;
    /// Rounds a vector of values that are neighbors in depth, times `factor` as in [`Narrow::pack`], and
    /// stores them as `LANES / GROUP` words.
    ///
    /// # Safety
    /// `p` is valid for writing that many words; it need not be aligned.
    unsafe fn store_row(p: *mut u32, row: <Self::S as Simd>::V, factor: <Self::S as Simd>::V);
    /// Stores a vector of words.
    ///
    /// # Safety
    /// `p` is valid for writing a vector of words; it need not be aligned.
    unsafe fn store(p: *mut u32, words: Self::W);
}

/// 32-bit floats as operands.
#[derive(Clone, Copy)]
pub(crate) struct Fp32<S>(std::marker::PhantomData<S>);

impl<S: Simd> Operand for Fp32<S> {
    type S = S;
    type Word = f32;
    type W = S::V;
    type Sum = S::V;

    #[inline(always)]
    fn zero() -> S::V {
        S::splat(0.0)
    }
    #[inline(always)]
    unsafe fn start(_: *const i32) -> S::V {
        S::splat(0.0)
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe { S::splat_ptr(p) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe { S::load_ptr(p) }
    }
    #[inline(always)]
    fn dot(a: S::V, b: S::V, sum: S::V) -> S::V {
        S::fma(a, b, sum)
    }
    #[inline(always)]
    fn finish(sum: S::V) -> S::V {
        sum
    }
}

/// A computation that can be compiled for any format.
pub(crate) trait NarrowOp {
    type Output;
    /// Must be `inline(always)`, like everything that it calls with an `N`.
    fn eval<N: Narrow>(self) -> Self::Output;
}

/// The bits of `x` rounded to bfloat16, to nearest with ties to even.
pub(crate) fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}
