//! Comparison of feature maps.

use serde::Serialize;

/// The difference between two feature maps `[d, pixels]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Largest absolute difference of two values.
    pub max: f64,
    /// Mean absolute difference.
    pub mean: f64,
    /// Minimum cosine similarity of the feature vectors of a pixel.
    pub cosine: f64,
    /// Flat index of the pixel with that cosine.
    pub worst_pixel: usize,
    /// Root mean square of the second map.
    pub scale: f64,
}

/// Limits of a difference, for values with a root mean square of up to 1. For larger values, the limits
/// are scaled by it, because rounding errors are relative and the last normalization of an upsampler can
/// scale its output arbitrarily.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tolerance {
    /// Maximum absolute difference.
    pub max: f64,
    /// Mean absolute difference.
    pub mean: f64,
    /// Minimum cosine similarity.
    pub cosine: f64,
}

impl Tolerance {
    /// The same backbone in two runtimes, which differ only by rounding.
    pub const BACKBONE: Self = Self {
        max: 1e-4,
        mean: 1e-4,
        cosine: 0.99999,
    };
    /// Two implementations of the upsampler including min-max scaling, where one unit in the last place
    /// times a frequency of e^10 is a phase of 1e-3.
    pub const UPSAMPLER: Self = Self {
        max: 5e-3,
        mean: 2e-4,
        cosine: 0.99999,
    };
    /// The same upsampler on the same scaled guidance with other tiles. It differs only by rounding, but
    /// the softmax magnifies it: attention that separates neighboring tokens has logits of a few tens,
    /// which are sums of terms in the hundreds. Their rounding error, 1e-4, is the relative error of an
    /// attention weight.
    pub const TILES: Self = Self {
        max: 2e-3,
        mean: 2e-4,
        cosine: 0.99999,
    };

    /// Returns the limits for values with this root mean square.
    pub fn scaled(&self, scale: f64) -> Self {
        let factor = scale.max(1.0);
        Self {
            max: self.max * factor,
            mean: self.mean * factor,
            cosine: self.cosine,
        }
    }
}

impl Difference {
    /// Compares two maps of `dim` channels. NaN on either side counts as an infinite difference.
    /// `None` if their sizes differ or are not a multiple of `dim`.
    pub fn between(a: &[f32], b: &[f32], dim: usize) -> Option<Self> {
        if a.len() != b.len() || a.is_empty() || dim == 0 || !a.len().is_multiple_of(dim) {
            return None;
        }
        let pixels = a.len() / dim;
        let (mut max, mut sum) = (0f64, 0f64);
        let mut products = vec![[0f64; 3]; pixels];
        for (i, (&x, &y)) in a.iter().zip(b).enumerate() {
            let (x, y) = (f64::from(x), f64::from(y));
            let error = (x - y).abs();
            let error = if error.is_nan() { f64::INFINITY } else { error };
            max = max.max(error);
            sum += error;
            let p = &mut products[i % pixels];
            *p = [p[0] + x * y, p[1] + x * x, p[2] + y * y];
        }
        let cosine = |&[xy, xx, yy]: &[f64; 3]| {
            if xx == 0.0 && yy == 0.0 {
                return 1.0;
            }
            let cosine = xy / (xx * yy).sqrt();
            // A zero vector or NaN counts as opposite.
            if cosine.is_nan() { -1.0 } else { cosine }
        };
        let (worst_pixel, cosine) = products
            .iter()
            .map(cosine)
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((0, 1.0));
        let squares: f64 = b.iter().map(|y| f64::from(*y).powi(2)).sum();
        Some(Self {
            max,
            mean: sum / a.len() as f64,
            cosine,
            worst_pixel,
            scale: (squares / b.len() as f64).sqrt(),
        })
    }

    /// Whether the difference is within the tolerance.
    pub fn within(&self, tolerance: &Tolerance) -> bool {
        let allowed = tolerance.scaled(self.scale);
        // False for NaN. An infinite scale would allow any difference.
        self.scale.is_finite()
            && self.max <= allowed.max
            && self.mean <= allowed.mean
            && self.cosine >= allowed.cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_scale_with_large_values_only() {
        let tolerance = Tolerance {
            max: 1e-3,
            mean: 1e-3,
            cosine: 0.9,
        };
        let within = |size: f32, by: f32| {
            let b = [size, -size, size, -size];
            let a = b.map(|x| x + by);
            Difference::between(&a, &b, 2).unwrap().within(&tolerance)
        };
        assert!(within(8.0, 4e-3) && !within(8.0, 2e-2));
        assert!(within(0.1, 5e-4) && !within(0.1, 2e-3));
        let b = [f32::INFINITY, 1.0];
        let infinite = Difference::between(&[1.0, 1.0], &b, 1).unwrap();
        assert!(!infinite.within(&tolerance));
    }

    #[test]
    fn equal_maps_do_not_differ() {
        let map = [1.0, 2.0, 0.0, 4.0, 5.0, 0.0];
        let d = Difference::between(&map, &map, 2).unwrap();
        assert_eq!((d.max, d.mean), (0.0, 0.0));
        assert!((d.cosine - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_worst_pixel_is_named() {
        // Two channels, three pixels; the vectors of the second pixel are orthogonal.
        let (a, b) = (
            [1.0, 1.0, 1.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
        );
        let d = Difference::between(&a, &b, 2).unwrap();
        assert_eq!((d.max, d.worst_pixel, d.cosine), (1.0, 1, 0.0));
    }

    #[test]
    fn nan_is_never_within_a_tolerance() {
        let d = Difference::between(&[1.0, 1.0], &[1.0, f32::NAN], 1).unwrap();
        assert!(!d.within(&Tolerance {
            max: 1e9,
            mean: 1e9,
            cosine: -2.0
        }));
    }

    #[test]
    fn sizes_must_agree() {
        assert!(Difference::between(&[1.0, 2.0], &[1.0], 1).is_none());
        assert!(Difference::between(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], 2).is_none());
    }
}
