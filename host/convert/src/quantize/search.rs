//! Mixed-precision search: which layers stay in fp32.

use std::collections::{BTreeMap, BTreeSet};

use loftup_bundle::Precision;
use loftup_onnx::rewrite::Layer;

use super::{
    Calibrator, QuantizeError, Step,
    quantizer::Quantizer,
    sensitivity::{SensitivityAnalysis, Variant},
    session::{Candidate, LayerStats, QuantizationSession},
};

/// A graph whose error is below this fraction of the limit is skipped: even three such graphs together
/// cause only an eighth of the allowed squared error.
const SKIP_BELOW: f64 = 0.2;

/// A layer that the search may leave in fp32.
struct SearchLayer {
    /// Index of its graph.
    graph: usize,
    layer: Layer,
    range: Option<(Calibrator, f32)>,
    /// Relative error of the output with only this layer quantized, if it was measured.
    sensitivity: Option<f64>,
}

/// Finds the fewest layers that must stay in fp32.
pub(super) struct MixedPrecisionSearch<'a> {
    session: &'a QuantizationSession<'a>,
    /// In the order of [`QuantizationSession::graphs`].
    quantizers: &'a [Box<dyn Quantizer>],
    /// Layers that stay in fp32 in any case.
    fp32_layers: Vec<String>,
    notes: Vec<String>,
    layers: Vec<SearchLayer>,
}

impl<'a> MixedPrecisionSearch<'a> {
    pub fn new(
        session: &'a QuantizationSession<'a>,
        quantizers: &'a [Box<dyn Quantizer>],
        fp32_layers: Vec<String>,
        notes: Vec<String>,
    ) -> Self {
        let mut layers = Vec::new();
        for (g, (graph, quantizer)) in session.graphs.iter().zip(quantizers).enumerate() {
            let found = quantizer.layers(graph).into_iter();
            layers.extend(found.map(|(layer, range)| SearchLayer {
                graph: g,
                layer,
                range,
                sensitivity: None,
            }));
        }
        Self {
            session,
            quantizers,
            fp32_layers,
            notes,
            layers,
        }
    }

    /// The candidate with the fewest layers in fp32 whose error is at most `allowed`. The most
    /// sensitive layers stay in fp32 first. When the limit is met, quantizing each of them is tried
    /// again, since errors of neighboring layers can cancel. The search compares a few small tiles;
    /// the returned candidate was measured on all of them.
    pub fn run(mut self, allowed: Option<f64>, step: Step<'_>) -> Result<Candidate, QuantizeError> {
        let candidate = match allowed {
            Some(allowed) => self.search(allowed, step)?,
            None => self.measure(&[], step)?,
        };
        Ok(self.with_layer_stats(candidate))
    }

    fn search(&mut self, allowed: f64, step: Step<'_>) -> Result<Candidate, QuantizeError> {
        step("evaluating the quantized graphs", 0, 1)?;
        let session = self.session;
        let analysis = SensitivityAnalysis::new(session.bundle, &session.samples, &session.graphs)?;
        let mut cache = ErrorCache::new(&analysis);
        // Error on all tiles over that on the few of the analysis.
        let mut scale = 1.0;
        let mut too_few = None;
        if cache.error(self, &[])? <= allowed {
            let candidate = self.measure(&[], step)?;
            let found = candidate.error.relative_error;
            if found <= allowed {
                return Ok(candidate);
            }
            scale = cache.scale(self, &[], found)?;
            too_few = Some(0);
        }
        let mut fp32 = self.rank(&analysis, allowed, step)?;
        let count = fp32.len();
        let mut candidate = loop {
            let low = too_few.map_or(0, |n| n + 1);
            let enough = bisect(low, count, |n| {
                step("number of layers in fp32", n, count)?;
                Ok(cache.error(self, &fp32[..n])? * scale <= allowed)
            })?;
            if enough == count {
                return Err(self.error_exceeded(allowed, step)?);
            }
            let candidate = self.measure(&fp32[..enough], step)?;
            let found = candidate.error.relative_error;
            scale = cache.scale(self, &fp32[..enough], found)?;
            if found <= allowed {
                fp32.truncate(enough);
                break candidate;
            }
            too_few = Some(enough);
        };
        // Twice: if the error on all tiles is too large, the limit on the few is lowered.
        for _ in 0..2 {
            let fewer = self.prune(&fp32, &mut cache, allowed / scale, step)?;
            if fewer.len() == fp32.len() {
                break;
            }
            let found = self.measure(&fewer, step)?;
            if found.error.relative_error <= allowed {
                candidate = found;
                break;
            }
            scale = cache.scale(self, &fewer, found.error.relative_error)?;
        }
        Ok(candidate)
    }

