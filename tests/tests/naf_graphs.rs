//! NAF's graphs give what the kernels give, whichever part of a frame is asked for, and an engine that
//! fails or is wrong is replaced by the kernels.

use std::{path::Path, sync::Arc, time::Duration};

use loftup_bundle::{
    Bundle, BundleWriter, HeadKind, Linear, Normalization, Precision, References, Size, Upsampler,
};
use loftup_import::bundle as new;
use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, Perceptor, Point, Rect,
    backend::{
        Arithmetic, Backend, BackendError, CpuBackend, Fallback, FallbackOptions, Graph, Model,
        TractBackend,
        fault::{Fault, Faults, Faulty},
    },
    heads::Head,
    sinks::VecSink,
};
use loftup_spec::{SplitMix64, naf::NafWeights};
use loftup_tests::{
    frames::worst,
    naf::{around, inputs},
    wrong::{Outputs, Wrong},
};

/// A bundle with only NAF, with reference outputs.
fn bundle(folder: &Path, dim: usize, change: impl FnOnce(&mut Upsampler)) -> Bundle {
    let path = folder.join(format!("naf-{dim}.loftup"));
    let mut writer = BundleWriter::create(&path, true).unwrap();
    let mut upsampler = new::add_naf(&mut writer, &NafWeights::random(7), dim, None).unwrap();
    change(&mut upsampler);
    let normalization = Normalization {
        mean: [0.5, 0.4, 0.45],
        std: [0.5, 0.25, 0.3],
    };
    let mut manifest = new::manifest(normalization, None, Some(upsampler), Vec::new(), None);
    let sealed = Bundle::open(writer.seal(manifest.clone()).unwrap()).unwrap();
    let outputs = open(&sealed, Arc::new(CpuBackend), None);
    let outputs = outputs.reference_outputs().unwrap();
    let references = References {
        file: References::FILE.into(),
        tool: "test".into(),
        errors: Default::default(),
    };
    let bytes = outputs.to_bytes(&manifest).unwrap();
    writer.add(&references.file, &bytes).unwrap();
    manifest.references = Some(references);
    writer.seal(manifest).unwrap();
    writer.commit().unwrap();
    Bundle::open(&path).unwrap()
}

fn open(bundle: &Bundle, backend: Arc<dyn Backend>, tile: Option<usize>) -> Perceptor {
    let options = ExecutionOptions { threads: 1, tile };
    Perceptor::with_backend(bundle.clone(), backend, options).unwrap()
}

/// The frame, a region and points, one after the other.
fn all_of(view: &EncodedFrame<'_>) -> Vec<f32> {
    let Size { width, height } = view.size();
    let mut found = VecSink::new(Rect::whole(view.size()), view.dim()).unwrap();
    view.frame(&mut |tile| found.push(tile)).unwrap();
    let mut values = found.into_values();
    let rect = Rect {
        x: width / 3,
        y: height / 2,
        width: width / 3,
        height: height / 2,
    };
    let mut found = VecSink::new(rect, view.dim()).unwrap();
    view.region(rect, &mut |tile| found.push(tile)).unwrap();
    values.extend(found.values());
    let corners = [(0, 0), (width - 1, height - 1), (width - 1, 0)];
    let points = corners.map(|(x, y)| Point { x, y });
    values.extend(view.points(&points).unwrap());
    values
}

fn head(kind: HeadKind, dim: usize) -> Head {
    let mut random = SplitMix64::new(3);
    let rows = kind.rows();
    let linear = Linear {
        inputs: dim,
        weight: around(&mut random, 1.0, rows * dim),
        bias: around(&mut random, 0.5, rows),
    };
    let file = String::new();
    Head::new(loftup_bundle::Head { kind, dim, file }, linear).unwrap()
}

