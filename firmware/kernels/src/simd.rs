//! Vectors of `f32` and runtime dispatch on the CPU's instruction set.
//!
//! A [`SimdOp`] is written once, generic over [`Simd`], and [`dispatch`] compiles it for every
//! instruction set. Dispatch takes a [`SupportedIsa`], which can be constructed only for an
//! instruction set that the CPU has, so that no safe code can reach an unsupported instruction.

use std::{fmt, str::FromStr};

#[cfg(target_arch = "x86_64")]
mod avx2_narrow;
#[cfg(target_arch = "x86_64")]
mod avx512_narrow;
#[cfg(not(target_arch = "aarch64"))]
mod generic;
mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_narrow;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(target_arch = "aarch64"))]
use generic::Generic as Baseline;
#[cfg(test)]
pub(crate) use narrow::FP16_BLOCK;
pub(crate) use narrow::{
    Format, Fp32, Narrow, NarrowOp, Operand, SupportedFormat, bf16_bits, fp16_bits,
};
#[cfg(target_arch = "aarch64")]
use neon::Neon as Baseline;

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// The baseline of the target architecture: SSE2 on x86-64, NEON on 64-bit ARM.
    Generic,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// The same with AVX-VNNI, for 16-bit and 8-bit products.
    AvxVnni,
    /// AVX-512F.
    Avx512,
}

impl Isa {
    /// All instruction sets, slowest first.
    pub const ALL: [Self; 4] = [Self::Generic, Self::Avx2, Self::AvxVnni, Self::Avx512];

    /// The fastest instruction set that this CPU supports.
    pub fn detect() -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|isa| isa.is_available())
            .unwrap_or(Self::Generic)
    }

    /// Whether this CPU supports the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            Self::Generic => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => is_x86_feature_detected!("avxvnni") && Self::Avx2.is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && Self::Avx2.is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Proof that this CPU supports the instruction set, or `None` if it does not.
    pub(crate) fn supported(self) -> Option<SupportedIsa> {
        self.is_available().then_some(SupportedIsa(self))
    }
}

/// An instruction set that this CPU supports. Constructed only by [`Isa::supported`], which checks
/// the CPU; [`dispatch`] relies on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SupportedIsa(Isa);

impl SupportedIsa {
    /// Every supported instruction set, slowest first.
    #[cfg(test)]
    pub fn all() -> impl Iterator<Item = Self> {
        Isa::ALL.into_iter().filter_map(Isa::supported)
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        self.0
    }
}

impl fmt::Display for SupportedIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generic => "generic",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for Isa {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.to_string() == s)
            .ok_or(())
    }
}

