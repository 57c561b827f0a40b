//! The error of outputs relative to the reference outputs, and the tolerance.

use std::fmt;

use loftup_bundle::{Manifest, Precision, ReferenceError};

use super::Part;
use crate::backend::{Arithmetic, Products};

/// The comparison of a backend's outputs with the reference outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What was compared.
    pub part: Part,
    /// The kind of query, each of which has its own profile in a TensorRT engine.
    pub asked: &'static str,
    /// Files of the graphs that ran.
    pub graphs: String,
    /// The error found.
    pub found: ReferenceError,
    /// The error allowed.
    pub allowed: ReferenceError,
}

impl Comparison {
    /// Whether the error is within the tolerance; `false` for NaN.
    pub fn passed(&self) -> bool {
        self.found.relative_error <= self.allowed.relative_error
            && self.found.cosine >= self.allowed.cosine
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "relative error {:.2e}, allowed {:.2e}; minimum cosine {:.5}, allowed {:.5}",
            self.found.relative_error,
            self.allowed.relative_error,
            self.found.cosine,
            self.allowed.cosine
        )
    }
}

/// Returns the error of `found` relative to `reference`, both `[rows, dim]`. NaN if the sizes differ.
pub fn error_of(found: &[f32], reference: &[f32], dim: usize) -> ReferenceError {
    if found.len() != reference.len() || dim == 0 || found.is_empty() {
        return ReferenceError {
            relative_error: f64::NAN,
            cosine: f64::NAN,
        };
    }
    let (mut differences, mut squares, mut cosine) = (0f64, 0f64, 1f64);
    for (a, b) in found.chunks(dim).zip(reference.chunks(dim)) {
        let (mut ab, mut aa, mut bb) = (0f64, 0f64, 0f64);
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            differences += (a - b) * (a - b);
            (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
        }
        squares += bb;
        let row = match aa == 0.0 && bb == 0.0 {
            true => 1.0,
            false => ab / (aa * bb).sqrt(),
        };
        // Zero vectors and NaN get the lowest similarity.
        cosine = cosine.min(if row.is_nan() { -1.0 } else { row });
    }
    ReferenceError {
        relative_error: (differences / squares.max(f64::MIN_POSITIVE)).sqrt(),
        cosine,
    }
}

/// Returns the allowed error: the error of the graph's precision, plus a tolerance for the arithmetic of
/// the backend. `docs/engines.md` justifies the values.
pub(super) fn allowed(
    manifest: &Manifest,
    part: Part,
    precision: Precision,
    arithmetic: Arithmetic,
) -> ReferenceError {
    let own = arithmetic_error(match (part, arithmetic) {
        // Only the upsampler has these.
        (Part::Backbone, Arithmetic::Products(_)) => Arithmetic::Fp32,
        _ => arithmetic,
    });
    let errors = manifest.references.as_ref();
    let errors = errors.and_then(|r| r.errors.get(&precision));
    let measured = errors.and_then(|e| match part {
        Part::Backbone => e.backbone,
        Part::Upsampler => e.upsampler,
    });
    let cost = measured.unwrap_or(match precision {
        Precision::Fp32 => ReferenceError {
            relative_error: 0.0,
            cosine: 1.0,
        },
        // Not measured: the largest errors of real bundles, with a margin.
        Precision::Fp16 | Precision::Fp16Weights => ReferenceError {
            relative_error: 0.03,
            cosine: 0.995,
        },
        Precision::Int8 => ReferenceError {
            relative_error: 0.15,
            cosine: 0.95,
        },
    });
    // A backend may round at different places than the graph. If the error is 1.5 times as large,
    // 1 - cosine, which is quadratic in the error, is 2.25 times as large.
    ReferenceError {
        relative_error: 1.5 * cost.relative_error + own.relative_error,
        cosine: own.cosine - 2.25 * (1.0 - cost.cosine).max(0.0),
    }
}

/// The allowed error of 32-bit graphs.
pub(super) fn arithmetic_error(arithmetic: Arithmetic) -> ReferenceError {
    let (relative_error, angle) = match arithmetic {
        Arithmetic::Fp32 | Arithmetic::Products(Products::Fp32) => (2e-3, 1e-4),
        // Same as for int8 graphs without a measured error.
        Arithmetic::Products(Products::Int8) => (1.5e-1, 5e-2),
        Arithmetic::Tf32 | Arithmetic::Products(_) => (5e-2, 1e-2),
    };
    ReferenceError {
        relative_error,
        cosine: 1.0 - angle,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::inputs::hash, *};

    #[test]
    fn errors_of_scale_order_and_nan_are_seen() {
        let reference: Vec<f32> = (0..64 * 8).map(|i| hash(i) - 0.5).collect();
        assert_eq!(error_of(&reference, &reference, 8).relative_error, 0.0);
        let scaled: Vec<f32> = reference.iter().map(|x| x * 1.01).collect();
        let e = error_of(&scaled, &reference, 8);
        assert!(
            (e.relative_error - 0.01).abs() < 1e-4 && e.cosine > 0.9999,
            "{e:?}"
        );
        let mut shuffled = reference.clone();
        shuffled.rotate_left(8);
        let e = error_of(&shuffled, &reference, 8);
        assert!(e.relative_error > 0.5 && e.cosine < 0.5, "{e:?}");
        let mut nan = reference.clone();
        nan[3] = f32::NAN;
        let e = error_of(&nan, &reference, 8);
        assert!(e.relative_error.is_nan() && e.cosine == -1.0, "{e:?}");
        assert!(
            error_of(&reference[1..], &reference, 8)
                .relative_error
                .is_nan()
        );
    }
}
