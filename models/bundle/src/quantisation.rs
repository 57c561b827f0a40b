//! What rounding cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the graphs of one precision were made from 32-bit ones, and how far their answers are from
/// those.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantisation {
    /// Program and version that made them.
    pub tool: String,
    /// What it looked at.
    pub calibration: Calibration,
    /// The error that was allowed: [`ErrorStats::relative_error`] end to end.
    #[serde(default, alias = "max_loss", skip_serializing_if = "Option::is_none")]
    pub max_error: Option<f64>,
    /// The error of the whole bundle on the calibration images.
    #[serde(alias = "loss")]
    pub error: ErrorStats,
    /// The error of each graph alone, fed with the values of the 32-bit bundle.
    pub graphs: BTreeMap<String, ErrorStats>,
    /// What was left in 32 bits because it would have cost too much, as `GRAPH: NAME`.
    #[serde(default, alias = "kept", skip_serializing_if = "Vec::is_empty")]
    pub fp32_layers: Vec<String>,
    /// What a head of the bundle sees before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadAccuracy>,
    /// The error that can be measured again without the images.
    pub check: CheckError,
}

/// Pictures that ranges were taken from and errors measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Pictures.
    #[serde(alias = "pictures")]
    pub images: u64,
    /// Parts of their upsampled answers that were looked at.
    pub tiles: u64,
    /// SHA-256 of the SHA-256s of the files, in order.
    pub fingerprint: String,
}

/// The difference of an answer from the 32-bit one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorStats {
    /// Root of the sum of squared differences, over that of the squared 32-bit values.
    pub relative_error: f64,
    /// Mean cosine similarity of the two feature vectors of a place.
    pub cosine: f64,
    /// The least of them.
    pub worst_cosine: f64,
    /// Share of values that are apart by more than a tenth of their size and of the root mean square
    /// together.
    pub outliers: f64,
}

/// Segmentation scores of a head, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadAccuracy {
    /// The head.
    pub name: String,
    /// Labelled images.
    #[serde(alias = "pictures")]
    pub images: u64,
    /// Mean intersection over union with the 32-bit graphs.
    pub mean_iou_before: f64,
    /// The same with the new graphs.
    pub mean_iou_after: f64,
}

/// The error on the built-in test picture against answers of the 32-bit graphs that are fp32_layers in a
/// file of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckError {
    /// The file with the answers, `.npy`, `[places, d]`.
    pub file: String,
    /// Relative error of the graphs as they are written.
    pub as_written: f64,
    /// Relative error of the 32-bit graphs with the rounded weights, which a CPU runs.
    #[serde(alias = "widened")]
    pub fp32: f64,
}

impl Quantisation {
    /// What the types do not say. That `check.file` is listed is for the caller to see.
    ///
    /// # Errors
    /// Names the field, and says what it should be.
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
                return Err(format!("{name}: {error:?} is no error"));
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
                "calibration.fingerprint: expected a SHA-256 of 64 lower-case hexadecimal digits"
                    .into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantisation() -> Quantisation {
        let error = ErrorStats {
            relative_error: 0.02,
            cosine: 0.9998,
            worst_cosine: 0.99,
            outliers: 0.001,
        };
        Quantisation {
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
    fn a_quantisation_comes_back_from_json_and_unknown_fields_are_refused() {
        let text = serde_json::to_string(&quantisation()).unwrap();
        let back: Quantisation = serde_json::from_str(&text).unwrap();
        assert_eq!(back, quantisation());
        back.validate().unwrap();
        let other = text.replace("\"outliers\"", "\"outlayers\"");
        let error = serde_json::from_str::<Quantisation>(&other).unwrap_err();
        assert!(error.to_string().contains("outlayers"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_field() {
        type Change = fn(&mut Quantisation);
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
            let mut q = quantisation();
            change(&mut q);
            let error = q.validate().unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