    /// Measures the sensitivity of each layer. Indices of all layers, most sensitive first.
    fn rank(
        &mut self,
        analysis: &SensitivityAnalysis<'_>,
        allowed: f64,
        step: Step<'_>,
    ) -> Result<Vec<usize>, QuantizeError> {
        let count = self.layers.len();
        let mut done = 0;
        for (g, graph) in self.session.graphs.iter().enumerate() {
            let quantizer = &self.quantizers[g];
            let stage = format!("{}: sensitivity of each layer", graph.role);
            step(&stage, done, count)?;
            let whole = Variant::new(graph, &quantizer.quantize_except(graph, &[])?)?;
            let skip = analysis.error(vec![(g, whole)])? < SKIP_BELOW * allowed;
            for part in self.layers.iter_mut().filter(|p| p.graph == g) {
                if !skip {
                    step(&stage, done, count)?;
                    let only = Variant::new(graph, &quantizer.quantize_only(graph, &part.layer)?)?;
                    part.sensitivity = Some(analysis.error(vec![(g, only)])?);
                }
                done += 1;
            }
        }
        let sensitivity = |i: &usize| self.layers[*i].sensitivity.unwrap_or(0.0);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| sensitivity(b).total_cmp(&sensitivity(a)));
        Ok(order)
    }

    /// The layers of `fp32` that have to stay there to keep the error on the few tiles within
    /// `allowed`.
    fn prune(
        &self,
        fp32: &[usize],
        cache: &mut ErrorCache<'_>,
        allowed: f64,
        step: Step<'_>,
    ) -> Result<Vec<usize>, QuantizeError> {
        let mut needed = fp32.to_vec();
        // Least sensitive first.
        for (i, part) in fp32.iter().enumerate().rev() {
            step(
                "quantizing fp32 layers again",
                fp32.len() - 1 - i,
                fp32.len(),
            )?;
            let without: Vec<usize> = needed.iter().copied().filter(|p| p != part).collect();
            if cache.error(self, &without)? <= allowed {
                needed = without;
            }
        }
        Ok(needed)
    }

    /// Returns the layers that belong to graph `g`.
    fn layers_of(&self, g: usize, layers: &[usize]) -> Vec<&Layer> {
        let layers = layers.iter().map(|i| &self.layers[*i]);
        layers.filter(|p| p.graph == g).map(|p| &p.layer).collect()
    }

    /// The candidate with these layers in fp32, measured on all tiles.
    fn measure(&self, fp32: &[usize], step: Step<'_>) -> Result<Candidate, QuantizeError> {
        let graphs = self.session.graphs.iter().zip(self.quantizers).enumerate();
        let models = graphs
            .map(|(g, (graph, quantizer))| {
                quantizer.quantize_except(graph, &self.layers_of(g, fp32))
            })
            .collect::<Result<_, _>>()?;
        let names = fp32.iter().map(|i| {
            let part = &self.layers[*i];
            format!(
                "{}: {}",
                self.session.graphs[part.graph].role, part.layer.name
            )
        });
        let fp32_layers = self.fp32_layers.iter().cloned().chain(names).collect();
        self.session
            .measure(models, fp32_layers, self.notes.clone(), step)
    }

    fn error_exceeded(&self, allowed: f64, step: Step<'_>) -> Result<QuantizeError, QuantizeError> {
        Ok(QuantizeError::MaxError {
            precision: self.session.precision,
            found: self.measure(&[], step)?.error.relative_error,
            allowed,
            remedy: match self.session.precision {
                Precision::Int8 => {
                    "no layer can be quantized within that limit: raise it, or use fp16"
                }
                _ => "no layer can be quantized within that limit: raise it, or stay with fp32",
            },
        })
    }

    fn with_layer_stats(&self, mut candidate: Candidate) -> Candidate {
        for part in &self.layers {
            let role = self.session.graphs[part.graph].role.to_owned();
            let stats = LayerStats {
                range: part.range,
                sensitivity: part.sensitivity,
            };
            candidate
                .layer_stats
                .insert((role, part.layer.name.clone()), stats);
        }
        candidate
    }
}

