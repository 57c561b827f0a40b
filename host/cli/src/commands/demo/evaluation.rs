//! The same linear probe on interpolated features and on those of three upsamplers.

use std::path::Path;

use anyhow::Result;
use loftup_eval::{
    Method, probe,
    segmentation::{self, Outcome, Report},
};
use loftup_runtime::ColorRange;
use serde::Serialize;

use super::{model, scenes, stages::Watch};

/// Results on held-out scenes.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// Interpolated features, and the built-in upsampler.
    pub builtin: Report,
    /// The upsampler that the demo trains, before its first step.
    pub start: Option<Outcome>,
    /// The same after the training.
    pub trained: Option<Outcome>,
}

/// Trains the probes and evaluates them.
pub fn measure(at: &Path, watch: Watch<'_>) -> Result<Evaluation> {
    let data = at.join(scenes::FOLDER);
    let mut of = |bundle: &str, methods: Vec<Method>| -> Result<Report> {
        let request = segmentation::Request {
            data: &data,
            size: None,
            range: ColorRange::PerImage,
            orientation: loftup_runtime::image::Orientation::Upright,
            methods,
            samples: model::SAMPLES,
            most: None,
            tolerance: None,
            probe: probe::Options::default(),
        };
        Ok(segmentation::evaluate(
            &model::open(at, bundle)?,
            &request,
            &mut *watch,
        )?)
    };
    Ok(Evaluation {
        builtin: of(model::BUNDLE, Vec::new())?,
        start: of(model::START, vec![Method::LoftUp])?.results.pop(),
        trained: of(model::TRAINED, vec![Method::LoftUp])?.results.pop(),
    })
}
