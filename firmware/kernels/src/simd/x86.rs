//! AVX-512 and AVX2.

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

/// Used only by [`eval_avx512`] and by the functions of `avx512_narrow` that enable its target features.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

/// Used only by [`eval_avx2`] and by the functions of `avx2_narrow` that enable its target features.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

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
