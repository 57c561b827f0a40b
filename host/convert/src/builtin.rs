//! A bundle of the built-in weights.

use std::{fs, ops::ControlFlow, path::Path};

use loftup_import::{builtin, vit::VitOptions};

use crate::{
    BackboneSource, ConvertError, Request,
    convert::{Converted, convert},
};

/// Writes a bundle of the built-in backbone and upsampler ([`loftup_import::builtin`]) to `out` and
/// verifies it. `replace` allows an existing bundle to be replaced; `stage` is as in [`convert`].
///
/// # Errors
/// As [`convert`].
pub fn builtin(
    out: &Path,
    replace: bool,
    stage: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Converted, ConvertError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| ConvertError::Io { path, source }
    };
    let folder = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).map_err(io(&path))?;
        Ok::<_, ConvertError>(path)
    };
    let request = Request {
        backbone: Some(BackboneSource::Checkpoint {
            preset: builtin::PRESET.into(),
            weights: write("backbone.safetensors", builtin::BACKBONE)?,
            options: VitOptions {
                heads: Some(builtin::HEADS),
                ..Default::default()
            },
        }),
        upsampler: Some(write("upsampler.safetensors", builtin::UPSAMPLER)?),
        size: None,
        out: out.to_owned(),
        prefix: None,
        replace,
    };
    convert(&request, stage)
}
