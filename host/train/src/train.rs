//! The training loop.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
};

use burn::tensor::Device;
use loftup_bundle::sha256_hex;
use serde::Serialize;

use crate::{
    backbone::{Backbone, FeatureCache},
    checkpoint::{self, Progress},
    config::Config,
    data::{Broken, Dataset},
    device,
    distillation::WideTeacher,
    error::TrainError,
    log::Log,
    model::bilinear_init::Frozen,
    optim::clip,
    prepare::{HostBatch, Preparer},
    preview::Preview,
    state::{State, check_same, new_state},
    step::{LossWeights, step},
    teacher::ema_update,
};

/// Files in the output directory.
pub mod files {
    /// The complete state of the training.
    pub const CHECKPOINT: &str = "checkpoint.safetensors";
    /// The trained upsampler, for `loftup convert --upsampler-weights`.
    pub const WEIGHTS: &str = "upsampler.safetensors";
    /// Settings, data and hashes behind the weights.
    pub const PROVENANCE: &str = "provenance.json";
    /// Visualized features of the preview image.
    pub const PREVIEW: &str = "features.png";
}

/// Number of batches that are prepared ahead of time.
const PREFETCH: usize = 1;

/// Progress of a training.
#[derive(Debug)]
pub enum Event<'a> {
    /// The training starts or resumes.
    Started {
        /// Steps completed before.
        step: u64,
        /// Total number of steps.
        steps: u64,
        /// Number of images.
        images: usize,
        /// Number of images with masks.
        with_masks: usize,
        /// Number of trained parameters.
        weights: usize,
    },
    /// A step is completed.
    Stepped {
        /// Steps completed.
        step: u64,
        /// Losses by name, the total first.
        losses: &'a [(&'static str, f32)],
        /// Learning rate.
        learning_rate: f64,
    },
    /// A checkpoint is written.
    Saved(&'a Path),
    /// A visualization of features is written.
    Previewed(&'a Path),
}

/// The outcome of a training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are completed; the weights are in this file.
    Finished(PathBuf),
    /// It was stopped after this number of steps, and a checkpoint was written.
    Stopped(u64),
}

/// Contents of `provenance.json`.
#[derive(Debug, Serialize)]
struct Provenance<'a> {
    tool: &'static str,
    weights_sha256: String,
    config: &'a Config,
    steps: u64,
    data_fingerprint: &'a str,
    images: usize,
    images_with_masks: usize,
    skipped_images: Vec<String>,
    skipped_masks: Vec<String>,
    backbone_sha256: &'a str,
    start_sha256: Option<String>,
    losses: &'a Losses,
}

/// Losses of a step by name.
type Losses = BTreeMap<String, f32>;

