//! 16-bit and 8-bit products on 64-bit ARM.
//!
//! A vector has eight words, one for each column. With 8-bit integers and bfloat16, a word contains neighbors in
//! depth, as on other architectures. With fp16 and 16-bit integers, whose instructions multiply lane by lane,
//! the first register contains the first value of each word, and the second register the second value
//! ([`Format::is_split`]).
//!
//! Rust has no stable intrinsics for most of these instructions, so they are written in assembly. All take
//! a word of the left operand from lanes of a register, so that it need not be copied to all lanes.

use std::arch::{aarch64::*, asm};

use super::{Format, Narrow, NarrowOp, Operand, Simd, narrow::FP16_BLOCK, neon::Neon};

/// # Safety
/// The CPU supports FEAT_FP16.
#[target_feature(enable = "neon,fp16")]
pub(super) unsafe fn eval_fp16<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Fp16>()
}

/// # Safety
/// The CPU supports FEAT_DotProd.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn eval_int8<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Int8>()
}

/// # Safety
/// The CPU supports FEAT_BF16.
#[target_feature(enable = "neon,bf16")]
pub(super) unsafe fn eval_bf16<Op: NarrowOp>(op: Op) -> Op::Output {
    op.eval::<Bf16>()
}

// All but the last are private, so that only the functions above can use them.
#[derive(Clone, Copy)]
struct Fp16;
#[derive(Clone, Copy)]
struct Int8;
#[derive(Clone, Copy)]
struct Bf16;
#[derive(Clone, Copy)]
pub(super) struct Int16;

/// Two registers of four words.
type Words = [uint32x4_t; 2];
/// Two registers of four floats.
type Floats = [float32x4_t; 2];

/// An instruction that computes its destination from one or two sources, or adds to it. The types of the
/// operands are those of the function's arguments.
///
/// # Safety
/// Wherever it is expanded: the CPU has the instruction, which has no other effect.
macro_rules! instruction {
    ($text:literal, $($name:ident $source:expr),+ => $type:ty) => {{
        let out: $type;
        asm!($text, d = lateout(vreg) out, $($name = in(vreg) $source,)+
            options(pure, nomem, nostack, preserves_flags));
        out
    }};
    // With lanes of `a`, which instructions on 16 bits take from the first half of the registers only.
    ($text:literal, $sum:expr, $b:expr, $class:ident $a:expr) => {{
        let mut sum = $sum;
        asm!($text, d = inout(vreg) sum, b = in(vreg) $b, a = in($class) $a,
            options(pure, nomem, nostack, preserves_flags));
        sum
    }};
}

/// Words of eight columns.
macro_rules! words {
    () => {
        type S = Neon;
        type Word = u32;
        type W = Words;

        /// Loads the word into the first lane of the first register, where [`Operand::dot`] reads it.
        #[inline(always)]
        unsafe fn splat(p: *const u32) -> Words {
            // SAFETY: guaranteed by the caller; every CPU of this architecture has NEON.
            unsafe { [vld1q_lane_u32::<0>(p, vdupq_n_u32(0)); 2] }
        }
        #[inline(always)]
        unsafe fn load(p: *const u32) -> Words {
            // SAFETY: as above.
            let uint32x4x2_t(low, high) = unsafe { vld1q_u32_x2(p) };
            [low, high]
        }
    };
}

/// Sums of integers.
macro_rules! integers {
    () => {
        type Sum = [int32x4_t; 2];

        #[inline(always)]
        fn zero() -> Self::Sum {
            // SAFETY: every CPU of this architecture has NEON.
            unsafe { [vdupq_n_s32(0); 2] }
        }
        #[inline(always)]
        unsafe fn start(offset: *const i32) -> Self::Sum {
            // SAFETY: guaranteed by the caller; and as above.
            unsafe { [vld1q_dup_s32(offset); 2] }
        }
        #[inline(always)]
        fn finish(sum: Self::Sum) -> Floats {
            // SAFETY: as above.
            unsafe { sum.map(|sum| vcvtq_f32_s32(sum)) }
        }
    };
}

