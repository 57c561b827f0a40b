//! Versions of a bundle's graphs, each measured, and the choice among them.

use std::{collections::BTreeMap, sync::Arc};

use loftup_bundle::{Bundle, Loss, Precision};
use loftup_onnx::rewrite::Model;
use loftup_runtime::{Options, Perceptor, backend::Backend};

use super::{
    AsWritten, Calibrator, LayerReport, QuantizeError, Request, Step, Worst,
    backends::Recorder,
    graph::Graph,
    pictures::{self, Samples, end_to_end},
};

pub(super) fn open(
    bundle: &Bundle,
    backend: Arc<dyn Backend>,
    precision: Precision,
) -> Result<Perceptor, QuantizeError> {
    let options = Options {
        tile: None,
        ..Options::default()
    };
    Ok(Perceptor::with_precision(
        bundle.clone(),
        backend,
        options,
        precision,
    )?)
}

/// A version of the graphs, and what it costs.
pub(super) struct Version {
    /// In the order of [`Work::graphs`].
    pub models: Vec<Model>,
    pub loss: Loss,
    pub worst: Worst,
    /// What was left in 32 bits, as `GRAPH: NAME`.
    pub kept: Vec<String>,
    /// What a reader of the report should know.
    pub notes: Vec<String>,
    /// Of each layer, by graph and name: calibrator, range and loss alone.
    pub about: BTreeMap<(String, String), About>,
}

impl Version {
    /// Adds to the reports of layers what is known of them.
    pub fn describe(&self, mut layers: Vec<LayerReport>) -> Vec<LayerReport> {
        for layer in &mut layers {
            let key = (layer.graph.clone(), layer.name.clone());
            if self
                .kept
                .contains(&format!("{}: {}", layer.graph, layer.name))
            {
                layer.precision = Precision::Fp32.name();
            }
            if let Some(about) = self.about.get(&key) {
                layer.calibrator = about.range.map(|(calibrator, _)| calibrator.name());
                layer.range = about.range.map(|(_, range)| range);
                layer.alone = about.alone;
            }
        }
        layers
    }
}

/// What is known of a layer.
pub(super) struct About {
    /// Range of its activation, and how it was found.
    pub range: Option<(Calibrator, f32)>,
    /// Relative error of the answers of the trials where it alone is rounded.
    pub alone: Option<f64>,
}

/// The bundle on its way to another precision.
pub(super) struct Work<'a> {
    pub bundle: &'a Bundle,
    pub precision: Precision,
    pub graphs: Vec<Graph>,
    pub samples: Samples,
}

impl<'a> Work<'a> {
    /// Runs the 32-bit bundle on the calibration pictures.
    pub fn begin(
        bundle: &'a Bundle,
        request: &Request,
        step: Step<'_>,
    ) -> Result<Self, QuantizeError> {
        let mut graphs = Graph::all(bundle.manifest(), bundle.path(), |file| {
            Ok(bundle.read(file)?)
        })?;
        let recorder = Recorder::default();
        let options = Options {
            threads: 1,
            tile: Some(pictures::TILE),
        };
        let perceptor = Perceptor::with_precision(
            bundle.clone(),
            Arc::new(recorder.clone()),
            options,
            Precision::Fp32,
        )?;
        let samples = pictures::look(
            &perceptor,
            &recorder,
            &request.pictures,
            (request.size, request.orientation),
            request.tiles,
            &mut |i, n| step("looking at pictures in 32 bits", i, n),
        )?;
        let mut recorded = recorder.take();
        for graph in &mut graphs {
            graph.recorded = recorded.remove(&graph.file).unwrap_or_default();
        }
        Ok(Self {
            bundle,
            precision: request.precision,
            graphs,
            samples,
        })
    }

    /// A version, measured end to end as it is written.
    pub fn measured(
        &self,
        models: Vec<Model>,
        kept: Vec<String>,
        notes: Vec<String>,
        step: Step<'_>,
    ) -> Result<Version, QuantizeError> {
        let trial = self.trial(&models)?;
        let perceptor = open(&trial.bundle, Arc::new(AsWritten), self.precision)?;
        let stage = match kept.len() {
            0 => "measuring end to end".to_owned(),
            n => format!("measuring with {n} parts in 32 bits"),
        };
        let sum = end_to_end(&perceptor, &self.samples.samples, &mut |i, n| {
            step(&stage, i, n)
        })?;
        Ok(Version {
            models,
            loss: sum.loss(),
            worst: sum.worst(),
            kept,
            notes,
            about: BTreeMap::new(),
        })
    }
}
