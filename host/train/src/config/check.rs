//! Reading and validating settings, and values derived from them.

use std::path::{Path, PathBuf};

use loftup_bundle::UpsamplerKind;
use loftup_runtime::image::Orientation;
use loftup_spec::naf::HEADS;

use super::{Config, Init, Segmentation, Stage, renamed};
use crate::{
    data::Preparation,
    error::TrainError,
    optim::{Method, Settings},
    resample::JitterRange,
};

/// Maximum side of the guidance in training: memory is proportional to its area.
const MAX_SIDE: usize = 2048;

impl Config {
    /// Reads settings. Paths in the file are relative to its directory.
    ///
    /// # Errors
    /// Names the file, the setting and the remedy.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        let mut config = Self::parse(&text, path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let place = |p: &mut PathBuf| *p = folder.join(&*p);
        place(&mut config.bundle);
        place(&mut config.out);
        config.start.iter_mut().for_each(place);
        let further = config.backbones.iter_mut();
        further.for_each(|b| place(&mut b.bundle));
        config.data.paths.iter_mut().for_each(place);
        config.run.preview_image.iter_mut().for_each(place);
        config.cache.folder.iter_mut().for_each(place);
        if let Some(distillation) = &mut config.distillation {
            place(&mut distillation.bundle);
            place(&mut distillation.projection);
        }
        Ok(config)
    }

    /// Parses settings; errors name `path`.
    ///
    /// # Errors
    /// Names the setting and the remedy.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrainError> {
        let config: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |s| {
                text[..s.start.min(text.len())].matches('\n').count() + 1
            });
            let message = || e.message().split_whitespace().collect::<Vec<_>>().join(" ");
            TrainError::Config {
                path: path.into(),
                key: format!("line {line}"),
                what: renamed::remedy(e.message()).unwrap_or_else(message),
            }
        })?;
        match config.problem() {
            Some((key, what)) => Err(TrainError::Config {
                path: path.into(),
                key: key.into(),
                what,
            }),
            None => Ok(config),
        }
    }

    /// Returns the first invalid setting, and what to write instead.
    fn problem(&self) -> Option<(&'static str, String)> {
        let part = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let side = |n: usize| (4..=MAX_SIDE).contains(&n);
        let (run, loss, two) = (&self.run, &self.loss, &self.stage2);
        let guidance = self.stage1.guidance;
        let naf = self.upsampler == UpsamplerKind::Naf;
        let synthetic = self.stage1.synthetic.unwrap_or_default();
        let all =
            |valid: &dyn Fn(&Segmentation) -> bool| self.data.segmentation.0.iter().all(valid);
        let rules = [
            (
                "data.paths",
                !self.data.paths.is_empty(),
                "name at least one directory or archive".into(),
            ),
            (
                "data.segmentation.sigma",
                all(&|s| (0.0..=50.0).contains(&s.sigma)),
                "write 0 to 50".into(),
            ),
            (
                "data.segmentation.scale",
                all(&|s| positive(s.scale.into())),
                "write a number above 0".into(),
            ),
            (
                "data.segmentation.min_area",
                all(&|s| part(s.min_area.into())),
                "write 0 to 1".into(),
            ),
            (
                "run.batch_size",
                (1..=4096).contains(&run.batch_size),
                "write 1 to 4096".into(),
            ),
            (
                "run.epochs",
                positive(run.epochs),
                "write a number above 0".into(),
            ),
            (
                "run.checkpoint_every",
                run.checkpoint_every > 0,
                "write 1 or more".into(),
            ),
            ("run.log_every", run.log_every > 0, "write 1 or more".into()),
            (
                "optimizer.learning_rate",
                self.optimizer.learning_rate.is_none_or(positive),
                "write a number above 0".into(),
            ),
            (
                "optimizer.weight_decay",
                self.optimizer.weight_decay.is_none_or(not_negative),
                "write 0 or more".into(),
            ),
            (
                "loss.augmentations",
                loss.augmentations.is_none_or(|n| n <= 64),
                "write 0 to 64".into(),
            ),
            (
                "loss.zoom",
                (0.0..=3.0).contains(&loss.zoom),
                "write 0 to 3".into(),
            ),
            ("loss.pad", loss.pad <= 256, "write 0 to 256".into()),
            (
                "loss.projection",
                loss.projection <= 4096,
                "write 0 to 4096".into(),
            ),
            (
                "loss.dropout",
                (0.0..1.0).contains(&loss.dropout),
                "write 0 or more and less than 1".into(),
            ),
            (
                "loss.tv_weight",
                loss.tv_weight.is_none_or(not_negative),
                "write 0 or more".into(),
            ),
            (
                "loss.clip",
                positive(loss.clip),
                "write a number above 0".into(),
            ),
            (
                "stage",
                !naf || self.stage == Stage::One,
                "NAF has no second stage: write 1".into(),
            ),
            (
                "init",
                !naf || self.init == Init::Random,
                "NAF starts from random weights: leave it out".into(),
            ),
            (
                "loss.augmentations",
                !naf || self.augmentations() == 0,
                "NAF is trained without views: leave it out".into(),
            ),
            (
                "stage1.window",
                !naf || self.stage1.window.is_none(),
                "NAF normalizes over whole images: leave the window out".into(),
            ),
            (
                "stage1.target",
                naf || self.stage1.target.is_none(),
                "only upsampler = \"naf\" has outputs of another size than the image: leave it out".into(),
            ),
            (
                "backbones",
                naf || self.backbones.is_empty(),
                "LoftUp is trained for one backbone: leave them out, or write upsampler = \"naf\"".into(),
            ),
            (
                "backbones.guidance",
                (self.backbones.iter().filter_map(|b| b.guidance))
                    .all(|g| side(g.width) && side(g.height)),
                format!("write sides of 4 to {MAX_SIDE}"),
            ),
            (
                "stage1.synthetic",
                self.stage1.synthetic.is_none()
                    || (naf
                        && self.stage1.target.is_none()
                        && self.backbones.iter().all(|b| b.target.is_none())),
                "only upsampler = \"naf\" without stage1.target and backbones.target has it: leave one of them out".into(),
            ),
            (
                "stage1.synthetic.channels",
                synthetic.channels.is_multiple_of(HEADS) && (HEADS..=4096).contains(&synthetic.channels),
                format!("write a multiple of {HEADS} up to 4096"),
            ),
            (
                "stage1.synthetic.blur",
                (0.1..=4.0).contains(&synthetic.blur),
                "write 0.1 to 4".into(),
            ),
            (
                "stage1.synthetic.noise",
                (0.0..=10.0).contains(&synthetic.noise),
                "write 0 to 10".into(),
            ),
            (
                "stage1.rescale_coords",
                naf || self.stage1.rescale_coords == 1.0,
                "only upsampler = \"naf\" has a rotary encoding: leave it out".into(),
            ),
            (
                "stage1.rescale_coords",
                (1.0..=16.0).contains(&self.stage1.rescale_coords),
                "write 1 to 16".into(),
            ),
            (
                "distillation",
                self.distillation.is_none() || (!naf && self.stage == Stage::One),
                "only stage 1 of a LoftUp has it: leave it out".into(),
            ),
            (
                "distillation",
                self.distillation.is_none() || self.stage1.area_weighting == 0.0,
                "it has no regions: leave stage1.area_weighting out".into(),
            ),
            (
                "stage1.guidance",
                side(guidance.width) && side(guidance.height),
                format!("write sides of 4 to {MAX_SIDE}"),
            ),
            (
                "stage1.window",
                self.stage1.window.is_none_or(|w| {
                    (8..=guidance.width).contains(&w.width)
                        && (8..=guidance.height).contains(&w.height)
                }),
                format!("write sides of at least 8 that fit into stage1.guidance, {guidance}"),
            ),
            (
                "stage1.window",
                self.stage != Stage::One || self.stage1.window.is_none() || self.augmentations() == 0,
                "views need the whole output: leave the window out, or write loss.augmentations = 0"
                    .into(),
            ),
            (
                "stage1.window",
                self.stage1.window.is_none() || self.optimizer.freeze_batch_norm,
                "windows have other statistics than whole images: write optimizer.freeze_batch_norm = true"
                    .into(),
            ),
            (
                "stage1.alpha",
                part(self.stage1.alpha.into()),
                "write 0 to 1".into(),
            ),
            (
                "stage1.area_weighting",
                part(self.stage1.area_weighting.into()),
                "write 0 to 1".into(),
            ),
            (
                "stage1.mse_weight",
                not_negative(self.stage1.mse_weight),
                "write 0 or more".into(),
            ),
            (
                "stage1.gradient_weight",
                not_negative(self.stage1.gradient_weight),
                "write 0 or more".into(),
            ),
            (
                "stage1.mse_weight",
                self.stage1.mse_weight + self.stage1.gradient_weight > 0.0,
                "0 leaves nothing to train for: write more, or a stage1.gradient_weight above 0".into(),
            ),
            (
                "stage2.high",
                (8..=8192).contains(&two.high),
                "write 8 to 8192".into(),
            ),
            (
                "stage2.sizes",
                !two.sizes.is_empty() && two.sizes.iter().all(|&s| side(s) && s <= two.high),
                format!("write sides of 4 to {MAX_SIDE}, at most stage2.high"),
            ),
            ("stage2.align", two.align > 0, "write 1 or more".into()),
            (
                "stage2.alpha",
                part(two.alpha.into()),
                "write 0 to 1".into(),
            ),
            (
                "stage2.affinity",
                not_negative(two.affinity),
                "write 0 or more".into(),
            ),
            (
                "stage2.border",
                (0.0..0.5).contains(&two.border),
                "write 0 or more and less than 0.5".into(),
            ),
            (
                "stage2.ema_decay",
                part(two.ema_decay),
                "write 0 to 1".into(),
            ),
            (
                "stage2.update_every",
                two.update_every > 0,
                "write 1 or more".into(),
            ),
            (
                "cache.gib",
                not_negative(self.cache.gib),
                "write 0 or more".into(),
            ),
        ];
        let no_start = self.stage == Stage::Two && self.start.is_none();
        let broken = rules
            .into_iter()
            .find(|rule| !rule.1)
            .map(|(key, _, what)| (key, what));
        broken.or(no_start.then(|| {
            (
                "start",
                "stage 2 starts from a checkpoint of stage 1: name it".into(),
            )
        }))
    }

    /// Returns all settings as TOML, with the stage's defaults filled in.
    pub fn complete(&self) -> String {
        let mut all = self.clone();
        let Settings {
            method,
            learning_rate,
            weight_decay,
        } = self.optimizer();
        all.optimizer.method = Some(method);
        all.optimizer.learning_rate = Some(learning_rate);
        all.optimizer.weight_decay = Some(weight_decay);
        all.loss.augmentations = Some(self.augmentations());
        all.loss.tv_weight = Some(self.tv_weight());
        // TOML can represent every type in it.
        toml::to_string(&all).unwrap_or_default()
    }

    /// Number of views of each image.
    pub fn augmentations(&self) -> usize {
        let published = match (self.upsampler, self.stage) {
            (UpsamplerKind::Naf, _) => 0,
            (UpsamplerKind::LoftUp, Stage::One) => 4,
            (UpsamplerKind::LoftUp, Stage::Two) => 2,
        };
        self.loss.augmentations.unwrap_or(published)
    }

    /// Weight of the total variation loss.
    pub fn tv_weight(&self) -> f64 {
        self.loss.tv_weight.unwrap_or(match self.stage {
            Stage::One => 0.001,
            Stage::Two => 0.05,
        })
    }

    /// The optimizer at its full learning rate.
    pub fn optimizer(&self) -> Settings {
        let (method, learning_rate, weight_decay) = match (self.upsampler, self.stage) {
            (UpsamplerKind::LoftUp, Stage::One) => (Method::NAdam, 1e-4, 0.0),
            (UpsamplerKind::LoftUp, Stage::Two) | (UpsamplerKind::Naf, _) => {
                (Method::AdamW, 1e-3, 0.01)
            }
        };
        let o = &self.optimizer;
        Settings {
            method: o.method.unwrap_or(method),
            learning_rate: o.learning_rate.unwrap_or(learning_rate),
            weight_decay: o.weight_decay.unwrap_or(weight_decay),
        }
    }

    /// Learning rate of step `step` (from 0) of `steps`.
    pub fn learning_rate(&self, step: u64, steps: u64) -> f64 {
        let full = self.optimizer().learning_rate;
        let o = &self.optimizer;
        let rise = if step < o.warmup {
            (step + 1) as f64 / (o.warmup + 1) as f64
        } else {
            1.0
        };
        let fall = if o.cosine {
            let done =
                step.saturating_sub(o.warmup) as f64 / steps.saturating_sub(o.warmup).max(1) as f64;
            0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
        } else {
            1.0
        };
        full * rise * fall
    }

    /// Limits of the views.
    pub fn jitter_range(&self) -> JitterRange {
        JitterRange {
            pad: self.loss.pad,
            zoom: self.loss.zoom,
            mirror: self.loss.mirror,
        }
    }

    /// How images and masks are read.
    pub fn preparation(&self) -> Preparation {
        Preparation {
            crop: self.data.crop,
            orientation: Orientation::exif(self.data.exif_orientation),
            max_masks: self.data.max_masks,
            segmentation: self.data.segmentation.0.clone(),
        }
    }

    /// Total number of steps of a training on `images` images.
    pub fn steps(&self, images: usize) -> u64 {
        let epochs = (images as f64 * self.run.epochs / self.run.batch_size as f64).ceil();
        self.run.steps.unwrap_or((epochs as u64).max(1))
    }
}
