//! The configuration of a vision transformer in a file of transformers, open_clip or timm.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Activation, Dimensions, Family, Origin, colors::Colors, published, schemes::Library};
use crate::config_json::{named_activation, number, shown, text};

/// The contents of one config file. Fields that it does not have are `None`.
#[derive(Debug, Clone)]
pub(super) struct ModelConfig {
    pub path: PathBuf,
    pub origin: Origin,
    pub library: Library,
    pub family: Family,
    pub width: Option<usize>,
    pub depth: Option<usize>,
    pub patch: Option<usize>,
    pub registers: Option<usize>,
    pub image: Option<usize>,
    pub heads: Option<usize>,
    pub activation: Option<Activation>,
    pub swiglu: Option<bool>,
    pub eps: Option<f32>,
    pub rope_theta: Option<f32>,
    pub normalization: Option<Colors>,
}

impl ModelConfig {
    /// The configuration of a supported vision transformer, if the file has one.
    pub fn parse(path: &Path, origin: Origin, json: &Value) -> Result<Option<Self>, String> {
        if let Some(model) = json.get("model_cfg") {
            return Self::open_clip(path, origin, json, model);
        }
        if let Some(architecture) = text(json, "architecture") {
            let empty = Value::Null;
            let args = json.get("model_args").unwrap_or(&empty);
            let Some(mut config) = Self::timm(path, origin, architecture, args)? else {
                return Ok(None);
            };
            // Older files have the entries of pretrained_cfg at the root.
            let prepared = json.get("pretrained_cfg").unwrap_or(json);
            config.normalization = Colors::of(path, prepared, "mean", "std")?;
            return Ok(Some(config));
        }
        for part in ["vision_config", "backbone_config"] {
            if let Some(nested) = json.get(part).filter(|v| v.is_object()) {
                let kind = text(nested, "model_type").or_else(|| text(json, "model_type"));
                return Self::transformers(path, origin, nested, kind);
            }
        }
        Self::transformers(path, origin, json, text(json, "model_type"))
    }

    fn empty(path: &Path, origin: Origin, library: Library, family: Family) -> Self {
        Self {
            path: path.into(),
            origin,
            library,
            family,
            width: None,
            depth: None,
            patch: None,
            registers: None,
            image: None,
            heads: None,
            activation: None,
            swiglu: None,
            eps: None,
            rope_theta: None,
            normalization: None,
        }
    }

    /// transformers omits class defaults from nested configs.
    fn transformers(
        path: &Path,
        origin: Origin,
        json: &Value,
        kind: Option<&str>,
    ) -> Result<Option<Self>, String> {
        let (family, patch, activation) = match kind {
            Some("clip" | "clip_vision_model") => (Family::Clip, Some(32), Activation::QuickGelu),
            Some("siglip" | "siglip_vision_model") => {
                (Family::SigLip, Some(16), Activation::GeluTanh)
            }
            // The default patch size differs between versions.
            Some("dinov2" | "dinov2_with_registers") => (Family::DinoV2, None, Activation::Gelu),
            Some("dinov3_vit") => (Family::DinoV3, Some(16), Activation::Gelu),
            _ => return Ok(None),
        };
        let dinov3 = family == Family::DinoV3;
        let (width, heads) = if dinov3 { (384, 6) } else { (768, 12) };
        let gated = match family {
            Family::DinoV2 => json.get("use_swiglu_ffn"),
            Family::DinoV3 => json.get("use_gated_mlp"),
            Family::Clip | Family::SigLip => None,
        };
        let swiglu = match gated {
            _ if !matches!(family, Family::DinoV2 | Family::DinoV3) => None,
            Some(Value::Bool(x)) => Some(*x),
            _ => Some(false),
        };
        let activation = match json.get("hidden_act").filter(|act| !act.is_null()) {
            // The activation of DINOv3's gate.
            act if dinov3 && swiglu == Some(true) => {
                let act = act.and_then(Value::as_str).unwrap_or("gelu");
                if !["silu", "swish"].contains(&act) {
                    return Err(format!(
                        "hidden_act {act} with use_gated_mlp is not supported; supported is silu"
                    ));
                }
                None
            }
            None => Some(activation),
            Some(act) => Some(named_activation("hidden_act", act)?),
        };
        Ok(Some(Self {
            width: number(json, "hidden_size")?.or(Some(width)),
            depth: number(json, "num_hidden_layers")?.or(Some(12)),
            patch: number(json, "patch_size")?.or(patch),
            registers: match json.get("num_register_tokens") {
                Some(n) if n.as_u64() == Some(0) => Some(0),
                None if dinov3 => Some(0),
                _ => number(json, "num_register_tokens")?,
            },
            // Rotary positions have no training grid.
            image: if dinov3 {
                None
            } else {
                number(json, "image_size")?
            },
            heads: number(json, "num_attention_heads")?.or(Some(heads)),
            activation,
            swiglu,
            eps: positive(json, "layer_norm_eps", 1.0)?,
            rope_theta: match dinov3 {
                true => positive(json, "rope_theta", f32::MAX)?.or(Some(100.0)),
                false => None,
            },
            ..Self::empty(path, origin, Library::Transformers, family)
        }))
    }

