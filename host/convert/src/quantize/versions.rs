//! Versions of a bundle's graphs, each measured, and the choice among them.

use std::{collections::BTreeMap, sync::Arc};

use loftup_bundle::{Bundle, Loss, Precision};
use loftup_onnx::rewrite::{self, Model};
use loftup_runtime::{Options, Perceptor, backend::Backend};

use super::{
    AsWritten, Calibrator, LayerReport, QuantizeError, Request, Step, Worst,
    backends::Recorder,
    graph::Graph,
    half::HalfPlan,
    int8,
    pictures::{self, Samples, end_to_end},
    search::{Rounding, Search},
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

    /// The graphs in the new precision, within the loss that is allowed.
    pub fn rewrite(&mut self, request: &Request, step: Step<'_>) -> Result<Version, QuantizeError> {
        let version = match self.precision {
            Precision::Int8 => return self.int8(request.max_loss, step),
            Precision::Fp16 => return self.half(request.max_loss, step),
            Precision::Fp16Weights | Precision::Fp32 => self.half_weights(step)?,
        };
        if let Some(allowed) = request.max_loss
            && version.loss.relative_error > allowed
        {
            return Err(QuantizeError::Loss {
                precision: self.precision,
                found: version.loss.relative_error,
                allowed,
                remedy: "allow more, or stay with fp32",
            });
        }
        Ok(version)
    }

    fn half(&mut self, max_loss: Option<f64>, step: Step<'_>) -> Result<Version, QuantizeError> {
        let (mut kept, mut notes) = (Vec::new(), Vec::new());
        let mut plans: Vec<Box<dyn Rounding>> = Vec::new();
        for graph in &mut self.graphs {
            let plan = HalfPlan::new(graph, &self.samples.samples, step)?;
            let named = plan.too_large.keys();
            kept.extend(named.map(|value| format!("{}: {value}", graph.role)));
            notes.extend(plan.too_large.iter().map(|(value, largest)| {
                format!(
                    "{}: {value} reaches {largest:.3e}, and stays in 32 bits (16 bits end at 65504)",
                    graph.role
                )
            }));
            notes.extend(weight_notes(graph)?);
            plans.push(Box::new(plan));
        }
        Search::new(self, &plans, kept, notes).run(max_loss, step)
    }

    fn half_weights(&mut self, step: Step<'_>) -> Result<Version, QuantizeError> {
        let (mut models, mut notes) = (Vec::new(), Vec::new());
        for graph in &mut self.graphs {
            let role = graph.role;
            graph.look(&[], &self.samples.samples, &mut |i, n| {
                step(&format!("{role}: checking the fp32 graph"), i, n)
            })?;
            notes.extend(weight_notes(graph)?);
            let model = rewrite::half_weights(&graph.model);
            models.push(model.map_err(|e| graph.rewritten(e))?);
        }
        self.measured(models, Vec::new(), notes, step)
    }

    fn int8(&mut self, max_loss: Option<f64>, step: Step<'_>) -> Result<Version, QuantizeError> {
        let (mut silent, mut notes) = (Vec::new(), Vec::new());
        let mut plans: Vec<Box<dyn Rounding>> = Vec::new();
        for graph in &mut self.graphs {
            let plan = int8::Plan::new(graph, &self.samples.samples, step)?;
            for layer in &plan.silent {
                let name = format!("{}: {}", graph.role, layer.name);
                notes.push(format!(
                    "{name}: its input is 0 on every calibration picture, so it has no range; it stays in 32 bits"
                ));
                silent.push(name);
            }
            plans.push(Box::new(plan));
        }
        Search::new(self, &plans, silent, notes).run(max_loss, step)
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

/// What 16 bits do to the weights, where that is worth a word.
fn weight_notes(graph: &Graph) -> Result<Vec<String>, QuantizeError> {
    let found = rewrite::weights_in_half(&graph.model).map_err(|e| graph.rewritten(e))?;
    let role = graph.role;
    let mut notes: Vec<String> = found
        .too_large
        .iter()
        .map(|name| format!("{role}: constant {name} is too large for 16 bits and stays in 32"))
        .collect();
    if found.vanishing > 0 {
        notes.push(format!(
            "{role}: {} of {} weights are below 6e-8 and become 0, {} are below 6.1e-5 and lose bits",
            found.vanishing, found.values, found.subnormal
        ));
    }
    Ok(notes)
}
