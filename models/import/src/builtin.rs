//! The weights that ship with the project: a small DINOv2 and the LoftUp trained for it, both from
//! generated scenes alone. `models/weights/README.md` says how they were made and how good they
//! are.
//!
//! They are files as [`crate::checkpoint`] reads them; nothing here is decoded.

use std::{fs, path::Path};

use loftup_bundle::Size;

use crate::{
    bundle::{self, ExportError},
    checkpoint::Checkpoint,
    loftup,
    vit::{ConfigFiles, Preset, Vit, VitOptions},
};

/// A vision transformer, safetensors with DINOv2's names: patches of 14 pixels, made for pictures
/// of 224x224.
pub const BACKBONE: &[u8] = include_bytes!("../../weights/backbone.safetensors");

/// Its upsampler, safetensors with the LoftUp authors' names.
pub const UPSAMPLER: &[u8] = include_bytes!("../../weights/upsampler.safetensors");

/// Which kind of backbone it is, as `loftup convert --backbone` takes it.
pub const PRESET: &str = "dinov2";

/// Attention heads of the backbone, which its weights do not tell.
pub const HEADS: usize = 4;

/// Writes a bundle of the built-in backbone and upsampler to `path`, which must not exist. It has
/// no reference outputs, and its graphs are not run: `loftup convert --builtin` does both.
///
/// # Errors
/// If a file cannot be written. Nothing is left at `path`.
pub fn write_bundle(path: &Path) -> Result<(), ExportError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| ExportError::Io { path, source }
    };
    let directory = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
    let open = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).map_err(io(&path))?;
        Ok::<_, ExportError>(Checkpoint::open(&path)?)
    };
    let backbone = open("backbone.safetensors", BACKBONE)?;
    let upsampler = open("upsampler.safetensors", UPSAMPLER)?;
    let options = VitOptions {
        heads: Some(HEADS),
        ..VitOptions::default()
    };
    let files = ConfigFiles::next_to(backbone.path())?;
    let model = Vit::from_checkpoint(&backbone, Preset::parse(PRESET)?, &options, &files)?;
    let (width, height) = model.config().default_size();
    let sources = bundle::sources("backbone weights", &backbone)
        .chain(bundle::sources("upsampler weights", &upsampler))
        .collect();
    let upsampler = loftup::read(&upsampler)?;
    bundle::write(path, (&model, Size { width, height }), &upsampler, sources)
}