    fn open_clip(
        path: &Path,
        origin: Origin,
        json: &Value,
        model: &Value,
    ) -> Result<Option<Self>, String> {
        let Some(vision) = model.get("vision_cfg").filter(|v| v.is_object()) else {
            return Ok(None);
        };
        let empty = Value::Null;
        let prepared = json.get("preprocess_cfg").unwrap_or(&empty);
        let normalization = Colors::of(path, prepared, "mean", "std")?;
        if let Some(name) = text(vision, "timm_model_name") {
            let args = vision.get("timm_model_kwargs").unwrap_or(&empty);
            return Ok(Self::timm(path, origin, name, args)?.map(|config| Self {
                normalization,
                ..config
            }));
        }
        let width = number(vision, "width")?.unwrap_or(768);
        let head_width = number(vision, "head_width")?.unwrap_or(64);
        if !width.is_multiple_of(head_width) {
            return Err(format!(
                "a width of {width} is not a multiple of head_width {head_width}"
            ));
        }
        let quick = match model.get("quick_gelu") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(quick)) => *quick,
            Some(other) => return Err(format!("quick_gelu is {}", shown(other))),
        };
        let act = vision.get("act_kwargs").filter(|a| !a.is_null());
        let activation = match (act, quick) {
            (Some(act), _) if text(act, "approximate") == Some("tanh") => Activation::GeluTanh,
            (Some(act), _) if act.as_object().is_none_or(|a| !a.is_empty()) => {
                return Err(format!("act_kwargs {} is not supported", shown(act)));
            }
            (_, true) => Activation::QuickGelu,
            (_, false) => Activation::Gelu,
        };
        let eps = vision.get("norm_kwargs").and_then(|n| n.get("eps"));
        Ok(Some(Self {
            width: Some(width),
            depth: match vision.get("layers") {
                // ResNets have a list.
                Some(Value::Array(_)) => return Ok(None),
                _ => number(vision, "layers")?.or(Some(12)),
            },
            patch: number(vision, "patch_size")?.or(Some(16)),
            image: match vision.get("image_size") {
                Some(Value::Array(_)) => None,
                _ => number(vision, "image_size")?,
            },
            heads: Some(width / head_width),
            activation: Some(activation),
            eps: eps.and_then(Value::as_f64).map(|e| e as f32),
            normalization,
            ..Self::empty(path, origin, Library::OpenAi, Family::Clip)
        }))
    }

    /// The configuration of a timm model, from its name and arguments.
    fn timm(
        path: &Path,
        origin: Origin,
        architecture: &str,
        args: &Value,
    ) -> Result<Option<Self>, String> {
        let name = architecture.split('.').next().unwrap_or_default();
        let words: Vec<&str> = name.split('_').collect();
        let family = match &words {
            words if words.first() != Some(&"vit") => return Ok(None),
            words if words.contains(&"siglip") => Family::SigLip,
            words if words.contains(&"clip") => Family::Clip,
            words if words.contains(&"dinov2") => Family::DinoV2,
            words if words.contains(&"dinov3") || words.contains(&"lingbot") => Family::DinoV3,
            _ => return Ok(None),
        };
        let (width, depth, heads) = match (family, words[1]) {
            (Family::Clip, "base") if words.contains(&"plus") => (896, 12, 14),
            (Family::DinoV3, "tiny") => (192, 12, 3),
            (Family::DinoV3, "huge") => (1280, 32, 20),
            (_, "small") => (384, 12, 6),
            (_, "base") => (768, 12, 12),
            (_, "large") => (1024, 24, 16),
            (Family::Clip, "xsmall") => (256, 10, 4),
            (Family::Clip, "medium") => (512, 12, 8),
            (Family::Clip, "betwixt") => (640, 12, 10),
            (Family::Clip, "huge") => (1280, 32, 16),
            (Family::Clip, "giant") => (1408, 40, 16),
            (Family::Clip, "gigantic") => (1664, 48, 16),
            (Family::DinoV2 | Family::DinoV3, "giant") => (1536, 40, 24),
            (Family::SigLip, "so400m") => (1152, 27, 16),
            (Family::SigLip, "giantopt") => (1536, 40, 16),
            _ => return Ok(None),
        };
        let patch = words
            .iter()
            .find_map(|w| w.strip_prefix("patch")?.parse().ok());
        let Some(patch) = patch.filter(|p| (1..=1 << 10).contains(p)) else {
            return Ok(None);
        };
        let image = words.last().and_then(|w| w.parse::<usize>().ok());
        let activation = match args.get("act_layer") {
            Some(act @ Value::String(_)) => Some(named_activation("act_layer", act)?),
            Some(other) if !other.is_null() => {
                return Err(format!("act_layer {} is not supported", shown(other)));
            }
            _ if words.contains(&"quickgelu") => Some(Activation::QuickGelu),
            _ if family == Family::SigLip => {
                let size = Dimensions {
                    patch,
                    width,
                    depth,
                };
                let grid = image.map(|image| image / patch);
                published::activation(family, size, grid, Library::Timm).ok()
            }
            _ => Some(Activation::Gelu),
        };
        Ok(Some(Self {
            width: number(args, "embed_dim")?.or(Some(width)),
            depth: number(args, "depth")?.or(Some(depth)),
            patch: number(args, "patch_size")?.or(Some(patch)),
            heads: number(args, "num_heads")?.or(Some(heads)),
            activation,
            rope_theta: match family {
                Family::DinoV3 => positive(args, "rope_temperature", f32::MAX)?.or(Some(100.0)),
                _ => None,
            },
            ..Self::empty(path, origin, Library::Timm, family)
        }))
    }
}

/// A number between 0 and `limit`, both exclusive, if the key exists.
fn positive(json: &Value, key: &str, limit: f32) -> Result<Option<f32>, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_f64()
            .map(|x| x as f32)
            .filter(|x| *x > 0.0 && *x < limit)
            .map(Some)
            .ok_or_else(|| format!("{key} is {}", shown(value))),
    }
}
