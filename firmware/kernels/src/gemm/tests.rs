//! Products of awkward shapes against the definition.

use super::*;
use crate::reference::noise;

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

#[test]
fn chunks_cover_all_rows_in_near_equal_parts() {
    for most in [1, 6, 12, 96] {
        for n in 0..200 {
            let parts: Vec<_> = chunks(n, most).collect();
            let mut next = 0;
            for (start, len) in &parts {
                assert_eq!(*start, next);
                assert!(*len <= most);
                next += len;
            }
            assert_eq!(next, n);
            let lens = parts.iter().map(|p| p.1);
            assert!(lens.clone().max().unwrap_or(0) - lens.min().unwrap_or(0) <= 1);
        }
    }
}

#[test]
fn products_of_awkward_shapes_are_those_of_the_definition() {
    let mut worst: f64 = 0.0;
    for isa in available() {
        let columns = block_cols(isa);
        for (rows, depth, panels) in [
            (1, 1, 1),
            (2, 3, 1),
            (5, 7, 2),
            (13, 52, 3),
            (68, 404, 1),
            (203, 11, 2),
            (25, 0, 1),
            (31, 2000, 1),
        ] {
            let (a, b) = (noise(1, rows * depth), noise(2, panels * depth * columns));
            let (bias, old) = (noise(3, rows), noise(4, panels * rows * columns));
            let packed = Packed::new(isa, rows, depth, |r, k| a[r * depth + k]);
            for then in [Then::Store, Then::Bias(&bias), Then::Accumulate(&bias)] {
                let mut out = old.clone();
                let (from, to) = (depth * columns, rows * columns);
                product(&packed, &b, from, &mut out, to, panels, then);
                for (i, found) in out.iter().enumerate() {
                    let (panel, r, c) = (i / to, i % to / columns, i % columns);
                    let mut exact: f64 = (0..depth)
                        .map(|k| {
                            f64::from(a[r * depth + k])
                                * f64::from(b[panel * from + k * columns + c])
                        })
                        .sum();
                    if !matches!(then, Then::Store) {
                        exact += f64::from(bias[r]);
                    }
                    if matches!(then, Then::Accumulate(_)) {
                        exact += f64::from(old[i]);
                    }
                    // Partial sums reach sqrt(depth / 9); each of `depth` additions rounds.
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
fn products_by_panels_are_those_of_the_definition() {
    let mut worst: f64 = 0.0;
    for isa in available() {
        let wide = block_cols(isa);
        for (rows, depth, panels, left_row) in [
            (1, 1, 1, 1),
            (3, 1, 2, 1),
            (7, 5, 1, 9),
            (64, 404, 2, 416),
            (13, 203, 1, 203),
            (0, 4, 1, 4),
        ] {
            let cols = panels * wide;
            let (a, b) = (noise(1, rows * left_row), noise(2, depth * cols));
            let mut out = vec![f32::NAN; rows * cols];
            let by_panels = ByPanels {
                rows,
                depth,
                cols,
                left: &a,
                left_row,
                right: &b,
                out: &mut out,
                out_row: cols,
            };
            by_panels.compute(isa);
            for (i, found) in out.iter().enumerate() {
                let (r, c) = (i / cols, i % cols);
                let exact: f64 = (0..depth)
                    .map(|k| {
                        f64::from(a[r * left_row + k])
                            * f64::from(b[(c / wide * depth + k) * wide + c % wide])
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
