//! One graph of the bundle, its recorded inputs, and statistics of its values.

use std::path::{Path, PathBuf};

use loftup_bundle::{Manifest, Precision};
use loftup_onnx::rewrite::{self, Model};
use serde::Serialize;

use super::{
    QuantizeError,
    backends::{Recorded, Replay},
    error_stats::ErrorAccumulator,
    ranges::ActivationStats,
    samples::{Sample, vectors},
};

/// Runs used for per-layer comparison; ranges use all runs.
const CLOSE: usize = 3;

/// An fp32 graph.
pub(super) struct Graph {
    /// `backbone`, `keys` or `queries`.
    pub role: &'static str,
    /// Its file in the fp32 bundle.
    pub file: String,
    pub path: PathBuf,
    pub model: Model,
    pub recorded: Recorded,
    /// The fp32 outputs of each run.
    references: Vec<Vec<Vec<f32>>>,
}

/// Error of one layer of the quantized graph.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Its graph.
    pub graph: String,
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Its precision.
    pub precision: &'static str,
    /// How the range of its activation was chosen, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrator: Option<&'static str>,
    /// The range: the largest representable magnitude.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<f32>,
    /// Relative error of a few small tiles of the bundle's output with only this layer quantized.
    /// Not measured if no layer had to stay in fp32, or if the error of the whole graph is
    /// negligible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
    /// Relative error of its output in the quantized graph, errors of earlier layers included.
    pub relative_error: f64,
    /// Mean cosine similarity of that output, along its last axis.
    pub cosine: f64,
    /// The lowest cosine similarity.
    pub worst_cosine: f64,
}

impl Graph {
    /// The fp32 graphs of a bundle, checked for NaN, without recorded runs.
    pub fn all(
        manifest: &Manifest,
        path: &Path,
        mut read: impl FnMut(&str) -> Result<Vec<u8>, QuantizeError>,
    ) -> Result<Vec<Self>, QuantizeError> {
        let mut files = Vec::new();
        let fp32 = &Precision::Fp32;
        if let Some(file) = manifest.backbone.as_ref().and_then(|b| b.graphs.get(fp32)) {
            files.push(("backbone", file.clone()));
        }
        let upsampler = manifest.upsampler.as_ref();
        let upsampler = upsampler.filter(|u| u.kind.is_quantized());
        if let Some(f) = upsampler.and_then(|u| u.graphs.get(fp32)) {
            files.push(("keys", f.keys.clone()));
            files.push(("queries", f.queries.clone()));
        }
        let open = |(role, file): (&'static str, String)| {
            let path = path.join(&file);
            let model = Model::decode(&read(&file)?).map_err(|source| QuantizeError::Rewrite {
                path: path.clone(),
                source,
            })?;
            if let Some((name, index)) = model.not_finite() {
                return Err(QuantizeError::Weight { path, name, index });
            }
            Ok(Self {
                role,
                file,
                path,
                model,
                recorded: Recorded::default(),
                references: Vec::new(),
            })
        };
        files.into_iter().map(open).collect()
    }

    pub fn rewritten(&self, e: rewrite::RewriteError) -> QuantizeError {
        QuantizeError::Rewrite {
            path: self.path.clone(),
            source: e,
        }
    }

    pub fn failed(&self, what: String) -> QuantizeError {
        QuantizeError::Graph {
            path: self.path.clone(),
            what,
        }
    }

    /// Compiles `model`, an fp32 variant of this graph, with `values` as outputs.
    pub fn replay(&self, model: &Model, values: &[String]) -> Result<Replay, QuantizeError> {
        let name = self.path.display().to_string();
        Replay::new(&name, model, &self.recorded.inputs, values).map_err(|what| self.failed(what))
    }

    /// Runs used for per-layer comparison, evenly spaced.
    pub fn sampled_runs(&self) -> Vec<&super::backends::Run> {
        let runs = &self.recorded.runs;
        let count = CLOSE.min(runs.len());
        (0..count).map(|i| &runs[i * runs.len() / count]).collect()
    }

