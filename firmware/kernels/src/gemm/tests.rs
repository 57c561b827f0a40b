//! GEMM with odd shapes, compared with the definition.

use super::*;
use crate::reference::noise;

/// Rows, depth and panels of products.
pub(super) const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (2, 3, 1),
    (5, 7, 2),
    (13, 52, 3),
    (68, 404, 1),
    (203, 11, 2),
    (25, 0, 1),
    (12, 1, 2),
    (31, 2000, 1),
    (31, 2001, 1),
];

#[test]
fn chunks_cover_all_rows_and_are_near_equal() {
    for max in [1, 6, 12, 96] {
        for n in 0..200 {
            let parts: Vec<_> = chunks(n, max).collect();
            let mut next = 0;
            for (start, len) in &parts {
                assert_eq!(*start, next);
                assert!(*len <= max);
                next += len;
            }
            assert_eq!(next, n);
            let lens = parts.iter().map(|p| p.1);
            assert!(lens.clone().max().unwrap_or(0) - lens.min().unwrap_or(0) <= 1);
        }
    }
}

#[test]
fn gemm_with_packed_a_matches_the_definition() {
    let mut worst: f64 = 0.0;
    for isa in SupportedIsa::all() {
        let columns = nr(isa);
        for (rows, depth, panels) in SHAPES {
            let (a, b) = (noise(1, rows * depth), noise(2, panels * depth * columns));
            let (bias, old) = (noise(3, rows), noise(4, panels * rows * columns));
            let packed = PackedA::new(isa, rows, depth, |r, k| a[r * depth + k]);
            for epilogue in [
                Epilogue::Store,
                Epilogue::Bias(&bias),
                Epilogue::Accumulate(&bias),
            ] {
                let mut out = old.clone();
                let (b_stride, c_stride) = (depth * columns, rows * columns);
                gemm(&packed, &b, b_stride, &mut out, c_stride, panels, epilogue);
                for (i, found) in out.iter().enumerate() {
                    let (panel, r, c) = (i / c_stride, i % c_stride / columns, i % columns);
                    let mut exact: f64 = (0..depth)
                        .map(|k| {
                            f64::from(a[r * depth + k])
                                * f64::from(b[panel * b_stride + k * columns + c])
                        })
                        .sum();
                    if !matches!(epilogue, Epilogue::Store) {
                        exact += f64::from(bias[r]);
                    }
                    if matches!(epilogue, Epilogue::Accumulate(_)) {
                        exact += f64::from(old[i]);
                    }
                    // Partial sums reach about sqrt(depth) / 3, and each of `depth` additions rounds.
                    let limit = 1e-6 + 1e-7 * depth as f64;
                    let error = (f64::from(*found) - exact).abs();
                    assert!(error < limit, "{isa} {rows}x{depth}: {error:.1e}");
                    worst = worst.max(error);
                }
            }
        }
    }
    println!("worst error {worst:.1e}");
}

#[test]
fn gemm_with_packed_b_matches_the_definition() {
    let mut worst: f64 = 0.0;
    for isa in SupportedIsa::all() {
        let columns = nr(isa);
        for (rows, depth, panels, a_stride) in [
            (1, 1, 1, 1),
            (3, 1, 2, 1),
            (7, 5, 1, 9),
            (64, 404, 2, 416),
            (13, 203, 1, 203),
            (0, 4, 1, 4),
        ] {
            let cols = panels * columns;
            let (a, b) = (noise(1, rows * a_stride), noise(2, depth * cols));
            let mut out = vec![f32::NAN; rows * cols];
            let gemm = GemmPackedB {
                rows,
                depth,
                cols,
                a: &a,
                a_stride,
                b: &b,
                c: &mut out,
                c_stride: cols,
                scales: None,
            };
            gemm.run(isa);
            for (i, found) in out.iter().enumerate() {
                let (r, c) = (i / cols, i % cols);
                let exact: f64 = (0..depth)
                    .map(|k| {
                        f64::from(a[r * a_stride + k])
                            * f64::from(b[(c / columns * depth + k) * columns + c % columns])
                    })
                    .sum();
                let error = (f64::from(*found) - exact).abs();
                assert!(
                    error < 1e-6 + 1e-7 * depth as f64,
                    "{isa} {rows}x{depth}: {error:.1e}"
                );
                worst = worst.max(error);
            }
        }
    }
    println!("worst error {worst:.1e}");
}
