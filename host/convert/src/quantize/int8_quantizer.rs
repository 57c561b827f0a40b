//! Quantization of a graph to int8.

use std::collections::{BTreeMap, HashSet};

use loftup_onnx::rewrite::{self, Layer, Model};

use super::{
    QuantizeError, Step,
    backends::Replay,
    error_stats::{ErrorAccumulator, Vectors},
    graph::{Graph, as_slices},
    quantizer::Quantizer,
    ranges::{ActivationStats, Calibrator},
    samples::Sample,
};

/// Quantizes a graph to int8.
pub(super) struct Int8Quantizer {
    /// Layers that can be quantized.
    candidates: Vec<Layer>,
    /// Layers that cannot be quantized, because their activation is 0 on every image.
    pub dead: Vec<Layer>,
    /// Range of each activation, and how it was found.
    ranges: BTreeMap<String, (Calibrator, f32)>,
}

impl Int8Quantizer {
    /// Calibrates ranges.
    pub fn new(
        graph: &mut Graph,
        samples: &[Sample],
        step: Step<'_>,
    ) -> Result<Self, QuantizeError> {
        let layers = rewrite::layers(&graph.model);
        let mut values: Vec<String> = layers.iter().map(|l| l.activation.clone()).collect();
        values.sort();
        values.dedup();
        let role = graph.role;
        let stats = graph.activation_stats(&values, samples, &mut |i, n| {
            step(&format!("{role}: measuring activations"), i, n)
        })?;
        let ranges = best_ranges(graph, &layers, values, stats, &mut |i, n| {
            step(&format!("{role}: choosing ranges"), i, n)
        })?;
        let (candidates, dead) = layers
            .into_iter()
            .partition(|l| ranges.contains_key(&l.activation));
        Ok(Self {
            candidates,
            dead,
            ranges,
        })
    }

    /// The graph with these layers in int8.
    fn write(&self, graph: &Graph, chosen: &HashSet<String>) -> Result<Model, QuantizeError> {
        let ranges = self
            .ranges
            .iter()
            .map(|(name, (_, range))| (name.clone(), *range));
        let ranges: BTreeMap<String, f32> = ranges.collect();
        rewrite::to_int8(&graph.model, chosen, &ranges).map_err(|e| graph.rewritten(e))
    }
}

impl Quantizer for Int8Quantizer {
    fn layers(&self, _: &Graph) -> Vec<(Layer, Option<(Calibrator, f32)>)> {
        let candidates = self.candidates.iter();
        candidates
            .map(|l| (l.clone(), self.ranges.get(&l.activation).copied()))
            .collect()
    }

    fn quantize_except(&self, graph: &Graph, fp32: &[&Layer]) -> Result<Model, QuantizeError> {
        let chosen = self.candidates.iter().filter(|l| !fp32.contains(l));
        self.write(graph, &chosen.map(|l| l.output.clone()).collect())
    }

    fn quantize_only(&self, graph: &Graph, layer: &Layer) -> Result<Model, QuantizeError> {
        self.write(graph, &HashSet::from([layer.output.clone()]))
    }
}

/// For each activation, finds the range with which the outputs of its layers are closest to fp32.
fn best_ranges(
    graph: &Graph,
    layers: &[Layer],
    values: Vec<String>,
    stats: Vec<ActivationStats>,
    step: &mut dyn FnMut(usize, usize) -> Result<(), QuantizeError>,
) -> Result<BTreeMap<String, (Calibrator, f32)>, QuantizeError> {
    let runs = graph.sampled_runs();
    let mut watched = values.clone();
    watched.extend(layers.iter().map(|l| l.output.clone()));
    let mut replay = graph.replay(&graph.model, &watched)?;
    let shapes = replay.shapes().to_vec();
    // Values of each run: activations first, then the outputs of layers.
    let mut recorded: Vec<Vec<Vec<f32>>> = Vec::new();
    for run in runs {
        replay
            .run(&as_slices(&run.inputs))
            .map_err(|what| graph.failed(what))?;
        recorded.push(
            (0..watched.len())
                .map(|i| replay.value(i).to_vec())
                .collect(),
        );
    }
    let mut best = BTreeMap::new();
    let count = values.len();
    for (i, (value, mut stats)) in values.into_iter().zip(stats).enumerate() {
        step(i, count)?;
        let readers: Vec<usize> = (0..layers.len())
            .filter(|l| layers[*l].activation == value)
            .collect();
        let mut chosen: Option<(f64, Calibrator, f32)> = None;
        for (calibrator, range) in stats.candidates() {
            let mut sum = 0.0;
            for l in &readers {
                let layer = &layers[*l];
                let ranges = BTreeMap::from([(value.clone(), range)]);
                let written = rewrite::to_int8(
                    &graph.model.alone(layer, &shapes[i]),
                    &HashSet::from([layer.output.clone()]),
                    &ranges,
                );
                let fake_quantized = written.and_then(|m| rewrite::fake_quantize(&m));
                let fake_quantized = fake_quantized.map_err(|e| graph.rewritten(e))?;
                let inputs = [(value.clone(), shapes[i].clone())];
                let name = graph.path.display().to_string();
                let outputs = [layer.output.clone()];
                let mut replayed = Replay::new(&name, &fake_quantized, &inputs, &outputs)
                    .map_err(|what| graph.failed(what))?;
                let mut error = ErrorAccumulator::default();
                for values in &recorded {
                    replayed
                        .run(&[&values[i]])
                        .map_err(|what| graph.failed(what))?;
                    let reference = &values[count + l];
                    error.add(
                        replayed.value(0),
                        reference,
                        Vectors::Rows(reference.len()),
                        0,
                    );
                }
                sum += error.stats().relative_error;
            }
            if chosen.is_none_or(|(least, ..)| sum < least) {
                chosen = Some((sum, calibrator, range));
            }
        }
        if let Some((_, calibrator, range)) = chosen {
            best.insert(value, (calibrator, range));
        }
    }
    Ok(best)
}