fn heads(dim: usize) -> Vec<Head> {
    let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let classes = |n| HeadKind::Classes { names: names(n) };
    let words = HeadKind::Words {
        names: names(4),
        negative: names(2),
        threshold: None,
    };
    // One output; more than there are channels; more than an engine is built for.
    let kinds = [classes(1), classes(19), classes(70), words];
    kinds.into_iter().map(|kind| head(kind, dim)).collect()
}

#[test]
fn graphs_and_kernels_give_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (dim, grid, size, tile) in [
        // Multiples of the grid: one tile, and tiles that end within a cell, down to one pixel.
        (8, (9, 10), (27, 40), None),
        (8, (9, 10), (27, 40), Some(16)),
        (12, (9, 9), (9, 9), Some(4)),
        (4, (9, 13), (18, 13), Some(1)),
        (20, (12, 9), (84, 63), Some(50)),
        // Others, where groups of pixels are smaller than cells.
        (12, (9, 11), (31, 47), Some(20)),
        (4, (13, 10), (13, 19), None),
    ] {
        let bundle = bundle(folder.path(), dim, |_| {});
        let (features, image) = inputs(11, dim, grid, size);
        let (kernels, graphs) = (
            open(&bundle, Arc::new(CpuBackend), None),
            open(&bundle, Arc::new(TractBackend), tile),
        );
        let heads = heads(dim);
        for head in [None].into_iter().chain(heads.iter().map(Some)) {
            if head.is_some() && tile == Some(1) {
                continue;
            }
            let [expected, found] = [&kernels, &graphs].map(|perceptor| {
                let view = perceptor
                    .encode_features(&features, &image, ColorRange::PerImage)
                    .unwrap();
                match head {
                    Some(head) => all_of(&view.with_head(head).unwrap()),
                    None => all_of(&view),
                }
            });
            // No class is negative infinity on both sides.
            let finite = |v: &[f32]| v.iter().map(|x| x.max(-1e9)).collect::<Vec<_>>();
            let error = worst(&finite(&expected), &finite(&found));
            let asked = head.map_or("features".into(), |head| format!("{:?}", head.kind()));
            let asked: String = asked.chars().take(30).collect();
            println!("{grid:?} {size:?} in tiles of {tile:?}, {asked}: {error:.1e}");
            assert!(error <= 1e-4, "{grid:?} {size:?} {asked}: {error:.1e}");
        }
    }
}

const GRID: (usize, usize) = (9, 10);
const SIZE: (usize, usize) = (36, 40);

fn answer(perceptor: &Perceptor) -> Vec<f32> {
    let (features, image) = inputs(11, 8, GRID, SIZE);
    let view = perceptor.encode_features(&features, &image, ColorRange::PerImage);
    all_of(&view.unwrap())
}

fn fallback(engine: impl Backend + 'static) -> Arc<dyn Backend> {
    // tract takes seconds for what a GPU does in milliseconds.
    let options = FallbackOptions {
        run_limit: Duration::from_secs(120),
        start_limit: Duration::from_secs(120),
        ..FallbackOptions::default()
    };
    Arc::new(Fallback::new(
        Ok(Arc::new(engine)),
        Arc::new(CpuBackend),
        options,
    ))
}

