//! Products of rounded operands, compared with plain arithmetic on the same rounded values.

use super::{
    Epilogue, NarrowColumns, Packed, Scratch, narrow::Rounding, nr, round_row, tests::SHAPES,
};
use crate::{
    reference::{self, noise},
    simd::{
        Format, Narrow, NarrowOp, Simd, SupportedFormat, SupportedIsa, bf16_bits, dispatch_narrow,
        fp16_bits,
    },
};

/// The formats of each instruction set of this CPU. Says which are not tested.
pub(super) fn formats() -> Vec<(SupportedIsa, SupportedFormat)> {
    let all: Vec<_> = SupportedIsa::all()
        .flat_map(|isa| Format::ALL.map(|format| (isa, format.supported(isa))))
        .filter_map(|(isa, format)| format.map(|format| (isa, format)))
        .collect();
    for format in Format::ALL {
        if !all.iter().any(|(_, found)| found.format() == format) {
            println!("skipped: this CPU has no instructions for {format}");
        }
    }
    all
}

/// Three steps between neighboring values, of the product of the largest ones; see below.
fn steps(format: Format, depth: usize) -> f32 {
    match (format, format.limit(depth)) {
        (Format::Fp16, _) => 3.0 / 1024.0,
        (_, Some(limit)) => 3.0 / limit as f32,
        (_, None) => 0.0,
    }
}

#[test]
fn products_match_plain_arithmetic_on_the_rounded_operands() {
    for (isa, format) in formats() {
        let (name, columns) = (format.format(), nr(isa));
        let (mut worst, mut rounding): (f64, f64) = (0.0, 0.0);
        for (rows, depth, panels) in SHAPES {
            let (a, mut b) = (noise(1, rows * depth), noise(2, panels * depth * columns));
            // Columns of different magnitude, one of them zero.
            for (i, x) in b.iter_mut().enumerate() {
                *x *= [0.0, 1e-3, 1.0, 100.0][i % columns % 4];
            }
            let (bias, old) = (noise(3, rows), noise(4, panels * rows * columns));
            let packed = Packed::new(isa, Some(format), rows, depth, |r, k| a[r * depth + k]);
            let mut scratch = Scratch::default();
            for epilogue in [
                Epilogue::Store,
                Epilogue::Bias(&bias),
                Epilogue::Accumulate(&bias),
            ] {
                let mut out = old.clone();
                let (b_stride, c_stride) = (depth * columns, rows * columns);
                packed.multiply(
                    &b,
                    b_stride,
                    &mut out,
                    c_stride,
                    panels,
                    epilogue,
                    &mut scratch,
                );
                for (i, found) in out.iter().enumerate() {
                    let (panel, r, c) = (i / c_stride, i % c_stride / columns, i % columns);
                    let row: Vec<f32> = (0..depth).map(|k| a[r * depth + k]).collect();
                    let at = |k: usize| b[panel * b_stride + k * columns + c];
                    let column: Vec<f32> = (0..depth).map(at).collect();
                    let dot =
                        |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
                    let wide =
                        |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
                    let rounded = |x: &[f32]| reference::rounded(name, x);
                    let mut exact = reference::product(name, &row, &column);
                    rounding = rounding.max((exact - dot(&wide(&row), &wide(&column))).abs());
                    let size = dot(&rounded(&row), &rounded(&row)).sqrt()
                        * dot(&rounded(&column), &rounded(&column)).sqrt();
                    match epilogue {
                        Epilogue::Store => {}
                        Epilogue::Bias(_) => exact += f64::from(bias[r]),
                        Epilogue::Accumulate(_) => exact += f64::from(bias[r]) + f64::from(old[i]),
                    }
                    // Sums of bfloat16 round as in 32 bits, those of integers only when they are scaled. The
                    // factors of integers are rounded to 24 bits, so that one value in about ten thousand,
                    // which is almost halfway between two integers, becomes the other one: up to three of
                    // them here, with a step each. In fp16, sums are rounded again after that.
                    let largest = |x: &[f32]| x.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
                    let step = largest(&row) * largest(&column) * steps(name, depth);
                    let step = f64::from(step);
                    let limit = 1e-6 + size * (1e-6 + 2e-8 * depth as f64) + step;
                    let error = (f64::from(*found) - exact).abs();
                    assert!(
                        error < limit,
                        "{isa} {name} {rows}x{depth}: {error:.1e}, {limit:.1e}"
                    );
                    worst = worst.max(error / (1.0 + size));
                }
            }
        }
        println!(
            "{isa} {name}: worst error {worst:.1e} of the operands' norms; rounding changes products by up to {rounding:.1e}"
        );
    }
}

