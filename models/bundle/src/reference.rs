//! The manifest entry of the reference outputs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::precision::Precision;

/// The reference outputs of a bundle, and the error of its other precisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct References {
    /// The file with the [`ReferenceOutputs`](crate::ReferenceOutputs).
    pub file: String,
    /// Program and version that computed them.
    pub tool: String,
    /// Error of the graphs of each precision except `fp32`, run as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<Precision, PartErrors>,
}

/// The error of each part of a bundle in one precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartErrors {
    /// Error of the backbone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<ReferenceError>,
    /// Error of the upsampler, given reference features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upsampler: Option<ReferenceError>,
}

/// Error of outputs relative to the reference outputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceError {
    /// Root of the sum of squared differences, divided by the root of the sum of squared reference values.
    pub relative_error: f64,
    /// Minimum cosine similarity of a feature vector to its reference.
    pub cosine: f64,
}

impl References {
    /// Name of the file.
    pub const FILE: &str = "references.safetensors";
    /// Maximum number of grid cells kept from the backbone's features.
    pub const CELLS: usize = 32;
    /// Number of pixels kept from the upsampler's output.
    pub const PIXELS: usize = 64;

    /// Validates the fields; the error names the invalid one.
    pub(super) fn validate(&self) -> Result<(), String> {
        for (precision, errors) in &self.errors {
            for e in [errors.backbone, errors.upsampler].into_iter().flatten() {
                let usable = e.relative_error.is_finite()
                    && e.relative_error >= 0.0
                    && (-1.001..=1.001).contains(&e.cosine);
                if !usable {
                    return Err(format!("errors.{precision}: {e:?} is not a valid error"));
                }
            }
        }
        Ok(())
    }

    /// Flat indices of the cells kept from a grid of `count` cells: one from each of several runs of equal
    /// length, at varying positions.
    pub fn cells(count: usize) -> impl Iterator<Item = usize> {
        let kept = Self::CELLS.min(count);
        let stride = count / kept.max(1);
        (0..kept).map(move |i| i * count / kept + (5 * i + i / stride) % stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_within_the_grid_and_no_two_are_the_same() {
        for count in [1, 3, 31, 32, 33, 63, 64, 256, 1369] {
            let cells: Vec<_> = References::cells(count).collect();
            assert_eq!(cells.len(), count.min(References::CELLS));
            assert!(cells.windows(2).all(|w| w[0] < w[1]), "{cells:?}");
            assert!(cells.iter().all(|i| *i < count), "{count}: {cells:?}");
        }
        // Not all in the same few columns of a square grid.
        let columns: std::collections::BTreeSet<_> =
            References::cells(256).map(|i| i % 16).collect();
        assert!(columns.len() >= 12, "{columns:?}");
    }

    #[test]
    fn errors_that_cannot_be_are_refused() {
        let with = |relative_error, cosine| {
            let error = ReferenceError {
                relative_error,
                cosine,
            };
            let errors = PartErrors {
                backbone: Some(error),
                upsampler: None,
            };
            References {
                file: References::FILE.into(),
                tool: "test".into(),
                errors: BTreeMap::from([(Precision::Fp16, errors)]),
            }
            .validate()
        };
        with(0.01, 0.999).unwrap();
        for (error, cosine) in [(-1.0, 1.0), (f64::NAN, 1.0), (0.1, 1.5), (0.1, f64::NAN)] {
            let what = with(error, cosine).unwrap_err();
            assert!(what.contains("errors.fp16"), "{what}");
        }
    }
}