/// The format, and storing words of eight columns.
macro_rules! storage {
    ($format:expr) => {
        const FORMAT: Format = $format;

        #[inline(always)]
        unsafe fn store(p: *mut u32, words: Words) {
            // SAFETY: guaranteed by the caller; every CPU of this architecture has NEON.
            unsafe {
                vst1q_u32(p, words[0]);
                vst1q_u32(p.add(4), words[1]);
            }
        }
    };
}

/// Rounding of pairs in split order, with a function for eight values.
macro_rules! split {
    ($round:ident) => {
        #[inline(always)]
        fn pack(rows: [Floats; 4], factor: Floats) -> Words {
            [$round(rows[0], factor), $round(rows[1], factor)]
        }
        #[inline(always)]
        unsafe fn store_row(p: *mut u32, row: Floats, factor: Floats) {
            // SAFETY: guaranteed by the caller for four words; every CPU of this architecture has NEON.
            unsafe { vst1q_u32(p, $round(row, factor)) }
        }
    };
}

/// Eight values times `factor`, rounded to 16-bit integers; values out of range saturate, NaN becomes zero.
#[inline(always)]
fn to_int16(row: Floats, factor: Floats) -> uint32x4_t {
    let [low, high] = Neon::mul(row, factor);
    // SAFETY: every CPU of this architecture has NEON.
    unsafe {
        let low = vqmovn_s32(vcvtnq_s32_f32(low));
        vreinterpretq_u32_s16(vqmovn_high_s32(low, vcvtnq_s32_f32(high)))
    }
}

/// Eight values times `factor`, rounded to fp16.
#[inline(always)]
fn to_fp16(row: Floats, factor: Floats) -> uint32x4_t {
    let [low, high] = Neon::mul(row, factor);
    // SAFETY: every CPU of this architecture has these instructions, which have no other effect.
    unsafe {
        let mut halves: uint16x8_t = instruction!("fcvtn {d:v}.4h, {a:v}.4s", a low => uint16x8_t);
        asm!("fcvtn2 {d:v}.8h, {a:v}.4s", d = inout(vreg) halves, a = in(vreg) high,
            options(pure, nomem, nostack, preserves_flags));
        vreinterpretq_u32_u16(halves)
    }
}

impl Operand for Fp16 {
    words! {}
    /// Sums over the first values of the words, and sums over the second values, in fp16.
    type Sum = [uint16x8_t; 2];
    const BLOCK: usize = FP16_BLOCK;

    #[inline(always)]
    fn zero() -> Self::Sum {
        // SAFETY: every CPU of this architecture has NEON.
        unsafe { [vdupq_n_u16(0); 2] }
    }
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self::Sum {
        Self::zero()
    }
    #[inline(always)]
    fn dot(a: Words, b: Words, sum: Self::Sum) -> Self::Sum {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            [
                instruction!("fmla {d:v}.8h, {b:v}.8h, {a:v}.h[0]", sum[0], b[0], vreg_low16 a[0]),
                instruction!("fmla {d:v}.8h, {b:v}.8h, {a:v}.h[1]", sum[1], b[1], vreg_low16 a[0]),
            ]
        }
    }
    #[inline(always)]
    fn finish(sum: Self::Sum) -> Floats {
        // SAFETY: as above.
        unsafe {
            let both =
                instruction!("fadd {d:v}.8h, {a:v}.8h, {b:v}.8h", a sum[0], b sum[1] => uint16x8_t);
            [
                instruction!("fcvtl {d:v}.4s, {a:v}.4h", a both => float32x4_t),
                instruction!("fcvtl2 {d:v}.4s, {a:v}.8h", a both => float32x4_t),
            ]
        }
    }
}

impl Narrow for Fp16 {
    storage! { Format::Fp16 }
    split! { to_fp16 }
}

impl Operand for Int16 {
    words! {}
    integers! {}

    #[inline(always)]
    fn dot(a: Words, b: Words, sum: Self::Sum) -> Self::Sum {
        // SAFETY: every CPU of this architecture has NEON.
        unsafe {
            let a = vreinterpretq_s16_u32(a[0]);
            let [first, second] = b.map(|b| vreinterpretq_s16_u32(b));
            let low = vmlal_laneq_s16::<0>(sum[0], vget_low_s16(first), a);
            let high = vmlal_high_laneq_s16::<0>(sum[1], first, a);
            [
                vmlal_laneq_s16::<1>(low, vget_low_s16(second), a),
                vmlal_high_laneq_s16::<1>(high, second, a),
            ]
        }
    }
}

