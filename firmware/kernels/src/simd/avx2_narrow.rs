//! 16-bit and 8-bit products with 256-bit vectors: AVX-VNNI, or AVX2 alone for 16 bits.
//!
//! Without AVX-VNNI, products of bytes are not worth it: their instruction saturates, and getting around that takes
//! as many instructions as products of 16 bits.

use std::arch::{asm, x86_64::*};

use super::{Format, Narrow, NarrowOp, Operand, Simd, x86::Avx2};

/// # Safety
/// The CPU supports AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn eval_int16<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Int16<false>>()
}

/// # Safety
/// The CPU supports AVX-VNNI, AVX2 and FMA.
#[target_feature(enable = "avxvnni,avx2,fma")]
pub(super) unsafe fn eval_int16_vnni<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Int16<true>>()
}

/// # Safety
/// The CPU supports AVX-VNNI, AVX2 and FMA.
#[target_feature(enable = "avxvnni,avx2,fma")]
pub(super) unsafe fn eval_int8_vnni<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Int8>()
}

/// Private, so that only [`eval_int16`] and [`eval_int16_vnni`] can use it.
#[derive(Clone, Copy)]
struct Int16<const VNNI: bool>;

/// Private, so that only [`eval_int8_vnni`] can use it.
#[derive(Clone, Copy)]
struct Int8;

/// Vectors of eight words, and sums of integers.
macro_rules! integers {
    () => {
        type S = Avx2;
        type Word = u32;
        type W = __m256i;
        type Sum = __m256i;

        #[inline(always)]
        unsafe fn splat(p: *const u32) -> __m256i {
            // SAFETY: guaranteed by the caller; this type is used only in a function that enables the
            // target feature.
            unsafe { _mm256_castps_si256(Avx2::splat_ptr(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load(p: *const u32) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_castps_si256(Avx2::load_ptr(p.cast())) }
        }
        #[inline(always)]
        fn zero() -> __m256i {
            // SAFETY: this type is used only in a function that enables the target feature.
            unsafe { _mm256_setzero_si256() }
        }
        #[inline(always)]
        unsafe fn start(offset: *const i32) -> __m256i {
            // SAFETY: guaranteed by the caller; and as above.
            unsafe { _mm256_castps_si256(Avx2::splat_ptr(offset.cast())) }
        }
        #[inline(always)]
        fn finish(sum: __m256i) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_cvtepi32_ps(sum) }
        }
    };
}

/// The format, and storing words.
macro_rules! storage {
    ($format:expr) => {
        const FORMAT: Format = $format;

        #[inline(always)]
        unsafe fn store(p: *mut u32, words: __m256i) {
            // SAFETY: guaranteed by the caller; this type is used only in a function that enables the
            // target feature.
            unsafe { Avx2::store_ptr(p.cast(), _mm256_castsi256_ps(words)) }
        }
    };
}

/// Eight values times `factor`, rounded to 16-bit integers; values out of range saturate.
///
/// # Safety
/// In a function that enables AVX2.
#[inline(always)]
unsafe fn to_int16(row: __m256, factor: __m256) -> __m128i {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let rounded = _mm256_cvtps_epi32(_mm256_mul_ps(row, factor));
        let high = _mm256_extracti128_si256::<1>(rounded);
        _mm_packs_epi32(_mm256_castsi256_si128(rounded), high)
    }
}

/// VPDPWSSD of AVX-VNNI. The compiler may replace the intrinsic by VPMADDWD and VPADDD.
///
/// # Safety
/// The CPU supports AVX-VNNI.
#[inline]
#[target_feature(enable = "avxvnni,avx2")]
unsafe fn dpwssd(mut sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the instruction has no other effect.
    unsafe {
        asm!("{{vex}} vpdpwssd {sum}, {a}, {b}", sum = inout(ymm_reg) sum, a = in(ymm_reg) a, b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

impl<const VNNI: bool> Operand for Int16<VNNI> {
    integers! {}

    #[inline(always)]
    fn dot(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            if VNNI {
                dpwssd(sum, a, b)
            } else {
                _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
            }
        }
    }
}

impl<const VNNI: bool> Narrow for Int16<VNNI> {
    storage! { Format::Int16 }

    #[inline(always)]
    fn pack(rows: [__m256; 4], factor: __m256) -> __m256i {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            let low = _mm256_cvtps_epi32(_mm256_mul_ps(rows[0], factor));
            let high = _mm256_cvtps_epi32(_mm256_mul_ps(rows[1], factor));
            _mm256_blend_epi16::<0b1010_1010>(low, _mm256_slli_epi32::<16>(high))
        }
    }
    #[inline(always)]
    unsafe fn store_row(p: *mut u32, row: __m256, factor: __m256) {
        // SAFETY: guaranteed by the caller for four words; and as above.
        unsafe { _mm_maskstore_epi32(p.cast(), _mm_set1_epi32(-1), to_int16(row, factor)) }
    }
}

impl Operand for Int8 {
    integers! {}

    /// `a` holds signed values, `b` unsigned ones.
    #[inline(always)]
    fn dot(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe { _mm256_dpbusd_avx_epi32(sum, b, a) }
    }
}

impl Narrow for Int8 {
    storage! { Format::Int8 }

    #[inline(always)]
    fn pack(rows: [__m256; 4], factor: __m256) -> __m256i {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            let mut words = _mm256_setzero_si256();
            for row in rows.into_iter().rev() {
                let rounded = _mm256_cvtps_epi32(_mm256_mul_ps(row, factor));
                // Values out of range, such as NaN, do not spill into other bytes.
                let byte = _mm256_and_si256(
                    _mm256_add_epi32(rounded, _mm256_set1_epi32(128)),
                    _mm256_set1_epi32(255),
                );
                words = _mm256_or_si256(_mm256_slli_epi32::<8>(words), byte);
            }
            words
        }
    }
    #[inline(always)]
    unsafe fn store_row(p: *mut u32, row: __m256, factor: __m256) {
        // SAFETY: guaranteed by the caller for two words; and as above.
        unsafe {
            let wide = _mm_add_epi16(to_int16(row, factor), _mm_set1_epi16(128));
            let first_two = _mm_setr_epi32(-1, -1, 0, 0);
            _mm_maskstore_epi32(p.cast(), first_two, _mm_packus_epi16(wide, wide));
        }
    }
}
