//! The training loop.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    time::Instant,
};

use loftup_runtime::image;
use serde::Serialize;

use crate::{
    backbone::{Backbone, FeatureCache},
    checkpoint::{self, Progress},
    config::Config,
    data::Dataset,
    device,
    error::TrainError,
    log::Log,
    model::interpolating::Held,
    optim::clip,
    picture::Shown,
    prepare::Preparer,
    state::{State, begin, check_same},
    step::{Terms, step},
    teacher::follow,
};

/// Files in the output folder.
pub mod files {
    /// The state of the training.
    pub const CHECKPOINT: &str = "checkpoint.safetensors";
    /// The trained upsampler, for `loftup convert --upsampler-weights`.
    pub const WEIGHTS: &str = "upsampler.safetensors";
    /// Where the weights come from.
    pub const PROVENANCE: &str = "provenance.json";
    /// Features of the picture that is shown.
    pub const PICTURE: &str = "features.png";
}

/// Batches that are made ahead of time.
const AHEAD: usize = 1;

/// What happens in a training, for whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// It begins.
    Started {
        /// Steps done before.
        step: u64,
        /// Steps of the whole training.
        steps: u64,
        /// Pictures.
        pictures: usize,
        /// Pictures that come with masks.
        with_masks: usize,
        /// Numbers that are trained.
        weights: usize,
    },
    /// A step is done.
    Stepped {
        /// Steps done.
        step: u64,
        /// Losses by name, the sum first.
        losses: &'a [(&'static str, f32)],
        /// Learning rate.
        rate: f64,
    },
    /// A checkpoint is written.
    Saved(&'a Path),
    /// Features of a picture are drawn.
    Drawn(&'a Path),
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done; the weights are in this file.
    Finished(PathBuf),
    /// It was stopped after so many steps, and the checkpoint written.
    Stopped(u64),
}

/// Where trained weights come from. Written beside them.
#[derive(Debug, Serialize)]
struct Provenance<'a> {
    tool: &'static str,
    weights_sha256: String,
    config: &'a Config,
    steps: u64,
    data_fingerprint: String,
    pictures: usize,
    pictures_with_masks: usize,
    broken_pictures: Vec<String>,
    broken_masks: Vec<String>,
    backbone_sha256: String,
    start_sha256: Option<String>,
    losses: BTreeMap<&'a str, f32>,
}

