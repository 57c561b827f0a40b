//! Compares the engine of a whole frame with the perceptor.

use loftup_bundle::Size;

use super::FrameEngineQuery;
use crate::{
    Frame, Perceptor, Query, RuntimeError,
    backend::{Arithmetic, Backend, BackendError, Fallback, Graph},
    references::{Part, allowed_error, error_of, hash},
};

/// Compares the outputs of the preferred engine of `backend` for a test image with those of `perceptor`. An
/// engine with other outputs is not used again, nor is one that fails here.
///
/// # Errors
/// The perceptor fails.
pub(super) fn check(
    perceptor: &Perceptor,
    backend: &Fallback,
    graph: &Graph,
    query: &FrameEngineQuery,
) -> Result<(), RuntimeError> {
    let failed_before = backend.health().reason().map(str::to_owned);
    if let Some(reason) = failed_before {
        return refuse(backend, graph, reason);
    }
    if perceptor.bundle.reference_outputs()?.is_none() {
        log::warn!(
            "{}: has no reference outputs, so the outputs of the engine for whole frames are not verified; convert the bundle again with this version",
            perceptor.bundle.path().display()
        );
        return Ok(());
    }
    let Size { width, height } = query.camera;
    let image = test_image(query.camera);
    let plan = backend
        .load(graph)?
        .compile(&[vec![1, height, width, 3]], &[])?;
    let mut session = plan.session()?;
    session.set_bytes(0, &image)?;
    session.run()?;
    let failed = backend.health().reason().map(str::to_owned);
    if let Some(reason) = failed {
        return refuse(backend, graph, reason);
    }
    let wanted = Query::frame(query.size).with_head(&query.head);
    let expected = perceptor.perceive(
        &Frame::packed(&image, width, height),
        &wanted.with_color_range(query.range),
    )?;
    let (classes, scores) = (session.output_bytes(0), session.output(1));

    let found = error_of(scores, &expected.values, expected.dim).relative_error;
    let arithmetic = backend.arithmetic(perceptor.precision());
    let arithmetic = arithmetic.unwrap_or(Arithmetic::Fp32);
    // The engines of both sides have the error of the backbone and that of the upsampler.
    let allowed: f64 = [Part::Backbone, Part::Upsampler]
        .into_iter()
        .map(|part| allowed_error(perceptor, part, arithmetic).relative_error)
        .sum();
    let allowed = 2.0 * allowed;
    let not_best = (classes.iter().zip(scores.chunks_exact(expected.dim)))
        .filter(|(class, scores)| {
            let best = scores.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            scores.get(usize::from(**class)) != Some(&best)
        })
        .count();
    let what = format!(
        "scores of a test image: relative error {found:.2e}, allowed {allowed:.2e}; {not_best} of {} classes without the largest score",
        classes.len()
    );
    if found <= allowed && not_best == 0 && classes.len() == query.size.area() {
        log::info!("{} matches the steps: {what}", graph.name);
        return Ok(());
    }
    Ok(backend.distrust(BackendError::Wrong {
        engine: backend.describe(),
        graph: graph.name.to_string(),
        what,
    })?)
}

/// Never uses the engine, since its outputs could not be compared.
fn refuse(backend: &Fallback, graph: &Graph, reason: String) -> Result<(), RuntimeError> {
    Ok(backend.distrust(BackendError::Run {
        backend: "frame engine",
        graph: graph.name.to_string(),
        what: format!("not used because it failed before its outputs could be compared: {reason}"),
    })?)
}

/// A camera image with edges, gradients and texture, identical on every machine.
fn test_image(Size { width, height }: Size) -> Vec<u8> {
    let mut data = Vec::with_capacity(3 * width * height);
    for i in 0..width * height {
        let (x, y) = (i % width, i / width);
        for c in 0..3 {
            let block = (x * 32 / width + y * 24 / height + c) % 3 * 70;
            let gradient = [x * 60 / width, y * 60 / height, 30][c];
            let texture = (hash(3 * i + c) * 50.0) as usize;
            data.push((block + gradient + texture).min(255) as u8);
        }
    }
    data
}
