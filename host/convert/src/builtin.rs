//! Bundles of the built-in weights.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use loftup_bundle::{Normalization, sha256_hex};
use loftup_import::{
    builtin::{naf, photos, scenes},
    vit::VitOptions,
};

use crate::{
    BackboneSource, ConvertError, OnnxBackbone, Request,
    convert::{Converted, convert},
};

/// A built-in backbone with its upsampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Builtin {
    /// EfficientNet-Lite0 and a LoftUp trained on photographs ([`loftup_import::builtin::photos`]).
    #[default]
    Photos,
    /// A small vision transformer and its LoftUp, trained on generated scenes
    /// ([`loftup_import::builtin::scenes`]).
    Scenes,
}

impl Builtin {
    fn weights(self) -> [(&'static str, &'static [u8]); 2] {
        match self {
            Self::Photos => [
                ("backbone.onnx", photos::BACKBONE),
                ("upsampler.safetensors", photos::UPSAMPLER),
            ],
            Self::Scenes => [
                ("backbone.safetensors", scenes::BACKBONE),
                ("upsampler.safetensors", scenes::UPSAMPLER),
            ],
        }
    }

    /// A hash of the weights, in hexadecimal digits.
    pub fn hash(self) -> String {
        let hashes = self.weights().map(|(_, bytes)| sha256_hex(bytes));
        sha256_hex(hashes.concat().as_bytes())
    }

    /// Writes a bundle to `out` and verifies it. `replace` allows an existing bundle to be replaced;
    /// `stage` is as in [`convert`].
    ///
    /// # Errors
    /// Same as [`convert`].
    pub fn write(
        self,
        out: &Path,
        replace: bool,
        stage: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Converted, ConvertError> {
        let folder = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
        let [backbone, upsampler] = self.weights().map(|(name, bytes)| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).map_err(io(&path))?;
            Ok::<_, ConvertError>(path)
        });
        let backbone = match self {
            Self::Photos => BackboneSource::Onnx(OnnxBackbone {
                path: backbone?,
                patch: photos::PATCH,
                normalization: Some(Normalization {
                    mean: photos::MEAN,
                    std: photos::STD,
                }),
                output: None,
                layout: None,
                extra_tokens: None,
            }),
            Self::Scenes => BackboneSource::Checkpoint {
                preset: scenes::PRESET.into(),
                weights: backbone?,
                options: VitOptions {
                    heads: Some(scenes::HEADS),
                    ..Default::default()
                },
            },
        };
        let license = match self {
            Self::Photos => photos::LICENSE,
            Self::Scenes => scenes::LICENSE,
        };
        let request = Request {
            backbone: Some(backbone),
            upsampler: Some(upsampler?),
            size: None,
            out: out.to_owned(),
            prefix: None,
            license: Some(license.into()),
            replace,
        };
        convert(&request, stage)
    }
}

/// The built-in NAF ([`loftup_import::builtin::naf`]), an upsampler for any backbone, in a temporary file that
/// is deleted when this value is dropped.
#[derive(Debug)]
pub struct BuiltinUpsampler {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl BuiltinUpsampler {
    /// Writes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create() -> Result<Self, ConvertError> {
        let folder = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
        let path = folder.path().join("naf.safetensors");
        fs::write(&path, naf::UPSAMPLER).map_err(io(&path))?;
        Ok(Self {
            path,
            _folder: folder,
        })
    }

    /// Its path, for [`Request::upsampler`].
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ConvertError {
    let path = path.to_owned();
    |source| ConvertError::Io { path, source }
}
