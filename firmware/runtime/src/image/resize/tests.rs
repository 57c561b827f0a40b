//! Compares the fast passes with a floating-point reference. (`tests/image.rs` compares with
//! Pillow.)

use super::*;

fn noise(width: usize, height: usize) -> RgbImage {
    let data = (0..(width * height * 3) as u32)
        .map(|i| {
            let mixed = (i ^ 0x9e37).wrapping_mul(0x85eb_ca6b);
            ((mixed ^ (mixed >> 15)).wrapping_mul(0x2545_f491) >> 24) as u8
        })
        .collect();
    RgbImage::new(width, height, data).unwrap()
}

/// Resizes one axis in f64: `value(line, position)` of `lines` lines, from `from` to `to`.
fn axis(from: usize, to: usize, lines: usize, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out = Vec::new();
    for line in 0..lines {
        for index in 0..to {
            // The triangle over every input pixel, without a window.
            let stretch = (from as f64 / to as f64).max(1.0);
            let center = (index as f64 + 0.5) * from as f64 / to as f64;
            let weight = |x: usize| (1.0 - ((x as f64 + 0.5 - center) / stretch).abs()).max(0.0);
            let total: f64 = (0..from).map(weight).sum();
            let sum: f64 = (0..from).map(|x| weight(x) * value(line, x)).sum();
            out.push(sum / total);
        }
    }
    out
}

/// The maximum difference in levels from the exact resize (without rounding between the passes).
fn worst(image: &RgbImage, width: usize, height: usize) -> f64 {
    let fast = bilinear(image, width, height);
    assert_eq!((fast.width(), fast.height()), (width, height));
    let mut worst = 0f64;
    for channel in 0..3 {
        let pixel = |y: usize, x: usize| f64::from(image.row(y)[x * 3 + channel]);
        let across = axis(image.width(), width, image.height(), pixel);
        let exact = axis(image.height(), height, width, |x, y| across[y * width + x]);
        for y in 0..height {
            for x in 0..width {
                let got = f64::from(fast.row(y)[x * 3 + channel]);
                worst = worst.max((got - exact[x * height + y]).abs());
            }
        }
    }
    worst
}

#[test]
fn fast_resize_agrees_with_the_exact_one() {
    let mut overall = 0f64;
    for (from, to) in [
        ((37, 23), (224, 224)),
        ((120, 90), (56, 56)),
        ((97, 61), (13, 7)),
        ((1, 1), (5, 3)),
        ((1, 64), (1, 9)),
        ((64, 1), (9, 4)),
        ((50, 40), (50, 17)),
        ((50, 41), (19, 41)),
        ((33, 5), (1, 1)),
        ((2, 3), (3, 2)),
    ] {
        let error = worst(&noise(from.0, from.1), to.0, to.1);
        println!("{from:?} -> {to:?}: {error:.4} levels");
        overall = overall.max(error);
    }
    println!("worst {overall:.4} levels");
    // Each pass rounds by half a level (the second averages the rounding of the first), plus the
    // rounding of the weights: at most 200 taps * 255 * 2^-23 = 0.006 levels.
    assert!(overall <= 1.01, "{overall}");
}

#[test]
fn weights_of_a_window_sum_to_one() {
    for (from, to) in [(1920, 448), (7, 1000), (16384, 1), (1, 16384), (448, 447)] {
        for (first, weights) in Windows::new(from, to).iter() {
            assert!(first + weights.len() <= from && !weights.is_empty());
            let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
            let off = (sum - (1 << FRACTION_BITS)).unsigned_abs() as usize;
            assert!(off <= weights.len().div_ceil(2), "{from} -> {to}: {off}");
        }
    }
}

#[test]
fn a_flat_image_stays_flat() {
    for value in [0, 1, 127, 254, 255] {
        let flat = RgbImage::filled(61, 47, [value; 3]).unwrap();
        for (width, height) in [(224, 224), (7, 5), (61, 1), (1, 47)] {
            let out = bilinear(&flat, width, height);
            assert!(out.data().iter().all(|&v| v == value));
        }
    }
}
