//! A short training with `loftup train`'s code, from a bilateral initialization.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use loftup_train::{Config, Event, Outcome, TrainError, files};
use serde::Serialize;

use super::{model, scenes, stages::Watch};
use crate::interrupt;

/// The settings, and the output directories of the initialization and of the training.
const SETTINGS: &str = "train.toml";
const START: &str = "training/start";
const TRAINED: &str = "training/trained";
/// Side of the windows that a step computes. The cost of a step is proportional to its area.
const WINDOW: usize = 64;
const BATCH_SIZE: usize = 4;

/// Results of the training.
#[derive(Debug, Serialize)]
pub struct Training {
    pub images: usize,
    pub parameters: usize,
    /// Side of the window of each image that a step computes.
    pub window: usize,
    pub batch_size: usize,
    /// Names of the losses of a step: their sum first.
    pub names: Vec<String>,
    /// Losses of each step.
    pub losses: Vec<Vec<f32>>,
    pub seconds: f64,
}

/// Writes the initial weights, then trains an upsampler for the built-in backbone. The settings
/// stay next to the results, so that the training can be changed and repeated.
pub fn train(at: &Path, steps: u64, watch: Watch<'_>) -> Result<Training> {
    let path = at.join(SETTINGS);
    fs::write(&path, settings(steps)).with_context(|| path.display().to_string())?;
    let mut config = Config::open(&path)?;
    let started = Instant::now();
    let mut training = Training {
        images: 0,
        parameters: 0,
        window: WINDOW,
        batch_size: BATCH_SIZE,
        names: Vec::new(),
        losses: Vec::new(),
        seconds: 0.0,
    };
    let mut start = config.clone();
    start.run.steps = Some(0);
    start.out = at.join(START);
    watch("initialization", 0, steps as usize);
    run(&start, &path, &mut |_| {})?;
    // The same initialization, which need not be computed again.
    config.start = Some(self::start(at));
    run(&config, &path, &mut |event| match event {
        Event::Started {
            images, weights, ..
        } => (training.images, training.parameters) = (images, weights),
        Event::Stepped { step, losses, .. } => {
            if training.names.is_empty() {
                training.names = losses.iter().map(|(name, _)| (*name).into()).collect();
            }
            training
                .losses
                .push(losses.iter().map(|(_, value)| *value).collect());
            watch(
                &format!("loss {:.3}", losses[0].1),
                step as usize,
                steps as usize,
            );
        }
        Event::Saved(_) | Event::Previewed(_) => {}
    })?;
    training.seconds = started.elapsed().as_secs_f64();
    Ok(training)
}

fn run(config: &Config, path: &Path, watch: &mut dyn FnMut(Event<'_>)) -> Result<()> {
    match loftup_train::train(config, path, false, interrupt::flag(), watch) {
        Ok(Outcome::Finished(_)) => Ok(()),
        Ok(Outcome::Stopped(_)) | Err(TrainError::Interrupted) => {
            Err(interrupt::Interrupted.into())
        }
        Err(e) => Err(e.into()),
    }
}

/// The initial weights.
pub fn start(at: &Path) -> PathBuf {
    at.join(START).join(files::WEIGHTS)
}

/// The trained weights.
pub fn weights(at: &Path) -> PathBuf {
    at.join(TRAINED).join(files::WEIGHTS)
}

fn settings(steps: u64) -> String {
    format!(
        r#"# The demo's training. Paths are relative to this file. To train longer, increase run.steps,
# choose another `out`, and run `loftup train` with this file.
bundle = "{bundle}"
out = "{TRAINED}"
stage = 1
seed = 1
init = "bilateral"

[data]
paths = ["{scenes}"]

[run]
batch_size = {BATCH_SIZE}
steps = {steps}
log_every = 1
checkpoint_every = 100000
preview_every = 0
device = "cpu"

[optimizer]
learning_rate = 1e-3
warmup = 5
cosine = true
freeze_batch_norm = true

[loss]
augmentations = 0
projection = 0
clip = 1.0
range = "image"

[stage1]
guidance = "{size}"
window = "{WINDOW}x{WINDOW}"
alpha = 1.0
mse_weight = 0.0
gradient_weight = 1.0

[cache]
gib = 0
"#,
        bundle = model::BUNDLE,
        scenes = scenes::UNLABELED,
        size = scenes::SIZE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_valid_and_agree_with_the_report() {
        let config = Config::parse(&settings(9), Path::new(SETTINGS)).unwrap();
        assert_eq!(config.run.steps, Some(9));
        assert_eq!(config.run.batch_size, BATCH_SIZE);
        let window = config.stage1.window.unwrap();
        assert_eq!((window.width, window.height), (WINDOW, WINDOW));
    }
}
