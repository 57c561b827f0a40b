//! The configuration of a text encoder, from its weights and the config files next to them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{TextError, logit::Logit, schemes::Library, tower::Tower};
use crate::{
    config_json::{named_activation, number, read, text},
    transformer::Shape,
    vit::{Activation, Family, Origin},
};

/// Maximum number of weights in an ONNX file, which is limited to 2 GiB.
const MAX_WEIGHTS: usize = (1 << 29) - (1 << 20);
/// Channels of an attention head in every published text encoder of CLIP and SigLIP except so400m's.
const HEAD_WIDTH: usize = 64;
/// Width and heads of so400m's text encoder, which SigLIP 2 g-opt also uses.
const SO400M: (usize, usize) = (1152, 16);

/// Settings given by the user. They take precedence over config files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Attention heads.
    pub heads: Option<usize>,
    /// Activation of the MLPs.
    pub activation: Option<Activation>,
}

/// The complete configuration of a text encoder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TextConfig {
    /// [`Family::Clip`] or [`Family::SigLip`].
    pub family: Family,
    /// Channels of the transformer.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Maximum number of tokens of a text.
    pub context: usize,
    /// Length of an embedding, the same as for images.
    pub dim: usize,
    /// Activation of the MLPs, and its origin.
    pub activation: Activation,
    /// Origin of the activation; [`Origin::Weights`] for OpenAI's archives.
    pub activation_from: Origin,
    /// Epsilon of all layer norms.
    pub eps: f32,
    /// Whether attention is causal. The embedding is then taken at the last token of the text,
    /// otherwise at the last token after padding.
    pub causal: bool,
    /// Conversion of cosines to probabilities, in complete SigLIP models.
    pub logit: Option<Logit>,
}

impl TextConfig {
    pub(super) fn read(
        tower: &Tower<'_>,
        options: &TextOptions,
        files: &TextConfigFiles,
    ) -> Result<Self, TextError> {
        let ([vocabulary, width], [context, columns], dim) = tower.extents()?;
        if columns != width {
            return Err(tower.unsupported(format!(
                "position embeddings of {columns} channels, and token embeddings of {width}"
            )));
        }
        let family = match tower.projection_bias()? {
            Some(_) => Family::SigLip,
            None => Family::Clip,
        };
        let file = files.file(tower.scheme.library);
        if let Some(file) = file {
            file.check(family, width, tower.depth, context)?;
        }
        let (heads, from) = options
            .heads
            .map(|n| (n, Origin::CommandLine))
            .or(file.and_then(|f| Some((f.heads?, f.origin))))
            .unwrap_or(match family {
                Family::SigLip if width == SO400M.0 => (SO400M.1, Origin::PublishedModel),
                _ => (width / HEAD_WIDTH, Origin::Default),
            });
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(TextError::Heads {
                path: tower.checkpoint.path().into(),
                heads,
                from: from.to_string(),
                width,
            });
        }
        let archive = (family == Family::Clip && tower.is_openai_archive())
            .then_some((Activation::QuickGelu, Origin::Weights));
        let known = options
            .activation
            .map(|a| (a, Origin::CommandLine))
            .or(file.and_then(|f| Some((f.activation?, f.origin))))
            .or(archive);
        let (activation, activation_from) = known.ok_or_else(|| TextError::Activation {
            path: tower.checkpoint.path().into(),
            model: format!("{family} text encoder (width {width}, depth {})", tower.depth),
            candidates: match family {
                Family::SigLip => "gelu-tanh (as trained, and in transformers) or gelu (open_clip)",
                _ => {
                    "quick-gelu (OpenAI's, and open_clip models called quickgelu) or gelu (LAION's, DataComp's, and other open_clip models)"
                }
            },
        })?;
        let weights = tower.depth.saturating_mul(12 * width * width);
        if weights > MAX_WEIGHTS {
            return Err(tower.unsupported(format!(
                "a text encoder with {weights} weights in its blocks, and an ONNX file holds at most {MAX_WEIGHTS} of 32 bits (2 GiB)"
            )));
        }
        let default_eps = if family == Family::Clip { 1e-5 } else { 1e-6 };
        Ok(Self {
            family,
            width,
            depth: tower.depth,
            heads,
            vocabulary,
            context,
            dim,
            activation,
            activation_from,
            eps: file.and_then(|f| f.eps).unwrap_or(default_eps),
            causal: family == Family::Clip,
            logit: match family {
                Family::SigLip => tower.logit()?,
                _ => None,
            },
        })
    }

    /// The shape of its blocks.
    pub(super) fn shape(&self, batch: usize) -> Shape {
        Shape {
            batch,
            width: self.width,
            heads: self.heads,
            activation: self.activation,
            eps: self.eps,
        }
    }
}

/// The contents of the config files next to a checkpoint, as far as they concern its text encoder.
#[derive(Debug, Clone, Default)]
pub struct TextConfigFiles {
    files: Vec<ConfigFile>,
}

/// The contents of one config file. Fields that it does not have are `None`.
#[derive(Debug, Clone)]
struct ConfigFile {
    path: PathBuf,
    origin: Origin,
    library: Library,
    family: Option<Family>,
    width: Option<usize>,
    depth: Option<usize>,
    context: Option<usize>,
    heads: Option<usize>,
    activation: Option<Activation>,
    eps: Option<f32>,
}

