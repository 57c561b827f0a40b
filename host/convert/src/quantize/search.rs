//! The fewest layers that have to stay in 32 bits.

use std::collections::{BTreeMap, BTreeSet};

use loftup_bundle::Precision;
use loftup_onnx::rewrite::Layer;

use super::{
    Calibrator, QuantizeError, Step,
    quantizer::Rounding,
    trials::{Trials, Variant},
    versions::{About, Version, Work},
};

/// A graph that costs less than this share of what is allowed is not looked into: even if all three
/// do, they have an eighth of the squared error that is allowed.
const QUIET: f64 = 0.2;

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

    /// The version with the fewest layers in 32 bits that costs no more than `allowed`. Those that
    /// hurt most go first; when they are enough, each is tried in the new precision again, since
    /// some hurt through what lies around them, and others make up for that. All this happens on
    /// few small parts of the answers; what is returned was measured on all of them.
    pub fn run(mut self, allowed: Option<f64>, step: Step<'_>) -> Result<Version, QuantizeError> {
        let version = match allowed {
            Some(allowed) => self.within(allowed, step)?,
            None => self.measured(&[], step)?,
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
        let mut too_few = None;
        if tried.loss(self, &[])? <= allowed {
            let version = self.measured(&[], step)?;
            let found = version.loss.relative_error;
            if found <= allowed {
                return Ok(version);
            }
            scale = tried.scale(self, &[], found)?;
            too_few = Some(0);
        }
        let mut left = self.order(&trials, allowed, step)?;
        let count = left.len();
        let mut version = loop {
            let low = too_few.map_or(0, |n| n + 1);
            let enough = fewest(low, count, |n| {
                step("how many layers have to stay", n, count)?;
                Ok(tried.loss(self, &left[..n])? * scale <= allowed)
            })?;
            if enough == count {
                return Err(self.too_much(allowed, step)?);
            }
            let version = self.measured(&left[..enough], step)?;
            let found = version.loss.relative_error;
            scale = tried.scale(self, &left[..enough], found)?;
            if found <= allowed {
                left.truncate(enough);
                break version;
            }
            too_few = Some(enough);
        };
        // Twice: where all parts refute the few, these are held to more.
        for _ in 0..2 {
            let fewer = self.without_idle(&left, &mut tried, allowed / scale, step)?;
            if fewer.len() == left.len() {
                break;
            }
            let found = self.measured(&fewer, step)?;
            if found.loss.relative_error <= allowed {
                version = found;
                break;
            }
            scale = tried.scale(self, &fewer, found.loss.relative_error)?;
        }
        Ok(version)
    }

    /// Tries each layer alone. Indices of all of them, those first that hurt most.
    fn order(
        &mut self,
        trials: &Trials<'_>,
        allowed: f64,
        step: Step<'_>,
    ) -> Result<Vec<usize>, QuantizeError> {
        let count = self.parts.len();
        let mut done = 0;
        for (g, graph) in self.work.graphs.iter().enumerate() {
            let rounding = &self.roundings[g];
            let stage = format!("{}: trying each layer alone", graph.role);
            step(&stage, done, count)?;
            let whole = Variant::new(graph, &rounding.without(graph, &[])?)?;
            let quiet = trials.loss(vec![(g, whole)])? < QUIET * allowed;
            for part in self.parts.iter_mut().filter(|p| p.graph == g) {
                if !quiet {
                    step(&stage, done, count)?;
                    let only = Variant::new(graph, &rounding.only(graph, &part.layer)?)?;
                    part.alone = Some(trials.loss(vec![(g, only)])?);
                }
                done += 1;
            }
        }
        let alone = |i: &usize| self.parts[*i].alone.unwrap_or(0.0);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| alone(b).total_cmp(&alone(a)));
        Ok(order)
    }

    /// Those of the parts `left` in 32 bits that the trials need to lose no more than `allowed`.
    fn without_idle(
        &self,
        left: &[usize],
        tried: &mut Tried<'_>,
        allowed: f64,
        step: Step<'_>,
    ) -> Result<Vec<usize>, QuantizeError> {
        let mut needed = left.to_vec();
        // Those that hurt least go first.
        for (i, part) in left.iter().enumerate().rev() {
            step("which of them can go", left.len() - 1 - i, left.len())?;
            let without: Vec<usize> = needed.iter().copied().filter(|p| p != part).collect();
            if tried.loss(self, &without)? <= allowed {
                needed = without;
            }
        }
        Ok(needed)
    }

    /// Those of some parts that are layers of graph `g`.
    fn layers(&self, g: usize, parts: &[usize]) -> Vec<&Layer> {
        let parts = parts.iter().map(|i| &self.parts[*i]);
        parts.filter(|p| p.graph == g).map(|p| &p.layer).collect()
    }

    /// The version with these parts in 32 bits, measured on everything.
    fn measured(&self, left: &[usize], step: Step<'_>) -> Result<Version, QuantizeError> {
        let graphs = self.work.graphs.iter().zip(self.roundings).enumerate();
        let models = graphs
            .map(|(g, (graph, rounding))| rounding.without(graph, &self.layers(g, left)))
            .collect::<Result<_, _>>()?;
        let names = left.iter().map(|i| {
            let part = &self.parts[*i];
            format!("{}: {}", self.work.graphs[part.graph].role, part.layer.name)
        });
        let kept = self.kept.iter().cloned().chain(names).collect();
        self.work.measured(models, kept, self.notes.clone(), step)
    }

    fn too_much(&self, allowed: f64, step: Step<'_>) -> Result<QuantizeError, QuantizeError> {
        Ok(QuantizeError::Loss {
            precision: self.work.precision,
            found: self.measured(&[], step)?.loss.relative_error,
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

/// The trials so far.
struct Tried<'a> {
    trials: &'a Trials<'a>,
    /// By the parts in 32 bits.
    losses: BTreeMap<BTreeSet<usize>, f64>,
    /// The last versions of each graph, by the outputs of the layers in 32 bits.
    variants: Vec<Vec<(BTreeSet<String>, Variant)>>,
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

    /// The loss of the trial with these parts in 32 bits.
    fn loss(&mut self, search: &Search<'_>, left: &[usize]) -> Result<f64, QuantizeError> {
        let key: BTreeSet<usize> = left.iter().copied().collect();
        if let Some(known) = self.losses.get(&key) {
            return Ok(*known);
        }
        self.variants
            .resize_with(search.work.graphs.len(), Vec::new);
        let mut chosen = Vec::new();
        let graphs = search.work.graphs.iter().zip(&mut self.variants);
        for (g, (graph, known)) in graphs.enumerate() {
            let layers = search.layers(g, left);
            let names: BTreeSet<String> = layers.iter().map(|l| l.output.clone()).collect();
            let variant = match known.iter().position(|(n, _)| *n == names) {
                Some(i) => known.remove(i).1,
                None => Variant::new(graph, &search.roundings[g].without(graph, &layers)?)?,
            };
            known.push((names, variant.clone()));
            if known.len() > VARIANTS {
                known.remove(0);
            }
            chosen.push((g, variant));
        }
        let loss = self.trials.loss(chosen)?;
        self.losses.insert(key, loss);
        Ok(loss)
    }

    /// How many times the loss of the trial `found` is.
    fn scale(
        &mut self,
        search: &Search<'_>,
        left: &[usize],
        found: f64,
    ) -> Result<f64, QuantizeError> {
        let tried = self.loss(search, left)?;
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