/// Errors measured so far.
struct ErrorCache<'a> {
    analysis: &'a SensitivityAnalysis<'a>,
    /// By the layers in fp32.
    errors: BTreeMap<BTreeSet<usize>, f64>,
    /// The last variants of each graph, by the outputs of the layers in fp32.
    variants: Vec<Vec<(BTreeSet<String>, Variant)>>,
}

/// Number of variants of a graph that stay compiled.
const VARIANTS: usize = 2;

impl<'a> ErrorCache<'a> {
    fn new(analysis: &'a SensitivityAnalysis<'a>) -> Self {
        Self {
            analysis,
            errors: BTreeMap::new(),
            variants: Vec::new(),
        }
    }

    /// The error on the few tiles with these layers in fp32.
    fn error(
        &mut self,
        search: &MixedPrecisionSearch<'_>,
        fp32: &[usize],
    ) -> Result<f64, QuantizeError> {
        let key: BTreeSet<usize> = fp32.iter().copied().collect();
        if let Some(known) = self.errors.get(&key) {
            return Ok(*known);
        }
        self.variants
            .resize_with(search.session.graphs.len(), Vec::new);
        let mut chosen = Vec::new();
        let graphs = search.session.graphs.iter().zip(&mut self.variants);
        for (g, (graph, known)) in graphs.enumerate() {
            let layers = search.layers_of(g, fp32);
            let names: BTreeSet<String> = layers.iter().map(|l| l.output.clone()).collect();
            let variant = match known.iter().position(|(n, _)| *n == names) {
                Some(i) => known.remove(i).1,
                None => Variant::new(
                    graph,
                    &search.quantizers[g].quantize_except(graph, &layers)?,
                )?,
            };
            known.push((names, variant.clone()));
            if known.len() > VARIANTS {
                known.remove(0);
            }
            chosen.push((g, variant));
        }
        let error = self.analysis.error(chosen)?;
        self.errors.insert(key, error);
        Ok(error)
    }

    /// Ratio of `found` to the error on the few tiles.
    fn scale(
        &mut self,
        search: &MixedPrecisionSearch<'_>,
        fp32: &[usize],
        found: f64,
    ) -> Result<f64, QuantizeError> {
        let cache = self.error(search, fp32)?;
        Ok(if cache > 0.0 { found / cache } else { 1.0 })
    }
}

/// The smallest value of `low..high` that is enough, by bisection; `high` if none is.
fn bisect(
    mut low: usize,
    mut high: usize,
    mut is_enough: impl FnMut(usize) -> Result<bool, QuantizeError>,
) -> Result<usize, QuantizeError> {
    while low < high {
        let middle = (low + high) / 2;
        if is_enough(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_that_are_enough_are_found() {
        for (low, high) in [(0, 0), (0, 1), (0, 48), (7, 48), (47, 48)] {
            for enough in low..=high {
                let mut asked = 0;
                let found = bisect(low, high, |n| {
                    asked += 1;
                    assert!((low..high).contains(&n));
                    Ok(n >= enough)
                });
                assert_eq!(found.unwrap(), enough);
                assert!(asked <= 6, "{asked}");
            }
        }
    }
}
