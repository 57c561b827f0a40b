//! Quantized bundles of every kind of backbone: measured, on the CPU, and with NVIDIA's real
//! TensorRT-RTX if `tools/fetch_tensorrt.sh` has downloaded it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use loftup_bundle::{Bundle, Precision, Size};
use loftup_convert::{
    BackboneSource, OnnxBackbone, convert,
    quantize::{self, Report, quantize},
};
use loftup_onnx::{
    Attr, Graph, Tensor,
    rewrite::{self, Model},
};
use loftup_runtime::{
    ExecutionOptions, Perceptor,
    backend::{
        Backend, Choice, CpuBackend, CpuPrecision, Graph as Source, NarrowCpuBackend, Products,
        Settings, TractBackend,
        engine_cache::EngineCache,
        tensorrt::{self, AheadOfTime},
    },
    image::RgbImage,
};
use loftup_spec::{HALO, io};
use loftup_tensorrt::testing::{cached, in_child};
use loftup_tests::{
    golden::Case,
    synthetic::{Noise, loftup, upsampler_bundle},
};

const NARROW: [Precision; 3] = [Precision::Fp16, Precision::Int8, Precision::Fp16Weights];

/// A small convolutional network with depthwise layers and a shortcut: 48 channels, patches of 8
/// pixels.
fn convolutions(path: &Path) {
    let mut noise = Noise::new(3);
    let mut tensor = |shape: &[usize]| {
        let inputs: usize = shape[1..].iter().product();
        let scale = (3.0 / inputs as f32).sqrt();
        Tensor::from_fn(shape, |_| scale * noise.sample())
    };
    let mut g = Graph::new("convolutions");
    let x = g.input("image", &[1.into(), 3.into(), 40.into(), 64.into()]);
    let (low, high) = (g.scalar("low", 0.0), g.scalar("high", 6.0));
    let x = g.padded_conv(&x, &tensor(&[16, 3, 3, 3]), &tensor(&[16]), 2, 1);
    let x = g.op("Clip", &[&x, &low, &high], &[]);
    let weight = g.constant("depthwise", &tensor(&[16, 1, 3, 3]));
    let attributes = [
        Attr::Ints("kernel_shape", vec![3, 3]),
        Attr::Ints("pads", vec![1; 4]),
        Attr::Int("group", 16),
    ];
    let y = g.op("Conv", &[&x, &weight], &attributes);
    let y = g.op("Clip", &[&y, &low, &high], &[]);
    let x = g.add(&x, &y);
    let x = g.padded_conv(&x, &tensor(&[32, 16, 3, 3]), &tensor(&[32]), 2, 1);
    let x = g.op("Relu", &[&x], &[]);
    let x = g.padded_conv(&x, &tensor(&[48, 32, 3, 3]), &tensor(&[48]), 2, 1);
    g.output(&x, "features", &[1.into(), 48.into(), 5.into(), 8.into()]);
    std::fs::write(path, g.finish()).unwrap();
}

/// A bundle with this backbone and an upsampler with random weights.
fn with_convolutions(directory: &Path) -> PathBuf {
    let onnx = directory.join("convolutions.onnx");
    convolutions(&onnx);
    upsampler_bundle(48, 1, directory);
    let out = directory.join("convolutions.loftup");
    let request = loftup_convert::Request {
        backbone: Some(BackboneSource::Onnx(OnnxBackbone {
            path: onnx,
            patch: 8,
            normalization: None,
            output: None,
            layout: None,
            extra_tokens: None,
        })),
        upsampler: Some(directory.join("up.safetensors")),
        size: None,
        out: out.clone(),
        prefix: None,
        license: None,
        replace: false,
    };
    convert(&request, |_| ControlFlow::Continue(())).unwrap();
    out
}

/// A bundle with only a vision transformer.
fn with_transformer(directory: &Path) -> PathBuf {
    let out = directory.join("vit.loftup");
    let request = Case::load("dinov2_native").request(&out);
    convert(&request, |_| ControlFlow::Continue(())).unwrap();
    out
}

fn images(directory: &Path) -> Vec<PathBuf> {
    (0..2u64)
        .map(|i| {
            let mut noise = Noise::new(i + 9);
            let coarse = noise.vec(3 * 8 * 8);
            let mut data = Vec::new();
            for y in 0..48 {
                for x in 0..64 {
                    for c in 0..3 {
                        let block = coarse[(y / 6 * 8 + x / 8) * 3 + c] * 100.0;
                        data.push((128.0 + block + 20.0 * noise.sample()) as u8);
                    }
                }
            }
            let path = directory.join(format!("{i}.png"));
            RgbImage::new(64, 48, data)
                .unwrap()
                .save_png(&path)
                .unwrap();
            path
        })
        .collect()
}

