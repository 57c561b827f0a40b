//! Which values stay out of 16 bits.

use std::collections::{BTreeMap, BTreeSet};

use loftup_models::{
    bundle::Manifest,
    onnx::rewrite::{self, LARGEST, Layer, Model},
};

use super::{QuantizeError, Step, graph::Graph, pictures::Sample, versions::Part};

/// A graph on its way to 16 bits.
pub(super) struct HalfPlan {
    /// Values that would be kept in 16 bits.
    values: Vec<String>,
    /// Those of them that are too large, and how large they get.
    pub too_large: BTreeMap<String, f32>,
}

impl HalfPlan {
    /// Looks at every value on every calibration picture.
    pub fn new(graph: &Graph, samples: &[Sample], step: Step<'_>) -> Result<Self, QuantizeError> {
        let values = rewrite::half_values(&graph.model);
        let stage = format!(
            "{}: looking for values that 16 bits cannot hold",
            graph.role
        );
        let seen = graph.look(&values, samples, &mut |i, n| step(&stage, i, n))?;
        let large = values.iter().zip(&seen);
        let large = large.filter(|(_, seen)| seen.largest > LARGEST);
        Ok(Self {
            too_large: large.map(|(v, seen)| (v.clone(), seen.largest)).collect(),
            values,
        })
    }

    /// The graph in mixed precision, with these layers in 32 bits.
    pub fn write<'p>(
        &self,
        graph: &Graph,
        in_float: impl Iterator<Item = &'p Part>,
    ) -> Result<Model, QuantizeError> {
        let mut avoided: BTreeSet<String> = self.too_large.keys().cloned().collect();
        avoided.extend(in_float.map(|part| part.layer.output.clone()));
        rewrite::to_half(&graph.model, &avoided).map_err(|e| graph.rewritten(e))
    }

    /// What each layer costs where it alone is in 16 bits.
    pub fn alone(
        &self,
        graph: &Graph,
        manifest: &Manifest,
        step: Step<'_>,
    ) -> Result<Vec<(Layer, f64)>, QuantizeError> {
        let layers = rewrite::layers(&graph.model);
        let count = layers.len();
        let mut found = Vec::new();
        for (i, layer) in layers.into_iter().enumerate() {
            step(
                &format!("{}: trying each layer alone", graph.role),
                i,
                count,
            )?;
            let others = self
                .values
                .iter()
                .filter(|v| **v != layer.activation && **v != layer.output);
            let mut avoided: BTreeSet<String> = others.cloned().collect();
            avoided.extend(self.too_large.keys().cloned());
            let written =
                rewrite::to_half(&graph.model, &avoided).map_err(|e| graph.rewritten(e))?;
            let alone = graph.loss(&written, manifest, true)?.loss().relative_error;
            found.push((layer, alone));
        }
        Ok(found)
    }
}