/// Trains with the settings in `config`, read from `path`. With `resume` it continues from the
/// checkpoint in the output directory. When `stop` becomes true, it writes a checkpoint after the
/// current step and returns.
///
/// # Errors
/// If settings, data, bundle and checkpoint do not match, a file cannot be read or written, or the
/// loss is not finite. Invalid images are skipped without an error.
pub fn train(
    config: &Config,
    path: &Path,
    resume: bool,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome, TrainError> {
    let device = device::open(&config.run.device)?;
    let checkpoint = prepare_output(&config.out, resume)?;
    let preparation = config.preparation();
    let data = Dataset::open(&config.data.paths, config.data.limit, preparation, stop)?;
    let cache = open_cache(config)?;
    let backbones = open_backbones(config, cache.as_ref())?;
    let wide = (config.distillation.as_ref())
        .map(|settings| WideTeacher::open(settings, backbones[0].dim(), cache.clone()))
        .transpose()?;
    let preparer = Preparer::new(config, path, &data, &backbones, wide.as_ref())?;
    let (mut state, start_sha256) = new_state(config, &backbones[0], preparer.window(), &device)?;
    if config.start.is_none()
        && !resume
        && let Some(loftup) = state.net.upsampler.loftup_mut()
    {
        preparer.initialize(path, loftup, &device)?;
    }
    let identity = Identity {
        settings: toml::to_string(config)
            .map_err(|e| TrainError::io(path)(std::io::Error::other(e)))?,
        data: data.fingerprint(),
        backbone: match &wide {
            None => Backbone::sha256_of(&backbones),
            Some(wide) => sha256_hex((Backbone::sha256_of(&backbones) + &wide.sha256()).as_bytes()),
        },
    };
    let losses = if resume {
        restore(&mut state, &checkpoint, config, &identity, &device)?
    } else {
        Losses::new()
    };
    let mut trainer = Trainer {
        config,
        device: &device,
        steps: config.steps(data.len()),
        loss_weights: LossWeights {
            mse: config.stage1.mse_weight,
            gradient: config.stage1.gradient_weight,
            total_variation: config.tv_weight(),
            affinity: config.stage2.affinity,
        },
        frozen: (state.net.upsampler.loftup()).and_then(|loftup| Frozen::find(loftup, &device)),
        preview: Preview::open(config, &data, &backbones[0], preparer.first_size())?,
        log: Log::open(&config.out, state.step)?,
        checkpoint,
        identity: &identity,
        losses,
        state,
    };
    watch(Event::Started {
        step: trainer.state.step,
        steps: trainer.steps,
        images: data.len(),
        with_masks: data.with_masks(),
        weights: trainer.state.net.weights().count(),
    });
    let finished = trainer.run(&preparer, stop, watch)?;
    let skipped = data.broken();
    log_skipped(&skipped);
    if !finished {
        return Ok(Outcome::Stopped(trainer.state.step));
    }
    let (weights, weights_sha256) = trainer.write_weights()?;
    let provenance = Provenance {
        tool: concat!("loftup ", env!("CARGO_PKG_VERSION")),
        weights_sha256,
        config,
        steps: trainer.state.step,
        data_fingerprint: &identity.data,
        images: data.len(),
        images_with_masks: data.with_masks(),
        skipped_images: skipped.images.into_iter().collect(),
        skipped_masks: skipped.masks.into_iter().collect(),
        backbone_sha256: &identity.backbone,
        start_sha256,
        losses: &trainer.losses,
    };
    let file = config.out.join(files::PROVENANCE);
    let text =
        serde_json::to_vec_pretty(&provenance).map_err(|e| TrainError::io(&file)(e.into()))?;
    checkpoint::replace(&file, &text).map_err(TrainError::io(&file))?;
    Ok(Outcome::Finished(weights))
}

/// Creates the output directory. Returns the path of the checkpoint in it, which must not exist yet
/// unless the training resumes from it.
fn prepare_output(out: &Path, resume: bool) -> Result<PathBuf, TrainError> {
    std::fs::create_dir_all(out).map_err(TrainError::io(out))?;
    let path = out.join(files::CHECKPOINT);
    if !resume && path.exists() {
        return Err(TrainError::Resume {
            path,
            what: "there is a training already: continue with --resume, or choose another `out`"
                .into(),
        });
    }
    Ok(path)
}

/// Opens the backbone of the bundle, then the additional ones.
fn open_backbones(
    config: &Config,
    cache: Option<&Arc<FeatureCache>>,
) -> Result<Vec<Backbone>, TrainError> {
    let further = config.backbones.iter().map(|b| &b.bundle);
    std::iter::once(&config.bundle)
        .chain(further)
        .map(|bundle| Backbone::open(bundle, cache.cloned()))
        .collect()
}

/// Opens the cache of the backbones' features, unless it is disabled.
fn open_cache(config: &Config) -> Result<Option<Arc<FeatureCache>>, TrainError> {
    if config.cache.gib <= 0.0 {
        return Ok(None);
    }
    let folder = config.cache.folder.clone();
    let folder = folder.unwrap_or_else(|| config.out.join("cache"));
    let bytes = (config.cache.gib * (1u64 << 30) as f64) as u64;
    Ok(Some(Arc::new(FeatureCache::open(&folder, bytes)?)))
}

/// Everything that must match a checkpoint to resume from it.
struct Identity {
    /// The settings as TOML.
    settings: String,
    /// Fingerprint of the data.
    data: String,
    /// SHA-256 of the backbones.
    backbone: String,
}

/// Restores the state from a checkpoint. Returns the losses of its last step.
fn restore(
    state: &mut State,
    path: &Path,
    config: &Config,
    identity: &Identity,
    device: &Device,
) -> Result<Losses, TrainError> {
    let (tensors, progress) = checkpoint::load(path)?;
    check_same(path, &progress, config, &identity.data, &identity.backbone)?;
    state.restore(&tensors, &progress, path, device)?;
    Ok(progress.losses.into_iter().collect())
}

/// A running training.
struct Trainer<'a> {
    config: &'a Config,
    device: &'a Device,
    /// Total number of steps.
    steps: u64,
    loss_weights: LossWeights,
    frozen: Option<Frozen>,
    preview: Option<Preview>,
    log: Log,
    /// Path of the checkpoint.
    checkpoint: PathBuf,
    identity: &'a Identity,
    /// Losses of the last step.
    losses: Losses,
    state: State,
}

