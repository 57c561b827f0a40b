//! A short training, as `loftup train` does it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use loftup_train::{Config, Event, Outcome, files};
use serde::Serialize;

use super::{model, scenes, stages::Watch};
use crate::interrupt;

/// The settings, and the folder of the training.
const SETTINGS: &str = "train.toml";
const FOLDER: &str = "training";
/// Side of the guidance, a multiple of the backbone's grid. A step costs in proportion to its area;
/// much smaller than the pictures that are asked about, what is fine in them is never seen.
const GUIDANCE: usize = 128;
const BATCH: usize = 1;

/// What a training did.
#[derive(Debug, Serialize)]
pub struct Training {
    pub pictures: usize,
    pub weights: usize,
    pub guidance: usize,
    pub batch: usize,
    /// The loss of each step: its sum first, then its parts.
    pub names: Vec<String>,
    pub losses: Vec<Vec<f32>>,
    pub seconds: f64,
}

/// Trains the built-in upsampler on the scenes. The settings are left beside the rest, so that the
/// training can be looked up, changed and repeated.
pub fn train(at: &Path, steps: u64, watch: Watch<'_>) -> Result<Training> {
    let path = at.join(SETTINGS);
    fs::write(&path, settings(steps)).with_context(|| path.display().to_string())?;
    let config = Config::open(&path)?;
    let start = Instant::now();
    let mut found = Training {
        pictures: 0,
        weights: 0,
        guidance: GUIDANCE,
        batch: BATCH,
        names: Vec::new(),
        losses: Vec::new(),
        seconds: 0.0,
    };
    let outcome =
        loftup_train::train(
            &config,
            &path,
            false,
            interrupt::flag(),
            &mut |event| match event {
                Event::Started {
                    pictures, weights, ..
                } => (found.pictures, found.weights) = (pictures, weights),
                Event::Stepped { step, losses, .. } => {
                    if found.names.is_empty() {
                        found.names = losses.iter().map(|(name, _)| (*name).into()).collect();
                    }
                    found
                        .losses
                        .push(losses.iter().map(|(_, value)| *value).collect());
                    watch(
                        &format!("loss {:.3}", losses[0].1),
                        step as usize,
                        steps as usize,
                    );
                }
                Event::Saved(_) | Event::Drawn(_) => {}
            },
        )?;
    if let Outcome::Stopped(_) = outcome {
        return Err(interrupt::Interrupted.into());
    }
    found.seconds = start.elapsed().as_secs_f64();
    Ok(found)
}

/// The weights that come out.
pub fn weights(at: &Path) -> PathBuf {
    at.join(FOLDER).join(files::WEIGHTS)
}

fn settings(steps: u64) -> String {
    format!(
        r#"# What the demo trained. Paths are relative to this file. To train longer: raise run.steps,
# choose another `out`, and call `loftup train` with this file.
bundle = "{bundle}"
out = "{FOLDER}"
stage = 1
seed = 1
start = "{weights}/{start}"

[data]
paths = ["{scenes}/train/images"]

[run]
batch = {BATCH}
steps = {steps}
log_every = 1
checkpoint_every = 100000
picture_every = 0
device = "cpu"

[optimizer]
rate = 1e-4
warmup = 5
cosine = true

[loss]
jitters = 1
range = "image"

[stage1]
guidance = "{GUIDANCE}x{GUIDANCE}"
backbone = "{size}"

[cache]
gib = 0
"#,
        bundle = model::BUILTIN,
        weights = model::WEIGHTS,
        start = model::START,
        scenes = scenes::FOLDER,
        size = scenes::SIZE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_can_be_read_and_say_what_the_report_says() {
        let config = Config::parse(&settings(9), Path::new(SETTINGS)).unwrap();
        assert_eq!(config.run.steps, Some(9));
        assert_eq!(config.run.batch, BATCH);
        assert_eq!(config.stage1.guidance.width, GUIDANCE);
        let grid = scenes::SIZE.width / 14;
        assert_eq!(GUIDANCE % grid, 0, "a grid of {grid}");
    }
}