fn quantized(bundle: &Path, precision: Precision, directory: &Path) -> Report {
    within(bundle, precision, directory, None)
}

fn within(bundle: &Path, precision: Precision, directory: &Path, max_error: Option<f64>) -> Report {
    let request = quantize::Request {
        bundle: bundle.to_path_buf(),
        precision,
        images: images(directory),
        size: None,
        orientation: loftup_runtime::image::Orientation::Upright,
        tiles: 1,
        max_error,
        keep: false,
        out: bundle.with_extension(precision.name()),
        replace: true,
    };
    quantize(&request, None, &mut |_, _, _| ControlFlow::Continue(())).unwrap()
}

#[test]
fn convolutions_and_transformers_lose_little() {
    let directory = tempfile::tempdir().unwrap();
    let bundles = [
        with_convolutions(directory.path()),
        with_transformer(directory.path()),
    ];
    for bundle in bundles {
        for (precision, allowed) in NARROW.into_iter().zip([0.01, 0.15, 0.01]) {
            let report = quantized(&bundle, precision, directory.path());
            let loss = report.quantization.error;
            let name = bundle.file_stem().unwrap().display();
            println!(
                "{name} in {precision}: relative error {:.1e}, cosine {:.6}",
                loss.relative_error, loss.cosine
            );
            assert!(
                loss.relative_error > 1e-6 && loss.relative_error < allowed,
                "{loss:?}"
            );
            assert!(report.quantization.fp32_layers.is_empty());
            let (before, after) = report
                .files
                .iter()
                .fold((0, 0), |(b, a), f| (b + f.before, a + f.after));
            assert!(after < before, "{after} of {before} bytes");
        }
    }
}

#[test]
fn a_bound_is_met_on_everything_with_few_layers_in_32_bits() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = with_convolutions(directory.path());
    let precision = Precision::Fp16;
    let all = quantized(&bundle, precision, directory.path());
    assert!(all.layers.iter().all(|l| l.sensitivity.is_none()));
    let allowed = all.quantization.error.relative_error / 1.5;
    let report = within(&bundle, precision, directory.path(), Some(allowed));
    let (kept, layers) = (&report.quantization.fp32_layers, &report.layers);
    let loss = report.quantization.error.relative_error;
    println!(
        "relative error {loss:.1e} of {allowed:.1e} with {} of {} layers in 32 bits: {}",
        kept.len(),
        layers.len(),
        kept.join(", ")
    );
    assert!(loss <= allowed);
    assert!(!kept.is_empty() && 2 * kept.len() < layers.len());
    // No quantized layer may cost more on its own than all of them together.
    let rounded = layers.iter().filter(|l| l.precision != "fp32");
    let worst = rounded.filter_map(|l| l.sensitivity).fold(0.0, f64::max);
    assert!(worst > 0.0 && worst < 1.5 * allowed, "{worst}");
}

type Shapes = Vec<(String, Vec<usize>)>;

/// A queries graph, and its inputs for a tile of 9x6 pixels.
fn queries() -> (Vec<u8>, Shapes, Vec<Vec<f32>>) {
    let model = loftup_import::loftup::read(&loftup(48, 2)).unwrap();
    let config = model.config();
    let (rows, cols, tokens) = (9 + 2 * HALO, 6 + 2 * HALO, 20);
    let mut shapes = vec![
        (io::GUIDANCE.to_owned(), vec![1, 3, rows, cols]),
        (io::COORDS.to_owned(), vec![1, 2, rows, cols]),
        (io::MASK.to_owned(), vec![1, 1, rows, cols]),
    ];
    let (heads, width) = (config.heads, config.padded_head_width());
    for i in 0..config.layers {
        shapes.push((io::key(i), vec![heads, width, tokens]));
        shapes.push((io::value(i), vec![heads, tokens, width]));
    }
    let mut noise = Noise::new(4);
    let mut values: Vec<Vec<f32>> = shapes
        .iter()
        .map(|(_, s)| noise.vec(s.iter().product()))
        .collect();
    values[2].fill(1.0);
    (model.queries_graph(), shapes, values)
}

