//! Reference outputs: made when a bundle is, compared with when it is verified.

use std::{collections::BTreeMap, sync::Arc};

use loftup_bundle::{
    Bundle, BundleError, BundleWriter, Manifest, PartErrors, Precision, ReferenceOutputs,
    References,
};
use loftup_runtime::{
    ExecutionOptions, Perceptor, RuntimeError,
    backend::{Backend, CpuBackend},
    references::error_of,
};

use crate::{Check, fake_quantize::AsWritten};

/// The reference outputs of `bundle`: its own, or computed on the CPU from its 32-bit graphs where
/// it was made before bundles had any.
///
/// # Errors
/// Where a graph does not run, or the bundle's own are damaged.
pub(crate) fn of(bundle: &Bundle) -> Result<(References, ReferenceOutputs), RuntimeError> {
    if let (Some(references), Some(outputs)) =
        (&bundle.manifest().references, bundle.reference_outputs()?)
    {
        return Ok((references.clone(), outputs));
    }
    let references = References {
        file: References::FILE.into(),
        tool: concat!("loftup ", env!("CARGO_PKG_VERSION")).into(),
        errors: BTreeMap::new(),
    };
    let fp32 = perceptor(bundle, Arc::new(CpuBackend), Precision::Fp32)?;
    Ok((references, fp32.reference_outputs()?))
}

/// Adds the file of reference outputs to a bundle under construction.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn add(
    writer: &mut BundleWriter,
    references: &References,
    outputs: &ReferenceOutputs,
    manifest: &Manifest,
) -> Result<(), BundleError> {
    let bytes = outputs.to_bytes(manifest);
    let bytes = bytes.map_err(|what| BundleError::Damaged {
        path: references.file.clone().into(),
        what,
    })?;
    writer.add(&references.file, &bytes)
}

/// The error of one precision of a bundle, run as it is written, against reference outputs.
///
/// # Errors
/// Where a graph does not run.
pub(crate) fn errors(
    bundle: &Bundle,
    precision: Precision,
    reference: &ReferenceOutputs,
) -> Result<PartErrors, RuntimeError> {
    let found = perceptor(bundle, Arc::new(AsWritten), precision)?.reference_outputs()?;
    let manifest = bundle.manifest();
    let error = |found: Option<Vec<f32>>, reference: &Option<Vec<f32>>, dim: Option<usize>| {
        Some(error_of(&found?, reference.as_ref()?, dim?))
    };
    let backbone = manifest.backbone.as_ref().map(|b| b.dim);
    let upsampler = manifest.upsampler.as_ref().map(|u| u.dim);
    Ok(PartErrors {
        backbone: error(found.backbone, &reference.backbone, backbone),
        upsampler: error(found.upsampler, &reference.upsampler, upsampler),
    })
}

fn perceptor(
    bundle: &Bundle,
    engine: Arc<dyn Backend>,
    precision: Precision,
) -> Result<Perceptor, RuntimeError> {
    Perceptor::with_precision(
        bundle.clone(),
        engine,
        ExecutionOptions::default(),
        precision,
    )
}

/// Compares every precision of a bundle with its reference outputs: on the CPU, and on `backend`
/// in the precisions that it can run.
pub(crate) fn checks(
    bundle: &Bundle,
    backend: &Arc<dyn Backend>,
) -> Result<Vec<Check>, RuntimeError> {
    if bundle.manifest().references.is_none() {
        log::warn!(
            "{}: the bundle has no reference outputs; convert it again with this version",
            bundle.path().display()
        );
        return Ok(Vec::new());
    }
    let mut engines: Vec<Arc<dyn Backend>> = vec![Arc::new(CpuBackend)];
    if backend.health().answering != CpuBackend.name() {
        engines.push(backend.clone());
    }
    let mut checks = Vec::new();
    for engine in engines {
        let name = engine.describe();
        for precision in bundle.manifest().precisions() {
            for c in perceptor(bundle, engine.clone(), precision)?.compare_with_references()? {
                let name = format!(
                    "{} in {precision} on {name}: matches the reference outputs ({})",
                    c.part, c.asked
                );
                checks.push(Check::error(&name, c.found, c.allowed));
            }
        }
    }
    Ok(checks)
}
