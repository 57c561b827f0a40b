//! The project's own graphs in NVIDIA's real TensorRT-RTX, which can parse and build without a GPU.
//! Runs if `tools/fetch_tensorrt.sh` has downloaded the libraries, each test in its own process.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use loftup_bundle::{Bundle, BundleWriter, Normalization, Precision, Size};
use loftup_convert::{BackboneSource, Request, convert};
use loftup_import::{bundle as new, vit::VitOptions};
use loftup_onnx::loftup::with_head;
use loftup_runtime::{
    ColorRange, ExecutionOptions, FrameGraphOutput, FrameGraphQuery, Perceptor,
    backend::{
        Backend, BackendError, Graph, ShapeProfile, compile_once,
        engine_cache::EngineCache,
        tensorrt::{self, AheadOfTime},
    },
};
use loftup_spec::{io, naf::NafWeights};
use loftup_tensorrt::{
    Builder, DataType, Library, OnnxParser, TensorInfo,
    testing::{cached, in_child},
};
use loftup_tests::{
    camera::{classes, dino_bundle, scenes_bundle},
    golden::Case,
    synthetic::upsampler_bundle,
};

const RELEASES: [&str; 2] = ["rtx-1.7", "rtx-1.4"];

fn ahead(library: &Path, cache: &Path) -> AheadOfTime {
    AheadOfTime::open((8, 6), options(library, cache)).unwrap()
}

fn options(library: &Path, cache: &Path) -> tensorrt::Options {
    tensorrt::Options {
        library: Some(library.to_path_buf()),
        cache: EngineCache::at(cache),
        ..tensorrt::Options::default()
    }
}