#[test]
fn the_kernels_run_the_queries_of_every_precision() {
    let (onnx, shapes, values) = queries();
    let model = Model::decode(&onnx).unwrap();
    let (names, sizes): (Vec<_>, Vec<_>) = shapes.into_iter().unzip();
    let ask = |backend: &dyn Backend, onnx: &[u8], precision| {
        let graph = Source {
            precision,
            ..Source::new("queries.onnx", onnx, &names, &[io::UPSAMPLED])
        };
        let plan = backend.load(&graph).unwrap().compile(&sizes, &[]).unwrap();
        let mut session = plan.session().unwrap();
        for (i, values) in values.iter().enumerate() {
            session.set(i, values).unwrap();
        }
        session.run().unwrap();
        session.output(0).to_vec()
    };
    let layers = rewrite::layers(&model);
    let chosen: HashSet<String> = layers.iter().map(|l| l.output.clone()).collect();
    let ranges: BTreeMap<String, f32> =
        layers.iter().map(|l| (l.activation.clone(), 4.0)).collect();
    let written = [
        rewrite::to_half(&model, &BTreeSet::new()),
        rewrite::to_int8(&model, &chosen, &ranges),
        rewrite::half_weights(&model),
    ];
    for (written, precision) in written.into_iter().zip(NARROW) {
        let written = written.unwrap().encode();
        let kernels = ask(&CpuBackend, &written, precision);
        let tract = ask(&TractBackend, &written, precision);
        let apart = kernels.iter().zip(&tract).map(|(a, b)| (a - b).abs());
        let worst = apart.fold(0f32, f32::max);
        println!("{precision}: kernels and tract differ by {worst:.1e}");
        // The same 32-bit graph of rounded weights in two implementations that add in different
        // orders: bit-identical outputs would mean that tract ran both.
        assert!(worst > 0.0 && worst < 2e-3, "{worst}");

        // In the precision of the graph, where the CPU has instructions for it.
        let settings = Settings {
            cpu_precision: CpuPrecision::Auto,
            ..Settings::default()
        };
        let auto = loftup_runtime::backend::open(Choice::Tract, &settings).unwrap();
        let auto = ask(&auto, &written, precision);
        let preferred: &[Products] = match (precision, cfg!(target_arch = "aarch64")) {
            (Precision::Int8, true) => &[Products::Int8],
            (Precision::Int8, false) => &[Products::Int8, Products::Int16],
            (Precision::Fp16, true) => &[Products::Fp16],
            (Precision::Fp16, false) => &[Products::Int16],
            _ => &[],
        };
        let narrow = |products: &Products| {
            let narrow = NarrowCpuBackend::new(CpuPrecision::Products(*products));
            Some((*products, narrow.ok()?))
        };
        match preferred.iter().find_map(narrow) {
            Some((products, narrow)) => {
                assert!(auto == ask(&narrow, &written, precision), "{products}");
                assert!(auto != kernels, "{products}");
            }
            None => assert!(auto == kernels, "{precision}"),
        }
    }
}

fn builds(bundle: fn(&Path) -> PathBuf, test: &str, size: Size, graphs: usize) {
    let Some(library) = cached("rtx-1.7") else {
        return;
    };
    in_child(test, || {
        let directory = tempfile::tempdir().unwrap();
        let bundle = bundle(directory.path());
        for precision in NARROW {
            quantized(&bundle, precision, directory.path());
            let cache = tempfile::tempdir().unwrap();
            let options = tensorrt::Options {
                library: Some(library.clone()),
                cache: EngineCache::at(cache.path()),
                ..tensorrt::Options::default()
            };
            let backend = Arc::new(AheadOfTime::open((8, 6), options).unwrap());
            let opened = Bundle::open(&bundle.with_extension(precision.name())).unwrap();
            let perceptor =
                Perceptor::with_precision(opened, backend, ExecutionOptions::default(), precision)
                    .unwrap();
            perceptor.compile(size, (0, 0)).unwrap();
            let entries = EngineCache::at(cache.path()).entries().unwrap();
            assert_eq!(entries.len(), graphs);
            let sizes: Vec<String> = entries
                .iter()
                .map(|e| {
                    let graph = &e.content.as_ref().unwrap().graph;
                    format!("{graph} {:.2} MB", e.bytes as f64 / 1e6)
                })
                .collect();
            println!("TensorRT-RTX 1.7, {precision}: {}", sizes.join(", "));
        }
    });
}

#[test]
fn rtx_1_7_builds_convolutions_and_upsampler_in_every_precision() {
    let size = Size {
        width: 64,
        height: 40,
    };
    builds(
        with_convolutions,
        "rtx_1_7_builds_convolutions_and_upsampler_in_every_precision",
        size,
        3,
    );
}

#[test]
fn rtx_1_7_builds_a_transformer_in_every_precision() {
    let image = Case::load("dinov2_native").array("image");
    let size = Size {
        width: image.shape[3],
        height: image.shape[2],
    };
    builds(
        with_transformer,
        "rtx_1_7_builds_a_transformer_in_every_precision",
        size,
        1,
    );
}
