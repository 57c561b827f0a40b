//! Heads: affine maps of the features, stored in the bundle.

use std::collections::HashMap;

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
        /// Smallest depth that the head outputs.
        min_meters: f32,
        /// Greatest depth that the head outputs.
        max_meters: f32,
        /// Number of bins, evenly spaced from the smallest to the greatest depth, which are weighted by the
        /// normalized positive parts of the `k` scores. Without bins, the only output is the logarithm of the
        /// depth.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bins: Option<usize>,
    },
    /// A text head: the cosine similarity with each word; the highest wins. The weights are directions
    /// in the backbone's feature space, first of the words, then of the negative words.
    Words {
        /// The words, at most [`HeadKind::MOST_CLASSES`].
        names: Vec<String>,
        /// Negative words: if one of them is the most similar, no word is found.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        negative: Vec<String>,
        /// Minimum similarity for a word to be found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
    },
}

impl HeadKind {
    /// A class number fits in a byte, and 255 means no class.
    pub const MOST_CLASSES: usize = 255;

    /// Maximum number of depth bins.
    pub const MOST_BINS: usize = 4096;

    /// Maximum number of negative words.
    pub const MOST_NEGATIVE: usize = 1024;

    /// Number of outputs, `k`.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes { names } | Self::Words { names, .. } => names.len(),
            Self::Descriptors { channels } => *channels,
            Self::Depth { bins, .. } => bins.unwrap_or(1),
        }
    }

    /// Rows of the weights: the outputs, and the negative words.
    pub fn rows(&self) -> usize {
        match self {
            Self::Words { negative, .. } => self.outputs() + negative.len(),
            _ => self.outputs(),
        }
    }

    /// Names of the classes, if the largest output is the class of a pixel.
    pub fn class_names(&self) -> Option<&[String]> {
        match self {
            Self::Classes { names } | Self::Words { names, .. } => Some(names),
            Self::Descriptors { .. } | Self::Depth { .. } => None,
        }
    }

    /// Validates the numbers for `dim` input channels.
    pub(super) fn validate(&self, dim: usize) -> Result<(), String> {
        let (outputs, most) = match self {
            Self::Descriptors { channels } => (*channels, dim),
            Self::Depth { .. } => (self.outputs(), Self::MOST_BINS),
            _ => (self.outputs(), Self::MOST_CLASSES),
        };
        if !(1..=most).contains(&outputs) {
            return Err(format!("invalid shape ({outputs} outputs, {dim} channels)"));
        }
        if let Self::Depth {
            min_meters,
            max_meters,
            ..
        } = self
            && !(*min_meters > 0.0 && min_meters < max_meters && max_meters.is_finite())
        {
            return Err(format!(
                "a depth of {min_meters} to {max_meters} m is not a range of positive depths"
            ));
        }
        if let Self::Words {
            negative,
            threshold,
            ..
        } = self
        {
            if negative.len() > Self::MOST_NEGATIVE {
                return Err(format!("{} negative words are too many", negative.len()));
            }
            if threshold.is_some_and(|t| !(-1.0..=1.0).contains(&t)) {
                return Err("the threshold is not a cosine: expected -1 to 1".into());
            }
        }
        Ok(())
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

/// Key of the metadata in a separate head file.
const METADATA: &str = "loftup_head";

/// The metadata of a head file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    kind: HeadKind,
    dim: usize,
}

impl Head {
    /// Serializes the head to a separate file: as [`Linear::to_bytes`], with kind and channels in the
    /// metadata. [`Head::from_file`] reads it without a bundle, so that a running program can replace a
    /// head.
    ///
    /// # Errors
    /// The shape of `linear` does not match the head.
    pub fn to_file(&self, linear: &Linear) -> Result<Vec<u8>, String> {
        let described = Described {
            kind: self.kind.clone(),
            dim: self.dim,
        };
        let text = serde_json::to_string(&described).map_err(|e| e.to_string())?;
        let metadata = HashMap::from([(METADATA.to_owned(), text)]);
        tensors::write_with(
            &[
                (WEIGHT, &[self.kind.rows(), self.dim], &linear.weight),
                (BIAS, &[self.kind.rows()], &linear.bias),
            ],
            Some(metadata),
        )
    }

    /// Reads the output of [`Head::to_file`], with an empty `file`.
    ///
    /// # Errors
    /// It is not a head file, or it is damaged.
    pub fn from_file(bytes: &[u8]) -> Result<(Self, Linear), String> {
        let (_, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| format!("not a head file: {e}"))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(METADATA));
        let text = text.ok_or("not a head file: its metadata do not describe a head; `loftup head text --out FILE.safetensors` writes one")?;
        let Described { kind, dim } =
            serde_json::from_str(text).map_err(|e| format!("the description of the head: {e}"))?;
        kind.validate(dim)?;
        let linear = Linear::from_bytes(bytes, dim, kind.rows())?;
        let head = Self {
            kind,
            dim,
            file: String::new(),
        };
        Ok((head, linear))
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
    /// A tensor is missing, has a different shape, or contains NaN or infinity.
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
    fn a_head_comes_back_from_a_file_of_its_own() {
        let linear = Linear {
            inputs: 2,
            weight: vec![1., 0., 0., 1., -1., 0.],
            bias: vec![0.; 3],
        };
        let words = |threshold| Head {
            kind: HeadKind::Words {
                names: vec!["mug".into(), "cable".into()],
                negative: vec!["wall".into()],
                threshold,
            },
            dim: 2,
            file: String::new(),
        };
        for threshold in [None, Some(0.25)] {
            let head = words(threshold);
            let bytes = head.to_file(&linear).unwrap();
            assert_eq!(Head::from_file(&bytes), Ok((head, linear.clone())));
            // It is also the file of a head in a bundle.
            assert_eq!(Linear::from_bytes(&bytes, 2, 3).unwrap(), linear);
        }
        let wrong = |bytes: &[u8]| Head::from_file(bytes).unwrap_err();
        let no_cosine = words(Some(2.0)).to_file(&linear).unwrap();
        assert!(wrong(&no_cosine).contains("cosine"));
        assert!(wrong(&linear.to_bytes().unwrap()).contains("metadata"));
        assert!(wrong(b"nothing").contains("not a head file"));
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
