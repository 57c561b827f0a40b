//! Heads: affine maps of the features, stored in the bundle.

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::tensors;

/// A head of a bundle: an affine map of the upsampled features of each pixel, `[d]` to `[k]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The meaning of its outputs.
    pub kind: HeadKind,
    /// Number of input channels, `d`.
    pub dim: usize,
    /// The file with its [`Linear`].
    pub file: String,
}

/// The meaning of a head's outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadKind {
    /// One score per class; the highest wins.
    Classes {
        /// Names of the classes, at most [`HeadKind::MOST_CLASSES`].
        names: Vec<String>,
    },
    /// A compact descriptor per pixel.
    Descriptors {
        /// Its length, `k`.
        channels: usize,
    },
    /// The distance to the image plane in meters.
    Depth {
        /// Smallest depth that the head gives.
        min_meters: f32,
        /// Greatest depth that the head gives.
        max_meters: f32,
        /// Number of bins, evenly spaced from the smallest to the greatest depth; `k` scores whose
        /// normalized positive parts weight the bins. Without bins, the one output is the logarithm
        /// of the depth.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bins: Option<usize>,
    },
}

impl HeadKind {
    /// A class number fits in a byte, and 255 means no class.
    pub const MOST_CLASSES: usize = 255;

    /// Maximum number of depth bins.
    pub const MOST_BINS: usize = 4096;

    /// Number of outputs, `k`.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes { names } => names.len(),
            Self::Descriptors { channels } => *channels,
            Self::Depth { bins, .. } => bins.unwrap_or(1),
        }
    }

    /// Whether the number of outputs, and the range of a depth, are possible for `dim` input channels.
    pub(crate) fn is_valid(&self, dim: usize) -> bool {
        let outputs = 1..=match self {
            Self::Classes { .. } => Self::MOST_CLASSES,
            Self::Descriptors { .. } => dim,
            Self::Depth { .. } => Self::MOST_BINS,
        };
        let range = match self {
            Self::Depth {
                min_meters,
                max_meters,
                ..
            } => *min_meters > 0.0 && min_meters < max_meters && max_meters.is_finite(),
            _ => true,
        };
        outputs.contains(&self.outputs()) && range
    }
}

impl Head {
    /// File name of the head called `name`.
    pub fn file_name(name: &str) -> String {
        format!("head-{name}.safetensors")
    }

    /// Whether this is a valid head name. The name becomes part of a file name.
    pub fn is_name(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        (1..=64).contains(&name.len()) && name.chars().all(plain)
    }
}

/// `weight * x + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Length of `x`, `d`.
    pub inputs: usize,
    /// `[k, d]`, row-major.
    pub weight: Vec<f32>,
    /// `[k]`.
    pub bias: Vec<f32>,
}

const WEIGHT: &str = "weight";
const BIAS: &str = "bias";

impl Linear {
    /// Length of the result, `k`.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Serializes to a safetensors file with `weight` `[k, d]` and `bias` `[k]`, F32.
    ///
    /// # Errors
    /// `weight` is not `[k, d]`.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        tensors::write(&[
            (WEIGHT, &[self.outputs(), self.inputs], &self.weight),
            (BIAS, &[self.outputs()], &self.bias),
        ])
    }

    /// Reads the output of [`Linear::to_bytes`].
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or contains NaN or infinity.
    pub fn from_bytes(bytes: &[u8], inputs: usize, outputs: usize) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not safetensors: {e}"))?;
        Ok(Self {
            inputs,
            weight: tensors::read(&file, WEIGHT, &[outputs, inputs])?,
            bias: tensors::read(&file, BIAS, &[outputs])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_map_comes_back_from_its_file() {
        let linear = Linear {
            inputs: 3,
            weight: vec![1., 2., 3., 4., 5., -6.],
            bias: vec![0.5, -1.],
        };
        let bytes = linear.to_bytes().unwrap();
        assert_eq!(Linear::from_bytes(&bytes, 3, 2).unwrap(), linear);
        let wrong = Linear::from_bytes(&bytes, 2, 3).unwrap_err();
        assert!(
            wrong.contains("weight") && wrong.contains("[3, 2]"),
            "{wrong}"
        );
        assert!(
            Linear::from_bytes(&bytes[..20], 3, 2)
                .unwrap_err()
                .contains("safetensors")
        );
        let bad = Linear {
            weight: vec![f32::NAN; 6],
            ..linear
        };
        let bad = Linear::from_bytes(&bad.to_bytes().unwrap(), 3, 2).unwrap_err();
        assert!(bad.contains("NaN"), "{bad}");
    }

    #[test]
    fn a_depth_head_has_a_range_and_perhaps_bins() {
        let kind = |text: &str| serde_json::from_str::<HeadKind>(text);
        let plain = kind(r#"{"depth": {"min_meters": 0.5, "max_meters": 8}}"#).unwrap();
        let bins = kind(r#"{"depth": {"min_meters": 0.5, "max_meters": 8, "bins": 256}}"#).unwrap();
        assert_eq!((plain.outputs(), bins.outputs()), (1, 256));
        assert!(plain.is_valid(4) && bins.is_valid(4));
        assert!(kind(r#"{"depth": {"min_meters": 0.5}}"#).is_err());
        assert!(kind(r#"{"depth": {"min_meters": 0.5, "max_meters": 8, "unit": "m"}}"#).is_err());
        let with = |min_meters, max_meters, bins| HeadKind::Depth {
            min_meters,
            max_meters,
            bins,
        };
        for bad in [
            with(0.0, 1.0, None),
            with(2.0, 2.0, None),
            with(f32::NAN, 1.0, None),
            with(1.0, f32::INFINITY, None),
            with(1.0, 2.0, Some(0)),
            with(1.0, 2.0, Some(HeadKind::MOST_BINS + 1)),
        ] {
            assert!(!bad.is_valid(4), "{bad:?}");
        }
    }

    #[test]
    fn names_of_heads_are_fit_for_files() {
        for good in ["camvid", "pca-8", "a_B1"] {
            assert!(Head::is_name(good));
        }
        for bad in ["", "a b", "../x", "a.b", "é", &"x".repeat(65)] {
            assert!(!Head::is_name(bad));
        }
    }
}