impl Trainer<'_> {
    /// Runs the remaining steps, with batches prepared on another thread. Returns `false` if it was
    /// stopped before the last one.
    fn run(
        &mut self,
        preparer: &Preparer<'_>,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, TrainError> {
        let (first, steps) = (self.state.step, self.steps);
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(PREFETCH);
            scope.spawn(move || {
                for step in first..steps {
                    let batch = preparer.prepare(step);
                    let failed = batch.is_err();
                    // The receiver is gone if the training was stopped.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            });
            while self.state.step < steps {
                let Ok(batch) = receiver.recv() else {
                    return Err(TrainError::io(&self.config.out)(std::io::Error::other(
                        "the thread that prepares batches has died",
                    )));
                };
                self.step(batch?, watch)?;
                let stopping = stop.load(Ordering::Relaxed) && self.state.step < steps;
                self.record(stopping, watch)?;
                if stopping {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// One optimizer step.
    fn step(
        &mut self,
        batch: HostBatch,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainError> {
        let (config, state) = (self.config, &mut self.state);
        let batch = batch.on(config, state.teacher.as_ref(), self.device);
        let output = step(&state.net, &batch, self.loss_weights);
        let loss = output.losses[0].1;
        if !loss.is_finite() {
            return Err(TrainError::Diverged {
                step: state.step + 1,
                loss,
            });
        }
        let gradients = match state.step < config.loss.clipped_steps {
            true => clip(&output.gradients, config.loss.clip).0,
            false => output.gradients,
        };
        let learning_rate = config.learning_rate(state.step, self.steps);
        state.optimizer.settings.learning_rate = learning_rate;
        let before = state.net.weights();
        let mut weights = state.optimizer.step(&before, &gradients);
        if let Some(frozen) = &self.frozen {
            weights = frozen.restore(&before, &weights);
        }
        state.net = state.net.with_weights(&weights);
        state.step += 1;
        if let Some(loftup) = state.net.upsampler.loftup_mut() {
            loftup.update_running_stats(&output.batch_stats);
            if let Some(teacher) = &mut state.teacher
                && state.step % config.stage2.update_every == 0
            {
                ema_update(teacher, loftup, config.stage2.ema_decay);
            }
        }
        let owned = |(name, value): &(&'static str, f32)| ((*name).to_owned(), *value);
        self.losses = output.losses.iter().map(owned).collect();
        watch(Event::Stepped {
            step: state.step,
            losses: &output.losses,
            learning_rate,
        });
        if state.step % config.run.log_every == 0 || state.step == self.steps {
            self.log.losses(state.step, learning_rate, &output.losses)?;
        }
        Ok(())
    }

    /// Writes the preview and the checkpoint after a step, if they are due.
    fn record(
        &mut self,
        stopping: bool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainError> {
        let (run, step) = (&self.config.run, self.state.step);
        let due = |every: u64| step.is_multiple_of(every) || step == self.steps;
        if let Some(preview) = &self.preview
            && due(run.preview_every)
        {
            let file = self.config.out.join(files::PREVIEW);
            let size = preview.draw(&self.state.net.upsampler, self.device, &file)?;
            let png = std::fs::read(&file).map_err(TrainError::io(&file))?;
            self.log.image(step, size, &png)?;
            watch(Event::Previewed(&file));
        }
        if due(run.checkpoint_every) || stopping {
            self.save_checkpoint()?;
            watch(Event::Saved(&self.checkpoint));
        }
        Ok(())
    }

    fn save_checkpoint(&self) -> Result<(), TrainError> {
        let mut progress = Progress::new(
            self.state.step,
            self.state.optimizer.counters,
            self.identity.settings.clone(),
            self.identity.data.clone(),
            self.identity.backbone.clone(),
        );
        progress.losses = self.losses.clone().into_iter().collect();
        checkpoint::save(&self.checkpoint, &self.state.tensors(), &progress)
    }

    /// Writes the trained upsampler. Returns the path and the SHA-256 of the file.
    fn write_weights(&self) -> Result<(PathBuf, String), TrainError> {
        let path = self.config.out.join(files::WEIGHTS);
        checkpoint::write(&path, &self.state.net.upsampler.tensors(), None)?;
        let bytes = std::fs::read(&path).map_err(TrainError::io(&path))?;
        Ok((path, sha256_hex(&bytes)))
    }
}

fn log_skipped(skipped: &Broken) {
    for name in skipped.images.iter().chain(&skipped.masks) {
        log::info!("skipped: {name}");
    }
    if skipped.images.len() + skipped.masks.len() > 0 {
        log::warn!(
            "skipped {} invalid images, and invalid masks of {}",
            skipped.images.len(),
            skipped.masks.len()
        );
    }
}
