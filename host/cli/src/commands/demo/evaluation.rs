//! How good the features are: the same linear probe on differently enlarged features.

use std::path::Path;

use anyhow::Result;
use loftup_eval::{
    Method, probe,
    segmentation::{self, Outcome, Report},
};
use loftup_runtime::ColourRange;
use serde::Serialize;

use super::{model, scenes, stages::Watch};

/// Figures for scenes that nothing was trained on.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// Every kind of features, with the upsampler that was trained here.
    pub trained: Report,
    /// The upsampler as it is built in.
    pub builtin: Option<Outcome>,
}

/// Trains the probes and judges them.
pub fn measure(at: &Path, watch: Watch<'_>) -> Result<Evaluation> {
    let data = at.join(scenes::FOLDER);
    let mut of = |bundle: &str, methods: Vec<Method>| -> Result<Report> {
        let request = segmentation::Request {
            data: &data,
            size: None,
            range: ColourRange::PerImage,
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
    let trained = of(model::BUNDLE, Vec::new())?;
    let mut builtin = of(model::BUILTIN, vec![Method::LoftUp])?;
    Ok(Evaluation {
        trained,
        builtin: builtin.results.pop(),
    })
}
