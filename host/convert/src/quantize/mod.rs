//! Smaller, faster bundles, and what they cost.
//!
//! The 32-bit bundle is run on calibration pictures; what its graphs are fed with is kept. Each
//! graph is rewritten (`loftup_models::onnx::rewrite`), and the written graph is run on the same
//! values, rounding included: what is recorded in the manifest was measured, not estimated.

mod backends;
mod check;
mod error;
mod graph;
mod half;
mod int8;
mod loss;
mod pictures;
mod ranges;
mod report;

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use loftup_models::{
    bundle::{
        Bundle, BundleWriter, HeadLoss, Loss, Manifest, Precision, Quantisation, Size,
        UpsamplerFiles,
    },
    onnx::rewrite::{self, Layer, Model},
};
use loftup_runtime::{
    Options, Perceptor,
    backend::{Backend, TensorRt, Tract, tensorrt},
    npy,
};

pub use self::{
    backends::AsWritten,
    error::QuantizeError,
    graph::LayerReport,
    loss::Worst,
    ranges::Calibrator,
    report::{FileSize, Report, Timing, html},
};
pub(crate) use check::checks;

use self::{
    backends::Recorder,
    graph::Graph,
    half::HalfPlan,
    int8::Plan,
    pictures::{Samples, end_to_end, frame_seconds},
};

/// What is going on, for a progress bar: the stage, steps done, steps in all. May end the work.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize) -> ControlFlow<()>;

/// [`Progress`] as an error.
type Step<'a> = &'a mut dyn FnMut(&str, usize, usize) -> Result<(), QuantizeError>;

/// Judges a head of a bundle on labelled pictures.
pub type Judge<'a> = &'a mut dyn FnMut(&Perceptor) -> Result<Score, String>;

/// How good a head is.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The head.
    pub head: String,
    /// Labelled pictures.
    pub pictures: u64,
    /// Mean intersection over union, 0 to 1.
    pub mean_iou: f64,
}

/// What to quantise.
#[derive(Debug, Clone)]
pub struct Request {
    /// The bundle, in 32 bits.
    pub bundle: PathBuf,
    /// What it is to become.
    pub precision: Precision,
    /// Calibration pictures.
    pub pictures: Vec<PathBuf>,
    /// Size at which they are looked at; the backbone's own if not given.
    pub size: Option<Size>,
    /// Parts of each picture's answer that are looked at.
    pub tiles: usize,
    /// The relative error of the answers that is allowed, end to end.
    pub max_loss: Option<f64>,
    /// Whether the new bundle holds the precisions of the old one, too.
    pub keep: bool,
    /// Where the new bundle goes.
    pub out: PathBuf,
    /// Whether an existing bundle there may be replaced.
    pub replace: bool,
}

/// Quantises, measures, checks the result, and puts it in its place.
///
/// # Errors
/// Names the file, the tensor and the remedy. Nothing is left behind.
pub fn quantize(
    request: &Request,
    judge: Option<Judge<'_>>,
    progress: Progress<'_>,
) -> Result<Report, QuantizeError> {
    let precision = request.precision;
    if precision == Precision::Fp32 {
        return Err(QuantizeError::Wide);
    }
    let mut step = |stage: &str, done: usize, all: usize| match progress(stage, done, all) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(QuantizeError::Interrupted),
    };
    let bundle = Bundle::open(&request.bundle)?;
    let there = bundle.manifest().precisions();
    if !there.contains(&Precision::Fp32) {
        let found: Vec<&str> = there.iter().map(|p| p.name()).collect();
        return Err(QuantizeError::Already {
            path: request.bundle.clone(),
            found: found.join(" and "),
        });
    }
    let mut writer = BundleWriter::create(&request.out, request.replace)?;
    let mut work = Work::begin(&bundle, request, &mut step)?;
    let version = work.rewrite(request, &mut step)?;

    step("measuring each graph", 0, 1)?;
    let mut graphs = BTreeMap::new();
    let mut layers = Vec::new();
    for (graph, written) in work.graphs.iter().zip(&version.models) {
        let loss = graph.loss(written, bundle.manifest(), false)?.loss();
        graphs.insert(graph.role.to_owned(), loss);
        layers.extend(version.describe(graph.layer_reports(written, precision)?));
    }
    step("measuring the test picture", 0, 1)?;
    let fp32 = open(&bundle, Arc::new(Tract), Precision::Fp32)?;
    let (reference, dim) = check::answers(&fp32)?;
    let reference_file = npy_bytes(&reference, dim)?;
    let trial = work.trial(&version.models)?;
    let check = check::measure(&trial.bundle, precision, &reference)?;
    let head = match judge {
        Some(judge) => Some(judged(judge, &fp32, &trial.bundle, precision, &mut step)?),
        None => None,
    };
    let timings = timings(&bundle, &trial.bundle, precision, &work.samples, &mut step)?;
    let quantisation = Quantisation {
        tool: concat!("loftup ", env!("CARGO_PKG_VERSION")).into(),
        calibration: work.samples.calibration.clone(),
        max_loss: request.max_loss,
        loss: version.loss,
        graphs,
        kept: version.kept.clone(),
        head,
        check,
    };

    step("writing the bundle", 0, 1)?;
    let manifest = work.write(
        &mut writer,
        &version.models,
        request.keep,
        |writer, manifest| {
            writer.add(&quantisation.check.file, &reference_file)?;
            manifest
                .quantisation
                .insert(precision, quantisation.clone());
            Ok(())
        },
    )?;
    let sealed = Bundle::open(writer.seal(manifest)?)?;
    let files = report::sizes(bundle.manifest(), sealed.manifest(), precision);
    step("verifying the bundle", 0, 1)?;
    let failed = |name: &str, what: String| QuantizeError::Verification {
        name: name.into(),
        what,
    };
    let checks = crate::foreign::guarded(|| crate::verify(sealed));
    let checks = checks.map_err(|what| failed("runs", what))?;
    if let Some(check) = checks.iter().find(|c| !c.passed) {
        return Err(failed(&check.name, check.to_string()));
    }
    let report = Report {
        bundle: request.bundle.clone(),
        out: request.out.clone(),
        precision,
        worst: version.worst,
        worst_picture: work.samples.samples[version.worst.picture].path.clone(),
        layers,
        notes: version.notes,
        timings,
        files,
        quantisation,
    };
    writer.commit()?;
    Ok(report)
}

