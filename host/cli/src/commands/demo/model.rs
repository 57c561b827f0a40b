//! The built-in model, the bundle that the demo leaves, and its checks.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use loftup_bundle::Bundle;
use loftup_convert::{BackboneSource, Check, Request, convert};
use loftup_eval::{heads, probe};
use loftup_import::builtin;
use loftup_runtime::{ColourRange, Options, Perceptor};
use serde::Serialize;

use super::{
    scenes,
    stages::{Watch, converting},
};

/// The bundle that the demo leaves.
pub const BUNDLE: &str = "demo.loftup";
/// The model as it is built in.
pub const BUILTIN: &str = "builtin.loftup";
/// Name of its head.
pub const HEAD: &str = "classes";
/// Weights of the built-in model.
pub const WEIGHTS: &str = "weights";
const BACKBONE: &str = "backbone.safetensors";
/// Where the training starts.
pub const START: &str = "upsampler.safetensors";
/// Pixels of each picture that a probe is trained on.
pub const SAMPLES: usize = 512;

/// Writes the built-in weights and makes a bundle of them.
pub fn builtin(at: &Path, watch: Watch<'_>) -> Result<Vec<Check>> {
    let folder = at.join(WEIGHTS);
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    for (name, bytes) in [(BACKBONE, builtin::BACKBONE), (START, builtin::UPSAMPLER)] {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    bundle(at, &folder.join(START), BUILTIN, watch)
}

/// Makes a bundle of the upsampler in the file `weights`.
pub fn export(at: &Path, weights: &Path, watch: Watch<'_>) -> Result<Vec<Check>> {
    bundle(at, weights, BUNDLE, watch)
}

fn bundle(at: &Path, upsampler: &Path, name: &str, watch: Watch<'_>) -> Result<Vec<Check>> {
    let request = Request {
        backbone: Some(BackboneSource::Checkpoint {
            preset: builtin::PRESET.into(),
            weights: at.join(WEIGHTS).join(BACKBONE),
            options: loftup_import::vit::VitOptions {
                heads: Some(builtin::HEADS),
                ..Default::default()
            },
        }),
        upsampler: Some(upsampler.to_owned()),
        size: Some(scenes::SIZE),
        out: at.join(name),
        prefix: None,
        replace: false,
    };
    Ok(convert(&request, converting(watch))?.checks)
}

/// A bundle of the demo, on the CPU, so that the figures are of the same engine everywhere.
pub fn open(at: &Path, name: &str) -> Result<Perceptor> {
    Ok(Perceptor::open(&at.join(name), Options::default())?)
}

/// What the head of the bundle was made from.
#[derive(Debug, Serialize)]
pub struct Head {
    pub pictures: usize,
    pub pixels: usize,
    /// Share of these pixels whose class is right.
    pub fit: f64,
}

/// Trains a head that gives each pixel a class, and puts it into the bundle.
pub fn head(at: &Path, watch: Watch<'_>) -> Result<Head> {
    let data = at.join(scenes::FOLDER);
    let request = heads::Request {
        size: None,
        range: ColourRange::PerImage,
        orientation: loftup_runtime::image::Orientation::Upright,
        samples: SAMPLES,
        most: None,
        probe: probe::Options::default(),
    };
    let made = heads::classes(&open(at, BUNDLE)?, &data, &request, watch)?;
    let bundle = at.join(BUNDLE);
    heads::add(&bundle, HEAD, &made, &data, &bundle, true)?;
    Ok(Head {
        pictures: made.pictures,
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
