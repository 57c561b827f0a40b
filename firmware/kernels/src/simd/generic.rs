//! Portable Rust.

use super::Simd;

/// Portable Rust over four values, which the compiler turns into SSE2 instructions on x86-64.
#[derive(Clone, Copy)]
pub(super) struct Generic;

impl Generic {
    #[inline(always)]
    fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
        [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
    }
}

impl Simd for Generic {
    type V = [f32; 4];
    const LANES: usize = 4;
    const MR: usize = 6;

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
        if cfg!(target_feature = "fma") {
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
