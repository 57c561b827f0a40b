//! Settings for segmentation from clicks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Thresholds for segmentation from clicks, fitted to images with masks of objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clicks {
    /// The cosine similarity above which a pixel belongs to the clicked object, by upsampling method:
    /// `loftup`, `jbu`, `bilinear`, ...
    pub thresholds: BTreeMap<String, f32>,
    /// Number of images that they were fitted to.
    pub images: usize,
    /// Number of objects in these images.
    pub objects: usize,
}

impl Clicks {
    /// Maximum number of methods.
    const MOST_METHODS: usize = 64;

    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.thresholds.len() > Self::MOST_METHODS {
            return Err(format!(
                "{} thresholds; at most {} are read",
                self.thresholds.len(),
                Self::MOST_METHODS
            ));
        }
        match self
            .thresholds
            .iter()
            .find(|(_, t)| !(-1.0..=1.0).contains(*t))
        {
            Some((method, t)) => Err(format!(
                "threshold {t} of {method:?} is not a cosine similarity, -1 to 1"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_cosines() {
        let clicks = |t: f32| Clicks {
            thresholds: [("loftup".into(), t)].into(),
            images: 1,
            objects: 2,
        };
        assert!(clicks(0.5).validate().is_ok() && clicks(-1.0).validate().is_ok());
        for bad in [1.5, f32::NAN] {
            let text = clicks(bad).validate().unwrap_err();
            assert!(text.contains("loftup"), "{text}");
        }
    }
}
