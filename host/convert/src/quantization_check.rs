//! The loss that can be measured again without the calibration pictures: on the built-in test
//! picture, against answers of the 32-bit graphs that are kept in the bundle.

use std::sync::Arc;

use loftup_bundle::{Bundle, CheckError, Precision, Quantisation, Size};
use loftup_runtime::{
    ColourRange, Options, Perceptor, Point, RuntimeError,
    backend::{Backend, Tract},
    npy,
    references::test_picture,
};

use crate::{Check, fake_quantize::AsWritten};

/// Places of the answer that are kept.
const PLACES: usize = 64;

/// The file with the answers.
pub(crate) fn file_name(precision: Precision) -> String {
    format!("check-{precision}.npy")
}

/// Features of the test picture at some places, `[places, d]`, and `d`.
pub(crate) fn answers(perceptor: &Perceptor) -> Result<(Vec<f32>, usize), RuntimeError> {
    let manifest = perceptor.manifest();
    let size = match &manifest.backbone {
        Some(backbone) => backbone.size,
        // Says what is missing.
        None => perceptor.backbone_size(Size {
            width: 1,
            height: 1,
        })?,
    };
    let picture = test_picture(size);
    let features = perceptor.features_of(&picture)?;
    let dim = features.dim;
    // Spread by a step that shares no factor with the number of places.
    let spread = |count: usize| {
        let kept = PLACES.min(count);
        (0..kept).map(move |i| i * count / kept)
    };
    if manifest.upsampler.is_none() {
        let cells = features.height * features.width;
        let cell = |i: usize| (0..dim).map(move |c| c * cells + i);
        let values = spread(cells).flat_map(cell).map(|at| features.data[at]);
        return Ok((values.collect(), dim));
    }
    let view = perceptor.view(&features, &picture, ColourRange::PerImage)?;
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

/// Relative error of `found`.
pub(crate) fn apart(found: &[f32], reference: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let differences = found.iter().zip(reference);
    let above: f64 = differences
        .map(|(a, b)| square(f64::from(*a) - f64::from(*b)))
        .sum();
    let below: f64 = reference.iter().map(|b| square(f64::from(*b))).sum();
    (above / below.max(f64::MIN_POSITIVE)).sqrt()
}

/// Measures both versions of a bundle against `reference`.
pub(crate) fn measure(
    bundle: &Bundle,
    precision: Precision,
    reference: &[f32],
) -> Result<CheckError, RuntimeError> {
    let error = |backend: Arc<dyn Backend>| {
        let perceptor =
            Perceptor::with_precision(bundle.clone(), backend, Options::default(), precision)?;
        Ok::<_, RuntimeError>(apart(&answers(&perceptor)?.0, reference))
    };
    Ok(CheckError {
        file: file_name(precision),
        as_written: error(Arc::new(AsWritten))?,
        fp32: error(Arc::new(Tract))?,
    })
}

/// Checks that a bundle costs no more than it says: its graphs as they are written, and on
/// `backend`.
pub(crate) fn checks(
    bundle: &Bundle,
    backend: &Arc<dyn Backend>,
) -> Result<Vec<Check>, RuntimeError> {
    let mut checks = Vec::new();
    for (precision, quantisation) in &bundle.manifest().quantisation {
        let says = &quantisation.check;
        let reference = npy::read(&bundle.path().join(&says.file))?.data;
        let found = measure(bundle, *precision, &reference)?;
        checks.push(costs(
            *precision,
            "as written",
            found.as_written,
            says.as_written,
        ));
        checks.push(costs(*precision, "on the CPU", found.fp32, says.fp32));
        if backend.health().answering != Tract.name() {
            checks.push(on_backend(
                bundle,
                backend,
                *precision,
                quantisation,
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
    quantisation: &Quantisation,
    reference: &[f32],
) -> Result<Check, RuntimeError> {
    let options = Options::default();
    let perceptor = Perceptor::with_precision(bundle.clone(), backend.clone(), options, precision)?;
    let found = apart(&answers(&perceptor)?.0, reference);
    // It may round at other places than the graph says, between fused layers for one.
    let says = 1.5 * quantisation.check.as_written;
    Ok(costs(precision, "on the engine", found, says))
}

/// Engines sum in other orders; what lies on the edge between two levels falls to either side.
const SLACK: f64 = 1.05;
/// What two engines are apart on the 32-bit graphs, and then some.
const FLOOR: f64 = 1e-3;

fn costs(precision: Precision, how: &str, found: f64, says: f64) -> Check {
    Check::most(
        &format!("{precision} {how}: relative error on the test picture"),
        found,
        says * SLACK + FLOOR,
    )
}
