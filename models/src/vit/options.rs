//! What a user can say about a backbone that its weights do not.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The nonlinearity of the MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The exact GELU, `x Φ(x)`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x sigmoid(1.702 x)`, as OpenAI's CLIP has it.
    QuickGelu,
    /// `silu(a) b`, where `a` and `b` are the two halves of the first layer: DINOv2 giant. The
    /// weights show it, so it cannot be chosen.
    #[serde(rename = "swiglu")]
    SwiGlu,
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
            Self::QuickGelu => "quick-gelu",
            Self::SwiGlu => "swiglu",
        })
    }
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "gelu" => Ok(Self::Gelu),
            "gelu-tanh" => Ok(Self::GeluTanh),
            "quick-gelu" => Ok(Self::QuickGelu),
            _ => Err("expected gelu, quick-gelu or gelu-tanh".into()),
        }
    }
}

/// The library whose resampling of position embeddings is reproduced at sizes other than the
/// trained one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// facebookresearch's DINOv2; CLIP as MaskCLIP, FeatUp and LoftUp run it; SigLIP as timm runs
    /// it. The published LoftUp checkpoints were trained on these features.
    #[default]
    Facebook,
    /// timm and open_clip: bicubic with antialiasing, to the target size.
    Timm,
    /// Hugging Face transformers: bicubic to the target size, with antialiasing for DINOv2 with
    /// registers only.
    Transformers,
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Facebook => "facebook",
            Self::Timm => "timm",
            Self::Transformers => "transformers",
        })
    }
}

impl FromStr for Positions {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "facebook" => Ok(Self::Facebook),
            "timm" => Ok(Self::Timm),
            "transformers" => Ok(Self::Transformers),
            _ => Err("expected facebook, timm or transformers".into()),
        }
    }
}

/// What the user says about a backbone. It takes precedence over config files and known models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VitOptions {
    /// Attention heads.
    pub heads: Option<usize>,
    /// Nonlinearity of the MLPs.
    pub activation: Option<Activation>,
    /// How position embeddings are resampled.
    pub positions: Option<Positions>,
}
