//! 16-bit and 8-bit products with AVX-512.

use std::arch::x86_64::*;

use super::{Format, Narrow, NarrowOp, Operand, Simd, x86::Avx512};

/// # Safety
/// The CPU supports AVX-512F, AVX512-BW, AVX512-VL, AVX512-BF16, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn eval_bf16<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Bf16>()
}

/// # Safety
/// As for [`eval_int8`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn eval_int16<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Int16>()
}

/// # Safety
/// The CPU supports AVX-512F, AVX512-BW, AVX512-VL, AVX512-VNNI, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(super) unsafe fn eval_int8<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Int8>()
}

/// Private, so that only [`eval_bf16`] can use it.
#[derive(Clone, Copy)]
struct Bf16;

/// Private, so that only [`eval_int16`] can use it.
#[derive(Clone, Copy)]
struct Int16;

/// Private, so that only [`eval_int8`] can use it.
#[derive(Clone, Copy)]
struct Int8;

/// Vectors of sixteen words. As in the methods of [`Avx512`], loads and stores with a full mask are the same
/// instructions as without one, and have no checks in builds with debug assertions.
macro_rules! words {
    () => {
        type S = Avx512;
        type Word = u32;
        type W = __m512i;

        #[inline(always)]
        unsafe fn splat(p: *const u32) -> __m512i {
            // SAFETY: guaranteed by the caller; this type is used only in a function that enables the
            // target feature.
            unsafe { _mm512_broadcastd_epi32(_mm_castps_si128(_mm_load_ss(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load(p: *const u32) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_maskz_loadu_epi32(u16::MAX, p.cast()) }
        }
    };
}

impl Operand for Bf16 {
    words! {}
    type Sum = __m512;

    #[inline(always)]
    fn zero() -> __m512 {
        Avx512::splat(0.0)
    }
    #[inline(always)]
    unsafe fn start(_: *const i32) -> __m512 {
        Avx512::splat(0.0)
    }
    #[inline(always)]
    fn dot(a: __m512i, b: __m512i, sum: __m512) -> __m512 {
        // SAFETY: this type is used only in a function that enables the target feature; both types are 64
        // bytes, any of which are valid.
        unsafe {
            use std::mem::transmute;
            _mm512_dpbf16_ps(
                sum,
                transmute::<__m512i, __m512bh>(a),
                transmute::<__m512i, __m512bh>(b),
            )
        }
    }
    #[inline(always)]
    fn finish(sum: __m512) -> __m512 {
        sum
    }
}

impl Narrow for Bf16 {
    const FORMAT: Format = Format::Bf16;

    #[inline(always)]
    fn pack(rows: [__m512; 4], _: __m512) -> __m512i {
        /// Interleaves the values of two rows of 16 values.
        const INTERLEAVE: [u16; 32] = {
            let mut order = [0; 32];
            let mut i = 0;
            while i < 32 {
                order[i] = (i / 2 + i % 2 * 16) as u16;
                i += 1;
            }
            order
        };
        // SAFETY: this type is used only in a function that enables the target feature; both types are 64
        // bytes, any of which are valid.
        unsafe {
            let order = _mm512_maskz_loadu_epi16(u32::MAX, INTERLEAVE.as_ptr().cast());
            let both = _mm512_cvtne2ps_pbh(rows[1], rows[0]);
            _mm512_permutexvar_epi16(order, std::mem::transmute::<__m512bh, __m512i>(both))
        }
    }
    #[inline(always)]
    unsafe fn store_row(p: *mut u32, row: __m512, _: __m512) {
        // SAFETY: guaranteed by the caller for eight words; this type is used only in a function that
        // enables the target feature; both types are 32 bytes, any of which are valid.
        unsafe {
            let half = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(row));
            _mm256_mask_storeu_epi32(p.cast(), u8::MAX, half);
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, words: __m512i) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_mask_storeu_epi32(p.cast(), u16::MAX, words) }
    }
}

/// Sums of integers.
macro_rules! integers {
    () => {
        type Sum = __m512i;

        #[inline(always)]
        fn zero() -> __m512i {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm512_setzero_si512() }
        }
        #[inline(always)]
        unsafe fn start(offset: *const i32) -> __m512i {
            // SAFETY: guaranteed by the caller; and as above.
            unsafe { _mm512_broadcastd_epi32(_mm_castps_si128(_mm_load_ss(offset.cast()))) }
        }
        #[inline(always)]
        fn finish(sum: __m512i) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_cvtepi32_ps(sum) }
        }
    };
}

impl Operand for Int16 {
    words! {}
    integers! {}

    #[inline(always)]
    fn dot(a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe { _mm512_dpwssd_epi32(sum, a, b) }
    }
}

impl Narrow for Int16 {
    const FORMAT: Format = Format::Int16;

    #[inline(always)]
    fn pack(rows: [__m512; 4], factor: __m512) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let low = _mm512_cvtps_epi32(_mm512_mul_ps(rows[0], factor));
            let high = _mm512_cvtps_epi32(_mm512_mul_ps(rows[1], factor));
            let low = _mm512_and_si512(low, _mm512_set1_epi32(0xFFFF));
            _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
        }
    }
    #[inline(always)]
    unsafe fn store_row(p: *mut u32, row: __m512, factor: __m512) {
        // SAFETY: guaranteed by the caller for eight words; and as above.
        unsafe {
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(row, factor));
            _mm256_mask_storeu_epi32(p.cast(), u8::MAX, _mm512_cvtepi32_epi16(rounded));
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, words: __m512i) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_mask_storeu_epi32(p.cast(), u16::MAX, words) }
    }
}

impl Operand for Int8 {
    words! {}
    integers! {}

    /// `a` holds signed values, `b` unsigned ones.
    #[inline(always)]
    fn dot(a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe { _mm512_dpbusd_epi32(sum, b, a) }
    }
}

impl Narrow for Int8 {
    const FORMAT: Format = Format::Int8;

    #[inline(always)]
    fn pack(rows: [__m512; 4], factor: __m512) -> __m512i {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            let mut words = _mm512_setzero_si512();
            for row in rows.into_iter().rev() {
                let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(row, factor));
                // Values out of range, such as NaN, do not spill into other bytes.
                let byte = _mm512_and_si512(
                    _mm512_add_epi32(rounded, _mm512_set1_epi32(128)),
                    _mm512_set1_epi32(255),
                );
                words = _mm512_or_si512(_mm512_slli_epi32::<8>(words), byte);
            }
            words
        }
    }
    #[inline(always)]
    unsafe fn store_row(p: *mut u32, row: __m512, factor: __m512) {
        // SAFETY: guaranteed by the caller for four words; this type is used only in a function that
        // enables the target feature.
        unsafe {
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(row, factor));
            let bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(rounded, _mm512_set1_epi32(128)));
            _mm_mask_storeu_epi32(p.cast(), 0xF, bytes);
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, words: __m512i) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_mask_storeu_epi32(p.cast(), u16::MAX, words) }
    }
}
