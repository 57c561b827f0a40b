//! Vectors of 32-bit floats, and the choice among instruction sets when the program runs.
//!
//! A kernel is written once, over [`Simd`], and compiled for every instruction set: see
//! [`dispatch`].

use std::{fmt, str::FromStr};

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Whatever the compiler may assume of every machine of this architecture: SSE2 on x86-64,
    /// NEON on 64-bit ARM.
    Generic,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 foundation.
    Avx512,
}

impl Isa {
    /// All of them, the fastest last.
    pub const ALL: [Self; 3] = [Self::Generic, Self::Avx2, Self::Avx512];

    /// The fastest that this machine has.
    pub fn detect() -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|isa| isa.is_available())
            .unwrap_or(Self::Generic)
    }

    /// Whether this machine has it.
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

/// The vector operations that kernels are made of.
///
/// Every method of every implementation is `inline(always)`: instructions of an extension may be
/// used only inside a function compiled for it, which is what [`dispatch`] ends in.
pub(crate) trait Simd: Copy + 'static {
    /// A vector.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Rows of the register block of the matrix product; its columns are two vectors.
    const ROWS: usize;

    fn splat(x: f32) -> Self::V;
    /// # Safety
    /// A value can be read from `p`.
    unsafe fn splat_at(p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` values can be read from `p`; it need not be aligned.
    unsafe fn load(p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` values can be written to `p`; it need not be aligned.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Asks for the memory at `p`, which may be anywhere.
    fn prefetch(p: *const f32);
    fn add(a: Self::V, b: Self::V) -> Self::V;
    fn sub(a: Self::V, b: Self::V) -> Self::V;
    fn mul(a: Self::V, b: Self::V) -> Self::V;
    fn div(a: Self::V, b: Self::V) -> Self::V;
    fn max(a: Self::V, b: Self::V) -> Self::V;
    fn min(a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(a: Self::V) -> Self::V;
    /// `a * b + c`; one rounding where the instruction set has it.
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To the nearest whole number, ties to even.
    fn round(a: Self::V) -> Self::V;
    /// `a * 2^n` for whole n in -126 to 127.
    fn scale(a: Self::V, n: Self::V) -> Self::V;
    /// `x` where `a < b`, else `y`.
    fn less(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;

    /// The first `LANES` values of `s`.
    #[inline(always)]
    fn get(s: &[f32]) -> Self::V {
        assert!(s.len() >= Self::LANES);
        // SAFETY: the slice is that long.
        unsafe { Self::load(s.as_ptr()) }
    }

    /// Overwrites the first `LANES` values of `s`.
    #[inline(always)]
    fn put(s: &mut [f32], v: Self::V) {
        assert!(s.len() >= Self::LANES);
        // SAFETY: the slice is that long.
        unsafe { Self::store(s.as_mut_ptr(), v) }
    }
}

/// A computation that can be compiled for any instruction set.
pub(crate) trait Kernel {
    type Output;
    /// Must be `inline(always)`, and so must be all that it calls with an `S`.
    fn run<S: Simd>(self) -> Self::Output;
}

/// Runs `kernel` with the instructions of `isa`, which this machine must have.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    debug_assert!(isa.is_available());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` other than the generic one is made only where it is available; the
        // assertion above and `Engine::new` check it.
        Isa::Avx512 => unsafe { x86::run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::run_avx2(kernel) },
        _ => kernel.run::<Generic>(),
    }
}

/// Plain Rust over four values: the compiler makes SSE2 or NEON of it.
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
    const ROWS: usize = if cfg!(target_arch = "aarch64") { 12 } else { 6 };

    #[inline(always)]
    fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn splat_at(p: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        [unsafe { p.read_unaligned() }; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller's promise.
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
        // Without the instruction, `mul_add` is a call that computes it exactly and slowly.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            let f = |i: usize| a[i].mul_add(b[i], c[i]);
            [f(0), f(1), f(2), f(3)]
        } else {
            Self::add(Self::mul(a, b), c)
        }
    }
    #[inline(always)]
    fn round(a: [f32; 4]) -> [f32; 4] {
        // Adding 1.5 * 2^23 leaves no bits for a fraction: true for |a| < 2^22.
        const MAGIC: f32 = 12_582_912.0;
        a.map(|x| (x + MAGIC) - MAGIC)
    }
    #[inline(always)]
    fn scale(a: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        Self::zip(a, n, |a, n| {
            // Wraps never: n is in range by contract.
            a * f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)
        })
    }
    #[inline(always)]
    fn less(a: [f32; 4], b: [f32; 4], x: [f32; 4], y: [f32; 4]) -> [f32; 4] {
        let f = |i: usize| if a[i] < b[i] { x[i] } else { y[i] };
        [f(0), f(1), f(2), f(3)]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Simd};

    /// # Safety
    /// The machine has AVX-512F, AVX2 and FMA.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    /// # Safety
    /// The machine has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    /// Used only inside [`run_avx512`].
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    /// Used only inside [`run_avx2`].
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    /// One method that is one instruction.
    macro_rules! instruction {
        ($v:ty, $(fn $name:ident($($arg:ident),+) = $intrinsic:ident;)+) => {$(
            #[inline(always)]
            fn $name($($arg: $v),+) -> $v {
                // SAFETY: this type is used only inside a function compiled for the instruction.
                unsafe { $intrinsic($($arg),+) }
            }
        )+};
    }

    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const ROWS: usize = 12;

        #[inline(always)]
        fn splat(x: f32) -> __m512 {
            // SAFETY: this type is used only inside a function compiled for the instruction.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn splat_at(p: *const f32) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_broadcastss_ps(_mm_load_ss(p)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_maskz_loadu_ps(u16::MAX, p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            // SAFETY: the caller's promise.
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
            fn scale(a, n) = _mm512_scalef_ps;
        }
        #[inline(always)]
        fn round(a: __m512) -> __m512 {
            // SAFETY: this type is used only inside a function compiled for the instruction.
            unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(a) }
        }
        #[inline(always)]
        fn less(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
            // SAFETY: this type is used only inside a function compiled for the instruction.
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
        }
    }

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const ROWS: usize = 6;

        #[inline(always)]
        fn splat(x: f32) -> __m256 {
            // SAFETY: this type is used only inside a function compiled for the instruction.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn splat_at(p: *const f32) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_broadcastss_ps(_mm_load_ss(p)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_maskload_ps(p, _mm256_set1_epi32(-1)) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            // SAFETY: the caller's promise.
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
            // SAFETY: this type is used only inside a function compiled for the instruction.
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn scale(a: __m256, n: __m256) -> __m256 {
            // SAFETY: this type is used only inside a function compiled for the instruction.
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            }
        }
        #[inline(always)]
        fn less(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
            // SAFETY: this type is used only inside a function compiled for the instruction.
            unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
        }
    }
}
