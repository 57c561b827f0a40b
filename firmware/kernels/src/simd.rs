//! Vectors of `f32` and runtime dispatch on the CPU's instruction set.
//!
//! A [`SimdOp`] is written once, generic over [`Simd`], and [`dispatch`] compiles it for every
//! instruction set. Dispatch takes a [`SupportedIsa`], which can be constructed only for an
//! instruction set that the CPU has, so that no safe code can reach an unsupported instruction.

use std::{fmt, str::FromStr};

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// The baseline of the target architecture: SSE2 on x86-64, NEON on 64-bit ARM.
    Generic,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512F.
    Avx512,
}

impl Isa {
    /// All instruction sets, slowest first.
    pub const ALL: [Self; 3] = [Self::Generic, Self::Avx2, Self::Avx512];

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
        Isa::Avx2 => unsafe { x86::eval_avx2(op) },
        _ => op.eval::<Generic>(),
    }
}

/// Portable Rust over four values, which the compiler turns into SSE2 or NEON instructions.
#[derive(Clone, Copy)]
pub(crate) struct Generic;

impl Generic {
    #[inline(always)]
    fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
        [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
    }
}

impl Simd for Generic {
    type V = [f32; 4];
    const LANES: usize = 4;
    const MR: usize = if cfg!(target_arch = "aarch64") { 12 } else { 6 };

    #[inline(always)]
    fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn splat_ptr(p: *const f32) -> [f32; 4] {
        // SAFETY: guaranteed by the caller.
        [unsafe { p.read_unaligned() }; 4]
    }
    #[inline(always)]
    unsafe fn load_ptr(p: *const f32) -> [f32; 4] {
        // SAFETY: guaranteed by the caller.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_ptr(p: *mut f32, v: [f32; 4]) {
        // SAFETY: guaranteed by the caller.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn prefetch(_: *const f32) {}
    #[inline(always)]
    fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(a: [f32; 4]) -> [f32; 4] {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // Without an FMA instruction, `mul_add` is a slow library call.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            let f = |i: usize| a[i].mul_add(b[i], c[i]);
            [f(0), f(1), f(2), f(3)]
        } else {
            Self::add(Self::mul(a, b), c)
        }
    }
    #[inline(always)]
    fn round(a: [f32; 4]) -> [f32; 4] {
        // Adding 1.5 * 2^23 leaves no fraction bits for |a| < 2^22.
        const MAGIC: f32 = 12_582_912.0;
        a.map(|x| (x + MAGIC) - MAGIC)
    }
    #[inline(always)]
    fn ldexp(a: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        Self::zip(a, n, |a, n| {
            // Does not wrap: `n` is in range by contract.
            a * f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)
        })
    }
    #[inline(always)]
    fn select_lt(a: [f32; 4], b: [f32; 4], x: [f32; 4], y: [f32; 4]) -> [f32; 4] {
        let f = |i: usize| if a[i] < b[i] { x[i] } else { y[i] };
        [f(0), f(1), f(2), f(3)]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Simd, SimdOp};

    /// # Safety
    /// The CPU supports AVX-512F, AVX2 and FMA.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn eval_avx512<Op: SimdOp>(op: Op) -> Op::Output {
        op.eval::<Avx512>()
    }

    /// # Safety
    /// The CPU supports AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn eval_avx2<Op: SimdOp>(op: Op) -> Op::Output {
        op.eval::<Avx2>()
    }

    /// Private, so that only [`eval_avx512`] can use it.
    #[derive(Clone, Copy)]
    struct Avx512;

    /// Private, so that only [`eval_avx2`] can use it.
    #[derive(Clone, Copy)]
    struct Avx2;

    /// Methods that are a single instruction.
    macro_rules! instruction {
        ($v:ty, $(fn $name:ident($($arg:ident),+) = $intrinsic:ident;)+) => {$(
            #[inline(always)]
            fn $name($($arg: $v),+) -> $v {
                // SAFETY: this type is used only in a function that enables the target feature.
                unsafe { $intrinsic($($arg),+) }
            }
        )+};
    }

    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const MR: usize = 12;

        #[inline(always)]
        fn splat(x: f32) -> __m512 {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn splat_ptr(p: *const f32) -> __m512 {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_broadcastss_ps(_mm_load_ss(p)) }
        }
        #[inline(always)]
        unsafe fn load_ptr(p: *const f32) -> __m512 {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_maskz_loadu_ps(u16::MAX, p) }
        }
        #[inline(always)]
        unsafe fn store_ptr(p: *mut f32, v: __m512) {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_mask_storeu_ps(p, u16::MAX, v) }
        }
        #[inline(always)]
        fn prefetch(p: *const f32) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        instruction! { __m512,
            fn add(a, b) = _mm512_add_ps;
            fn sub(a, b) = _mm512_sub_ps;
            fn mul(a, b) = _mm512_mul_ps;
            fn div(a, b) = _mm512_div_ps;
            fn max(a, b) = _mm512_max_ps;
            fn min(a, b) = _mm512_min_ps;
            fn sqrt(a) = _mm512_sqrt_ps;
            fn fma(a, b, c) = _mm512_fmadd_ps;
            fn ldexp(a, n) = _mm512_scalef_ps;
        }
        #[inline(always)]
        fn round(a: __m512) -> __m512 {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(a) }
        }
        #[inline(always)]
        fn select_lt(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
        }
    }

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const MR: usize = 6;

        #[inline(always)]
        fn splat(x: f32) -> __m256 {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn splat_ptr(p: *const f32) -> __m256 {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm256_broadcastss_ps(_mm_load_ss(p)) }
        }
        #[inline(always)]
        unsafe fn load_ptr(p: *const f32) -> __m256 {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm256_maskload_ps(p, _mm256_set1_epi32(-1)) }
        }
        #[inline(always)]
        unsafe fn store_ptr(p: *mut f32, v: __m256) {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm256_maskstore_ps(p, _mm256_set1_epi32(-1), v) }
        }
        #[inline(always)]
        fn prefetch(p: *const f32) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        instruction! { __m256,
            fn add(a, b) = _mm256_add_ps;
            fn sub(a, b) = _mm256_sub_ps;
            fn mul(a, b) = _mm256_mul_ps;
            fn div(a, b) = _mm256_div_ps;
            fn max(a, b) = _mm256_max_ps;
            fn min(a, b) = _mm256_min_ps;
            fn sqrt(a) = _mm256_sqrt_ps;
            fn fma(a, b, c) = _mm256_fmadd_ps;
        }
        #[inline(always)]
        fn round(a: __m256) -> __m256 {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn ldexp(a: __m256, n: __m256) -> __m256 {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            }
        }
        #[inline(always)]
        fn select_lt(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
        }
    }
}