    /// Computes statistics of the given values over all runs. NaN in them or in an output is an error.
    /// The outputs are stored, since [`Self::error`] compares with them.
    pub fn activation_stats(
        &mut self,
        values: &[String],
        samples: &[Sample],
        step: &mut dyn FnMut(usize, usize) -> Result<(), QuantizeError>,
    ) -> Result<Vec<ActivationStats>, QuantizeError> {
        let mut all = values.to_vec();
        all.extend(
            self.recorded
                .outputs
                .iter()
                .filter(|o| !values.contains(o))
                .cloned(),
        );
        let mut replay = self.replay(&self.model, &all)?;
        let mut stats = vec![ActivationStats::default(); all.len()];
        let mut references = Vec::new();
        let runs = &self.recorded.runs;
        for (r, run) in runs.iter().enumerate() {
            step(r, runs.len())?;
            let inputs: Vec<&[f32]> = run.inputs.iter().map(|v| v.as_slice()).collect();
            replay.run(&inputs).map_err(|what| self.failed(what))?;
            for (i, (stats, value)) in stats.iter_mut().zip(&all).enumerate() {
                stats
                    .add(replay.value(i))
                    .map_err(|index| QuantizeError::Activation {
                        path: self.path.clone(),
                        value: value.clone(),
                        index,
                        image: samples
                            .get(run.image)
                            .map_or_else(PathBuf::new, |s| s.path.clone()),
                    })?;
            }
            let outputs = self.recorded.outputs.iter();
            let places = outputs.filter_map(|o| all.iter().position(|v| v == o));
            references.push(places.map(|i| replay.value(i).to_vec()).collect());
        }
        self.references = references;
        stats.truncate(values.len());
        Ok(stats)
    }

    /// Error of `written`, a quantized variant of this graph, on the recorded inputs.
    pub fn error(
        &self,
        written: &Model,
        manifest: &Manifest,
        step: &mut dyn FnMut(usize, usize) -> Result<(), QuantizeError>,
    ) -> Result<ErrorAccumulator, QuantizeError> {
        let outputs = &self.recorded.outputs;
        let fake_quantized = rewrite::fake_quantize(written).map_err(|e| self.rewritten(e))?;
        let mut found = self.replay(&fake_quantized, outputs)?;
        let mut sum = ErrorAccumulator::default();
        let runs = &self.recorded.runs;
        for (r, (run, references)) in runs.iter().zip(&self.references).enumerate() {
            step(r, runs.len())?;
            found
                .run(&as_slices(&run.inputs))
                .map_err(|what| self.failed(what))?;
            for (i, reference) in references.iter().enumerate() {
                let vectors = vectors(manifest, &self.file, &found.shapes()[i]);
                sum.add(found.value(i), reference, vectors, run.image);
            }
        }
        Ok(sum)
    }

    /// Error of each layer of `written`.
    pub fn layer_reports(
        &self,
        written: &Model,
        precision: Precision,
    ) -> Result<Vec<LayerReport>, QuantizeError> {
        let layers = rewrite::layers(&self.model);
        let outputs: Vec<String> = layers.iter().map(|l| l.output.clone()).collect();
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let fake_quantized = rewrite::fake_quantize(written).map_err(|e| self.rewritten(e))?;
        let mut found = self.replay(&fake_quantized, &outputs)?;
        let mut reference = self.replay(&self.model, &outputs)?;
        let mut sums = vec![ErrorAccumulator::default(); layers.len()];
        for run in self.sampled_runs() {
            for replay in [&mut found, &mut reference] {
                replay
                    .run(&as_slices(&run.inputs))
                    .map_err(|what| self.failed(what))?;
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                let shape = &reference.shapes()[i];
                // The channels of a feature map, or the last axis.
                let vectors = match shape[..] {
                    [1, channels, _, _] => super::error_stats::Vectors::Planes(channels),
                    _ => super::error_stats::Vectors::Rows(shape.last().copied().unwrap_or(1)),
                };
                sum.add(found.value(i), reference.value(i), vectors, run.image);
            }
        }
        let report = |(layer, sum): (rewrite::Layer, ErrorAccumulator)| {
            let error = sum.stats();
            LayerReport {
                graph: self.role.into(),
                name: layer.name,
                op: layer.op,
                precision: precision.name(),
                calibrator: None,
                range: None,
                sensitivity: None,
                relative_error: error.relative_error,
                cosine: error.cosine,
                worst_cosine: error.worst_cosine,
            }
        };
        Ok(layers.into_iter().zip(sums).map(report).collect())
    }
}

pub(super) fn as_slices(values: &[std::sync::Arc<Vec<f32>>]) -> Vec<&[f32]> {
    values.iter().map(|v| v.as_slice()).collect()
}
