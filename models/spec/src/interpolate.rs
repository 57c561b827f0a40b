//! Interpolation kernels of PyTorch's `interpolate`.

/// The parameter of the cubic convolution kernel for `mode="bicubic"`.
pub const CUBIC_A: f32 = -0.75;

/// The cubic convolution kernel (Keys, 1981) with parameter `a` at distance `0 <= x <= 2`.
pub fn cubic(a: f32, x: f32) -> f32 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    }
}

/// Weights of the four neighbors of a point at `0 <= t < 1` between the second and the third.
pub fn cubic_weights(t: f32) -> [f32; 4] {
    [1.0 + t, t, 1.0 - t, 2.0 - t].map(|x| cubic(CUBIC_A, x))
}

/// The position of a bilinear sample: the first of two neighbors and the weight of the second, for
/// output `i` of `to` from `from` inputs, with pixel centers at halves (`align_corners=False`).
pub fn bilinear(i: usize, from: usize, to: usize) -> (usize, f32) {
    let scale = from as f32 / to as f32;
    let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
    let first = (at as usize).min(from - 1);
    (first, at - first as f32)
}

/// First and last pixel (exclusive) of cell `i` of `cells`, as in PyTorch's adaptive average pooling. If
/// `pixels` is not a multiple of `cells`, cells overlap.
pub fn pooled(i: usize, cells: usize, pixels: usize) -> (usize, usize) {
    (i * pixels / cells, ((i + 1) * pixels).div_ceil(cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubic_weights_sum_to_one_and_interpolate() {
        for i in 0..100 {
            let sum: f32 = cubic_weights(i as f32 / 100.0).iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
        assert_eq!(cubic_weights(0.0), [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn bilinear_stays_inside() {
        for (from, to) in [(1, 1), (1, 5), (3, 7), (7, 3)] {
            for i in 0..to {
                let (first, t) = bilinear(i, from, to);
                assert!(first < from && (0.0..1.0).contains(&t), "{from} {to} {i}");
            }
        }
    }
}
