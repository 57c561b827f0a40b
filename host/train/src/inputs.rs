//! The possible inputs of a training step: a backbone, and the sizes of guidance, backbone input and
//! target.

use std::path::Path;

use loftup_bundle::{Size, UpsamplerKind};
use loftup_spec::naf::{HEADS, WINDOW};

use crate::{
    backbone::Backbone,
    config::{Config, Stage},
    error::TrainError,
    model::Naf,
};

/// A backbone and compatible sizes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inputs {
    /// Index of the backbone.
    pub backbone: usize,
    /// Size of the guidance.
    pub guidance: Size,
    /// Input size of the backbone.
    pub seen: Size,
    /// Input size of the backbone for the target, if the target is features.
    pub target: Option<Size>,
    /// Factor of each channel in the loss; empty if all are 1.
    pub scales: Vec<f32>,
}

/// Settings of one backbone, and their location.
struct Settings<'a> {
    config: &'a Config,
    path: &'a Path,
    /// The table in the settings, for messages.
    table: String,
    /// The name of the setting for the size of the guidance in it.
    guidance: &'static str,
    backbone: &'a Backbone,
}

impl Inputs {
    /// Returns all inputs that a step of this training may draw: one per backbone in stage 1, one per size
    /// in stage 2.
    ///
    /// # Errors
    /// Names the setting with an incompatible size, and a size that works.
    pub fn of(
        config: &Config,
        path: &Path,
        backbones: &[Backbone],
    ) -> Result<Vec<Self>, TrainError> {
        let settings = |table: String, guidance, backbone| Settings {
            config,
            path,
            table,
            guidance,
            backbone: &backbones[backbone],
        };
        if config.stage == Stage::Two {
            let settings = settings("stage2".into(), "sizes", 0);
            let sizes = config.stage2.sizes.iter().map(|&side| {
                let side = Size {
                    width: side,
                    height: side,
                };
                let size = side.rounded_to(backbones[0].patch());
                if size.width > config.stage2.high {
                    let what =
                        format!("{size} after rounding to the patch is more than stage2.high");
                    return Err(settings.problem("sizes", what));
                }
                settings.inputs(0, size, None, None)
            });
            return sizes.collect();
        }
        let stage1 = &config.stage1;
        let first = settings("stage1".into(), "guidance", 0).inputs(
            0,
            stage1.guidance,
            stage1.backbone,
            stage1.target,
        );
        let further = config.backbones.iter().enumerate().map(|(i, own)| {
            settings(format!("backbones[{i}]"), "guidance", i + 1).inputs(
                i + 1,
                own.guidance.unwrap_or(stage1.guidance),
                own.backbone,
                own.target,
            )
        });
        std::iter::once(first).chain(further).collect()
    }
}

impl Settings<'_> {
    fn problem(&self, key: &str, what: String) -> TrainError {
        TrainError::Config {
            path: self.path.into(),
            key: format!("{}.{key}", self.table),
            what,
        }
    }

    /// Checks that the sizes are compatible.
    fn inputs(
        &self,
        index: usize,
        guidance: Size,
        wanted: Option<Size>,
        target: Option<Size>,
    ) -> Result<Inputs, TrainError> {
        let seen = self.backbone.size(wanted.unwrap_or(guidance))?;
        if wanted.is_some_and(|s| s != seen) {
            let what = format!("the backbone takes {seen}: write that, or leave it out");
            return Err(self.problem("backbone", what));
        }
        let grid = self.backbone.grid(seen);
        let fits = guidance.width.is_multiple_of(grid.width)
            && guidance.height.is_multiple_of(grid.height);
        if self.config.augmentations() > 0 && !fits {
            let nearest = |n: usize, of: usize| ((n + of / 2) / of).max(1) * of;
            let better = Size {
                width: nearest(guidance.width, grid.width),
                height: nearest(guidance.height, grid.height),
            };
            return Err(self.problem(
                self.guidance,
                format!(
                    "{guidance} is not a multiple of the backbone's grid of {grid}, over which the downsampler's windows are laid; write {better}, or loss.augmentations = 0"
                ),
            ));
        }
        if self.config.upsampler == UpsamplerKind::Naf {
            self.check_naf(guidance, grid, target)?;
        }
        Ok(Inputs {
            backbone: index,
            guidance,
            seen,
            target,
            scales: Vec::new(),
        })
    }

    /// Checks that NAF supports an output of the target's size.
    fn check_naf(
        &self,
        guidance: Size,
        tokens: Size,
        target: Option<Size>,
    ) -> Result<(), TrainError> {
        let mut output = guidance;
        if let Some(target) = target {
            let possible = self.backbone.size(target)?;
            if possible != target {
                let what = format!("the backbone takes {possible}: write that");
                return Err(self.problem("target", what));
            }
            output = self.backbone.grid(target);
        }
        let dim = self.backbone.dim();
        if !dim.is_multiple_of(HEADS) {
            let what = format!(
                "NAF has {HEADS} heads, and the backbone's {dim} channels cannot be divided among them: take another backbone"
            );
            return Err(self.problem("backbone", what));
        }
        let fits = WINDOW..=tokens.width.min(tokens.height);
        if let Some(synthetic) = &self.config.stage1.synthetic
            && !fits.contains(&synthetic.crop)
        {
            let what = format!(
                "a crop has {WINDOW} or more rows and columns of tokens, and at most those of the grid of {tokens}; write a number in between"
            );
            return Err(self.problem("synthetic.crop", what));
        }
        if self.config.stage1.synthetic.is_some() && tokens.width != tokens.height {
            let what = format!("the grid must be square, and {tokens} is not: change the size");
            return Err(self.problem("synthetic", what));
        }
        let rows = |s: Size| (s.height, s.width);
        if Naf::accepts(rows(tokens), rows(output), rows(guidance)) {
            return Ok(());
        }
        Err(self.problem(
            "guidance",
            format!(
                "NAF is trained with a grid of at least 9x9 tokens, an output that is a multiple of it, and an image that is a multiple of that; the settings have {tokens}, {output} and {guidance}"
            ),
        ))
    }
}
