//! NEON, which every 64-bit ARM CPU has.

use std::arch::{aarch64::*, asm};

use super::Simd;

/// Two registers per vector: a register tile of 6 by 16 values takes 24 of the 32 registers, and rows of
/// the left operand are read once for 16 columns.
#[derive(Clone, Copy)]
pub(super) struct Neon;

/// Methods that are one instruction for each register.
macro_rules! instruction {
    ($(fn $name:ident($($arg:ident),+) = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $name($($arg: [float32x4_t; 2]),+) -> [float32x4_t; 2] {
            // SAFETY: every CPU of this architecture has NEON.
            unsafe { [$intrinsic($($arg[0]),+), $intrinsic($($arg[1]),+)] }
        }
    )+};
}

impl Simd for Neon {
    type V = [float32x4_t; 2];
    const LANES: usize = 8;
    const MR: usize = 6;

    #[inline(always)]
    fn splat(x: f32) -> Self::V {
        // SAFETY: every CPU of this architecture has NEON.
        unsafe { [vdupq_n_f32(x); 2] }
    }
    #[inline(always)]
    unsafe fn splat_ptr(p: *const f32) -> Self::V {
        // SAFETY: guaranteed by the caller.
        unsafe { [vld1q_dup_f32(p); 2] }
    }
    #[inline(always)]
    unsafe fn load_ptr(p: *const f32) -> Self::V {
        // SAFETY: guaranteed by the caller.
        let float32x4x2_t(low, high) = unsafe { vld1q_f32_x2(p) };
        [low, high]
    }
    #[inline(always)]
    unsafe fn store_ptr(p: *mut f32, v: Self::V) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
        }
    }
    #[inline(always)]
    fn prefetch(_: *const f32) {}
    instruction! {
        fn add(a, b) = vaddq_f32;
        fn sub(a, b) = vsubq_f32;
        fn mul(a, b) = vmulq_f32;
        fn div(a, b) = vdivq_f32;
        fn max(a, b) = vmaxq_f32;
        fn min(a, b) = vminq_f32;
        fn sqrt(a) = vsqrtq_f32;
        fn round(a) = vrndnq_f32;
    }
    #[inline(always)]
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: every CPU of this architecture has NEON.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn factor_ptr(p: *const f32) -> Self::V {
        // SAFETY: guaranteed by the caller; and as above. As integers, which compile to one load.
        unsafe {
            let word = vld1q_lane_u32::<0>(p.cast(), vdupq_n_u32(0));
            [vreinterpretq_f32_u32(word); 2]
        }
    }
    #[inline(always)]
    fn fma_factor(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not with intrinsics: the compiler would need another instruction to copy the factor to all lanes.
        let one = |b: float32x4_t, mut c: float32x4_t| {
            // SAFETY: every CPU of this architecture has the instruction; it has no other effect.
            unsafe {
                asm!(
                    "fmla {c:v}.4s, {b:v}.4s, {a:v}.s[0]",
                    c = inout(vreg) c, b = in(vreg) b, a = in(vreg) a[0],
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            c
        };
        [one(b[0], c[0]), one(b[1], c[1])]
    }
    #[inline(always)]
    fn ldexp(a: Self::V, n: Self::V) -> Self::V {
        // SAFETY: as above.
        let one = |a, n| unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        };
        [one(a[0], n[0]), one(a[1], n[1])]
    }
    #[inline(always)]
    fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        // SAFETY: as above.
        let one = |a, b, x, y| unsafe { vbslq_f32(vcltq_f32(a, b), x, y) };
        [one(a[0], b[0], x[0], y[0]), one(a[1], b[1], x[1], y[1])]
    }
}
