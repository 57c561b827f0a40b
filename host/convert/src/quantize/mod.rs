//! Smaller, faster bundles, and what they cost.
//!
//! The 32-bit bundle is run on calibration images; what its graphs are fed with is fp32_layers. Each
//! graph is rewritten (`loftup_onnx::rewrite`), and the written graph is run on the same
//! values, rounding included: what is recorded in the manifest was measured, not estimated.

mod backends;
mod error;
mod error_stats;
mod fp16_quantizer;
mod graph;
mod int8_quantizer;
mod quantizer;
mod ranges;
mod report;
mod rewrite;
mod samples;
mod search;
mod sensitivity;
mod session;
mod writing;

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use loftup_bundle::{Bundle, BundleWriter, HeadAccuracy, Precision, Quantisation, Size};
use loftup_runtime::{
    Perceptor,
    backend::{Backend, TensorRt, Tract, tensorrt},
    image::Orientation,
    npy,
};

pub use self::{
    error::QuantizeError,
    error_stats::Worst,
    graph::LayerReport,
    ranges::Calibrator,
    report::{FileSize, Report, Timing},
};

pub use crate::fake_quantize::AsWritten;
use crate::{guard::guarded, quantization_check, references, verify};

use self::{
    samples::{Samples, frame_seconds},
    session::{QuantizationSession, open},
};

/// What is going on, for a progress bar: the stage, steps done, steps in all. May end the session.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize) -> ControlFlow<()>;

/// [`Progress`] as an error.
type Step<'a> = &'a mut dyn FnMut(&str, usize, usize) -> Result<(), QuantizeError>;

/// Judges a head of a bundle on labelled images.
pub type HeadEvaluator<'a> = &'a mut dyn FnMut(&Perceptor) -> Result<Score, String>;

/// How good a head is.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The head.
    pub head: String,
    /// Labelled images.
    pub images: u64,
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
    /// Calibration images.
    pub images: Vec<PathBuf>,
    /// Size at which they are looked at; the backbone's own if not given.
    pub size: Option<Size>,
    /// Which way up they are read.
    pub orientation: Orientation,
    /// Parts of each image's answer that are looked at.
    pub tiles: usize,
    /// The relative error of the answers that is allowed, end to end.
    pub max_error: Option<f64>,
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
    evaluate: Option<HeadEvaluator<'_>>,
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
    let mut session = QuantizationSession::begin(&bundle, request, &mut step)?;
    let candidate = session.rewrite(request, &mut step)?;

    let mut graphs = BTreeMap::new();
    let mut layers = Vec::new();
    for (graph, written) in session.graphs.iter().zip(&candidate.models) {
        let stage = format!("{}: measuring it alone", graph.role);
        let error = graph.error(written, bundle.manifest(), &mut |i, n| step(&stage, i, n))?;
        graphs.insert(graph.role.to_owned(), error.stats());
        layers.extend(candidate.describe(graph.layer_reports(written, precision)?));
    }
    step("measuring the test image", 0, 1)?;
    let fp32 = open(&bundle, Arc::new(Tract), Precision::Fp32)?;
    let (reference, dim) = quantization_check::answers(&fp32)?;
    let reference_file = npy_bytes(&reference, dim)?;
    let trial = session.trial(&candidate.models)?;
    let check = quantization_check::measure(&trial.bundle, precision, &reference)?;
    let (mut references, outputs) = references::of(&bundle)?;
    let errors = references::errors(&trial.bundle, precision, &outputs)?;
    if !request.keep {
        references.errors.clear();
    }
    references.errors.insert(precision, errors);
    let head = match evaluate {
        Some(evaluate) => Some(head_accuracy(
            evaluate,
            &fp32,
            &trial.bundle,
            precision,
            &mut step,
        )?),
        None => None,
    };
    let timings = timings(
        &bundle,
        &trial.bundle,
        precision,
        &session.samples,
        &mut step,
    )?;
    let quantisation = Quantisation {
        tool: concat!("loftup ", env!("CARGO_PKG_VERSION")).into(),
        calibration: session.samples.calibration.clone(),
        max_error: request.max_error,
        error: candidate.error,
        graphs,
        fp32_layers: candidate.fp32_layers.clone(),
        head,
        check,
    };

    step("writing the bundle", 0, 1)?;
    let manifest = session.write(
        &mut writer,
        &candidate.models,
        request.keep,
        |writer, manifest| {
            writer.add(&quantisation.check.file, &reference_file)?;
            if bundle.manifest().references.is_none() {
                references::add(writer, &references, &outputs, manifest)?;
            }
            manifest.references = Some(references);
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
    let checks = guarded(|| verify(sealed));
    let checks = checks.map_err(|what| failed("runs", what))?;
    if let Some(check) = checks.iter().find(|c| !c.passed) {
        return Err(failed(&check.name, check.to_string()));
    }
    let report = Report {
        bundle: request.bundle.clone(),
        out: request.out.clone(),
        precision,
        worst: candidate.worst,
        worst_image: session.samples.samples[candidate.worst.image].path.clone(),
        layers,
        notes: candidate.notes,
        timings,
        files,
        quantisation,
    };
    writer.commit()?;
    Ok(report)
}

fn head_accuracy(
    evaluate: HeadEvaluator<'_>,
    fp32: &Perceptor,
    trial: &Bundle,
    precision: Precision,
    step: Step<'_>,
) -> Result<HeadAccuracy, QuantizeError> {
    step("judging the head in 32 bits", 0, 1)?;
    let before = evaluate(fp32).map_err(QuantizeError::Score)?;
    step("judging the head as written", 0, 1)?;
    let written = open(trial, Arc::new(AsWritten), precision)?;
    let after = evaluate(&written).map_err(QuantizeError::Score)?;
    Ok(HeadAccuracy {
        name: before.head,
        images: before.images,
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
