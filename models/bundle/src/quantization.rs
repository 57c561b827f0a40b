//! Quantization records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the graphs of one precision were quantized, and their error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// Program and version that made them.
    pub tool: String,
    /// Calibration data.
    pub calibration: Calibration,
    /// Limit of the end-to-end [`ErrorStats::relative_error`].
    #[serde(default, alias = "max_loss", skip_serializing_if = "Option::is_none")]
    pub max_error: Option<f64>,
    /// End-to-end error on the calibration images.
    #[serde(alias = "loss")]
    pub error: ErrorStats,
    /// Error of each graph by itself, on the inputs recorded in the fp32 bundle.
    pub graphs: BTreeMap<String, ErrorStats>,
    /// Layers that stay in fp32, as `GRAPH: NAME`.
    #[serde(default, alias = "kept", skip_serializing_if = "Vec::is_empty")]
    pub fp32_layers: Vec<String>,
    /// Accuracy of a head before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadAccuracy>,
    /// The error that can be measured without the calibration images.
    pub check: CheckError,
}

/// Images used for calibration and error measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Number of images.
    #[serde(alias = "pictures")]
    pub images: u64,
    /// Number of compared tiles of their outputs.
    pub tiles: u64,
    /// SHA-256 of the SHA-256s of the files, in order.
    pub fingerprint: String,
}

/// Error statistics of an output against fp32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorStats {
    /// Root of the sum of squared differences, divided by the root of the sum of squared 32-bit values.
    pub relative_error: f64,
    /// Mean cosine similarity of feature vectors.
    pub cosine: f64,
    /// Lowest cosine similarity.
    pub worst_cosine: f64,
    /// Fraction of values that differ by more than a tenth of the sum of their magnitude and the root
    /// mean square.
    pub outliers: f64,
}

/// Segmentation scores of a head, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadAccuracy {
    /// The head.
    pub name: String,
    /// Number of labeled images.
    #[serde(alias = "pictures")]
    pub images: u64,
    /// Mean intersection over union with the 32-bit graphs.
    pub mean_iou_before: f64,
    /// Mean intersection over union with the new graphs.
    pub mean_iou_after: f64,
}

/// Error on the built-in test image against fp32 outputs stored in a file of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckError {
    /// File of the fp32 outputs, `.npy`, `[pixels, d]`.
    pub file: String,
    /// Relative error of the fake-quantized graphs.
    pub as_written: f64,
    /// Relative error in fp32 with the rounded weights, as on a CPU.
    #[serde(alias = "widened")]
    pub fp32: f64,
}

impl Quantization {
    /// Validates the fields beyond their types. The caller checks that `check.file` is listed.
    ///
    /// # Errors
    /// The name of the invalid field and what is expected.
    pub fn validate(&self) -> Result<(), String> {
        let errors = self
            .graphs
            .iter()
            .map(|(name, error)| (name.as_str(), error));
        for (name, error) in errors.chain([("error", &self.error)]) {
            let cosine = |c: f64| (-1.001..=1.001).contains(&c);
            let usable = error.relative_error.is_finite()
                && error.relative_error >= 0.0
                && cosine(error.cosine)
                && cosine(error.worst_cosine)
                && (0.0..=1.0).contains(&error.outliers);
            if !usable {
                return Err(format!(
                    "{name}: {error:?}: expected a finite error of 0 or more, cosines from -1 to 1 and outliers from 0 to 1"
                ));
            }
        }
        let errors = [
            ("max_error", self.max_error.unwrap_or(0.0)),
            ("check.as_written", self.check.as_written),
            ("check.fp32", self.check.fp32),
        ];
        for (field, error) in errors {
            if !error.is_finite() || error < 0.0 {
                return Err(format!("{field}: {error}, expected 0 or more"));
            }
        }
        if let Some(head) = &self.head {
            let share = |x: f64| (0.0..=1.0).contains(&x);
            if !share(head.mean_iou_before) || !share(head.mean_iou_after) {
                return Err(format!("head {:?}: scores must be 0 to 1", head.name));
            }
        }
        let hash = &self.calibration.fingerprint;
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if hash.len() != 64 || !hash.bytes().all(digit) {
            return Err(
                "calibration.fingerprint: expected a SHA-256 of 64 lowercase hexadecimal digits"
                    .into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantization() -> Quantization {
        let error = ErrorStats {
            relative_error: 0.02,
            cosine: 0.9998,
            worst_cosine: 0.99,
            outliers: 0.001,
        };
        Quantization {
            tool: "loftup 0.1.0".into(),
            calibration: Calibration {
                images: 16,
                tiles: 64,
                fingerprint: "ab".repeat(32),
            },
            max_error: Some(0.05),
            error,
            graphs: BTreeMap::from([("queries".into(), error)]),
            fp32_layers: vec!["queries: conv1".into()],
            head: None,
            check: CheckError {
                file: "check.npy".into(),
                as_written: 0.01,
                fp32: 0.005,
            },
        }
    }

    #[test]
    fn a_quantization_comes_back_from_json_and_unknown_fields_are_refused() {
        let text = serde_json::to_string(&quantization()).unwrap();
        let back: Quantization = serde_json::from_str(&text).unwrap();
        assert_eq!(back, quantization());
        back.validate().unwrap();
        let other = text.replace("\"outliers\"", "\"outlayers\"");
        let error = serde_json::from_str::<Quantization>(&other).unwrap_err();
        assert!(error.to_string().contains("outlayers"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_field() {
        type Change = fn(&mut Quantization);
        let cases: [(&str, Change); 6] = [
            ("error", |q| q.error.cosine = 1.5),
            ("queries", |q| {
                q.graphs.get_mut("queries").unwrap().relative_error = -1.0;
            }),
            ("max_error", |q| q.max_error = Some(f64::INFINITY)),
            ("check.as_written", |q| q.check.as_written = f64::NAN),
            ("head \"camvid\"", |q| {
                q.head = Some(HeadAccuracy {
                    name: "camvid".into(),
                    images: 1,
                    mean_iou_before: 50.8,
                    mean_iou_after: 0.5,
                });
            }),
            ("calibration.fingerprint", |q| {
                q.calibration.fingerprint = "AB".repeat(32);
            }),
        ];
        for (what, change) in cases {
            let mut q = quantization();
            change(&mut q);
            let error = q.validate().unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn former_field_names_are_read() {
        let text = r#"{"tool": "loftup 0.1.0",
            "calibration": {"images": 2, "tiles": 8, "fingerprint": "ab"},
            "max_loss": 0.5,
            "loss": {"relative_error": 0.25, "cosine": 1, "worst_cosine": 1, "outliers": 0},
            "graphs": {}, "kept": ["keys: conv1"],
            "head": {"name": "h", "images": 3, "mean_iou_before": 1, "mean_iou_after": 1},
            "check": {"file": "c.npy", "as_written": 0.125, "widened": 0.0625}}"#;
        let q: Quantization = serde_json::from_str(text).unwrap();
        assert_eq!((q.calibration.images, q.head.unwrap().images), (2, 3));
        assert_eq!((q.max_error, q.error.relative_error), (Some(0.5), 0.25));
        assert_eq!(
            (q.fp32_layers, q.check.fp32),
            (vec!["keys: conv1".to_owned()], 0.0625)
        );
    }
}
