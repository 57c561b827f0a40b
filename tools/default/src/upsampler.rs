//! Trains the upsampler with the scenes' masks.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, Result, bail};
use loftup_train::{Config, Event, Outcome, files, train};

use crate::{Progress, SEED, scenes::SIDE};

/// One training run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Side of the guidance.
    pub guidance: usize,
    /// Number of steps.
    pub steps: u64,
    /// Batch size.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Warmup steps.
    pub warmup: u64,
    /// `stage1.area_weighting`: weight of small objects.
    pub area_weighting: f64,
}

/// The phases that train the shipped weights. The cost of a step is proportional to the guidance's
/// area, and most of what is learned at 56 pixels applies at 224. But patterns that are too fine to
/// be resolved at 56 look like edges at 224 to an upsampler that has never seen them, so the later
/// phases use higher resolutions.
pub const PHASES: [Phase; 3] = [
    Phase {
        guidance: 56,
        steps: 1000,
        batch_size: 4,
        learning_rate: 2e-3,
        warmup: 40,
        area_weighting: 0.0,
    },
    Phase {
        guidance: 112,
        steps: 800,
        batch_size: 2,
        learning_rate: 8e-4,
        warmup: 40,
        area_weighting: 0.3,
    },
    Phase {
        guidance: 224,
        steps: 1500,
        batch_size: 1,
        learning_rate: 5e-4,
        warmup: 40,
        area_weighting: 0.3,
    },
];

/// The settings of a phase, as TOML.
fn settings(phase: &Phase, bundle: &Path, data: &Path, out: &Path, start: Option<&Path>) -> String {
    let path = |p: &Path| format!("{:?}", p.display().to_string());
    let start = start.map_or_else(String::new, |start| format!("start = {}", path(start)));
    let Phase {
        guidance,
        steps,
        batch_size,
        learning_rate,
        warmup,
        area_weighting,
    } = phase;
    // The masks are exact, so each mask's target is a single mean. Without augmentations, the
    // backbone's features are cached on disk.
    format!(
        r#"bundle = {bundle}
out = {out}
stage = 1
seed = {SEED}
init = "bilinear"
{start}
[data]
paths = [{data}]
[run]
batch_size = {batch_size}
steps = {steps}
checkpoint_every = 100
preview_every = 0
device = "cpu"
[optimizer]
learning_rate = {learning_rate}
warmup = {warmup}
cosine = true
[loss]
augmentations = 0
projection = 0
clip = 1.0
range = "image"
[stage1]
guidance = "{guidance}x{guidance}"
backbone = "{SIDE}x{SIDE}"
alpha = 1.0
area_weighting = {area_weighting:?}
[cache]
folder = {cache}
"#,
        bundle = path(bundle),
        out = path(out),
        data = path(data),
        cache = path(&out.with_file_name("features")),
    )
}

/// Trains the upsampler for the backbone in `bundle`, or resumes an interrupted training. Returns
/// the file with its weights.
///
/// # Errors
/// As for [`train`]. If `stop` becomes true, training ends after a checkpoint, with an error that
/// says so.
pub fn train_all(
    phases: &[Phase],
    bundle: &Path,
    data: &Path,
    work: &Path,
    stop: &AtomicBool,
    progress: Progress<'_>,
) -> Result<PathBuf> {
    let mut start: Option<PathBuf> = None;
    for phase in phases {
        let out = work.join(format!("upsampler-{}", phase.guidance));
        let weights = out.join(files::WEIGHTS);
        if !weights.exists() {
            let path = work.join(format!("upsampler-{}.toml", phase.guidance));
            let text = settings(phase, bundle, data, &out, start.as_deref());
            std::fs::write(&path, &text).with_context(|| path.display().to_string())?;
            let config = Config::parse(&text, &path)?;
            let resume = out.join(files::CHECKPOINT).exists();
            let stage = format!("upsampler at {}", phase.guidance);
            let mut smooth = None;
            let outcome = train(&config, &path, resume, stop, &mut |event| {
                if let Event::Stepped { step, losses, .. } = event {
                    let loss = losses[0].1;
                    let mean = smooth.map_or(loss, |s: f32| 0.98 * s + 0.02 * loss);
                    smooth = Some(mean);
                    progress(&stage, step, phase.steps, &format!("loss {mean:.4}"));
                }
            })?;
            if let Outcome::Stopped(step) = outcome {
                bail!("stopped after {step} steps of the {stage}; the same command resumes");
            }
            log::info!("{stage}: loss {:.4}", smooth.unwrap_or(f32::NAN));
        }
        start = Some(weights);
    }
    start.context("no phase given")
}