/// Vector operations of one instruction set.
///
/// Every method of every implementation is `inline(always)`: instructions of an extension may be
/// used only inside a function compiled for that extension, and [`dispatch`] provides one.
pub(crate) trait Simd: Copy + 'static {
    /// A vector of `LANES` values.
    type V: Copy;
    /// Values per vector.
    const LANES: usize;
    /// Rows of the GEMM register tile.
    const MR: usize;
    /// Columns of the GEMM register tile: two vectors.
    const NR: usize = 2 * Self::LANES;

    fn splat(x: f32) -> Self::V;
    /// Broadcasts the value at `p`.
    ///
    /// # Safety
    /// `p` is valid for reading one value; it need not be aligned.
    unsafe fn splat_ptr(p: *const f32) -> Self::V;
    /// # Safety
    /// `p` is valid for reading `LANES` values; it need not be aligned.
    unsafe fn load_ptr(p: *const f32) -> Self::V;
    /// # Safety
    /// `p` is valid for writing `LANES` values; it need not be aligned.
    unsafe fn store_ptr(p: *mut f32, v: Self::V);
    /// Prefetches the cache line at `p`. Any address is allowed.
    fn prefetch(p: *const f32);
    fn add(a: Self::V, b: Self::V) -> Self::V;
    fn sub(a: Self::V, b: Self::V) -> Self::V;
    fn mul(a: Self::V, b: Self::V) -> Self::V;
    fn div(a: Self::V, b: Self::V) -> Self::V;
    fn max(a: Self::V, b: Self::V) -> Self::V;
    fn min(a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(a: Self::V) -> Self::V;
    /// `a * b + c`, fused if the instruction set has it.
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Loads the value at `p` as a factor for [`Simd::fma_factor`].
    ///
    /// # Safety
    /// As for [`Simd::splat_ptr`].
    #[inline(always)]
    unsafe fn factor_ptr(p: *const f32) -> Self::V {
        // SAFETY: guaranteed by the caller.
        unsafe { Self::splat_ptr(p) }
    }
    /// `a * b + c` with a single value `a` from [`Simd::factor_ptr`].
    #[inline(always)]
    fn fma_factor(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        Self::fma(a, b, c)
    }
    /// Rounds to the nearest integer, ties to even. `|a| < 2^22`.
    fn round(a: Self::V) -> Self::V;
    /// `a * 2^n` for integral `n` in -126..=127.
    fn ldexp(a: Self::V, n: Self::V) -> Self::V;
    /// `x` where `a < b`, else `y`.
    fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;

    /// Loads the first `LANES` values of `s`.
    #[inline(always)]
    fn load(s: &[f32]) -> Self::V {
        assert!(s.len() >= Self::LANES);
        // SAFETY: the slice holds at least `LANES` values.
        unsafe { Self::load_ptr(s.as_ptr()) }
    }

    /// Stores to the first `LANES` values of `s`.
    #[inline(always)]
    fn store(s: &mut [f32], v: Self::V) {
        assert!(s.len() >= Self::LANES);
        // SAFETY: the slice holds at least `LANES` values.
        unsafe { Self::store_ptr(s.as_mut_ptr(), v) }
    }
}

/// A computation that can be compiled for any instruction set.
pub(crate) trait SimdOp {
    type Output;
    /// Must be `inline(always)`, like everything that it calls with an `S`.
    fn eval<S: Simd>(self) -> Self::Output;
}

/// Evaluates `op` with the instructions of `isa`.
pub(crate) fn dispatch<Op: SimdOp>(isa: SupportedIsa, op: Op) -> Op::Output {
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `SupportedIsa` exists only for an instruction set that the CPU supports.
        Isa::Avx512 => unsafe { x86::eval_avx512(op) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 | Isa::AvxVnni => unsafe { x86::eval_avx2(op) },
        _ => op.eval::<Baseline>(),
    }
}

/// Evaluates `op` with the instructions of `format`.
pub(crate) fn dispatch_narrow<Op: NarrowOp>(format: SupportedFormat, op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    match (format.isa().isa(), format.format()) {
        // SAFETY: a `SupportedFormat` exists only for a format and an instruction set that the CPU has.
        (Isa::Avx512, Format::Bf16) => unsafe { avx512_narrow::eval_bf16(op) },
        // SAFETY: as above.
        (Isa::Avx512, Format::Int16) => unsafe { avx512_narrow::eval_int16(op) },
        // SAFETY: as above.
        (Isa::Avx512, Format::Int8) => unsafe { avx512_narrow::eval_int8(op) },
        // SAFETY: as above.
        (Isa::AvxVnni, Format::Int16) => unsafe { avx2_narrow::eval_int16_vnni(op) },
        // SAFETY: as above.
        (Isa::AvxVnni, Format::Int8) => unsafe { avx2_narrow::eval_int8_vnni(op) },
        // SAFETY: as above.
        (Isa::Avx2, Format::Int16) => unsafe { avx2_narrow::eval_int16(op) },
        (isa, format) => unreachable!("{isa} has no instructions for {format}"),
    }
    #[cfg(target_arch = "aarch64")]
    match format.format() {
        // SAFETY: as above.
        Format::Fp16 => unsafe { neon_narrow::eval_fp16(op) },
        // SAFETY: as above.
        Format::Bf16 => unsafe { neon_narrow::eval_bf16(op) },
        Format::Int16 => op.eval::<neon_narrow::Int16>(),
        // SAFETY: as above.
        Format::Int8 => unsafe { neon_narrow::eval_int8(op) },
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    unreachable!(
        "no CPU of this architecture supports {}: {}",
        format.format(),
        size_of_val(&op)
    )
}