fn described(tensors: &[TensorInfo]) -> String {
    let texts: Vec<String> = tensors.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Names and shapes as TensorRT's parser reports them.
fn interface(library: &Path, onnx: &[u8]) -> (Vec<TensorInfo>, Vec<TensorInfo>) {
    let library = Library::open(library).unwrap();
    let builder = Builder::new(&library, None).unwrap();
    let mut parser = OnnxParser::new(builder.network().unwrap()).unwrap();
    let start = Instant::now();
    parser.parse(onnx, None).unwrap();
    let network = parser.network();
    let (inputs, outputs) = (network.inputs().unwrap(), network.outputs().unwrap());
    println!(
        "  parsed in {:.2} s, {} layers: {} -> {}",
        start.elapsed().as_secs_f64(),
        network.layer_count().unwrap(),
        described(&inputs),
        described(&outputs)
    );
    (inputs, outputs)
}

fn names(tensors: &[TensorInfo]) -> Vec<&str> {
    tensors.iter().map(|t| t.name.as_str()).collect()
}

/// Complete bundles at the width of DINOv2-S: keys, and queries with points, tiles and whole
/// frames.
fn upsampler_of_384_channels(name: &str, test: &str) {
    let Some(library) = cached(name) else { return };
    in_child(test, || {
        let (cache, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = upsampler_bundle(384, 1, directory.path());
        let bundle = Bundle::open(&path).unwrap();
        let upsampler = bundle.manifest().upsampler.clone().unwrap();
        let files = upsampler.graphs[&Precision::Fp32].clone();

        println!("{name}, keys:");
        let (inputs, outputs) = interface(&library, &bundle.read(&files.keys).unwrap());
        assert_eq!(names(&inputs), [io::FEATURES, io::GRID]);
        assert_eq!(inputs[0].shape, [1, -1, 384]);
        let width = upsampler.head_width as i64;
        assert_eq!(width % 8, 0);
        assert_eq!(names(&outputs), ["key0", "value0", "key1", "value1"]);
        for (i, output) in outputs.iter().enumerate() {
            assert_eq!(output.shape.len(), 3);
            assert_eq!(output.shape[if i % 2 == 0 { 1 } else { 2 }], width);
        }
        println!("{name}, queries:");
        let (inputs, outputs) = interface(&library, &bundle.read(&files.queries).unwrap());
        assert_eq!(inputs[0].shape, [-1, 3, -1, -1]);
        assert_eq!(inputs.len(), 7);
        assert_eq!(names(&outputs), [io::UPSAMPLED]);
        assert_eq!(outputs[0].shape, [-1, 384]);

        let size = Size {
            width: 224,
            height: 224,
        };
        for again in [false, true] {
            let start = Instant::now();
            let backend = std::sync::Arc::new(ahead(&library, cache.path()));
            let perceptor =
                Perceptor::with_backend(bundle.clone(), backend, ExecutionOptions::default())
                    .unwrap();
            perceptor.compile(size, (16, 16)).unwrap();
            println!(
                "{name}: keys and queries ready in {:.2} s{}",
                start.elapsed().as_secs_f64(),
                if again { ", from the cache" } else { "" }
            );
        }
        for entry in EngineCache::at(cache.path()).entries().unwrap() {
            let key = entry.content.unwrap();
            println!(
                "  {}: {:.1} MB; {}",
                key.graph,
                entry.bytes as f64 / 1e6,
                key.profiles
            );
        }
        assert_eq!(EngineCache::at(cache.path()).entries().unwrap().len(), 2);

        // The engine's graph has a head, whose number of outputs is open.
        println!("{name}, queries with a head:");
        let queries = bundle.read(&files.queries).unwrap();
        let (inputs, outputs) = interface(&library, &with_head(&queries).unwrap());
        assert_eq!(inputs.len(), 11);
        assert_eq!(names(&outputs), [io::UPSAMPLED, io::HEAD, io::MOMENTS]);
        let shapes = outputs.iter().map(|o| o.shape.clone());
        assert_eq!(shapes.collect::<Vec<_>>(), [[-1, 384], [-1, -1], [-1, 2]]);

        // The same for exactly one shape.
        let onnx = bundle.read(&files.queries).unwrap();
        let (heads, width) = (upsampler.heads, upsampler.head_width);
        let mut inputs: Vec<(&str, Vec<usize>)> = vec![
            (io::GUIDANCE, vec![1, 3, 36, 36]),
            (io::COORDS, vec![1, 2, 36, 36]),
            (io::MASK, vec![1, 1, 36, 36]),
        ];
        let pairs: Vec<_> = (0..upsampler.layers)
            .map(|i| (io::key(i), io::value(i)))
            .collect();
        for (key, value) in &pairs {
            inputs.push((key, vec![heads, width, 256]));
            inputs.push((value, vec![heads, 256, width]));
        }
        let (names, shapes): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
        let graph = Graph::new("queries.onnx", onnx, &names, &[io::UPSAMPLED]);
        let start = Instant::now();
        let model = ahead(&library, cache.path()).load(&graph).unwrap();
        model.compile(&shapes, &[]).unwrap();
        println!(
            "{name}: queries of 32x32 in {:.2} s",
            start.elapsed().as_secs_f64()
        );

        // A profile that does not contain the requested shapes is skipped, not extended.
        let model = ahead(&library, cache.path()).load(&graph).unwrap();
        let profiles = [ShapeProfile::fixed(&shapes)];
        model.compile(&shapes, &profiles).unwrap();
        assert_eq!(EngineCache::at(cache.path()).entries().unwrap().len(), 3);
    });
}

#[test]
fn rtx_1_7_builds_the_upsampler() {
    upsampler_of_384_channels(RELEASES[0], "rtx_1_7_builds_the_upsampler");
}

#[test]
fn rtx_1_4_builds_the_upsampler() {
    upsampler_of_384_channels(RELEASES[1], "rtx_1_4_builds_the_upsampler");
}

/// NAF for features of 384 channels: a frame whose sides are multiples of the grid's, and another.
fn naf(name: &str, test: &str) {
    let Some(library) = cached(name) else { return };
    in_child(test, || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("naf.loftup");
        let mut writer = BundleWriter::create(&path, false).unwrap();
        let weights = NafWeights::random(7);
        let upsampler = new::add_naf(&mut writer, &weights, 384, None).unwrap();
        let files = upsampler.graphs[&Precision::Fp32].clone();
        let normalization = Normalization::IMAGENET;
        let manifest = new::manifest(normalization, None, Some(upsampler), Vec::new(), None);
        writer.seal(manifest).unwrap();
        writer.commit().unwrap();
        let bundle = Bundle::open(&path).unwrap();

        println!("{name}, keys of NAF:");
        let (inputs, outputs) = interface(&library, &bundle.read(&files.keys).unwrap());
        assert_eq!(names(&inputs), io::naf::KEYS_INPUTS);
        assert_eq!(names(&outputs), io::naf::KEYS_OUTPUTS);
        println!("{name}, queries of NAF:");
        let (inputs, outputs) = interface(&library, &bundle.read(&files.queries).unwrap());
        assert_eq!(names(&inputs), io::naf::QUERIES_INPUTS);
        assert_eq!(names(&outputs), io::naf::QUERIES_OUTPUTS);
        for (size, grid) in [((448, 448), (32, 32)), ((640, 480), (34, 46))] {
            let cache = tempfile::tempdir().unwrap();
            let size = Size {
                width: size.0,
                height: size.1,
            };
            let start = Instant::now();
            let backend = std::sync::Arc::new(ahead(&library, cache.path()));
            let perceptor =
                Perceptor::with_backend(bundle.clone(), backend, ExecutionOptions::default())
                    .unwrap();
            perceptor.compile(size, grid).unwrap();
            println!(
                "{name}: NAF for {size} in {:.2} s",
                start.elapsed().as_secs_f64()
            );
            let entries = EngineCache::at(cache.path()).entries().unwrap();
            for entry in &entries {
                let key = entry.content.as_ref().unwrap();
                let mb = entry.bytes as f64 / 1e6;
                println!("  {}: {mb:.1} MB; {}", key.graph, key.profiles);
            }
            assert_eq!(entries.len(), 2);
        }
    });
}

#[test]
fn rtx_1_7_builds_naf() {
    naf(RELEASES[0], "rtx_1_7_builds_naf");
}

#[test]
fn rtx_1_4_builds_naf() {
    naf(RELEASES[1], "rtx_1_4_builds_naf");
}

/// Graphs of whole frames: the built-in model with classes, in one tile and in several, in every precision
/// that the bundle has; a DINOv2 with features; and an output of another size than the backbone's input.
fn frames(name: &str, test: &str) {
    let Some(library) = cached(name) else { return };
    in_child(test, || {
        let (cache, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let scenes = scenes_bundle(directory.path());
        let dino = dino_bundle(directory.path());
        let size = |width, height| Size { width, height };
        for (path, output, tile) in [
            (&scenes, size(224, 224), 224),
            (&scenes, size(161, 119), 96),
            (&dino, size(98, 98), 224),
        ] {
            let bundle = Bundle::open(path).unwrap();
            let backend = std::sync::Arc::new(ahead(&library, cache.path()));
            let perceptor =
                Perceptor::with_backend(bundle, backend, ExecutionOptions::default()).unwrap();
            let head = classes(perceptor.manifest().upsampler.as_ref().unwrap().dim, 5);
            let camera = size(640, 480);
            for (outputs, query) in [
                (&[io::frame::CLASSES][..], FrameGraphOutput::Classes(&head)),
                (
                    &[io::frame::CLASSES, io::frame::SCORES],
                    FrameGraphOutput::ClassesAndScores(&head),
                ),
                (&[io::frame::FEATURES], FrameGraphOutput::Features),
            ]
            .into_iter()
            .skip(usize::from(tile < output.width))
            {
                let query = FrameGraphQuery {
                    camera,
                    size: output,
                    range: ColorRange::PerImage,
                    tile: Some(tile),
                    output: query,
                };
                let onnx = perceptor.frame_graph(&query, Vec::new()).unwrap();
                println!("{name}, {}, {output}, tiles of {tile}:", path.display());
                let (inputs, found) = interface(&library, &onnx);
                assert_eq!(names(&inputs), [io::frame::IMAGE]);
                assert_eq!(inputs[0].shape, [1, 480, 640, 3]);
                assert_eq!(inputs[0].data_type, DataType::U8);
                assert_eq!(names(&found), outputs);
                if outputs[0] == io::frame::CLASSES {
                    assert_eq!(found[0].data_type, DataType::U8);
                    let (rows, columns) = (output.height as i64, output.width as i64);
                    assert_eq!(found[0].shape, [1, rows, columns]);
                }
                let start = Instant::now();
                let shape = [1, camera.height, camera.width, 3];
                let backend = ahead(&library, cache.path());
                let inputs = [(io::frame::IMAGE, &shape[..])];
                compile_once(&backend, "frame.onnx", onnx, &inputs, outputs).unwrap();
                println!("  built in {:.2} s", start.elapsed().as_secs_f64());
            }
        }
        for entry in EngineCache::at(cache.path()).entries().unwrap() {
            println!("  {:.1} MB", entry.bytes as f64 / 1e6);
        }
    });
}

#[test]
fn rtx_1_7_builds_frames() {
    frames(RELEASES[0], "rtx_1_7_builds_frames");
}

#[test]
fn rtx_1_4_builds_frames() {
    frames(RELEASES[1], "rtx_1_4_builds_frames");
}

/// Backbones of the golden cases, small DINOv3 models, and one at the size of DINOv2-S if `LOFTUP_TEST_BACKBONE` is the
/// path of its checkpoint.
fn backbones(name: &str, test: &str) {
    let square = |side| Size {
        width: side,
        height: side,
    };

    let Some(library) = cached(name) else { return };
    in_child(test, || {
        let directory = tempfile::tempdir().unwrap();
        let mut requests = Vec::new();
        for case in [
            "dinov2_native",
            "dinov2_reg_native",
            "clip_native",
            "siglip_native",
        ] {
            let out = directory.path().join(case);
            requests.push(Case::load(case).request(&out));
        }
        let checkpoint = |preset: &str, weights: PathBuf, heads| Request {
            backbone: Some(BackboneSource::Checkpoint {
                preset: preset.into(),
                weights,
                options: VitOptions {
                    heads,
                    ..VitOptions::default()
                },
            }),
            upsampler: None,
            size: None,
            out: directory.path().join(preset),
            prefix: None,
            license: None,
            replace: false,
        };
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/import/tests/data");
        for library in ["transformers", "timm"] {
            requests.push(Request {
                size: Some(square(16)),
                prefix: Some(format!("{library}.weights")),
                out: directory.path().join(format!("dinov3-{library}")),
                ..checkpoint("dinov3", fixtures.join("dinov3.safetensors"), Some(2))
            });
        }
        requests.push(Request {
            size: Some(square(64)),
            prefix: Some("weights".into()),
            ..checkpoint(
                "dinov3-convnext",
                fixtures.join("convnext.safetensors"),
                None,
            )
        });
        if let Some(weights) = std::env::var_os("LOFTUP_TEST_BACKBONE") {
            requests.push(checkpoint("dinov2-s14", weights.into(), None));
        }
        for request in requests {
            convert(&request, |_| ControlFlow::Continue(())).unwrap();
            let bundle = Bundle::open(&request.out).unwrap();
            let backbone = bundle.manifest().backbone.clone().unwrap();
            println!("{name}, {} at {}:", backbone.name, backbone.size);
            let onnx = bundle.read(&backbone.graphs[&Precision::Fp32]).unwrap();
            let (inputs, outputs) = interface(&library, &onnx);
            let (w, h) = match backbone.any_size {
                true => (-1, -1),
                false => (backbone.size.width as i64, backbone.size.height as i64),
            };
            assert_eq!(names(&inputs), [backbone.input.as_str()]);
            assert_eq!(inputs[0].shape, [1, 3, h, w]);
            assert_eq!(names(&outputs), [backbone.output.as_str()]);
            let cache = tempfile::tempdir().unwrap();
            let start = Instant::now();
            let backend = std::sync::Arc::new(ahead(&library, cache.path()));
            let perceptor =
                Perceptor::with_backend(bundle, backend, ExecutionOptions::default()).unwrap();
            perceptor.compile(backbone.size, (0, 0)).unwrap();
            let entries = EngineCache::at(cache.path()).entries().unwrap();
            println!(
                "  built in {:.2} s, {:.1} MB",
                start.elapsed().as_secs_f64(),
                entries[0].bytes as f64 / 1e6
            );
        }
    });
}

#[test]
fn rtx_1_7_builds_the_backbones() {
    backbones(RELEASES[0], "rtx_1_7_builds_the_backbones");
}

#[test]
fn rtx_1_4_builds_the_backbones() {
    backbones(RELEASES[1], "rtx_1_4_builds_the_backbones");
}

#[test]
fn a_broken_graph_a_small_workspace_and_an_unknown_gpu_are_errors_in_one_line() {
    let Some(library) = cached(RELEASES[0]) else {
        return;
    };
    in_child(
        "a_broken_graph_a_small_workspace_and_an_unknown_gpu_are_errors_in_one_line",
        || {
            let (cache, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let path = upsampler_bundle(48, 1, directory.path());
            let bundle = Bundle::open(&path).unwrap();
            let files = &bundle.manifest().upsampler.as_ref().unwrap().graphs[&Precision::Fp32];
            let onnx = bundle.read(&files.keys).unwrap();
            let shapes: [(&str, &[usize]); 2] =
                [(io::FEATURES, &[1, 4096, 48]), (io::GRID, &[2, 4096])];
            let compile = |onnx: &[u8], inputs: &[(&str, &[usize])], options: tensorrt::Options| {
                let backend = AheadOfTime::open((8, 6), options).unwrap();
                let compiled = compile_once(&backend, "keys.onnx", onnx, inputs, &["key0"]);
                let e = compiled.err().expect("an error").to_string();
                println!("{e}");
                assert!(e.contains("keys.onnx") && !e.contains('\n'), "{e}");
                e
            };
            let good = || options(&library, cache.path());
            let e = compile(&onnx[..onnx.len() / 2], &shapes, good());
            assert!(e.contains("rejected the model"), "{e}");
            // An input without a shape is a missing profile.
            let e = compile(&onnx, &shapes[..1], good());
            assert!(e.contains("optimization profile"), "{e}");
            let mut small = good();
            small.workspace = 0;
            let e = compile(&onnx, &shapes, small);
            assert!(e.contains("workspace limit"), "{e}");
            let backend = AheadOfTime::open((8, 7), good()).unwrap();
            let compiled = compile_once(&backend, "keys.onnx", onnx, &shapes, &["key0"]);
            let e = compiled.err().expect("an error");
            assert!(matches!(e, BackendError::Load { .. }), "{e}");
            println!("{e}");
            assert!(EngineCache::at(cache.path()).entries().unwrap().is_empty());
        },
    );
}

/// Builds and discards engines until it is killed; started by the next test.
#[test]
#[ignore = "started by another test"]
fn build_for_ever() {
    let Some(role) = std::env::var_os("LOFTUP_TEST_BUILD") else {
        return;
    };
    let role = role.into_string().unwrap();
    let (library, directory) = role.split_once('|').unwrap();
    let directory = PathBuf::from(directory);
    let bundle = Bundle::open(&directory.join("up.loftup")).unwrap();
    loop {
        build(Path::new(library), &bundle, &directory.join("cache"));
        println!("built");
        EngineCache::at(directory.join("cache")).clean().unwrap();
    }
}

fn build(library: &Path, bundle: &Bundle, cache: &Path) {
    let backend = std::sync::Arc::new(ahead(library, cache));
    let options = ExecutionOptions {
        tile: Some(32),
        ..ExecutionOptions::default()
    };
    let perceptor = Perceptor::with_backend(bundle.clone(), backend, options).unwrap();
    let size = Size {
        width: 64,
        height: 64,
    };
    perceptor.compile(size, (4, 5)).unwrap();
}

#[test]
fn a_kill_at_any_moment_of_a_real_build_leaves_a_usable_cache() {
    let Some(library) = cached(RELEASES[0]) else {
        return;
    };
    in_child(
        "a_kill_at_any_moment_of_a_real_build_leaves_a_usable_cache",
        || {
            let directory = tempfile::tempdir().unwrap();
            upsampler_bundle(48, 1, directory.path());
            let cache = EngineCache::at(directory.path().join("cache"));
            let (mut whole, mut parts) = (0, 0);
            for i in 0..20u64 {
                let mut child = Command::new(std::env::current_exe().unwrap())
                    .args(["build_for_ever", "--exact", "--ignored"])
                    .env(
                        "LOFTUP_TEST_BUILD",
                        format!("{}|{}", library.display(), directory.path().display()),
                    )
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                // A build of both graphs takes a second or two.
                thread::sleep(Duration::from_millis(150 + i * 7919 % 1900));
                child.kill().unwrap();
                child.wait().unwrap();
                for entry in cache.entries().unwrap() {
                    assert!(entry.content.is_ok(), "after kill {i}: {:?}", entry.content);
                    whole += 1;
                }
                let names = std::fs::read_dir(directory.path().join("cache"));
                parts += names.map_or(0, |names| {
                    names
                        .filter(|n| {
                            let name = n.as_ref().unwrap().file_name();
                            name.to_string_lossy().ends_with(".part")
                        })
                        .count()
                });
            }
            println!("20 kills: {whole} complete engines and {parts} unfinished files remained");
            let bundle = Bundle::open(&directory.path().join("up.loftup")).unwrap();
            build(&library, &bundle, &directory.path().join("cache"));
            assert_eq!(cache.entries().unwrap().len(), 2);
            cache.clean().unwrap();
            let left = std::fs::read_dir(directory.path().join("cache")).unwrap();
            assert_eq!(left.count(), 0);
        },
    );
}
