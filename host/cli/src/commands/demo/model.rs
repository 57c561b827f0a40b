//! The bundles of the demo, the head, and their checks.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use loftup_bundle::Bundle;
use loftup_convert::{BackboneSource, Check, Request, convert};
use loftup_eval::{Method, heads, probe};
use loftup_import::builtin;
use loftup_runtime::{ColorRange, ExecutionOptions, Perceptor};
use serde::Serialize;

use super::{
    scenes,
    stages::{Watch, converting},
};

/// The built-in model, with a head.
pub const BUNDLE: &str = "demo.loftup";
/// The built-in backbone with the initial upsampler of the training.
pub const START: &str = "start.loftup";
/// The same with the trained upsampler.
pub const TRAINED: &str = "trained.loftup";
/// Name of the head.
pub const HEAD: &str = "classes";
/// Methods that are compared in tracking, clicks and depth.
pub const COMPARED: [Method; 3] = [Method::Bilinear, Method::Jbu, Method::LoftUp];
/// Weights of the built-in model.
const WEIGHTS: &str = "weights";
const BACKBONE: &str = "backbone.safetensors";
const UPSAMPLER: &str = "upsampler.safetensors";
/// Pixels of each image that a probe is trained on.
pub const SAMPLES: usize = 512;

/// Writes the built-in weights and a bundle of them.
pub fn builtin(at: &Path, watch: Watch<'_>) -> Result<Vec<Check>> {
    let folder = at.join(WEIGHTS);
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    for (name, bytes) in [
        (BACKBONE, builtin::scenes::BACKBONE),
        (UPSAMPLER, builtin::scenes::UPSAMPLER),
    ] {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    bundle(at, &folder.join(UPSAMPLER), BUNDLE, watch)
}

/// Writes bundles of the upsampler before (`start`) and after (`trained`) its training.
pub fn export(at: &Path, start: &Path, trained: &Path, watch: Watch<'_>) -> Result<()> {
    bundle(at, start, START, watch)?;
    bundle(at, trained, TRAINED, watch)?;
    Ok(())
}

fn bundle(at: &Path, upsampler: &Path, name: &str, watch: Watch<'_>) -> Result<Vec<Check>> {
    let request = Request {
        backbone: Some(BackboneSource::Checkpoint {
            preset: builtin::scenes::PRESET.into(),
            weights: at.join(WEIGHTS).join(BACKBONE),
            options: loftup_import::vit::VitOptions {
                heads: Some(builtin::scenes::HEADS),
                ..Default::default()
            },
        }),
        upsampler: Some(upsampler.to_owned()),
        size: Some(scenes::SIZE),
        out: at.join(name),
        prefix: None,
        license: None,
        replace: false,
    };
    Ok(convert(&request, converting(watch))?.checks)
}

/// Opens a bundle of the demo on the CPU, so that results are comparable across machines.
pub fn open(at: &Path, name: &str) -> Result<Perceptor> {
    Ok(Perceptor::open_on_cpu(
        &at.join(name),
        ExecutionOptions::default(),
    )?)
}

/// Training data and accuracy of the head.
#[derive(Debug, Serialize)]
pub struct Head {
    pub images: usize,
    pub pixels: usize,
    /// Accuracy on these pixels.
    pub fit: f64,
}

/// Trains a classification head and adds it to the bundle.
pub fn head(at: &Path, watch: Watch<'_>) -> Result<Head> {
    let data = at.join(scenes::FOLDER);
    let request = heads::Request {
        size: None,
        range: ColorRange::PerImage,
        orientation: loftup_runtime::image::Orientation::Upright,
        samples: SAMPLES,
        most: None,
        probe: probe::Options::default(),
    };
    let made = heads::classes(&open(at, BUNDLE)?, &data, &request, watch)?;
    let bundle = at.join(BUNDLE);
    heads::add(&bundle, HEAD, &made, &data, &bundle, true)?;
    Ok(Head {
        images: made.images,
        pixels: made.pixels,
        fit: made.fit,
    })
}

/// Checks the finished bundle as `loftup verify` does.
pub fn verify(at: &Path) -> Result<Vec<Check>> {
    let checks = loftup_convert::verify(Bundle::open(&at.join(BUNDLE))?)?;
    if let Some(check) = checks.iter().find(|c| !c.passed) {
        anyhow::bail!("the bundle of the demo fails a check: {check}");
    }
    Ok(checks)
}
