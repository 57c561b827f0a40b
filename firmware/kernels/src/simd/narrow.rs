//! Dot products of narrow values: pairs of fp16, bfloat16 or 16-bit integers, or groups of four 8-bit integers,
//! in 32-bit words.
//!
//! A [`NarrowOp`] is written once, generic over [`Narrow`], and [`dispatch_narrow`] compiles it for the
//! instructions of a [`Format`]. It takes a [`SupportedFormat`], which can be constructed only on a CPU
//! that has them.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use super::Isa;
use super::{Simd, SupportedIsa};

/// Whether the architecture is 64-bit ARM; otherwise it is x86-64.
const ARM: bool = cfg!(target_arch = "aarch64");

/// Number of words after which fp16 sums are added to 32-bit sums. More would be faster but less precise, since
/// each fp16 addition rounds to 2^-11 of the sum.
#[cfg(any(test, target_arch = "aarch64"))]
pub(crate) const FP16_BLOCK: usize = 16;

/// How the values of a matrix are stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// fp16, accumulated in fp16 over [`FP16_BLOCK`] words and then in 32 bits: FEAT_FP16.
    Fp16,
    /// bfloat16, accumulated in 32-bit floating point: AVX512-BF16, FEAT_BF16.
    Bf16,
    /// 16-bit integers, accumulated exactly: AVX2, AVX-VNNI, AVX512-VNNI, NEON.
    Int16,
    /// 8-bit integers, accumulated exactly: AVX-VNNI, AVX512-VNNI, FEAT_DotProd.
    Int8,
}

impl Format {
    /// Every format.
    #[cfg(test)]
    pub const ALL: [Self; 4] = [Self::Fp16, Self::Bf16, Self::Int16, Self::Int8];

    /// Values per word.
    pub const fn group(self) -> usize {
        match self {
            Self::Fp16 | Self::Bf16 | Self::Int16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Whether rows and columns have a scale.
    pub const fn is_scaled(self) -> bool {
        !matches!(self, Self::Bf16)
    }

    /// Offset added to values of the right operand, for which x86's instruction for bytes expects unsigned values.
    pub const fn offset(self) -> i32 {
        match self {
            Self::Int8 if !ARM => 128,
            _ => 0,
        }
    }

    /// Whether a vector of words of the right operand contains the first values of all words, then the second ones.
    pub const fn is_split(self) -> bool {
        ARM && matches!(self, Self::Fp16 | Self::Int16)
    }

    /// Reorders a vector of words of the right operand as the instructions expect.
    pub fn arrange(self, words: &mut [u32]) {
        if !self.is_split() {
            return;
        }
        let half = |word: &u32, i: usize| word >> (16 * i) & 0xFFFF;
        let first = words.iter().map(|word| half(word, 0));
        let values: Vec<u32> = first
            .chain(words.iter().map(|word| half(word, 1)))
            .collect();
        for (word, pair) in words.iter_mut().zip(values.as_chunks::<2>().0) {
            *word = pair[0] | pair[1] << 16;
        }
    }

    /// Maximum magnitude of scaled values, so that dot products over `depth` do not overflow; `None` for
    /// bfloat16, which has no scale.
    pub fn limit(self, depth: usize) -> Option<i32> {
        let exact = (i32::MAX as usize / depth.max(1)).isqrt();
        match self {
            // Sums of 32 products are at most half the largest value.
            Self::Fp16 => Some(32),
            Self::Bf16 => None,
            Self::Int16 => Some(exact.min(32767) as i32),
            // For any depth below 66,000, sums are at most half the largest value, even with the offset.
            Self::Int8 => Some(127),
        }
    }

    /// Proof that this CPU has the instructions in an instruction set, or `None` if it does not.
    pub fn supported(self, isa: SupportedIsa) -> Option<SupportedFormat> {
        #[cfg(target_arch = "x86_64")]
        let available = match (isa.isa(), self) {
            (Isa::Avx512, Self::Bf16 | Self::Int16 | Self::Int8) => {
                is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && match self {
                        Self::Bf16 => is_x86_feature_detected!("avx512bf16"),
                        _ => is_x86_feature_detected!("avx512vnni"),
                    }
            }
            (Isa::AvxVnni, Self::Int16 | Self::Int8) | (Isa::Avx2, Self::Int16) => true,
            _ => false,
        };
        #[cfg(target_arch = "aarch64")]
        let available = match self {
            Self::Fp16 => std::arch::is_aarch64_feature_detected!("fp16"),
            Self::Bf16 => std::arch::is_aarch64_feature_detected!("bf16"),
            Self::Int16 => true,
            Self::Int8 => std::arch::is_aarch64_feature_detected!("dotprod"),
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let available = false;
        available.then_some(SupportedFormat { format: self, isa })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        })
    }
}

/// A format, and an instruction set with instructions for it that this CPU has. Constructed only by
/// [`Format::supported`], which checks the CPU; [`dispatch_narrow`](super::dispatch_narrow) relies on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SupportedFormat {
    format: Format,
    isa: SupportedIsa,
}

impl SupportedFormat {
    /// The format.
    pub fn format(self) -> Format {
        self.format
    }

    /// The instruction set, also that of vectors of 32-bit floats.
    pub fn isa(self) -> SupportedIsa {
        self.isa
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
    /// Number of words after which the sums are added to 32-bit sums and restart.
    const BLOCK: usize = usize::MAX;

    /// Returns sums of zero.
    fn zero() -> Self::Sum;
    /// Returns integer sums initialized with the value at `offset`; zero for floats.
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
    /// Returns `sum` plus the dot product of each word of `a` with the word of `b`.
    fn dot(a: Self::W, b: Self::W, sum: Self::Sum) -> Self::Sum;
    /// The sums as 32-bit floats.
    fn finish(sum: Self::Sum) -> <Self::S as Simd>::V;
}

/// Operands in a [`Format`].
pub(crate) trait Narrow: Operand<Word = u32> {
    /// Their format.
    const FORMAT: Format;

    /// Rounds the rows and packs them, one word per column. 16-bit formats use the first two rows.
    /// Scaled values are rounded after multiplication by `factor`; [`Format::offset`] is added.
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
        unsafe { S::factor_ptr(p) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe { S::load_ptr(p) }
    }
    #[inline(always)]
    fn dot(a: S::V, b: S::V, sum: S::V) -> S::V {
        S::fma_factor(a, b, sum)
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

/// The bits of `x` rounded to fp16, to nearest with ties to even.
pub(crate) fn fp16_bits(x: f32) -> u16 {
    let (bits, sign) = (x.abs().to_bits(), (x.to_bits() >> 16) as u16 & 0x8000);
    let magnitude = match x.abs() {
        x if x.is_nan() => 0x7E00,
        x if x >= 65520.0 => 0x7C00,
        // Multiples of 2^-24, the largest of which may become the smallest normal value.
        x if x < 1.0 / 16384.0 => (x * 16_777_216.0).round_ties_even() as u16,
        _ => ((bits + 0xFFF + (bits >> 13 & 1) - (112 << 23)) >> 13) as u16,
    };
    sign | magnitude
}

/// The bits of `x` rounded to bfloat16, to nearest with ties to even.
pub(crate) fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}
