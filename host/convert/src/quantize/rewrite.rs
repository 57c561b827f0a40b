//! Quantization of all graphs of a bundle.

use loftup_bundle::Precision;
use loftup_onnx::rewrite;

use super::{
    QuantizeError, Request, Step,
    fp16_quantizer::Fp16Quantizer,
    graph::Graph,
    int8_quantizer::Int8Quantizer,
    quantizer::Quantizer,
    search::MixedPrecisionSearch,
    session::{Candidate, QuantizationSession},
};

impl QuantizationSession<'_> {
    /// The graphs in the target precision, within the allowed error.
    pub fn rewrite(
        &mut self,
        request: &Request,
        step: Step<'_>,
    ) -> Result<Candidate, QuantizeError> {
        let candidate = match self.precision {
            Precision::Int8 => return self.int8(request.max_error, step),
            Precision::Fp16 => return self.fp16(request.max_error, step),
            Precision::Fp16Weights | Precision::Fp32 => self.fp16_weights(step)?,
        };
        if let Some(allowed) = request.max_error
            && candidate.error.relative_error > allowed
        {
            return Err(QuantizeError::MaxError {
                precision: self.precision,
                found: candidate.error.relative_error,
                allowed,
                remedy: "raise --max-error, or stay with fp32",
            });
        }
        Ok(candidate)
    }

    fn fp16(&mut self, max_error: Option<f64>, step: Step<'_>) -> Result<Candidate, QuantizeError> {
        let (mut fp32_layers, mut notes) = (Vec::new(), Vec::new());
        let mut quantizers: Vec<Box<dyn Quantizer>> = Vec::new();
        for graph in &mut self.graphs {
            let quantizer = Fp16Quantizer::new(graph, &self.samples.samples, step)?;
            let named = quantizer.too_large.keys();
            fp32_layers.extend(named.map(|value| format!("{}: {value}", graph.role)));
            notes.extend(quantizer.too_large.iter().map(|(value, largest)| {
                format!(
                    "{}: {value} reaches {largest:.3e}, and stays in fp32 (the fp16 maximum is 65504)",
                    graph.role
                )
            }));
            notes.extend(weight_notes(graph)?);
            quantizers.push(Box::new(quantizer));
        }
        MixedPrecisionSearch::new(self, &quantizers, fp32_layers, notes).run(max_error, step)
    }

    fn fp16_weights(&mut self, step: Step<'_>) -> Result<Candidate, QuantizeError> {
        let (mut models, mut notes) = (Vec::new(), Vec::new());
        for graph in &mut self.graphs {
            let role = graph.role;
            graph.activation_stats(&[], &self.samples.samples, &mut |i, n| {
                step(&format!("{role}: checking the fp32 graph"), i, n)
            })?;
            notes.extend(weight_notes(graph)?);
            let model = rewrite::half_weights(&graph.model);
            models.push(model.map_err(|e| graph.rewritten(e))?);
        }
        self.measure(models, Vec::new(), notes, step)
    }

    fn int8(&mut self, max_error: Option<f64>, step: Step<'_>) -> Result<Candidate, QuantizeError> {
        let (mut dead, mut notes) = (Vec::new(), Vec::new());
        let mut quantizers: Vec<Box<dyn Quantizer>> = Vec::new();
        for graph in &mut self.graphs {
            let quantizer = Int8Quantizer::new(graph, &self.samples.samples, step)?;
            for layer in &quantizer.dead {
                let name = format!("{}: {}", graph.role, layer.name);
                notes.push(format!(
                    "{name}: its input is 0 on every calibration image, so it has no range; it stays in fp32"
                ));
                dead.push(name);
            }
            quantizers.push(Box::new(quantizer));
        }
        MixedPrecisionSearch::new(self, &quantizers, dead, notes).run(max_error, step)
    }
}

/// Notes on weights that overflow or underflow in fp16.
fn weight_notes(graph: &Graph) -> Result<Vec<String>, QuantizeError> {
    let found = rewrite::weights_in_half(&graph.model).map_err(|e| graph.rewritten(e))?;
    let role = graph.role;
    let mut notes: Vec<String> = found
        .too_large
        .iter()
        .map(|name| format!("{role}: constant {name} overflows fp16 and stays in fp32"))
        .collect();
    if found.vanishing > 0 {
        notes.push(format!(
            "{role}: {} of {} weights are below 6e-8 and become 0, {} are subnormal in fp16 (below 6.1e-5) and lose precision",
            found.vanishing, found.values, found.subnormal
        ));
    }
    Ok(notes)
}
