//! The graphs of a bundle in another precision.

use loftup_bundle::Precision;
use loftup_onnx::rewrite;

use super::{
    QuantizeError, Request, Step,
    graph::Graph,
    half::HalfPlan,
    int8,
    quantizer::Rounding,
    search::Search,
    versions::{Version, Work},
};

impl Work<'_> {
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
