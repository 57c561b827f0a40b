//! Versions of a bundle's graphs, each measured, and the choice among them.

use std::{collections::BTreeMap, sync::Arc};

use loftup_models::{
    bundle::{Bundle, BundleWriter, Loss, Manifest, Precision, UpsamplerFiles},
    onnx::rewrite::{self, Layer, Model},
};
use loftup_runtime::{Options, Perceptor, backend::Backend};

use super::{
    AsWritten, Calibrator, LayerReport, QuantizeError, Request, Step, Worst,
    backends::Recorder,
    graph::Graph,
    half::HalfPlan,
    int8::{self, Plan},
    pictures::{self, Samples, end_to_end},
    report,
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
    about: BTreeMap<(String, String), About>,
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
struct About {
    /// Range of its activation, and how it was found.
    range: Option<(Calibrator, f32)>,
    /// Relative error of the graph's outputs where it alone is rounded.
    alone: Option<f64>,
}

/// Measures the version with these layers, of these names, in 32 bits.
type Measure<'a> =
    &'a mut dyn FnMut(&[Part], &mut dyn Iterator<Item = String>) -> Result<Version, QuantizeError>;

/// A layer that may have to stay in 32 bits.
pub(super) struct Part {
    /// Index of its graph.
    pub graph: usize,
    pub layer: Layer,
    /// Relative error of the graph's outputs where it alone is rounded.
    alone: f64,
    /// Range of its activation, and how it was found.
    range: Option<(Calibrator, f32)>,
}

/// A bundle in a temporary directory.
pub(super) struct Trial {
    pub bundle: Bundle,
    _directory: tempfile::TempDir,
}

pub(super) struct Work<'a> {
    bundle: &'a Bundle,
    precision: Precision,
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
            request.size,
            request.tiles,
            &mut |i, n| step("looking at pictures in 32 bits", i, n),
        )?;
        let mut recorded = recorder.take();
        for graph in &mut graphs {
            graph.feed(recorded.remove(&graph.file).unwrap_or_default())?;
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

    fn half(&self, max_loss: Option<f64>, step: Step<'_>) -> Result<Version, QuantizeError> {
        let (mut plans, mut kept, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for graph in &self.graphs {
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
            plans.push(plan);
        }
        let write = |left: &[Part]| -> Result<Vec<Model>, QuantizeError> {
            let graphs = self.graphs.iter().zip(&plans).enumerate();
            graphs
                .map(|(g, (graph, plan))| plan.write(graph, left.iter().filter(|p| p.graph == g)))
                .collect()
        };
        let all = self.measured(write(&[])?, kept.clone(), notes.clone(), step)?;
        if max_loss.is_none_or(|allowed| all.loss.relative_error <= allowed) {
            return Ok(all);
        }
        let mut parts = Vec::new();
        for (g, (graph, plan)) in self.graphs.iter().zip(&plans).enumerate() {
            let manifest = self.bundle.manifest();
            let alone = plan.alone(graph, manifest, step)?;
            parts.extend(alone.into_iter().map(|(layer, alone)| Part {
                graph: g,
                layer,
                alone,
                range: None,
            }));
        }
        self.fewest(parts, max_loss, Some(all), &mut |left, names| {
            let kept = kept.iter().cloned().chain(names).collect();
            self.measured(write(left)?, kept, notes.clone(), step)
        })
    }

    fn half_weights(&self, step: Step<'_>) -> Result<Version, QuantizeError> {
        let (mut models, mut notes) = (Vec::new(), Vec::new());
        for graph in &self.graphs {
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

    fn int8(&self, max_loss: Option<f64>, step: Step<'_>) -> Result<Version, QuantizeError> {
        let manifest = self.bundle.manifest();
        let mut plans = Vec::new();
        for graph in &self.graphs {
            plans.push(Plan::new(graph, manifest, &self.samples.samples, step)?);
        }
        let mut notes = Vec::new();
        let mut silent = Vec::new();
        for (graph, plan) in self.graphs.iter().zip(&plans) {
            for layer in &plan.silent {
                let name = format!("{}: {}", graph.role, layer.name);
                notes.push(format!(
                    "{name}: its input is 0 on every calibration picture, so it has no range; it stays in 32 bits"
                ));
                silent.push(name);
            }
        }
        let mut parts = Vec::new();
        for (g, plan) in plans.iter().enumerate() {
            parts.extend(plan.candidates.iter().map(|c| Part {
                graph: g,
                layer: c.layer.clone(),
                alone: c.alone,
                range: Some(plan.ranges[&c.layer.activation]),
            }));
        }
        let write = |left: &[Part]| -> Result<Vec<Model>, QuantizeError> {
            let graphs = self.graphs.iter().zip(&plans).enumerate();
            graphs
                .map(|(g, (graph, plan))| {
                    let in_float = |c: &&int8::Candidate| {
                        left.iter().any(|p| p.graph == g && p.layer == c.layer)
                    };
                    let chosen = plan.candidates.iter().filter(|c| !in_float(c));
                    plan.write(graph, &chosen.map(|c| c.layer.output.clone()).collect())
                })
                .collect()
        };
        self.fewest(parts, max_loss, None, &mut |left, names| {
            let kept = names.chain(silent.iter().cloned()).collect();
            self.measured(write(left)?, kept, notes.clone(), step)
        })
    }

    /// The version with the fewest layers in 32 bits that meets the loss that is allowed: those
    /// that hurt most go first, and the loss falls with every one of them, but for noise. `all`,
    /// where it is known, is the version with none.
    fn fewest(
        &self,
        mut parts: Vec<Part>,
        max_loss: Option<f64>,
        all: Option<Version>,
        measure: Measure<'_>,
    ) -> Result<Version, QuantizeError> {
        parts.sort_by(|a, b| b.alone.total_cmp(&a.alone));
        let mut measure = |left: usize| {
            let left = &parts[..left];
            let names = left
                .iter()
                .map(|p| (self.graphs[p.graph].role, &p.layer.name));
            measure(
                left,
                &mut names.map(|(role, name)| format!("{role}: {name}")),
            )
        };
        let mut version = match all {
            Some(version) => version,
            None => measure(0)?,
        };
        if let Some(allowed) = max_loss {
            let (mut too_few, mut enough) = (0, parts.len());
            let mut best = None;
            while version.loss.relative_error > allowed && too_few + 1 < enough {
                let middle = (too_few + enough) / 2;
                let tried = measure(middle)?;
                if tried.loss.relative_error > allowed {
                    too_few = middle;
                } else {
                    enough = middle;
                    best = Some(tried);
                }
            }
            if version.loss.relative_error > allowed {
                version = best.ok_or(QuantizeError::Loss {
                    precision: self.precision,
                    found: version.loss.relative_error,
                    allowed,
                    remedy: match self.precision {
                        Precision::Int8 => {
                            "no layer can be rounded within that: allow more, or take fp16"
                        }
                        _ => "no layer can be rounded within that: allow more, or stay with fp32",
                    },
                })?;
            }
        }
        for part in &parts {
            let key = (
                self.graphs[part.graph].role.to_owned(),
                part.layer.name.clone(),
            );
            let about = About {
                range: part.range,
                alone: Some(part.alone),
            };
            version.about.insert(key, about);
        }
        Ok(version)
    }

    /// A version, measured end to end as it is written.
    fn measured(
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

    /// The models as a bundle to try out.
    pub fn trial(&self, models: &[Model]) -> Result<Trial, QuantizeError> {
        let directory = tempfile::tempdir().map_err(|source| QuantizeError::Io {
            path: std::env::temp_dir(),
            source,
        })?;
        let mut writer = BundleWriter::create(&directory.path().join("trial.loftup"), false)?;
        let manifest = self.write(&mut writer, models, false, |_, _| Ok(()))?;
        writer.seal(manifest)?;
        writer.commit()?;
        Ok(Trial {
            bundle: Bundle::open(&directory.path().join("trial.loftup"))?,
            _directory: directory,
        })
    }

    /// Adds the graphs, and what stays of the old bundle; the manifest of the new one.
    pub fn write(
        &self,
        writer: &mut BundleWriter,
        models: &[Model],
        keep: bool,
        more: impl FnOnce(&mut BundleWriter, &mut Manifest) -> Result<(), QuantizeError>,
    ) -> Result<Manifest, QuantizeError> {
        let mut manifest = self.bundle.manifest().clone();
        if !keep {
            manifest.quantisation.clear();
            if let Some(b) = &mut manifest.backbone {
                b.graphs.clear();
            }
            if let Some(u) = &mut manifest.upsampler {
                u.graphs.clear();
            }
        }
        let precision = self.precision;
        let mut names = BTreeMap::new();
        for (graph, model) in self.graphs.iter().zip(models) {
            let name = format!("{}-{precision}.onnx", graph.role);
            writer.add(&name, &model.encode())?;
            names.insert(graph.role, name);
        }
        if let (Some(b), Some(name)) = (&mut manifest.backbone, names.get("backbone")) {
            b.graphs.insert(precision, name.clone());
        }
        if let (Some(u), Some(keys), Some(queries)) = (
            &mut manifest.upsampler,
            names.get("keys"),
            names.get("queries"),
        ) {
            let files = UpsamplerFiles {
                keys: keys.clone(),
                queries: queries.clone(),
                whole: None,
            };
            u.graphs.insert(precision, files);
        }
        more(writer, &mut manifest)?;
        for name in report::files_of(&manifest) {
            if self.bundle.manifest().files.contains_key(&name)
                && !names.values().any(|n| *n == name)
            {
                writer.add(&name, &self.bundle.read(&name)?)?;
            }
        }
        Ok(manifest)
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
