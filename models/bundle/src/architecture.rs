//! The architecture of a backbone that was converted from a checkpoint.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The architecture of a backbone that was converted from a checkpoint, and the origin of each
/// setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// The kind of transformer.
    pub family: Family,
    /// Channels of the transformer.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Register tokens.
    pub registers: usize,
    /// Side of the square grid of patches that learned position embeddings were trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position_grid: Option<usize>,
    /// Attention heads.
    pub heads: Setting<usize>,
    /// Activation of the MLPs.
    pub activation: Setting<Activation>,
    /// Library whose resampling of learned position embeddings is reproduced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Setting<Positions>>,
    /// Origin of the periods of rotary position embeddings, which DINOv3 has instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotary_periods: Option<Origin>,
    /// Whether SigLIP's pooling head is applied to each token, so that features are in the space of
    /// its texts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text_space: bool,
    /// Origin of mean and standard deviation.
    pub normalization: Origin,
}

impl Architecture {
    /// Validates the fields beyond their types.
    ///
    /// # Errors
    /// The position embeddings are neither learned nor rotary, or both; or a family other than SigLIP
    /// has `text_space`.
    pub fn validate(&self) -> Result<(), String> {
        let rotary = self.family == Family::DinoV3;
        let learned = [self.position_grid.is_some(), self.positions.is_some()];
        if self.rotary_periods.is_some() != rotary || learned != [!rotary; 2] {
            return Err(format!(
                "{} has {}",
                self.family,
                if rotary {
                    "rotary_periods instead of position_grid and positions"
                } else {
                    "position_grid and positions instead of rotary_periods"
                }
            ));
        }
        if self.text_space && self.family != Family::SigLip {
            return Err(format!("{} has text_space, which is SigLIP's", self.family));
        }
        Ok(())
    }

    /// Whether the features are in the space of a text encoder.
    pub fn has_words(&self) -> bool {
        self.family == Family::Clip || self.text_space
    }
}

/// Supported kinds of vision transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// DINOv2, with or without registers: class token, LayerScale; features are the patch tokens
    /// after the last norm (Oquab et al., 2023; Darcet et al., 2023).
    DinoV2,
    /// DINOv3's ViTs and others with the same arithmetic (EUPE, LingBot-Vision): class token,
    /// LayerScale, usually four registers, rotary position embeddings of the patch tokens; features
    /// are the patch tokens after the last norm (Siméoni et al., 2025).
    DinoV3,
    /// CLIP's image encoder with the patch encodings of MaskCLIP: only the value and output
    /// projections of the last block, then the final norm and the visual projection (Radford et
    /// al., 2021; Zhou et al., 2022).
    Clip,
    /// SigLIP and SigLIP 2 at a fixed resolution: no class token; features are the tokens after the
    /// last norm, without pooling, or after the pooling head of each (Zhai et al., 2023; Tschannen et al., 2025).
    SigLip,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DinoV2 => "DINOv2",
            Self::DinoV3 => "DINOv3",
            Self::Clip => "CLIP",
            Self::SigLip => "SigLIP",
        })
    }
}

/// The activation of the MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The exact GELU, `x Φ(x)`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x sigmoid(1.702 x)`, as in OpenAI's CLIP.
    QuickGelu,
    /// `silu(a) b`, where `a` and `b` are two linear layers: DINOv2 giant, the plus sizes of DINOv3.
    /// Detected from the weights, so it cannot be selected.
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
/// training size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// facebookresearch's DINOv2; CLIP as in MaskCLIP, FeatUp and LoftUp; SigLIP as in timm. The
    /// published LoftUp checkpoints were trained on these features.
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

/// The origin of a setting. Of several, the first in this order is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A command-line option.
    CommandLine,
    /// `config.json` or `preprocessor_config.json` next to the weights.
    ConfigJson,
    /// `open_clip_config.json` next to the weights.
    OpenClipConfigJson,
    /// The table of published models: family, width, depth and patch size match one of them.
    PublishedModel,
    /// The names and shapes of the weights.
    Weights,
    /// The default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "command line",
            Self::ConfigJson => "config.json",
            Self::OpenClipConfigJson => "open_clip_config.json",
            Self::PublishedModel => "known published shape",
            Self::Weights => "weights",
            Self::Default => "default",
        })
    }
}

/// A setting and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting<T> {
    /// The setting.
    pub value: T,
    /// Its origin.
    pub from: Origin,
}

impl<T> Setting<T> {
    /// A setting with this origin.
    pub fn new(value: T, from: Origin) -> Self {
        Self { value, from }
    }
}

impl<T: fmt::Display> fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.value, self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_learned_or_rotary() {
        let learned = r#"{"family": "dinov2", "width": 8, "depth": 1, "registers": 0, "position_grid": 4,
            "heads": {"value": 1, "from": "default"}, "activation": {"value": "gelu", "from": "default"},
            "positions": {"value": "timm", "from": "default"}, "normalization": "default"}"#;
        let parsed = |text: &str| serde_json::from_str::<Architecture>(text).unwrap();
        parsed(learned).validate().unwrap();
        let rotary = learned
            .replace("dinov2", "dinov3")
            .replace("\"position_grid\": 4,", "")
            .replace(
                r#""positions": {"value": "timm", "from": "default"}"#,
                r#""rotary_periods": "weights""#,
            );
        let parsed_rotary = parsed(&rotary);
        parsed_rotary.validate().unwrap();
        let written = serde_json::to_string(&parsed_rotary).unwrap();
        assert!(!written.contains("position_grid"), "{written}");
        assert!(!written.contains("text_space"), "{written}");
        for (wrong, part) in [
            (learned.replace("dinov2", "dinov3"), "DINOv3 has rotary"),
            (
                rotary.replace("dinov3", "dinov2"),
                "DINOv2 has position_grid",
            ),
            (
                learned.replace("\"position_grid\": 4,", ""),
                "DINOv2 has position_grid",
            ),
            (
                learned.replace("\"registers\"", "\"text_space\": true, \"registers\""),
                "DINOv2 has text_space",
            ),
        ] {
            let what = parsed(&wrong).validate().unwrap_err();
            assert!(what.contains(part), "{what}");
        }
    }
}
