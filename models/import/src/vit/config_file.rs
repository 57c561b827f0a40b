//! The config files that transformers, open_clip and timm save next to the weights.

use std::path::Path;

use loftup_bundle::Normalization;
use serde_json::Value;

use super::{Origin, VitError, colors::Colors, model_config::ModelConfig, schemes::Library};
use crate::config_json;

const TRANSFORMERS: &str = "config.json";
const OPEN_CLIP: &str = "open_clip_config.json";
/// Files in which transformers stores the image preprocessing.
const PREPROCESSORS: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

/// The contents of the config files next to a checkpoint, as far as they concern its vision
/// transformer.
#[derive(Debug, Clone, Default)]
pub struct ConfigFiles {
    models: Vec<ModelConfig>,
    preprocessor: Option<Colors>,
}

impl ConfigFiles {
    /// Reads `config.json`, `open_clip_config.json` and `preprocessor_config.json` in the directory
    /// of `weights` (or in `weights`, if it is a directory), if they exist. Files of other models
    /// are ignored.
    ///
    /// # Errors
    /// A file cannot be read, is not JSON, or has an unsupported or impossible value for a vision
    /// transformer.
    pub fn next_to(weights: &Path) -> Result<Self, VitError> {
        let mut files = Self::default();
        let next_to = |name: &str| match weights.is_dir() {
            true => weights.join(name),
            false => weights.with_file_name(name),
        };
        for (name, origin) in [
            (TRANSFORMERS, Origin::ConfigJson),
            (OPEN_CLIP, Origin::OpenClipConfigJson),
        ] {
            let path = next_to(name);
            let Some(json) = read(&path)? else { continue };
            let model =
                ModelConfig::parse(&path, origin, &json).map_err(|what| VitError::ConfigFile {
                    path: path.clone(),
                    what,
                })?;
            match model {
                Some(model) => files.models.push(model),
                None => log::info!(
                    "{}: does not describe a supported vision transformer; ignored",
                    path.display()
                ),
            }
        }
        for name in PREPROCESSORS {
            let path = next_to(name);
            let Some(json) = read(&path)? else { continue };
            let json = json.get("image_processor").unwrap_or(&json);
            files.preprocessor = Colors::of(&path, json, "image_mean", "image_std")
                .map_err(|what| VitError::ConfigFile { path, what })?;
            if files.preprocessor.is_some() {
                break;
            }
        }
        Ok(files)
    }

    /// The image normalization in `preprocessor_config.json`, if there is one.
    pub fn preprocessor(&self) -> Option<Normalization> {
        self.preprocessor.as_ref().map(|given| given.colors)
    }

    /// The config for weights with the names of `library`: preferably that written by this library,
    /// otherwise any.
    pub(super) fn model(&self, library: Library) -> Option<&ModelConfig> {
        self.models
            .iter()
            .find(|m| m.library == library)
            .or(self.models.first())
    }

    /// The image normalization for weights with the names of `library`.
    pub(super) fn normalization(&self, library: Library) -> Option<&Colors> {
        self.model(library)
            .and_then(|m| m.normalization.as_ref())
            .or(self.preprocessor.as_ref())
    }
}

fn read(path: &Path) -> Result<Option<Value>, VitError> {
    config_json::read(path).map_err(|what| VitError::ConfigFile {
        path: path.into(),
        what,
    })
}