#[test]
fn a_wrong_engine_is_replaced_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), 8, |_| {});
    let expected = answer(&open(&bundle, Arc::new(CpuBackend), None));
    // The right one passes, and runs.
    let right = fallback(Wrong {
        outputs: Outputs::None,
        by: 1.0,
    });
    let perceptor = open(&bundle, right, None);
    let error = worst(&answer(&perceptor), &expected);
    assert!(0.0 < error && error <= 1e-4, "{error:.1e}");
    assert!(perceptor.health().reason().is_none());
    let compared = perceptor.compare_with_references().unwrap();
    let asked: Vec<_> = compared.iter().map(|c| c.asked).collect();
    println!("{asked:?} {:?}", perceptor.health());
    assert!(asked.contains(&"points") && asked.contains(&"head, points"));
    for c in &compared {
        println!("{}: {c}", c.asked);
        assert!(c.passed() && c.graphs == "keys.onnx and queries.onnx");
    }
    for (file, by) in [("keys.onnx", 1.05), ("queries.onnx", 0.99)] {
        let outputs = Outputs::OfGraph(file);
        let perceptor = open(&bundle, fallback(Wrong { outputs, by }), None);
        assert!(answer(&perceptor) == expected, "{file}");
        let health = perceptor.health();
        let reason = health.reason().expect("degraded");
        println!("{reason}");
        assert!(reason.contains("keys.onnx and queries.onnx"), "{reason}");
        assert_eq!(health.counters.wrong, 1);
    }
    let wrong = Wrong {
        outputs: Outputs::OfGraph("queries.onnx"),
        by: 1.01,
    };
    let perceptor = open(&bundle, Arc::new(wrong), None);
    let (features, image) = inputs(11, 8, GRID, SIZE);
    let view = perceptor.encode_features(&features, &image, ColorRange::PerImage);
    assert!(view.is_err());
}

#[test]
fn kernels_take_over_when_an_engine_fails() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), 8, |_| {});
    let expected = answer(&open(&bundle, Arc::new(CpuBackend), Some(20)));
    // The encoding, the first tile, one in the middle of the frame.
    for (run, fault) in [
        (0, Fault::Error),
        (1, Fault::Nan),
        (1, Fault::Infinity),
        (3, Fault::Error),
    ] {
        let faults = Faults::none();
        faults.at_run(run, fault);
        let faulty = Faulty::new(TractBackend, faults.clone());
        let perceptor = open(&bundle, fallback(faulty), Some(20));
        let found = answer(&perceptor);
        let error = worst(&found, &expected);
        assert!(error <= 1e-4, "{run} {fault:?}: {error:.1e}");
        let health = perceptor.health();
        println!("{run} {fault:?}: {error:.1e}, {:?}", health.reason());
        assert_eq!(health.answering, "tract");
        // The failed run alone is repeated by the fallback; the kernels do the rest.
        assert_eq!(health.counters.fallback_runs, 1, "{run} {fault:?}");
        assert!(answer(&perceptor) == expected, "{run} {fault:?}");
        assert_eq!(perceptor.health().counters.fallback_runs, 1);
    }
    // An engine that cannot be built.
    let faults = Faults::none();
    faults.at_build(0);
    let perceptor = open(
        &bundle,
        fallback(Faulty::new(TractBackend, faults)),
        Some(20),
    );
    assert!(worst(&answer(&perceptor), &expected) <= 1e-4);
    assert!(perceptor.health().reason().is_some());
}

#[test]
fn a_bundle_without_graphs_and_a_large_image_run_on_the_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let full = bundle(folder.path(), 8, |_| {});
    let expected = answer(&open(&full, Arc::new(CpuBackend), None));
    let old = bundle(folder.path(), 8, |upsampler| upsampler.graphs.clear());
    assert!(answer(&open(&old, Arc::new(TractBackend), None)) == expected);

    // No graph is loaded.
    let (features, image) = inputs(11, 4, (9, 9), (481, 640));
    let bundle = bundle(folder.path(), 4, |_| {});
    let perceptor = open(&bundle, Arc::new(Unloadable), None);
    let small = inputs(11, 4, GRID, SIZE);
    let view = perceptor.encode_features(&small.0, &small.1, ColorRange::PerImage);
    assert!(view.is_err());
    let view = perceptor.encode_features(&features, &image, ColorRange::PerImage);
    assert_eq!(view.unwrap().size(), image.size);
}

/// A device that cannot load any graph.
struct Unloadable;

impl Backend for Unloadable {
    fn name(&self) -> &'static str {
        "unloadable"
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }

    fn fuses_heads(&self) -> bool {
        true
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        Err(graph.rejected("unloadable", "refused"))
    }
}
