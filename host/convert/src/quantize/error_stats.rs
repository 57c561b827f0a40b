//! Accumulation of errors over outputs.

use loftup_bundle::ErrorStats;
use serde::Serialize;

/// Memory layout of the vectors whose cosine similarity is computed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Vectors {
    /// `[n, length]`: one after another.
    Rows(usize),
    /// `[channels, n]`: a plane for each channel.
    Planes(usize),
}

/// The worst vector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Worst {
    /// Its cosine similarity.
    pub cosine: f64,
    /// The calibration image, from 0.
    pub image: usize,
    /// Index of the vector in its tile.
    pub place: usize,
}

/// A value is an outlier if it differs by more than this fraction of the sum of its magnitude and
/// the root mean square.
const APART: f64 = 0.1;

/// Accumulates errors tile by tile.
#[derive(Debug, Clone)]
pub(super) struct ErrorAccumulator {
    difference: f64,
    reference: f64,
    values: u64,
    outliers: u64,
    cosines: f64,
    vectors: u64,
    worst: Worst,
}

impl Default for ErrorAccumulator {
    fn default() -> Self {
        Self {
            difference: 0.0,
            reference: 0.0,
            values: 0,
            outliers: 0,
            cosines: 0.0,
            vectors: 0,
            worst: Worst {
                cosine: 1.0,
                image: 0,
                place: 0,
            },
        }
    }
}

impl ErrorAccumulator {
    /// Adds the error of `found` against `reference`, of equal length.
    pub fn add(&mut self, found: &[f32], reference: &[f32], vectors: Vectors, image: usize) {
        let square = |x: f32| f64::from(x).powi(2);
        let squares: f64 = reference.iter().map(|x| square(*x)).sum();
        let size = (squares / reference.len().max(1) as f64).sqrt();
        self.reference += squares;
        self.values += reference.len() as u64;
        for (a, b) in found.iter().zip(reference) {
            let apart = (f64::from(*a) - f64::from(*b)).abs();
            self.difference += apart * apart;
            // NaN counts.
            let near = apart <= APART * (f64::from(b.abs()) + size);
            self.outliers += u64::from(!near);
        }
        let (count, step, inner) = match vectors {
            Vectors::Rows(length) => (reference.len() / length.max(1), length.max(1), 1),
            Vectors::Planes(channels) => {
                let places = reference.len() / channels.max(1);
                (places, 1, places.max(1))
            }
        };
        for i in 0..count {
            let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
            let length = reference.len() / count;
            for j in 0..length {
                let at = i * step + j * inner;
                let (a, b) = (f64::from(found[at]), f64::from(reference[at]));
                (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
            }
            let cosine = match (aa, bb) {
                (0.0, 0.0) => 1.0,
                _ => ab / (aa * bb).sqrt(),
            };
            // A zero vector or NaN counts as opposite.
            let cosine = if cosine.is_nan() { -1.0 } else { cosine };
            self.cosines += cosine;
            self.vectors += 1;
            if cosine < self.worst.cosine {
                self.worst = Worst {
                    cosine,
                    image,
                    place: i,
                };
            }
        }
    }

    /// Statistics so far; no error if nothing was added.
    pub fn stats(&self) -> ErrorStats {
        let relative = (self.difference / self.reference.max(f64::MIN_POSITIVE)).sqrt();
        ErrorStats {
            // NaN counts as the largest error.
            relative_error: if relative.is_finite() {
                relative
            } else {
                f64::MAX
            },
            cosine: self.cosines / (self.vectors.max(1)) as f64,
            worst_cosine: self.worst.cosine,
            outliers: self.outliers as f64 / self.values.max(1) as f64,
        }
    }

    pub fn worst(&self) -> Worst {
        self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_have_no_loss_and_the_worst_place_is_named() {
        let b = [1.0f32, 2.0, 0.0, 4.0, 5.0, 3.0];
        let mut sum = ErrorAccumulator::default();
        sum.add(&b, &b, Vectors::Rows(2), 0);
        assert_eq!(
            (sum.stats().relative_error, sum.stats().outliers),
            (0.0, 0.0)
        );
        // Of three places with two channels each the second turns round, on image 7.
        let a = [1.0f32, -2.0, 0.0, 4.0, -5.0, 3.0];
        sum.add(&a, &b, Vectors::Planes(2), 7);
        let worst = sum.worst();
        assert_eq!((worst.image, worst.place), (7, 1));
        assert!((worst.cosine + 1.0).abs() < 1e-12);
        let stats = sum.stats();
        // Twice the vector (2, 5), over twice all squares.
        assert!((stats.relative_error - (4.0 * 29.0 / 110.0f64).sqrt()).abs() < 1e-12);
        assert_eq!(stats.outliers, 2.0 / 12.0);
        assert!((stats.cosine - 4.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn nan_is_a_loss() {
        let mut sum = ErrorAccumulator::default();
        sum.add(&[f32::NAN, 1.0], &[1.0, 1.0], Vectors::Rows(2), 0);
        let stats = sum.stats();
        assert!(stats.relative_error > 1e9 && stats.worst_cosine == -1.0 && stats.outliers == 0.5);
    }
}
