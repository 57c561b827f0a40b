//! The contents of `manifest.json`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    architecture::Architecture, clicks::Clicks, head::Head, precision::Precision,
    provenance::Provenance, quantization::Quantization, reference::References,
};

/// Version of the bundle format that is read and written.
pub const FORMAT: u32 = 2;

/// The manifest of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Normalization of images, for the backbone and for the guidance.
    pub normalization: Normalization,
    /// The vision foundation model, if the bundle has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Backbone>,
    /// The upsampler, if the bundle has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upsampler: Option<Upsampler>,
    /// Heads, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heads: BTreeMap<String, Head>,
    /// Thresholds for segmentation from clicks, if they were fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clicks: Option<Clicks>,
    /// How the graphs in precisions other than fp32 were quantized, and their errors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quantization: BTreeMap<Precision, Quantization>,
    /// Outputs of the 32-bit graphs for the built-in test inputs. Older bundles do not have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<References>,
    /// Every file of the bundle except the manifest, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// Provenance of the bundle.
    pub provenance: Provenance,
}

impl Manifest {
    /// The precisions in which every part of the bundle is available. NAF counts for all of them.
    pub fn precisions(&self) -> Vec<Precision> {
        let upsampler = self.upsampler.as_ref();
        let graphs = upsampler.filter(|u| u.kind.is_quantized());
        let alone = self.backbone.is_none() && graphs.is_none();
        let has = |p: &Precision| {
            let backbone = self.backbone.as_ref();
            backbone.is_none_or(|b| b.graphs.contains_key(p))
                && graphs.is_none_or(|u| u.graphs.contains_key(p))
                && (!alone || *p == Precision::Fp32)
        };
        Precision::ALL.into_iter().filter(has).collect()
    }
}

/// `(x / 255 - mean) / std`, per channel, in RGB order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted from values in 0..1.
    pub mean: [f32; 3],
    /// Divisor, after the subtraction.
    pub std: [f32; 3],
}

impl Normalization {
    /// ImageNet's normalization, used by DINOv2 and many others.
    pub const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// Replaces the mean and the standard deviation, if given.
    pub fn with(self, mean: Option<[f32; 3]>, std: Option<[f32; 3]>) -> Self {
        Self {
            mean: mean.unwrap_or(self.mean),
            std: std.unwrap_or(self.std),
        }
    }
}

/// A backbone: maps `[1, 3, H, W]` to features on a grid of patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backbone {
    /// Its name, as given to `convert`.
    pub name: String,
    /// Channels of its features, `d`.
    pub dim: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Size of its input in pixels. Only the default if `any_size` is set.
    pub size: Size,
    /// Whether the graph supports any size that is a multiple of the patch size.
    pub any_size: bool,
    /// Name of the image input of the graph.
    pub input: String,
    /// Name of the feature output of the graph.
    pub output: String,
    /// Layout of the features in that output.
    pub layout: FeatureLayout,
    /// The graph in each precision.
    pub graphs: BTreeMap<Precision, String>,
    /// Its architecture, if it is a vision transformer converted from a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
}

/// Layout of a backbone's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FeatureLayout {
    /// `[1, d, h, w]`.
    Map,
    /// `[1, extra + h * w, d]`: tokens in row-major order, after `extra` tokens without a patch.
    Tokens {
        /// Number of leading tokens to skip (class token, registers).
        extra: usize,
    },
}

/// The kind of an upsampler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpsamplerKind {
    /// LoftUp, split into the graphs of `loftup-onnx`.
    #[default]
    LoftUp,
    /// NAF, or DiveUp, which has the same network.
    Naf,
}

impl UpsamplerKind {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::LoftUp => "LoftUp",
            Self::Naf => "NAF",
        }
    }

    /// Whether its graphs exist in several precisions.
    pub fn is_quantized(self) -> bool {
        self == Self::LoftUp
    }

    /// The name in files.
    pub fn key(self) -> &'static str {
        match self {
            Self::LoftUp => "loftup",
            Self::Naf => "naf",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An upsampler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upsampler {
    /// Its kind.
    #[serde(default, skip_serializing_if = "UpsamplerKind::is_default")]
    pub kind: UpsamplerKind,
    /// Channels of the features, `d`.
    pub dim: usize,
    /// Cross-attention layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of a head in the keys, with padding.
    pub head_width: usize,
    /// The graphs in each precision. NAF has only fp32; older bundles with NAF have none.
    pub graphs: BTreeMap<Precision, UpsamplerFiles>,
    /// File with the weights, for kinds that the CPU runs without graphs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// For such kinds, one graph of standard operators for other tools, for the backbone's input size
    /// and an output of that size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

/// The graphs of an upsampler in one precision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpsamplerFiles {
    /// Computes keys and values from features, once per frame.
    pub keys: String,
    /// Computes the features of guidance tiles from keys and values.
    pub queries: String,
    /// The complete upsampler in one standard file, for other tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
}

/// A size in pixels, written `WxH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Size {
    /// The nearest size whose sides are multiples of `patch`, at least one patch each.
    pub fn rounded_to(self, patch: usize) -> Size {
        let round = |n: usize| ((n + patch / 2) / patch).max(1) * patch;
        Size {
            width: round(self.width),
            height: round(self.height),
        }
    }

    /// Number of pixels.
    pub fn area(self) -> usize {
        self.width * self.height
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let side = |s: &str| {
            s.parse()
                .ok()
                .filter(|n| (1..=Self::LONGEST_SIDE).contains(n))
        };
        s.split_once('x')
            .and_then(|(w, h)| {
                Some(Size {
                    width: side(w)?,
                    height: side(h)?,
                })
            })
            .ok_or_else(|| {
                format!(
                    "{s:?} is not a size: expected WIDTHxHEIGHT, each from 1 to {}, such as 224x224",
                    Self::LONGEST_SIDE
                )
            })
    }
}

impl Size {
    /// Maximum side of an image size.
    pub const LONGEST_SIDE: usize = 16384;
}
