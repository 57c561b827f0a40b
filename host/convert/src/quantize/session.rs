//! State of a quantization run, and measured candidates.

use std::{collections::BTreeMap, sync::Arc};

use loftup_bundle::{Bundle, ErrorStats, Precision};
use loftup_onnx::rewrite::Model;
use loftup_runtime::{ExecutionOptions, Perceptor, backend::Backend};

use super::{
    AsWritten, Calibrator, LayerReport, QuantizeError, Request, Step, Worst,
    backends::Recorder,
    graph::Graph,
    samples::{self, Samples, end_to_end},
};

pub(super) fn open(
    bundle: &Bundle,
    backend: Arc<dyn Backend>,
    precision: Precision,
) -> Result<Perceptor, QuantizeError> {
    let options = ExecutionOptions {
        tile: None,
        ..ExecutionOptions::default()
    };
    Ok(Perceptor::with_precision(
        bundle.clone(),
        backend,
        options,
        precision,
    )?)
}

/// Quantized graphs and their measured error.
pub(super) struct Candidate {
    /// In the order of [`QuantizationSession::graphs`].
    pub models: Vec<Model>,
    pub error: ErrorStats,
    pub worst: Worst,
    /// Layers in fp32, as `GRAPH: NAME`.
    pub fp32_layers: Vec<String>,
    /// Notes for the report.
    pub notes: Vec<String>,
    /// Calibrator, range and sensitivity of each layer, by graph and name.
    pub layer_stats: BTreeMap<(String, String), LayerStats>,
}

impl Candidate {
    /// Fills in precision, calibrator, range and sensitivity of layer reports.
    pub fn describe(&self, mut layers: Vec<LayerReport>) -> Vec<LayerReport> {
        for layer in &mut layers {
            let key = (layer.graph.clone(), layer.name.clone());
            if self
                .fp32_layers
                .contains(&format!("{}: {}", layer.graph, layer.name))
            {
                layer.precision = Precision::Fp32.name();
            }
            if let Some(layer_stats) = self.layer_stats.get(&key) {
                layer.calibrator = layer_stats.range.map(|(calibrator, _)| calibrator.name());
                layer.range = layer_stats.range.map(|(_, range)| range);
                layer.sensitivity = layer_stats.sensitivity;
            }
        }
        layers
    }
}

/// Calibration and sensitivity of a layer.
pub(super) struct LayerStats {
    /// Range of its activation, and how it was found.
    pub range: Option<(Calibrator, f32)>,
    /// Relative error of the output with only this layer quantized.
    pub sensitivity: Option<f64>,
}

/// A bundle being quantized.
pub(super) struct QuantizationSession<'a> {
    pub bundle: &'a Bundle,
    pub precision: Precision,
    pub graphs: Vec<Graph>,
    pub samples: Samples,
}

impl<'a> QuantizationSession<'a> {
    /// Runs the fp32 bundle on the calibration images.
    pub fn begin(
        bundle: &'a Bundle,
        request: &Request,
        step: Step<'_>,
    ) -> Result<Self, QuantizeError> {
        let mut graphs = Graph::all(bundle.manifest(), bundle.path(), |file| {
            Ok(bundle.read(file)?)
        })?;
        let recorder = Recorder::default();
        let options = ExecutionOptions {
            threads: 1,
            tile: Some(samples::TILE),
        };
        let perceptor = Perceptor::with_precision(
            bundle.clone(),
            Arc::new(recorder.clone()),
            options,
            Precision::Fp32,
        )?;
        let samples = samples::load(
            &perceptor,
            &recorder,
            &request.images,
            (request.size, request.orientation),
            request.tiles,
            &mut |i, n| step("running calibration images in fp32", i, n),
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

    /// Measures quantized graphs end to end.
    pub fn measure(
        &self,
        models: Vec<Model>,
        fp32_layers: Vec<String>,
        notes: Vec<String>,
        step: Step<'_>,
    ) -> Result<Candidate, QuantizeError> {
        let trial = self.trial(&models)?;
        let perceptor = open(&trial.bundle, Arc::new(AsWritten), self.precision)?;
        let stage = match fp32_layers.len() {
            0 => "measuring end to end".to_owned(),
            n => format!("measuring with {n} layers in fp32"),
        };
        let sum = end_to_end(&perceptor, &self.samples.samples, &mut |i, n| {
            step(&stage, i, n)
        })?;
        Ok(Candidate {
            models,
            error: sum.stats(),
            worst: sum.worst(),
            fp32_layers,
            notes,
            layer_stats: BTreeMap::new(),
        })
    }
}