/// Trains as `config`, read from `path`, says. With `resume` it goes on from the checkpoint in the
/// output folder. Where `stop` becomes true, it writes a checkpoint after the step it is in, and
/// ends.
///
/// # Errors
/// Where settings, data, bundle and checkpoint do not go together, nothing can be read or written,
/// or the loss is no longer a number. Broken pictures are left out, not errors.
pub fn train(
    config: &Config,
    path: &Path,
    resume: bool,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome, TrainError> {
    let device = device::open(&config.run.device)?;
    let out = &config.out;
    std::fs::create_dir_all(out).map_err(TrainError::io(out))?;
    let checkpoint_file = out.join(files::CHECKPOINT);
    if !resume && checkpoint_file.exists() {
        return Err(TrainError::Resume {
            path: checkpoint_file,
            what: "there is a training already: go on with --resume, or choose another `out`"
                .into(),
        });
    }
    let data = Dataset::open(
        &config.data.paths,
        config.data.limit,
        config.preparation(),
        stop,
    )?;
    let cache = match config.cache.gib > 0.0 {
        true => {
            let folder = config
                .cache
                .folder
                .clone()
                .unwrap_or_else(|| out.join("cache"));
            Some(FeatureCache::open(
                &folder,
                (config.cache.gib * (1u64 << 30) as f64) as u64,
            )?)
        }
        false => None,
    };
    let backbone = Backbone::open(&config.bundle, cache)?;
    let preparer = Preparer::new(config, path, &data, &backbone)?;
    let (mut state, start_sha256) = begin(config, &backbone, preparer.window(), &device)?;
    let fingerprint = data.fingerprint();
    if config.start.is_none()
        && !resume
        && !preparer.fit(config.begin, &mut state.net.upsampler, &device)?
    {
        return Err(TrainError::Config {
            path: path.into(),
            key: "begin".into(),
            what: "this upsampler has no room to begin by interpolating; write \"fitted\" or \"random\"".into(),
        });
    }
    let mut last = BTreeMap::new();
    if resume {
        let (tensors, progress) = checkpoint::load(&checkpoint_file)?;
        check_same(
            &checkpoint_file,
            &progress,
            config,
            &fingerprint,
            &backbone.sha256(),
        )?;
        state.restore(&tensors, &progress, &checkpoint_file, &device)?;
        last = progress.losses.into_iter().collect();
    }
    let steps = config.steps(data.len());
    let shown = shown(config, &data, &backbone, &preparer)?;
    let mut log = Log::open(out, state.step)?;
    watch(Event::Started {
        step: state.step,
        steps,
        pictures: data.len(),
        with_masks: data.with_masks(),
        weights: state.net.weights().count(),
    });
    let text =
        toml::to_string(config).map_err(|e| TrainError::io(path)(std::io::Error::other(e)))?;
    let save = |state: &State, last: &BTreeMap<String, f32>| -> Result<(), TrainError> {
        let mut progress = Progress::new(
            state.step,
            state.optimizer.counters,
            text.clone(),
            fingerprint.clone(),
            backbone.sha256(),
        );
        progress.losses = last.clone().into_iter().collect();
        checkpoint::save(&checkpoint_file, &state.tensors(), &progress)
    };
    let terms = Terms {
        variation: config.variation(),
        affinity: config.stage2.affinity,
    };
    let held = Held::found(&state.net.upsampler, &device);
    let (first, device) = (state.step, &device);
    let stopped = std::thread::scope(|scope| -> Result<bool, TrainError> {
        let (sender, receiver) = sync_channel(AHEAD);
        let preparer = &preparer;
        scope.spawn(move || {
            for step in first..steps {
                let batch = preparer.prepare(step);
                let failed = batch.is_err();
                // Nobody listens any more where the training was stopped.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        while state.step < steps {
            let Ok(batch) = receiver.recv() else {
                return Err(TrainError::io(out)(std::io::Error::other(
                    "the thread that prepares batches has died",
                )));
            };
            let batch = batch?.on(config, state.teacher.as_ref(), device);
            let found = step(&state.net, &batch, terms);
            let loss = found.losses[0].1;
            if !loss.is_finite() {
                return Err(TrainError::Diverged {
                    step: state.step + 1,
                    loss,
                });
            }
            let gradients = match state.step < config.loss.clipped_steps {
                true => clip(&found.gradients, config.loss.clip).0,
                false => found.gradients,
            };
            state.optimizer.settings.rate = config.rate(state.step, steps);
            let before = state.net.weights();
            let mut weights = state.optimizer.step(&before, &gradients);
            if let Some(held) = &held {
                weights = held.keep(&before, &weights);
            }
            state.net = state.net.with_weights(&weights);
            state.net.upsampler.remember(&found.moments);
            state.step += 1;
            if let Some(teacher) = &mut state.teacher
                && state.step % config.stage2.update_every == 0
            {
                follow(teacher, &state.net.upsampler, config.stage2.keep);
            }
            let (done, rate) = (state.step, state.optimizer.settings.rate);
            last = found
                .losses
                .iter()
                .map(|(n, v)| ((*n).to_string(), *v))
                .collect();
            watch(Event::Stepped {
                step: done,
                losses: &found.losses,
                rate,
            });
            if done % config.run.log_every == 0 || done == steps {
                log.losses(done, rate, &found.losses)?;
            }
            if let Some(shown) = &shown
                && (done % config.run.picture_every == 0 || done == steps)
            {
                let file = out.join(files::PICTURE);
                let size = shown.draw(&state.net.upsampler, device, &file)?;
                log.picture(
                    done,
                    size,
                    &std::fs::read(&file).map_err(TrainError::io(&file))?,
                )?;
                watch(Event::Drawn(&file));
            }
            let stopping = stop.load(Ordering::Relaxed) && done < steps;
            if done % config.run.checkpoint_every == 0 || done == steps || stopping {
                save(&state, &last)?;
                watch(Event::Saved(&checkpoint_file));
            }
            if stopping {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    let broken = data.broken();
    for name in broken.pictures.iter().chain(&broken.masks) {
        log::info!("was left out: {name}");
    }
    if broken.pictures.len() + broken.masks.len() > 0 {
        log::warn!(
            "left out: {} broken pictures, broken masks of {}",
            broken.pictures.len(),
            broken.masks.len()
        );
    }
    if stopped {
        return Ok(Outcome::Stopped(state.step));
    }
    let weights = out.join(files::WEIGHTS);
    let mut tensors = state.net.upsampler.weights.to_host();
    tensors.extend(state.net.upsampler.statistics.to_host());
    checkpoint::write(&weights, &tensors, None)?;
    let bytes = std::fs::read(&weights).map_err(TrainError::io(&weights))?;
    let provenance = Provenance {
        tool: concat!("loftup ", env!("CARGO_PKG_VERSION")),
        weights_sha256: loftup_bundle::sha256_hex(&bytes),
        config,
        steps: state.step,
        data_fingerprint: fingerprint.clone(),
        pictures: data.len(),
        pictures_with_masks: data.with_masks(),
        broken_pictures: broken.pictures.into_iter().collect(),
        broken_masks: broken.masks.into_iter().collect(),
        backbone_sha256: backbone.sha256(),
        start_sha256,
        losses: last.iter().map(|(n, v)| (n.as_str(), *v)).collect(),
    };
    let file = out.join(files::PROVENANCE);
    let text =
        serde_json::to_vec_pretty(&provenance).map_err(|e| TrainError::io(&file)(e.into()))?;
    checkpoint::replace(&file, &text).map_err(TrainError::io(&file))?;
    Ok(Outcome::Finished(weights))
}

/// The picture whose features are drawn now and then.
fn shown(
    config: &Config,
    data: &Dataset,
    backbone: &Backbone,
    preparer: &Preparer<'_>,
) -> Result<Option<Shown>, TrainError> {
    if config.run.picture_every == 0 {
        return Ok(None);
    }
    let (size, seen) = preparer.first_size();
    let photo = match &config.run.picture {
        Some(path) => {
            let orientation = config.preparation().orientation;
            image::open_with(path, orientation)
                .map_err(loftup_runtime::RuntimeError::from)?
                .image
        }
        None => data.sample(0, size)?.photo,
    };
    let started = Instant::now();
    let shown = Shown::new(&photo, backbone, size, seen)?;
    log::debug!(
        "the backbone took {:.2} s for the picture that is shown",
        started.elapsed().as_secs_f64()
    );
    Ok(Some(shown))
}