impl Narrow for Int16 {
    storage! { Format::Int16 }
    split! { to_int16 }
}

/// Eight values times `factor`, rounded to 8-bit integers; values out of range saturate, NaN becomes zero.
#[inline(always)]
fn to_int8(row: Floats, factor: Floats) -> int8x8_t {
    // SAFETY: every CPU of this architecture has NEON.
    unsafe { vqmovn_s16(vreinterpretq_s16_u32(to_int16(row, factor))) }
}

impl Operand for Int8 {
    words! {}
    integers! {}

    #[inline(always)]
    fn dot(a: Words, b: Words, sum: Self::Sum) -> Self::Sum {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            [
                instruction!("sdot {d:v}.4s, {b:v}.16b, {a:v}.4b[0]", sum[0], b[0], vreg a[0]),
                instruction!("sdot {d:v}.4s, {b:v}.16b, {a:v}.4b[0]", sum[1], b[1], vreg a[0]),
            ]
        }
    }
}

impl Narrow for Int8 {
    storage! { Format::Int8 }

    #[inline(always)]
    fn pack(rows: [Floats; 4], factor: Floats) -> Words {
        // SAFETY: every CPU of this architecture has NEON.
        unsafe {
            let bytes = rows.map(|row| to_int8(row, factor));
            let pairs = |a, b| {
                let int8x8x2_t(low, high) = vzip_s8(a, b);
                vreinterpretq_s16_s8(vcombine_s8(low, high))
            };
            let int16x8x2_t(low, high) =
                vzipq_s16(pairs(bytes[0], bytes[1]), pairs(bytes[2], bytes[3]));
            [low, high].map(|words| vreinterpretq_u32_s16(words))
        }
    }
    #[inline(always)]
    unsafe fn store_row(p: *mut u32, row: Floats, factor: Floats) {
        // SAFETY: guaranteed by the caller for two words.
        unsafe { vst1_u32(p, vreinterpret_u32_s8(to_int8(row, factor))) }
    }
}

/// Eight values rounded to bfloat16.
///
/// # Safety
/// In a function that enables the target feature.
#[inline(always)]
unsafe fn to_bf16(row: Floats) -> uint16x8_t {
    // SAFETY: guaranteed by the caller; the instructions have no other effect.
    unsafe {
        let mut halves: uint16x8_t =
            instruction!("bfcvtn {d:v}.4h, {a:v}.4s", a row[0] => uint16x8_t);
        asm!("bfcvtn2 {d:v}.8h, {a:v}.4s", d = inout(vreg) halves, a = in(vreg) row[1],
            options(pure, nomem, nostack, preserves_flags));
        halves
    }
}

impl Operand for Bf16 {
    words! {}
    type Sum = Floats;

    #[inline(always)]
    fn zero() -> Floats {
        Neon::splat(0.0)
    }
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Floats {
        Neon::splat(0.0)
    }
    #[inline(always)]
    fn dot(a: Words, b: Words, sum: Floats) -> Floats {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            [
                instruction!("bfdot {d:v}.4s, {b:v}.8h, {a:v}.2h[0]", sum[0], b[0], vreg a[0]),
                instruction!("bfdot {d:v}.4s, {b:v}.8h, {a:v}.2h[0]", sum[1], b[1], vreg a[0]),
            ]
        }
    }
    #[inline(always)]
    fn finish(sum: Floats) -> Floats {
        sum
    }
}

impl Narrow for Bf16 {
    storage! { Format::Bf16 }

    #[inline(always)]
    fn pack(rows: [Floats; 4], _: Floats) -> Words {
        // SAFETY: this type is used only in a function that enables the target feature.
        unsafe {
            let uint16x8x2_t(low, high) = vzipq_u16(to_bf16(rows[0]), to_bf16(rows[1]));
            [low, high].map(|words| vreinterpretq_u32_u16(words))
        }
    }
    #[inline(always)]
    unsafe fn store_row(p: *mut u32, row: Floats, _: Floats) {
        // SAFETY: guaranteed by the caller for four words; and as above.
        unsafe { vst1q_u32(p, vreinterpretq_u32_u16(to_bf16(row))) }
    }
}