fn open(
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
struct Version {
    /// In the order of [`Work::graphs`].
    models: Vec<Model>,
    loss: Loss,
    worst: Worst,
    /// What was left in 32 bits, as `GRAPH: NAME`.
    kept: Vec<String>,
    /// What a reader of the report should know.
    notes: Vec<String>,
    /// Of each layer, by graph and output: calibrator, range and loss alone.
    about: BTreeMap<(String, String), (Option<Calibrator>, Option<f32>, Option<f64>)>,
}

impl Version {
    /// Adds to the reports of layers what is known of them.
    fn describe(&self, mut layers: Vec<LayerReport>) -> Vec<LayerReport> {
        for layer in &mut layers {
            let key = (layer.graph.clone(), layer.name.clone());
            if self
                .kept
                .contains(&format!("{}: {}", layer.graph, layer.name))
            {
                layer.precision = Precision::Fp32.name();
            }
            if let Some((calibrator, range, alone)) = self.about.get(&key) {
                layer.calibrator = calibrator.map(Calibrator::name);
                layer.range = *range;
                layer.alone = *alone;
            }
        }
        layers
    }
}

/// A layer that may have to stay in 32 bits.
struct Part {
    /// Index of its graph.
    graph: usize,
    layer: Layer,
    /// Relative error of the graph's outputs where it alone is rounded.
    alone: f64,
    /// Range of its activation, and how it was found.
    range: Option<(Calibrator, f32)>,
}

/// A bundle in a temporary directory.
struct Trial {
    bundle: Bundle,
    _directory: tempfile::TempDir,
}

struct Work<'a> {
    bundle: &'a Bundle,
    precision: Precision,
    graphs: Vec<Graph>,
    samples: Samples,
}

impl<'a> Work<'a> {
    /// Runs the 32-bit bundle on the calibration pictures.
    fn begin(bundle: &'a Bundle, request: &Request, step: Step<'_>) -> Result<Self, QuantizeError> {
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
    fn rewrite(&mut self, request: &Request, step: Step<'_>) -> Result<Version, QuantizeError> {
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
        measure: &mut dyn FnMut(
            &[Part],
            &mut dyn Iterator<Item = String>,
        ) -> Result<Version, QuantizeError>,
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
            let (calibrator, range) = part.range.unzip();
            version
                .about
                .insert(key, (calibrator, range, Some(part.alone)));
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
    fn trial(&self, models: &[Model]) -> Result<Trial, QuantizeError> {
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
    fn write(
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

fn judged(
    judge: Judge<'_>,
    fp32: &Perceptor,
    trial: &Bundle,
    precision: Precision,
    step: Step<'_>,
) -> Result<HeadLoss, QuantizeError> {
    step("judging the head in 32 bits", 0, 1)?;
    let before = judge(fp32).map_err(QuantizeError::Score)?;
    step("judging the head as written", 0, 1)?;
    let written = open(trial, Arc::new(AsWritten), precision)?;
    let after = judge(&written).map_err(QuantizeError::Score)?;
    Ok(HeadLoss {
        name: before.head,
        pictures: before.pictures,
        mean_iou_before: before.mean_iou,
        mean_iou_after: after.mean_iou,
    })
}

/// Time for a frame on every engine that is here.
fn timings(
    fp32: &Bundle,
    trial: &Bundle,
    precision: Precision,
    samples: &Samples,
    step: Step<'_>,
) -> Result<Vec<Timing>, QuantizeError> {
    step("timing frames", 0, 1)?;
    let sample = &samples.samples[0];
    let mut engines: Vec<Arc<dyn Backend>> = vec![Arc::new(Tract)];
    match TensorRt::open(tensorrt::Options::default()) {
        Ok(backend) => engines.push(Arc::new(backend)),
        Err(e) => log::info!("not timed: {e}"),
    }
    let mut found = Vec::new();
    for engine in engines {
        let time = |bundle: &Bundle, precision| {
            let perceptor = open(bundle, engine.clone(), precision)?;
            frame_seconds(&perceptor, sample)
        };
        found.push(Timing {
            engine: engine.describe(),
            before: time(fp32, Precision::Fp32)?,
            after: time(trial, precision)?,
        });
    }
    Ok(found)
}

/// `[places, d]` as a `.npy` file.
fn npy_bytes(values: &[f32], dim: usize) -> Result<Vec<u8>, QuantizeError> {
    let io = |source| QuantizeError::Io {
        path: std::env::temp_dir(),
        source,
    };
    let directory = tempfile::tempdir().map_err(io)?;
    let path = directory.path().join("check.npy");
    npy::write(&path, &[values.len() / dim.max(1), dim], values)?;
    std::fs::read(&path).map_err(io)
}
