//! Conversion of a graph to fp16.

use std::collections::{BTreeMap, BTreeSet};

use loftup_onnx::rewrite::{self, LARGEST, Layer, Model};

use super::{Calibrator, QuantizeError, Step, graph::Graph, quantizer::Quantizer, samples::Sample};

/// Converts a graph to fp16.
pub(super) struct Fp16Quantizer {
    /// Values that would be stored in fp16.
    values: Vec<String>,
    /// Values that overflow fp16, and their largest magnitude.
    pub too_large: BTreeMap<String, f32>,
}

impl Fp16Quantizer {
    /// Measures every value on every calibration image.
    pub fn new(
        graph: &mut Graph,
        samples: &[Sample],
        step: Step<'_>,
    ) -> Result<Self, QuantizeError> {
        let values = rewrite::half_values(&graph.model);
        let stage = format!("{}: values that overflow fp16", graph.role);
        let stats = graph.activation_stats(&values, samples, &mut |i, n| step(&stage, i, n))?;
        let large = values.iter().zip(&stats);
        let large = large.filter(|(_, stats)| stats.largest > LARGEST);
        Ok(Self {
            too_large: large.map(|(v, stats)| (v.clone(), stats.largest)).collect(),
            values,
        })
    }
}

impl Quantizer for Fp16Quantizer {
    fn layers(&self, graph: &Graph) -> Vec<(Layer, Option<(Calibrator, f32)>)> {
        let layers = rewrite::layers(&graph.model);
        layers.into_iter().map(|layer| (layer, None)).collect()
    }

    fn quantize_except(&self, graph: &Graph, fp32: &[&Layer]) -> Result<Model, QuantizeError> {
        let mut avoided: BTreeSet<String> = self.too_large.keys().cloned().collect();
        avoided.extend(fp32.iter().map(|layer| layer.output.clone()));
        rewrite::to_half(&graph.model, &avoided).map_err(|e| graph.rewritten(e))
    }

    fn quantize_only(&self, graph: &Graph, layer: &Layer) -> Result<Model, QuantizeError> {
        let others = self.values.iter();
        let others = others.filter(|v| **v != layer.activation && **v != layer.output);
        let mut avoided: BTreeSet<String> = others.cloned().collect();
        avoided.extend(self.too_large.keys().cloned());
        rewrite::to_half(&graph.model, &avoided).map_err(|e| graph.rewritten(e))
    }
}
