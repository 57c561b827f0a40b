//! Smaller, faster bundles, and what they cost.
//!
//! The 32-bit bundle is run on calibration pictures; what its graphs are fed with is kept. Each
//! graph is rewritten (`loftup_onnx::rewrite`), and the written graph is run on the same
//! values, rounding included: what is recorded in the manifest was measured, not estimated.

mod backends;
mod error;
mod graph;
mod half;
mod int8;
mod loss;
mod pictures;
mod quantizer;
mod ranges;
mod report;
mod rewrite;
mod search;
mod trials;
mod versions;
mod writing;

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use loftup_bundle::{Bundle, BundleWriter, HeadLoss, Precision, Quantisation, Size};
use loftup_runtime::{
    Perceptor,
    backend::{Backend, TensorRt, Tract, tensorrt},
    image::Orientation,
    npy,
};

pub use self::{
    error::QuantizeError,
    graph::LayerReport,
    loss::Worst,
    ranges::Calibrator,
    report::{FileSize, Report, Timing},
};

pub use crate::emulation::AsWritten;
use crate::{guard::guarded, quantization_check, references, verify};

use self::{
    pictures::{Samples, frame_seconds},
    versions::{Work, open},
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
    /// Which way up they are read.
    pub orientation: Orientation,
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

    let mut graphs = BTreeMap::new();
    let mut layers = Vec::new();
    for (graph, written) in work.graphs.iter().zip(&version.models) {
        let stage = format!("{}: measuring it alone", graph.role);
        let loss = graph.loss(written, bundle.manifest(), &mut |i, n| step(&stage, i, n))?;
        graphs.insert(graph.role.to_owned(), loss.loss());
        layers.extend(version.describe(graph.layer_reports(written, precision)?));
    }
    step("measuring the test picture", 0, 1)?;
    let fp32 = open(&bundle, Arc::new(Tract), Precision::Fp32)?;
    let (reference, dim) = quantization_check::answers(&fp32)?;
    let reference_file = npy_bytes(&reference, dim)?;
    let trial = work.trial(&version.models)?;
    let check = quantization_check::measure(&trial.bundle, precision, &reference)?;
    let (mut references, outputs) = references::of(&bundle)?;
    let errors = references::errors(&trial.bundle, precision, &outputs)?;
    if !request.keep {
        references.errors.clear();
    }
    references.errors.insert(precision, errors);
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
