//! Rotary position embeddings of DINOv3.
//!
//! The center of a patch is encoded as in `loftup_spec::rotary`. A head of D channels has D / 4 periods
//! and D / 2 angles; channels c and c + D / 2 of queries and keys are rotated by angle c.

use loftup_onnx::Tensor;
use loftup_spec::rotary::rotation;

/// Factors for `x * cos + swapped * sin`, where `swapped` is x with the two halves of its channels
/// swapped: the sine is negated in the first half. Both are `[1, prefix + rows * columns, 1,
/// head_dim]`; the tokens before the patches are not rotated.
pub(super) fn factors(
    periods: &[f32],
    prefix: usize,
    rows: usize,
    columns: usize,
) -> (Tensor, Tensor) {
    let (quarter, half) = (periods.len(), 2 * periods.len());
    let shape = [1, prefix + rows * columns, 1, 2 * half];
    // In 64 bits; the libraries compute in 32, which differs by up to 5e-7.
    let axis =
        |n: usize| -> Vec<[f32; 2]> { (0..n).flat_map(|i| rotation(i, n, periods)).collect() };
    let (by_row, by_column) = (axis(rows), axis(columns));
    // Cosine and sine of an element; `None` before the patches.
    let of = |i: usize| {
        let (token, angle) = (i / (2 * half), i % half);
        let patch = token.checked_sub(prefix)?;
        Some(match angle.checked_sub(quarter) {
            None => by_row[patch / columns * quarter + angle],
            Some(angle) => by_column[patch % columns * quarter + angle],
        })
    };
    let cos = Tensor::from_fn(shape, |i| of(i).map_or(1.0, |[cos, _]| cos));
    let sin = Tensor::from_fn(shape, |i| {
        let sign = if i % (2 * half) < half { -1.0 } else { 1.0 };
        sign * of(i).map_or(0.0, |[_, sin]| sin)
    });
    (cos, sin)
}

#[cfg(test)]
mod tests {
    use loftup_spec::rotary::periods;

    use super::*;

    /// As printed in 32 bits by `100 ** (torch.arange(16) / 16)`.
    #[test]
    fn periods_are_powers() {
        let found = periods(100.0, 16);
        let expected = [
            1.0,
            1.333_521_4,
            1.778_279_4,
            2.371_373_7,
            3.162_277_7,
            4.216_965,
            5.623_413,
            7.498_942,
            10.0,
            13.335_215,
            17.782_795,
            23.713_737,
            31.622_776,
            42.169_65,
            56.234_13,
            74.989_42,
        ];
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 2e-7 * expected,
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn a_rotation_keeps_lengths_and_leaves_the_prefix() {
        let (cos, sin) = factors(&periods(100.0, 4), 3, 2, 5);
        assert_eq!(cos.shape(), [1, 13, 1, 16]);
        for token in 0..13 {
            for c in 0..16 {
                let (i, other) = (token * 16 + c, token * 16 + (c + 8) % 16);
                let (cosine, sine) = (cos.data()[i], sin.data()[i]);
                assert!((cosine * cosine + sine * sine - 1.0).abs() < 1e-6);
                assert_eq!(cosine, cos.data()[other]);
                assert_eq!(sine, -sin.data()[other]);
                if token < 3 {
                    assert_eq!((cosine, sine.abs()), (1.0, 0.0));
                }
            }
        }
    }

    /// A single patch is at the center, where nothing is rotated.
    #[test]
    fn one_patch_is_not_rotated() {
        let (cos, sin) = factors(&periods(100.0, 2), 0, 1, 1);
        assert!(cos.data().iter().all(|x| *x == 1.0));
        assert!(sin.data().iter().all(|x| *x == 0.0));
    }
}
