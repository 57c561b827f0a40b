//! Training state: initialization, saving and restoring.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use loftup_bundle::UpsamplerKind;
use loftup_import::checkpoint::Checkpoint;
use loftup_onnx::Tensor;

use crate::{
    backbone::Backbone,
    checkpoint::Progress,
    config::{Config, Stage},
    error::TrainError,
    losses::AuxModules,
    model::{LoftUp, Naf, Params, Upsampler, init},
    optim::Optimizer,
    rng::{Purpose, Rng},
    step::Trainable,
};

const CHECKPOINT_EXP_AVG: &str = "train.exp_avg.";
const CHECKPOINT_EXP_AVG_SQ: &str = "train.exp_avg_sq.";
const CHECKPOINT_TEACHER: &str = "train.teacher.";

/// Everything that training changes.
pub(crate) struct State {
    pub net: Trainable,
    pub optimizer: Optimizer,
    pub teacher: Option<LoftUp>,
    pub step: u64,
}

impl State {
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let prefixed = |prefix: &str, params: &Params| -> BTreeMap<String, Tensor> {
            params
                .to_host()
                .into_iter()
                .map(|(n, t)| (format!("{prefix}{n}"), t))
                .collect()
        };
        let mut all = self.net.upsampler.tensors();
        all.extend(self.net.aux.weights.to_host());
        all.extend(prefixed(CHECKPOINT_EXP_AVG, &self.optimizer.exp_avg));
        all.extend(prefixed(CHECKPOINT_EXP_AVG_SQ, &self.optimizer.exp_avg_sq));
        if let Some(teacher) = &self.teacher {
            all.extend(prefixed(CHECKPOINT_TEACHER, &teacher.weights));
            all.extend(prefixed(CHECKPOINT_TEACHER, &teacher.statistics));
        }
        all
    }

    /// Restores the state from a checkpoint.
    pub fn restore(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        progress: &Progress,
        path: &Path,
        device: &Device,
    ) -> Result<(), TrainError> {
        let take = |prefix: &str, like: &Params| -> Result<Params, TrainError> {
            let each = like.names().map(|name| {
                let key = format!("{prefix}{name}");
                let tensor = tensors
                    .get(&key)
                    .filter(|t| Some(t.shape()) == like.shape(name));
                let tensor = tensor.ok_or_else(|| TrainError::Resume {
                    path: path.into(),
                    what: format!(
                        "has no tensor {key} of shape {:?}; start again without --resume",
                        like.shape(name).unwrap_or_default()
                    ),
                })?;
                Ok((name.to_string(), tensor.clone()))
            });
            Ok(Params::new(
                each.collect::<Result<Vec<_>, TrainError>>()?,
                device,
            ))
        };
        self.net = self.net.with_weights(&take("", &self.net.weights())?);
        if let Some(loftup) = self.net.upsampler.loftup_mut() {
            loftup.statistics = take("", &loftup.statistics)?;
        }
        self.optimizer.exp_avg = take(CHECKPOINT_EXP_AVG, &self.optimizer.exp_avg)?;
        self.optimizer.exp_avg_sq = take(CHECKPOINT_EXP_AVG_SQ, &self.optimizer.exp_avg_sq)?;
        self.optimizer.counters = progress.counters;
        if let Some(teacher) = &mut self.teacher {
            teacher.weights = take(CHECKPOINT_TEACHER, &teacher.weights)?;
            teacher.statistics = take(CHECKPOINT_TEACHER, &teacher.statistics)?;
        }
        self.step = progress.step;
        Ok(())
    }
}

/// Returns the settings that must not change when a training is resumed; all others are set to defaults.
fn fixed_settings(config: &Config) -> Config {
    let mut config = config.clone();
    let run = crate::config::Run {
        batch_size: config.run.batch_size,
        // The number of steps matters only for a cosine schedule.
        steps: config.run.steps.filter(|_| config.optimizer.cosine),
        epochs: if config.optimizer.cosine {
            config.run.epochs
        } else {
            1.0
        },
        ..Default::default()
    };
    config.run = run;
    config.cache = Default::default();
    // Bundles are identified by their contents.
    config.bundle = PathBuf::new();
    let further = config.backbones.iter_mut();
    further.for_each(|b| b.bundle = PathBuf::new());
    config.out = PathBuf::new();
    config.start = config.start.map(|_| PathBuf::from("start"));
    config.data.paths = Vec::new();
    if let Some(distillation) = &mut config.distillation {
        distillation.bundle = PathBuf::from("bundle");
        distillation.projection = PathBuf::from("projection");
    }
    config
}