impl TextConfigFiles {
    /// Reads `config.json` and `open_clip_config.json` in the directory of `weights` (or in
    /// `weights`, if it is a directory), if they exist. Files of other models are ignored.
    ///
    /// # Errors
    /// A file cannot be read, is not JSON, or has an unsupported value for a text encoder.
    pub fn next_to(weights: &Path) -> Result<Self, TextError> {
        let mut files = Vec::new();
        for (name, parse) in [
            ("config.json", transformers as fn(&Path, &Value) -> Parsed),
            ("open_clip_config.json", open_clip),
        ] {
            let path = match weights.is_dir() {
                true => weights.join(name),
                false => weights.with_file_name(name),
            };
            let wrong = |what| TextError::ConfigFile {
                path: path.clone(),
                what,
            };
            let Some(json) = read(&path).map_err(wrong)? else {
                continue;
            };
            files.extend(parse(&path, &json).map_err(wrong)?);
        }
        Ok(Self { files })
    }

    /// The file for weights with the names of `library`: preferably that written by this library,
    /// otherwise any.
    fn file(&self, library: Library) -> Option<&ConfigFile> {
        let its = self.files.iter().find(|f| f.library == library);
        its.or(self.files.first())
    }
}

impl ConfigFile {
    /// Checks that the file describes these weights.
    fn check(
        &self,
        family: Family,
        width: usize,
        depth: usize,
        context: usize,
    ) -> Result<(), TextError> {
        let mut differences = vec![
            ("width", self.width, width),
            ("depth", self.depth, depth),
            ("context length", self.context, context),
        ];
        differences.retain(|(_, given, found)| given.is_some_and(|given| given != *found));
        let what = match (differences.first(), self.family) {
            (Some((name, given, found)), _) => format!(
                "it describes a text encoder of {name} {}, but the weights have {found}",
                given.unwrap_or_default()
            ),
            (None, Some(given)) if given != family => {
                format!("it describes {given}, but the weights are {family}'s")
            }
            _ => return Ok(()),
        };
        Err(TextError::ConfigFile {
            path: self.path.clone(),
            what,
        })
    }
}

type Parsed = Result<Option<ConfigFile>, String>;

/// transformers omits class defaults from nested configs.
fn transformers(path: &Path, json: &Value) -> Parsed {
    let nested = json.get("text_config").filter(|v| v.is_object());
    let (family, activation) = match text(json, "model_type") {
        Some("clip" | "clip_text_model") => (Family::Clip, Activation::QuickGelu),
        Some("siglip" | "siglip2" | "siglip_text_model") => (Family::SigLip, Activation::GeluTanh),
        _ => return Ok(None),
    };
    let json = nested.unwrap_or(json);
    Ok(Some(ConfigFile {
        path: path.into(),
        origin: Origin::ConfigJson,
        library: Library::Transformers,
        family: Some(family),
        width: number(json, "hidden_size")?,
        depth: number(json, "num_hidden_layers")?,
        context: number(json, "max_position_embeddings")?,
        heads: number(json, "num_attention_heads")?,
        activation: match json.get("hidden_act") {
            None | Some(Value::Null) => Some(activation),
            Some(act) => Some(named_activation("hidden_act", act)?),
        },
        eps: epsilon(json.get("layer_norm_eps"))?,
    }))
}

fn open_clip(path: &Path, json: &Value) -> Parsed {
    let Some(model) = json.get("model_cfg").filter(|v| v.is_object()) else {
        return Ok(None);
    };
    let Some(part) = model.get("text_cfg").filter(|v| v.is_object()) else {
        return Ok(None);
    };
    if let Some(name) = text(part, "hf_model_name") {
        return Err(format!(
            "its text encoder is {name}, which is not supported"
        ));
    }
    let quick = match model.get("quick_gelu") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(quick)) => *quick,
        Some(other) => return Err(format!("quick_gelu is {other}, not true or false")),
    };
    let tanh = part
        .get("act_kwargs")
        .is_some_and(|a| text(a, "approximate") == Some("tanh"));
    let norm = part.get("norm_kwargs").and_then(|n| n.get("eps"));
    Ok(Some(ConfigFile {
        path: path.into(),
        origin: Origin::OpenClipConfigJson,
        library: Library::OpenClip,
        family: None,
        width: number(part, "width")?,
        depth: number(part, "layers")?,
        context: number(part, "context_length")?,
        heads: number(part, "heads")?,
        activation: Some(match (tanh, quick) {
            (true, _) => Activation::GeluTanh,
            (_, true) => Activation::QuickGelu,
            _ => Activation::Gelu,
        }),
        eps: epsilon(norm)?,
    }))
}

fn epsilon(value: Option<&Value>) -> Result<Option<f32>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(eps) => eps
            .as_f64()
            .map(|e| e as f32)
            .filter(|e| *e > 0.0 && *e < 1.0)
            .map(Some)
            .ok_or_else(|| format!("the epsilon of its layer norms is {eps}")),
    }
}
