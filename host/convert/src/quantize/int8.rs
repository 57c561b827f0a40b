//! Which layers run in 8 bits, and over which range.

use std::collections::{BTreeMap, HashSet};

use loftup_onnx::rewrite::{self, Layer, Model};

use super::{
    QuantizeError, Step,
    backends::Replay,
    graph::{Graph, as_slices},
    loss::{Sum, Vectors},
    pictures::Sample,
    quantizer::Rounding,
    ranges::{Calibrator, Seen},
};

/// A graph on its way to 8 bits.
pub(super) struct Plan {
    /// Layers that can be rounded.
    candidates: Vec<Layer>,
    /// Layers that cannot, because their activation is 0 on every picture.
    pub silent: Vec<Layer>,
    /// Range of each activation, and how it was found.
    ranges: BTreeMap<String, (Calibrator, f32)>,
}

impl Plan {
    /// Finds ranges.
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
        let seen = graph.look(&values, samples, &mut |i, n| {
            step(&format!("{role}: looking at activations"), i, n)
        })?;
        let ranges = best_ranges(graph, &layers, values, seen, &mut |i, n| {
            step(&format!("{role}: choosing ranges"), i, n)
        })?;
        let (candidates, silent) = layers
            .into_iter()
            .partition(|l| ranges.contains_key(&l.activation));
        Ok(Self {
            candidates,
            silent,
            ranges,
        })
    }

    /// The graph with these layers in 8 bits.
    fn write(&self, graph: &Graph, chosen: &HashSet<String>) -> Result<Model, QuantizeError> {
        let ranges = self
            .ranges
            .iter()
            .map(|(name, (_, range))| (name.clone(), *range));
        let ranges: BTreeMap<String, f32> = ranges.collect();
        rewrite::to_int8(&graph.model, chosen, &ranges).map_err(|e| graph.rewritten(e))
    }
}

impl Rounding for Plan {
    fn layers(&self, _: &Graph) -> Vec<(Layer, Option<(Calibrator, f32)>)> {
        let candidates = self.candidates.iter();
        candidates
            .map(|l| (l.clone(), self.ranges.get(&l.activation).copied()))
            .collect()
    }

    fn without(&self, graph: &Graph, left: &[&Layer]) -> Result<Model, QuantizeError> {
        let chosen = self.candidates.iter().filter(|l| !left.contains(l));
        self.write(graph, &chosen.map(|l| l.output.clone()).collect())
    }

    fn only(&self, graph: &Graph, layer: &Layer) -> Result<Model, QuantizeError> {
        self.write(graph, &HashSet::from([layer.output.clone()]))
    }
}

/// For each activation the range with which the layers that read it come closest to what they
/// compute in 32 bits.
fn best_ranges(
    graph: &Graph,
    layers: &[Layer],
    values: Vec<String>,
    seen: Vec<Seen>,
    step: &mut dyn FnMut(usize, usize) -> Result<(), QuantizeError>,
) -> Result<BTreeMap<String, (Calibrator, f32)>, QuantizeError> {
    let runs = graph.close();
    let mut watched = values.clone();
    watched.extend(layers.iter().map(|l| l.output.clone()));
    let mut replay = graph.replay(&graph.model, &watched)?;
    let shapes = replay.shapes().to_vec();
    // What each run makes of them: activations first, then the outputs of layers.
    let mut kept: Vec<Vec<Vec<f32>>> = Vec::new();
    for run in runs {
        replay
            .run(&as_slices(&run.inputs))
            .map_err(|what| graph.failed(what))?;
        kept.push(
            (0..watched.len())
                .map(|i| replay.value(i).to_vec())
                .collect(),
        );
    }
    let mut best = BTreeMap::new();
    let count = values.len();
    for (i, (value, mut seen)) in values.into_iter().zip(seen).enumerate() {
        step(i, count)?;
        let readers: Vec<usize> = (0..layers.len())
            .filter(|l| layers[*l].activation == value)
            .collect();
        let mut chosen: Option<(f64, Calibrator, f32)> = None;
        for (calibrator, range) in seen.candidates() {
            let mut sum = 0.0;
            for l in &readers {
                let layer = &layers[*l];
                let ranges = BTreeMap::from([(value.clone(), range)]);
                let written = rewrite::to_int8(
                    &graph.model.alone(layer, &shapes[i]),
                    &HashSet::from([layer.output.clone()]),
                    &ranges,
                );
                let emulated = written.and_then(|m| rewrite::emulate(&m));
                let emulated = emulated.map_err(|e| graph.rewritten(e))?;
                let inputs = [(value.clone(), shapes[i].clone())];
                let name = graph.path.display().to_string();
                let outputs = [layer.output.clone()];
                let mut alone = Replay::new(&name, &emulated, &inputs, &outputs)
                    .map_err(|what| graph.failed(what))?;
                let mut error = Sum::default();
                for values in &kept {
                    alone
                        .run(&[&values[i]])
                        .map_err(|what| graph.failed(what))?;
                    let reference = &values[count + l];
                    error.add(alone.value(0), reference, Vectors::Rows(reference.len()), 0);
                }
                sum += error.loss().relative_error;
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