/// Checks that a checkpoint was created with the same data, backbone and settings.
pub(crate) fn check_same(
    path: &Path,
    old: &Progress,
    config: &Config,
    data: &str,
    backbone: &str,
) -> Result<(), TrainError> {
    let bad = |what: String| {
        Err(TrainError::Resume {
            path: path.into(),
            what,
        })
    };
    if old.data != data {
        return bad(
            "created with other data; restore the original images, or start again without --resume"
                .into(),
        );
    }
    if old.backbone != backbone {
        return bad("created with another backbone; restore the original bundle, or start again without --resume".into());
    }
    let text = |c: &Config| toml::to_string(&fixed_settings(c)).unwrap_or_default();
    let before = Config::parse(&old.config, path)
        .map(|c| text(&c))
        .unwrap_or_default();
    let now = text(config);
    let differ = before.lines().zip(now.lines()).find(|(a, b)| a != b);
    match differ {
        Some((a, b)) => bad(format!(
            "created with `{a}`, but the settings have `{b}`; restore the setting, or start again without --resume"
        )),
        None if before != now => {
            bad("created with other settings; restore them, or start again without --resume".into())
        }
        None => Ok(()),
    }
}

/// Initializes the state with random weights, or from the checkpoint in the settings. Also returns the
/// SHA-256 of that checkpoint.
pub(crate) fn new_state(
    config: &Config,
    backbone: &Backbone,
    window: usize,
    device: &Device,
) -> Result<(State, Option<String>), TrainError> {
    let mut rng = Rng::new(config.seed, Purpose::Weights, 0);
    let found = config.start.as_deref().map(Checkpoint::open).transpose()?;
    let net = match config.upsampler {
        UpsamplerKind::LoftUp => new_loftup(found.as_ref(), backbone, window, &mut rng, device)?,
        UpsamplerKind::Naf => {
            let weights = match &found {
                None => Naf::random(&mut rng),
                Some(checkpoint) => loftup_import::naf::read(checkpoint)?,
            };
            Trainable {
                upsampler: Upsampler::Naf(Naf::new(&weights, device)),
                aux: AuxModules::default(),
            }
        }
    };
    let teacher = net.upsampler.loftup().cloned();
    let optimizer = Optimizer::new(config.optimizer(), &net.weights());
    let sha256 = found.and_then(|c| c.sha256());
    Ok((
        State {
            net,
            optimizer,
            teacher: teacher.filter(|_| config.stage == Stage::Two),
            step: 0,
        },
        sha256,
    ))
}

/// LoftUp and the auxiliary modules, with random weights or those of a checkpoint.
fn new_loftup(
    found: Option<&Checkpoint>,
    backbone: &Backbone,
    window: usize,
    rng: &mut Rng,
    device: &Device,
) -> Result<Trainable, TrainError> {
    let (shape, start) = match found {
        None => {
            let shape = init::published(backbone.dim());
            (shape, init::random(&shape, rng))
        }
        Some(checkpoint) => {
            let shape = *loftup_import::loftup::read(checkpoint)?.config();
            if shape.dim != backbone.dim() {
                return Err(TrainError::Resume {
                    path: checkpoint.path().into(),
                    what: format!(
                        "the upsampler has {} channels, but the backbone has {}; choose another `start`, or none",
                        shape.dim,
                        backbone.dim()
                    ),
                });
            }
            (shape, init::from_checkpoint(checkpoint, &shape)?)
        }
    };
    let mut aux = init::aux(shape.dim, window, rng);
    if let Some(checkpoint) = found {
        for (name, tensor) in &mut aux {
            if let Ok(learned) = checkpoint.shape(name) {
                let square = learned.len() != 1 || learned[0].isqrt().pow(2) == learned[0];
                let same = tensor.shape() == learned
                    || (name.starts_with("downsampler.") && learned.len() == 1 && square);
                if same {
                    let learned = learned.to_vec();
                    *tensor = checkpoint.tensor(name, &learned)?;
                }
            }
        }
    }
    Ok(Trainable {
        upsampler: Upsampler::LoftUp(LoftUp::new(shape, start, device)),
        aux: AuxModules {
            weights: Params::new(aux, device),
        },
    })
}