/// [`round_row`] for rows `[stride]`.
struct RoundRows<'a> {
    x: &'a [f32],
    stride: usize,
    limit: f32,
    out: &'a mut [u32],
    scales: &'a mut [f32],
}

impl NarrowOp for RoundRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<N: Narrow>(self) {
        let words = self.stride / N::FORMAT.group();
        assert_eq!(self.stride % N::S::LANES, 0);
        let rows = self.x.chunks_exact(self.stride);
        let out = self.out.chunks_exact_mut(words).zip(self.scales);
        for (x, (out, scale)) in rows.zip(out) {
            *scale = round_row::<N>(x, self.limit, out);
        }
    }
}

/// Rounds rows of activations `[rows, stride]` and multiplies them: `[rows, columns]`.
pub(super) fn multiply_rows(
    format: SupportedFormat,
    packed: &NarrowColumns,
    (x, stride): (&[f32], usize),
    (rows, columns): (usize, usize),
) -> Vec<f32> {
    let mut words = vec![0; rows * stride / 2];
    let mut scales = vec![f32::NAN; rows];
    let round = RoundRows {
        x,
        stride,
        limit: packed.limit(),
        out: &mut words,
        scales: &mut scales,
    };
    dispatch_narrow(format, round);
    let mut out = vec![f32::NAN; rows * columns];
    packed.multiply(rows, (&words, stride / 2), &scales, (&mut out, columns));
    out
}

#[test]
fn row_major_products_match_plain_arithmetic_on_the_rounded_operands() {
    for (isa, format) in formats() {
        let (name, width) = (format.format(), nr(isa));
        if name == Format::Int8 {
            continue;
        }
        let mut worst: f64 = 0.0;
        for (rows, depth, panels) in SHAPES {
            let (columns, stride) = (panels * width, depth.next_multiple_of(width).max(width));
            let mut a = noise(5, rows * stride);
            for (i, x) in a.iter_mut().enumerate() {
                *x = if i % stride < depth { *x } else { 0.0 };
            }
            let b = noise(6, depth * columns);
            let packed = NarrowColumns::new(format, depth, columns, |k, c| b[k * columns + c]);
            let out = multiply_rows(format, &packed, (&a, stride), (rows, columns));
            for (i, found) in out.iter().enumerate() {
                let (r, c) = (i / columns, i % columns);
                let row = &a[r * stride..][..depth];
                let column: Vec<f32> = (0..depth).map(|k| b[k * columns + c]).collect();
                let exact = reference::product(name, row, &column);
                // As above; operands are below 1.
                let step = f64::from(steps(name, depth));
                let error = (f64::from(*found) - exact).abs();
                let limit = 1e-6 + 1e-7 * depth as f64 + step;
                assert!(
                    error < limit,
                    "{isa} {name} {rows}x{depth}: {error:.1e}, {limit:.1e}"
                );
                worst = worst.max(error);
            }
        }
        println!("{isa} {name}: worst error {worst:.1e}");
    }
}

