//! Reference outputs: stored when a bundle is created, compared when it is verified.

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

/// The reference outputs of `bundle`, computed on the CPU from its fp32 graphs if it does not contain
/// any.
///
/// # Errors
/// If a graph does not run, or the stored outputs are damaged.
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

/// Adds the file of reference outputs to a bundle that is being written.
///
/// # Errors
/// If it cannot be written.
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

/// The error of one precision of a bundle, fake-quantized, against reference outputs.
///
/// # Errors
/// If a graph does not run.
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
    backend: Arc<dyn Backend>,
    precision: Precision,
) -> Result<Perceptor, RuntimeError> {
    Perceptor::with_precision(
        bundle.clone(),
        backend,
        ExecutionOptions::default(),
        precision,
    )
}

/// Compares every precision of a bundle with its reference outputs, on the CPU and on `backend`.
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
    let mut backends: Vec<Arc<dyn Backend>> = vec![Arc::new(CpuBackend)];
    if backend.health().answering != CpuBackend.name() {
        backends.push(backend.clone());
    }
    let mut checks = Vec::new();
    for backend in backends {
        let name = backend.describe();
        for precision in bundle.manifest().precisions() {
            for c in perceptor(bundle, backend.clone(), precision)?.compare_with_references()? {
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
