//! The training record of an upsampler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A summary of the training of the upsampler's weights. The complete record, with all settings, is
/// the file whose SHA-256 is `record_sha256`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Program and version that trained the weights.
    pub tool: String,
    /// Stage of LoftUp's training (arXiv 2504.14032), 1 or 2.
    pub stage: u8,
    /// Steps of that stage.
    pub steps: u64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Number of training images.
    pub images: u64,
    /// Number of training images with masks.
    pub images_with_masks: u64,
    /// Fingerprint of the training images.
    pub data_fingerprint: String,
    /// SHA-256 of the trained weights.
    pub weights_sha256: String,
    /// Identifies the backbone or backbones that the weights were trained with.
    pub backbone_sha256: String,
    /// SHA-256 of the initial weights, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_sha256: Option<String>,
    /// How the weights were initialized, if neither randomly nor from initial weights: an `init` of
    /// `loftup train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Last value of each loss.
    pub losses: BTreeMap<String, f64>,
    /// SHA-256 of the complete record.
    pub record_sha256: String,
}

impl Training {
    /// Maximum length of a text, in bytes.
    pub const LONGEST_TEXT: usize = 128;
    /// Maximum number of losses.
    pub const MOST_LOSSES: usize = 16;

    /// Validates the fields beyond their types.
    ///
    /// # Errors
    /// The name of the invalid field and what is expected.
    pub fn validate(&self) -> Result<(), String> {
        let texts = [
            ("tool", &self.tool),
            ("data_fingerprint", &self.data_fingerprint),
        ];
        let names = self.losses.keys().map(|name| ("a loss", name));
        let init = self.init.iter().map(|init| ("init", init));
        for (field, text) in texts.into_iter().chain(init).chain(names) {
            usable(field, text, Self::LONGEST_TEXT)?;
        }
        let hashes = [
            ("weights_sha256", Some(&self.weights_sha256)),
            ("backbone_sha256", Some(&self.backbone_sha256)),
            ("start_sha256", self.start_sha256.as_ref()),
            ("record_sha256", Some(&self.record_sha256)),
        ];
        for (field, hash) in hashes {
            let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            if hash.is_some_and(|hash| hash.len() != 64 || !hash.bytes().all(digit)) {
                return Err(format!(
                    "{field}: expected a SHA-256 of 64 lowercase hexadecimal digits"
                ));
            }
        }
        if !(1..=2).contains(&self.stage) {
            return Err(format!("stage {}: expected 1 or 2", self.stage));
        }
        if self.images_with_masks > self.images {
            return Err(format!(
                "images_with_masks: {} of {} images",
                self.images_with_masks, self.images
            ));
        }
        if self.losses.len() > Self::MOST_LOSSES {
            return Err(format!(
                "losses: {}, expected at most {}",
                self.losses.len(),
                Self::MOST_LOSSES
            ));
        }
        if let Some((name, value)) = self.losses.iter().find(|(_, value)| !value.is_finite()) {
            return Err(format!("loss {name} is {value}"));
        }
        Ok(())
    }
}

/// Checks a text that is printed: not empty, on one line, at most `longest` bytes.
pub(crate) fn usable(field: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > longest || text.chars().any(char::is_control) {
        return Err(format!(
            "{field}: expected a text of 1 to {longest} bytes on one line, found {}",
            text.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training() -> Training {
        Training {
            tool: "loftup 0.1.0".into(),
            stage: 1,
            steps: 40,
            seed: 7,
            images: 24,
            images_with_masks: 24,
            data_fingerprint: "0123".into(),
            weights_sha256: "ab".repeat(32),
            backbone_sha256: "cd".repeat(32),
            start_sha256: None,
            init: None,
            losses: BTreeMap::from([("total".into(), 0.25)]),
            record_sha256: "01".repeat(32),
        }
    }

    #[test]
    fn a_training_comes_back_from_json_and_unknown_fields_are_refused() {
        let text = serde_json::to_string(&training()).unwrap();
        assert!(!text.contains("start_sha256"));
        let back: Training = serde_json::from_str(&text).unwrap();
        assert_eq!(back, training());
        back.validate().unwrap();
        let other = text.replace("\"seed\"", "\"sead\"");
        let error = serde_json::from_str::<Training>(&other).unwrap_err();
        assert!(error.to_string().contains("sead"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_field() {
        type Change = fn(&mut Training);
        let cases: [(&str, Change); 9] = [
            ("tool", |t| t.tool = "x".repeat(Training::LONGEST_TEXT + 1)),
            ("data_fingerprint", |t| t.data_fingerprint = "a\nb".into()),
            ("weights_sha256", |t| t.weights_sha256 = "AB".repeat(32)),
            ("start_sha256", |t| t.start_sha256 = Some("ab".into())),
            ("init", |t| t.init = Some("a\nb".into())),
            ("stage 3", |t| t.stage = 3),
            ("images_with_masks", |t| t.images_with_masks = 25),
            ("losses: 17", |t| {
                t.losses = (0..17).map(|i| (i.to_string(), 0.0)).collect();
            }),
            ("loss total is NaN", |t| {
                t.losses.insert("total".into(), f64::NAN);
            }),
        ];
        for (what, change) in cases {
            let mut training = training();
            change(&mut training);
            let error = training.validate().unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