#[test]
fn the_largest_integers_do_not_overflow() {
    for (isa, format) in formats() {
        let columns = nr(isa);
        for depth in [1, 404, 2001] {
            for sign in [1.0, -1.0] {
                let packed = Packed::new(isa, Some(format), 3, depth, |_, _| 2.0);
                let mut out = vec![f32::NAN; 3 * columns];
                let b = vec![sign * 3.0; depth * columns];
                let mut scratch = Scratch::default();
                packed.multiply(&b, 0, &mut out, 0, 1, Epilogue::Store, &mut scratch);
                let exact = sign * 6.0 * depth as f32;
                // Operands are exact but for the scales.
                assert!(
                    out.iter().all(|x| (x - exact).abs() < 1e-5 * exact.abs()),
                    "{isa} {}: {} for {exact}",
                    format.format(),
                    out[0]
                );
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_so() {
    for (isa, format) in formats() {
        let columns = nr(isa);
        let (rows, depth) = (13, 7);
        let clean = noise(7, depth * columns);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut b = clean.clone();
            b[2 * columns + 5] = bad;
            let a = noise(8, rows * depth);
            let packed = Packed::new(isa, Some(format), rows, depth, |r, k| a[r * depth + k]);
            let mut out = vec![0.0; rows * columns];
            let mut scratch = Scratch::default();
            packed.multiply(&b, 0, &mut out, 0, 1, Epilogue::Store, &mut scratch);
            for (i, x) in out.iter().enumerate() {
                assert_eq!(
                    x.is_finite(),
                    i % columns != 5,
                    "{isa} {}: {x}",
                    format.format()
                );
            }
            let packed = Packed::new(isa, Some(format), rows, depth, |r, k| match (r, k) {
                (4, 1) => bad,
                _ => 1.0,
            });
            packed.multiply(&clean, 0, &mut out, 0, 1, Epilogue::Store, &mut scratch);
            for (i, x) in out.iter().enumerate() {
                assert_eq!(
                    x.is_finite(),
                    i / columns != 4,
                    "{isa} {}: {x}",
                    format.format()
                );
            }
        }
    }
}

/// Their factor to the format's range would be infinite.
#[test]
fn values_near_the_smallest_float_become_zero() {
    for (isa, format) in formats() {
        let columns = nr(isa);
        let (rows, depth) = (13, 7);
        let a = noise(9, rows * depth);
        let packed = Packed::new(isa, Some(format), rows, depth, |r, k| a[r * depth + k]);
        let mut b = vec![0.0; depth * columns];
        b[5] = 1e-38;
        b[2 * columns + 6] = f32::MIN_POSITIVE;
        let mut out = vec![f32::NAN; rows * columns];
        let mut scratch = Scratch::default();
        packed.multiply(&b, 0, &mut out, 0, 1, Epilogue::Store, &mut scratch);
        for x in &out {
            assert!(x.abs() < 1e-37, "{isa} {}: {x}", format.format());
        }
    }
}

#[test]
fn floats_are_rounded_to_nearest_even() {
    for (x, bits) in [
        (0.0, 0),
        (-1.0, 0xBC00),
        (1.0 + 1.0 / 2048.0, 0x3C00),
        (1.0 + 3.0 / 2048.0, 0x3C02),
        (65504.0, 0x7BFF),
        (65519.0, 0x7BFF),
        (65520.0, 0x7C00),
        (f32::NEG_INFINITY, 0xFC00),
        // Below the smallest normal value.
        (2f32.powi(-14) - 2f32.powi(-26), 0x0400),
        (3.0 * 2f32.powi(-25), 2),
        (2f32.powi(-25), 0),
    ] {
        assert_eq!(fp16_bits(x), bits, "{x}");
    }
    assert!(fp16_bits(f32::NAN) & 0x7FFF > 0x7C00);
    for (x, bits) in [
        (1.0, 0x3F80),
        (-2.0, 0xC000),
        (1.0 + 1.0 / 256.0, 0x3F80),
        (1.0 + 3.0 / 256.0, 0x3F82),
        (f32::INFINITY, 0x7F80),
        (f32::MAX, 0x7F80),
    ] {
        assert_eq!(bf16_bits(x), bits, "{x}");
    }
    assert!(f32::from_bits(u32::from(bf16_bits(f32::from_bits(0x7F80_0001))) << 16).is_nan());
    let int16 = |(_, format): &(_, SupportedFormat)| format.format() == Format::Int16;
    if let Some((_, format)) = formats().into_iter().find(int16) {
        let rounding = Rounding::new(format, 1);
        assert_eq!(rounding.scale([0.0, -0.0].into_iter()), 0.0);
        assert_eq!(rounding.integer(0.0, 0.0), 0);
    }
}
