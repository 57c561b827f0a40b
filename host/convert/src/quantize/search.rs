//! The fewest layers that have to stay in 32 bits.

use std::collections::BTreeMap;

use loftup_models::{
    bundle::Precision,
    onnx::rewrite::{Layer, Model},
};

use super::{
    Calibrator, QuantizeError, Step,
    graph::Graph,
    trials::{Trials, Variant},
    versions::{About, Version, Work},
};

/// A graph that costs less than this share of what is allowed is not looked into: even if all three
/// do, they have an eighth of the squared error that is allowed.
const QUIET: f64 = 0.2;

/// A graph on its way to another precision.
pub(super) trait Rounding {
    /// Layers that can be left in 32 bits, in the order of the graph, and the range of their
    /// activation where they have one.
    fn layers(&self, graph: &Graph) -> Vec<(Layer, Option<(Calibrator, f32)>)>;

    /// The graph with all but these layers rounded.
    fn without(&self, graph: &Graph, left: &[&Layer]) -> Result<Model, QuantizeError>;

    /// The graph with this layer alone rounded.
    fn only(&self, graph: &Graph, layer: &Layer) -> Result<Model, QuantizeError>;
}

/// A layer that may have to stay in 32 bits.
struct Part {
    /// Index of its graph.
    graph: usize,
    layer: Layer,
    range: Option<(Calibrator, f32)>,
    /// Relative error of the answers where it alone is rounded, if that was tried.
    alone: Option<f64>,
}

/// The graphs on their way to another precision.
pub(super) struct Search<'a> {
    work: &'a Work<'a>,
    /// In the order of [`Work::graphs`].
    roundings: &'a [Box<dyn Rounding>],
    /// What stays in 32 bits in any case.
    kept: Vec<String>,
    notes: Vec<String>,
    parts: Vec<Part>,
}

impl<'a> Search<'a> {
    pub fn new(
        work: &'a Work<'a>,
        roundings: &'a [Box<dyn Rounding>],
        kept: Vec<String>,
        notes: Vec<String>,
    ) -> Self {
        let mut parts = Vec::new();
        for (g, (graph, rounding)) in work.graphs.iter().zip(roundings).enumerate() {
            let layers = rounding.layers(graph).into_iter();
            parts.extend(layers.map(|(layer, range)| Part {
                graph: g,
                layer,
                range,
                alone: None,
            }));
        }
        Self {
            work,
            roundings,
            kept,
            notes,
            parts,
        }
    }

    /// The version with the fewest layers in 32 bits that costs no more than `allowed`: those that
    /// hurt most go first, and the loss falls with every one of them, but for noise. How many are
    /// needed is found on few small parts of the answers; what is returned was measured on all
    /// of them.
    pub fn run(mut self, allowed: Option<f64>, step: Step<'_>) -> Result<Version, QuantizeError> {
        let version = match allowed {
            Some(allowed) => self.within(allowed, step)?,
            None => self.measured(0, step)?,
        };
        Ok(self.described(version))
    }

    fn within(&mut self, allowed: f64, step: Step<'_>) -> Result<Version, QuantizeError> {
        step("trying the new graphs", 0, 1)?;
        let work = self.work;
        let trials = Trials::new(work.bundle, &work.samples, &work.graphs)?;
        let mut tried = Tried::new(&trials);
        // What all parts lose of what the few of the trials do.
        let mut scale = 1.0;
        let (mut too_few, mut enough) = (None, None);
        if tried.loss(self, 0)? <= allowed {
            let version = self.measured(0, step)?;
            let found = version.loss.relative_error;
            if found <= allowed {
                return Ok(version);
            }
            scale = tried.scale(self, 0, found)?;
            too_few = Some(0);
        }
        self.order(&trials, allowed, step)?;
        tried.forget();
        loop {
            let low = too_few.map_or(0, |n| n + 1);
            let high = enough.as_ref().map_or(self.parts.len(), |(n, _)| *n);
            let count = fewest(low, high, |n| {
                step(
                    "looking for the fewest layers in 32 bits",
                    n,
                    self.parts.len(),
                )?;
                Ok(tried.loss(self, n)? * scale <= allowed)
            })?;
            if count == high {
                return match enough {
                    Some((_, version)) => Ok(version),
                    None => Err(self.too_much(allowed, step)?),
                };
            }
            let version = self.measured(count, step)?;
            let found = version.loss.relative_error;
            scale = tried.scale(self, count, found)?;
            if found <= allowed {
                enough = Some((count, version));
            } else {
                too_few = Some(count);
            }
        }
    }

