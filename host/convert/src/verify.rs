//! The checks that a bundle must pass.

use std::sync::Arc;

use loftup_bundle::{Bundle, Precision, Size, UpsamplerKind};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Features, ImageTensor, Perceptor, Point, Rect, RuntimeError,
    backend::{Arithmetic, Backend, CpuBackend, TractBackend, compile_once},
    references::{test_features, test_image},
    sinks::VecSink,
};
use loftup_spec::io;

use crate::{
    Check,
    compare::{Difference, Tolerance},
    quantization_check, references,
};

/// Grid and guidance of the upsampler checks: odd, not square, several tiles.
const GRID: Size = Size {
    width: 5,
    height: 4,
};
/// Grid for NAF, which needs at least 9 cells per side.
const NAF_GRID: Size = Size {
    width: 11,
    height: 9,
};
const GUIDANCE: Size = Size {
    width: 43,
    height: 29,
};

/// [`verify_with`] on the CPU.
///
/// # Errors
/// If a graph cannot be run.
pub fn verify(bundle: Bundle) -> Result<Vec<Check>, RuntimeError> {
    verify_with(bundle, Arc::new(CpuBackend))
}

/// Runs every graph of a bundle whose files have been checked. Outputs must be finite, tiles must
/// match the whole graph, NAF's graphs must match its kernels, regions and points must match the
/// frame, every precision must match the reference outputs on the CPU and on `backend`, and the error
/// of a quantized bundle must not exceed the error in its manifest. The whole graph always runs on the
/// CPU. A CPU backend with products of fewer than 32 bits is only compared with the reference outputs.
///
/// # Errors
/// If a graph cannot be run.
pub fn verify_with(bundle: Bundle, backend: Arc<dyn Backend>) -> Result<Vec<Check>, RuntimeError> {
    let mut checks = vec![Check::passed(
        "every file has the SHA-256 in the manifest",
        true,
    )];
    let manifest = bundle.manifest().clone();
    let whole = manifest
        .upsampler
        .as_ref()
        .and_then(|u| u.graphs.get(&Precision::Fp32)?.whole.as_ref())
        .map(|name| Ok::<_, RuntimeError>((name.clone(), bundle.read(name)?)))
        .transpose()?;
    let (again, engine) = (bundle.clone(), backend.clone());
    let options = ExecutionOptions {
        tile: Some(16),
        ..ExecutionOptions::default()
    };
    let mut perceptor = Perceptor::with_backend(bundle, backend, options)?;
    let precision = perceptor.precision();
    if let Some(Arithmetic::Products(_)) = engine.arithmetic(precision) {
        // With narrow products, activations are rounded tile by tile, so tiles would not match.
        let cpu = Arc::new(CpuBackend);
        perceptor = Perceptor::with_precision(again.clone(), cpu, options, precision)?;
    }

    if let Some(backbone) = &manifest.backbone {
        let features = perceptor.features(&test_image(backbone.size))?;
        let finite = features.tokens.iter().all(|x| x.is_finite());
        checks.push(Check::passed(
            "backbone: features of a test image are finite",
            finite,
        ));
    }
    if let Some(upsampler) = &manifest.upsampler {
        let dim = upsampler.dim;
        let grid = match upsampler.kind {
            UpsamplerKind::LoftUp => GRID,
            UpsamplerKind::Naf => NAF_GRID,
        };
        let features = test_features(dim, grid);
        let image = test_image(GUIDANCE);
        let view = perceptor.encode_features(&features, &image, ColorRange::PerImage)?;
        let all = Rect::whole(GUIDANCE);
        let mut frame = VecSink::new(all, dim)?;
        view.frame(&mut |tile| frame.push(tile))?;
        let frame = frame.to_map();
        checks.push(Check::passed(
            "upsampler: features of a test image are finite",
            frame.iter().all(|x| x.is_finite()),
        ));

        let rect = Rect {
            x: 3,
            y: 5,
            width: 21,
            height: 19,
        };
        let mut region = VecSink::new(rect, dim)?;
        view.region(rect, &mut |tile| region.push(tile))?;
        let expected = crop(&frame, all, rect);
        let difference = Difference::between(&region.to_map(), &expected, dim);
        checks.push(Check::within(
            "upsampler: a region matches the frame",
            difference,
            Tolerance::TILES,
        ));

        let points = [(0, 0), (42, 28), (17, 9), (0, 28)].map(|(x, y)| Point { x, y });
        let output = view.points(&points)?;
        let expected: Vec<f32> = points
            .iter()
            .flat_map(|p| {
                crop(
                    &frame,
                    all,
                    Rect {
                        x: p.x,
                        y: p.y,
                        width: 1,
                        height: 1,
                    },
                )
            })
            .collect();
        // Both are token-major, so each point is compared as a map of one pixel.
        let worst = output
            .chunks_exact(dim)
            .zip(expected.chunks_exact(dim))
            .filter_map(|(a, b)| Difference::between(a, b, dim))
            .max_by(|a, b| a.max.total_cmp(&b.max));
        checks.push(Check::within(
            "upsampler: points match the frame",
            worst,
            Tolerance::TILES,
        ));

        if upsampler.kind == UpsamplerKind::Naf && !upsampler.graphs.is_empty() {
            // For other engines; the CPU has kernels.
            let graphs = Perceptor::with_backend(again.clone(), Arc::new(TractBackend), options)?;
            let view = graphs.encode_features(&features, &image, ColorRange::PerImage)?;
            let mut found = VecSink::new(all, dim)?;
            view.frame(&mut |tile| found.push(tile))?;
            checks.push(Check::within(
                "upsampler: its graphs match the kernels",
                Difference::between(&found.to_map(), &frame, dim),
                Tolerance::TILES,
            ));
        }

        if let Some((name, onnx)) = whole {
            let whole = run_whole(&name, &onnx, &features, &image)?;
            let difference = Difference::between(&frame, &whole, dim);
            checks.push(Check::within(
                "upsampler: tiles match the whole graph",
                difference,
                Tolerance::UPSAMPLER,
            ));
        }
    }
    checks.extend(references::checks(&again, &engine)?);
    checks.extend(quantization_check::checks(&again, &engine)?);
    Ok(checks)
}

/// Compares an output `[d, ...]` with a reference.
pub fn against(output: &[f32], reference: &[f32], dim: usize, tolerance: Tolerance) -> Check {
    Check::within(
        "the output matches the reference",
        Difference::between(output, reference, dim),
        tolerance,
    )
}

/// The whole upsampler on the CPU.
fn run_whole(
    name: &str,
    onnx: &[u8],
    features: &Features,
    image: &ImageTensor,
) -> Result<Vec<f32>, RuntimeError> {
    let Size { width, height } = image.size;
    let plan = compile_once(
        &CpuBackend,
        name,
        onnx,
        &[
            (
                io::FEATURES,
                &[1, features.dim, features.height, features.width],
            ),
            (io::GUIDANCE, &[1, 3, height, width]),
        ],
        &[io::UPSAMPLED],
    )?;
    let mut session = plan.session()?;
    session.set(0, &features.to_map())?;
    session.set(1, &image.data)?;
    session.run()?;
    Ok(session.output(0).to_vec())
}

/// The part `rect` of planes `[d, H, W]` that cover `all`.
fn crop(planes: &[f32], all: Rect, rect: Rect) -> Vec<f32> {
    planes
        .chunks_exact(all.area())
        .flat_map(|plane| {
            (rect.y..rect.y + rect.height).flat_map(|y| {
                plane[y * all.width + rect.x..][..rect.width]
                    .iter()
                    .copied()
            })
        })
        .collect()
}
