//! Rotary position encoding on a grid, as in NAF and DINOv3.
//!
//! The center of a row (or column) has a coordinate from -1 to 1, each axis by its own length. The
//! channels of a head are rotated in pairs: by `2 pi y / p` for all periods `p`, then by `2 pi x / p`.

use std::f64::consts::TAU;

/// `count` periods: powers of `longest` from 1, up to it (exclusive).
pub fn periods(longest: f64, count: usize) -> Vec<f32> {
    (0..count)
        .map(|k| longest.powf(k as f64 / count as f64) as f32)
        .collect()
}

/// Cosine and sine of the angles of row (or column) `i` of `n`, for each period.
pub fn rotation(i: usize, n: usize, periods: &[f32]) -> impl Iterator<Item = [f32; 2]> + '_ {
    let at = 2.0 * (i as f64 + 0.5) / n as f64 - 1.0;
    periods.iter().map(move |period| {
        let angle = TAU * at / f64::from(*period);
        [angle.cos() as f32, angle.sin() as f32]
    })
}
