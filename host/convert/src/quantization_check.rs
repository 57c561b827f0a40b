//! The quantization error that can be measured without calibration images: on the built-in test
//! image, against fp32 outputs stored in the bundle.

use std::sync::Arc;

use loftup_bundle::{Bundle, CheckError, Precision, Quantization, Size};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Perceptor, Point, RuntimeError,
    backend::{Backend, CpuBackend},
    npy,
    references::test_image,
};

use crate::{Check, fake_quantize::AsWritten};

/// Number of output pixels that are stored.
const SAMPLES: usize = 64;

/// File name of the stored outputs.
pub(crate) fn file_name(precision: Precision) -> String {
    format!("check-{precision}.npy")
}

/// Features of the test image at some pixels, `[pixels, d]`, and `d`.
pub(crate) fn sample_outputs(perceptor: &Perceptor) -> Result<(Vec<f32>, usize), RuntimeError> {
    let manifest = perceptor.manifest();
    let size = match &manifest.backbone {
        Some(backbone) => backbone.size,
        // The error names the missing part.
        None => perceptor.backbone_size(Size {
            width: 1,
            height: 1,
        })?,
    };
    let image = test_image(size);
    let features = perceptor.features(&image)?;
    let dim = features.dim;
    // Evenly spread.
    let spread = |count: usize| {
        let kept = SAMPLES.min(count);
        (0..kept).map(move |i| i * count / kept)
    };
    if manifest.upsampler.is_none() {
        let cells = features.height * features.width;
        let token = |i: usize| features.tokens[i * dim..][..dim].iter().copied();
        return Ok((spread(cells).flat_map(token).collect(), dim));
    }
    let view = perceptor.encode_features(&features, &image, ColorRange::PerImage)?;
    let point = |i: usize| {
        // Rows in order, columns scattered.
        Point {
            x: i * 37 % size.width,
            y: i / size.width,
        }
    };
    let points: Vec<Point> = spread(size.area()).map(point).collect();
    Ok((view.points(&points)?, dim))
}

/// Relative error of `found` against `reference`.
pub(crate) fn relative_error(found: &[f32], reference: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let differences = found.iter().zip(reference);
    let above: f64 = differences
        .map(|(a, b)| square(f64::from(*a) - f64::from(*b)))
        .sum();
    let below: f64 = reference.iter().map(|b| square(f64::from(*b))).sum();
    (above / below.max(f64::MIN_POSITIVE)).sqrt()
}

/// Error of the quantized graphs against `reference`: fake-quantized, and with rounded weights in
/// fp32.
pub(crate) fn measure(
    bundle: &Bundle,
    precision: Precision,
    reference: &[f32],
) -> Result<CheckError, RuntimeError> {
    let error = |backend: Arc<dyn Backend>| {
        let perceptor = Perceptor::with_precision(
            bundle.clone(),
            backend,
            ExecutionOptions::default(),
            precision,
        )?;
        Ok::<_, RuntimeError>(relative_error(&sample_outputs(&perceptor)?.0, reference))
    };
    Ok(CheckError {
        file: file_name(precision),
        as_written: error(Arc::new(AsWritten))?,
        fp32: error(Arc::new(CpuBackend))?,
    })
}

/// Checks that the errors do not exceed those in the manifest: fake-quantized, on the CPU, and on
/// `backend`.
pub(crate) fn checks(
    bundle: &Bundle,
    backend: &Arc<dyn Backend>,
) -> Result<Vec<Check>, RuntimeError> {
    let mut checks = Vec::new();
    for (precision, quantization) in &bundle.manifest().quantization {
        let recorded = &quantization.check;
        let reference = npy::read(&bundle.path().join(&recorded.file))?.data;
        let found = measure(bundle, *precision, &reference)?;
        checks.push(check(
            *precision,
            "as written",
            found.as_written,
            recorded.as_written,
        ));
        checks.push(check(*precision, "on the CPU", found.fp32, recorded.fp32));
        if backend.health().answering != CpuBackend.name() {
            checks.push(on_backend(
                bundle,
                backend,
                *precision,
                quantization,
                &reference,
            )?);
        }
    }
    Ok(checks)
}

fn on_backend(
    bundle: &Bundle,
    backend: &Arc<dyn Backend>,
    precision: Precision,
    quantization: &Quantization,
    reference: &[f32],
) -> Result<Check, RuntimeError> {
    let options = ExecutionOptions::default();
    let perceptor = Perceptor::with_precision(bundle.clone(), backend.clone(), options, precision)?;
    let found = relative_error(&sample_outputs(&perceptor)?.0, reference);
    // A backend may round at other places than the graph, for example between fused layers.
    let limit = 1.5 * quantization.check.as_written;
    Ok(check(precision, "on the backend", found, limit))
}

/// Backends sum in different orders, and a value between two quantization levels may round either way.
const SLACK: f64 = 1.05;
/// Error that is always allowed: above the difference between two backends on the fp32 graphs.
const FLOOR: f64 = 1e-3;

fn check(precision: Precision, how: &str, found: f64, recorded: f64) -> Check {
    Check::at_most(
        &format!("{precision} {how}: relative error on the test image"),
        found,
        recorded * SLACK + FLOOR,
    )
}
