//! Post-training quantization of bundles, with measured errors.
//!
//! The fp32 bundle is run on calibration images, and the inputs of its graphs are recorded. Each
//! graph is rewritten (`loftup_onnx::rewrite`) and run on the same inputs, rounding included: the
//! errors in the manifest are measured, not estimated.

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

use loftup_bundle::{Bundle, BundleWriter, HeadAccuracy, Precision, Quantization, Size};
use loftup_runtime::{
    Perceptor,
    backend::{Backend, CpuBackend, TensorRt, tensorrt},
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

/// Progress: stage, steps done, total steps. Returning `Break` cancels the run.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize) -> ControlFlow<()>;

/// [`Progress`] with cancellation as an error.
type Step<'a> = &'a mut dyn FnMut(&str, usize, usize) -> Result<(), QuantizeError>;

/// Evaluates a head of a bundle on labeled images.
pub type HeadEvaluator<'a> = &'a mut dyn FnMut(&Perceptor) -> Result<Score, String>;

/// Accuracy of a head.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The head.
    pub head: String,
    /// Number of labeled images.
    pub images: u64,
    /// Mean IoU, 0 to 1.
    pub mean_iou: f64,
}

/// Quantization settings.
#[derive(Debug, Clone)]
pub struct Request {
    /// The fp32 bundle.
    pub bundle: PathBuf,
    /// Target precision.
    pub precision: Precision,
    /// Calibration images.
    pub images: Vec<PathBuf>,
    /// Input size; the backbone's default size if not given.
    pub size: Option<Size>,
    /// Whether EXIF orientation is applied.
    pub orientation: Orientation,
    /// Number of tiles compared per image.
    pub tiles: usize,
    /// Largest allowed relative error of the output, end to end.
    pub max_error: Option<f64>,
    /// Whether the new bundle also contains the precisions of the old one.
    pub keep: bool,
    /// Destination.
    pub out: PathBuf,
    /// Whether an existing bundle at `out` may be replaced.
    pub replace: bool,
}

/// Default limit of the relative error; `None` is no limit.
pub fn default_max_error(precision: Precision) -> Option<f64> {
    match precision {
        Precision::Fp16 => Some(0.0075),
        Precision::Int8 => Some(0.05),
        Precision::Fp32 | Precision::Fp16Weights => None,
    }
}

/// Returns at most `most` of the images, evenly spaced.
pub fn spread(images: Vec<PathBuf>, most: usize) -> Vec<PathBuf> {
    let count = most.min(images.len());
    (0..count)
        .map(|i| images[i * images.len() / count].clone())
        .collect()
}

/// Quantizes a bundle, measures the errors, verifies the result and moves it to its destination.
///
/// # Errors
/// The message names the file, the tensor and a remedy. No files are left behind.
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
        let stage = format!("{}: measuring its error", graph.role);
        let error = graph.error(written, bundle.manifest(), &mut |i, n| step(&stage, i, n))?;
        graphs.insert(graph.role.to_owned(), error.stats());
        layers.extend(candidate.describe(graph.layer_reports(written, precision)?));
    }
    step("measuring the test image", 0, 1)?;
    let fp32 = open(&bundle, Arc::new(CpuBackend), Precision::Fp32)?;
    let (reference, dim) = quantization_check::sample_outputs(&fp32)?;
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
    let quantization = Quantization {
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
            writer.add(&quantization.check.file, &reference_file)?;
            if bundle.manifest().references.is_none() {
                references::add(writer, &references, &outputs, manifest)?;
            }
            manifest.references = Some(references);
            manifest
                .quantization
                .insert(precision, quantization.clone());
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
        quantization,
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
    step("evaluating the head in fp32", 0, 1)?;
    let before = evaluate(fp32).map_err(QuantizeError::Score)?;
    step("evaluating the quantized head", 0, 1)?;
    let written = open(trial, Arc::new(AsWritten), precision)?;
    let after = evaluate(&written).map_err(QuantizeError::Score)?;
    Ok(HeadAccuracy {
        name: before.head,
        images: before.images,
        mean_iou_before: before.mean_iou,
        mean_iou_after: after.mean_iou,
    })
}

/// Time per frame on every available backend.
fn timings(
    fp32: &Bundle,
    trial: &Bundle,
    precision: Precision,
    samples: &Samples,
    step: Step<'_>,
) -> Result<Vec<Timing>, QuantizeError> {
    step("timing frames", 0, 1)?;
    let sample = &samples.samples[0];
    let mut engines: Vec<Arc<dyn Backend>> = vec![Arc::new(CpuBackend)];
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

/// `[pixels, d]` as a `.npy` file.
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