    /// Tries each layer alone, and puts those first that hurt most.
    fn order(
        &mut self,
        trials: &Trials<'_>,
        allowed: f64,
        step: Step<'_>,
    ) -> Result<(), QuantizeError> {
        let count = self.parts.len();
        let mut done = 0;
        for (g, graph) in self.work.graphs.iter().enumerate() {
            let rounding = &self.roundings[g];
            let stage = format!("{}: trying each layer alone", graph.role);
            step(&stage, done, count)?;
            let whole = Variant::new(graph, &rounding.without(graph, &[])?)?;
            let quiet = trials.loss_of(g, whole)? < QUIET * allowed;
            for part in self.parts.iter_mut().filter(|p| p.graph == g) {
                if !quiet {
                    step(&stage, done, count)?;
                    let only = Variant::new(graph, &rounding.only(graph, &part.layer)?)?;
                    part.alone = Some(trials.loss_of(g, only)?);
                }
                done += 1;
            }
        }
        let alone = |part: &Part| part.alone.unwrap_or(0.0);
        self.parts.sort_by(|a, b| alone(b).total_cmp(&alone(a)));
        Ok(())
    }

    /// Those of the first `count` parts that are layers of graph `g`.
    fn left(&self, g: usize, count: usize) -> Vec<&Layer> {
        let left = self.parts[..count].iter().filter(|p| p.graph == g);
        left.map(|p| &p.layer).collect()
    }

    /// The version with the first `count` parts in 32 bits, measured on everything.
    fn measured(&self, count: usize, step: Step<'_>) -> Result<Version, QuantizeError> {
        let graphs = self.work.graphs.iter().zip(self.roundings).enumerate();
        let models = graphs
            .map(|(g, (graph, rounding))| rounding.without(graph, &self.left(g, count)))
            .collect::<Result<_, _>>()?;
        let names = self.parts[..count].iter();
        let names = names.map(|p| format!("{}: {}", self.work.graphs[p.graph].role, p.layer.name));
        let kept = self.kept.iter().cloned().chain(names).collect();
        self.work.measured(models, kept, self.notes.clone(), step)
    }

    fn too_much(&self, allowed: f64, step: Step<'_>) -> Result<QuantizeError, QuantizeError> {
        Ok(QuantizeError::Loss {
            precision: self.work.precision,
            found: self.measured(0, step)?.loss.relative_error,
            allowed,
            remedy: match self.work.precision {
                Precision::Int8 => "no layer can be rounded within that: allow more, or take fp16",
                _ => "no layer can be rounded within that: allow more, or stay with fp32",
            },
        })
    }

    fn described(&self, mut version: Version) -> Version {
        for part in &self.parts {
            let role = self.work.graphs[part.graph].role.to_owned();
            let about = About {
                range: part.range,
                alone: part.alone,
            };
            version.about.insert((role, part.layer.name.clone()), about);
        }
        version
    }
}

/// Losses of the trials so far, by the number of layers in 32 bits.
struct Tried<'a> {
    trials: &'a Trials<'a>,
    losses: BTreeMap<usize, f64>,
    /// The last versions of each graph, by the layers in 32 bits.
    variants: Vec<Vec<(Vec<String>, Variant)>>,
}

/// Versions of a graph that are kept compiled.
const VARIANTS: usize = 2;

impl<'a> Tried<'a> {
    fn new(trials: &'a Trials<'a>) -> Self {
        Self {
            trials,
            losses: BTreeMap::new(),
            variants: Vec::new(),
        }
    }

    /// The parts are in another order now: what is known holds for none and for all of them.
    fn forget(&mut self) {
        self.losses.retain(|n, _| *n == 0);
    }

    /// The loss of the trial with the first `count` parts in 32 bits.
    fn loss(&mut self, search: &Search<'_>, count: usize) -> Result<f64, QuantizeError> {
        if let Some(known) = self.losses.get(&count) {
            return Ok(*known);
        }
        let mut chosen = Vec::new();
        for (g, graph) in search.work.graphs.iter().enumerate() {
            let left = search.left(g, count);
            let mut names: Vec<String> = left.iter().map(|l| l.output.clone()).collect();
            names.sort();
            if self.variants.len() == g {
                self.variants.push(Vec::new());
            }
            let known = &mut self.variants[g];
            let found = known.iter().find(|(n, _)| *n == names);
            let variant = match found {
                Some((_, variant)) => variant.clone(),
                None => Variant::new(graph, &search.roundings[g].without(graph, &left)?)?,
            };
            known.retain(|(n, _)| *n != names);
            known.push((names, variant.clone()));
            if known.len() > VARIANTS {
                known.remove(0);
            }
            chosen.push(variant);
        }
        let loss = self.trials.loss(chosen)?;
        self.losses.insert(count, loss);
        Ok(loss)
    }

    /// How many times the loss of the trial `found` is.
    fn scale(
        &mut self,
        search: &Search<'_>,
        count: usize,
        found: f64,
    ) -> Result<f64, QuantizeError> {
        let tried = self.loss(search, count)?;
        Ok(if tried > 0.0 { found / tried } else { 1.0 })
    }
}

/// The least of `low..high` that is enough, by bisection; `high` where none is.
fn fewest(
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
                let found = fewest(low, high, |n| {
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
