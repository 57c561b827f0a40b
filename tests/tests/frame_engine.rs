//! Class maps of whole frames by one engine, with the perceptor as the fallback.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use loftup_bundle::{Bundle, Size};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Frame, FrameEngine, FrameEngineQuery, Perceptor, Query,
    backend::{
        Backend, BackendError, CpuBackend, FallbackOptions, State, TensorRt,
        engine_cache::EngineCache,
        fault::{Fault, Faults, Faulty, unavailable},
        tensorrt::{self, Copied},
    },
    image::RgbImage,
};
use loftup_tensorrt::{Layout, testing::Fake};
use loftup_tests::{
    camera::{classes, patches_bundle, photo, scenes_bundle},
    synthetic::without_references,
    wrong::{Outputs, Wrong},
};

const CAMERA: Size = Size {
    width: 71,
    height: 53,
};
const SIZE: Size = Size {
    width: 45,
    height: 33,
};

fn perceptor(bundle: &Path) -> Arc<Perceptor> {
    let bundle = Bundle::open(bundle).unwrap();
    let options = ExecutionOptions::default();
    Arc::new(Perceptor::with_backend(bundle, Arc::new(CpuBackend), options).unwrap())
}

fn query() -> FrameEngineQuery {
    FrameEngineQuery {
        camera: CAMERA,
        size: SIZE,
        head: classes(64, 5),
        range: ColorRange::PerImage,
    }
}

fn quick() -> FallbackOptions {
    FallbackOptions {
        run_limit: Duration::from_secs(2),
        start_limit: Duration::from_secs(30),
        ..FallbackOptions::default()
    }
}

fn engine(bundle: &Path, backend: Result<Arc<dyn Backend>, BackendError>) -> FrameEngine {
    FrameEngine::new(perceptor(bundle), backend, quick(), query()).unwrap()
}

/// The classes of the perceptor.
fn expected(bundle: &Path, query: &FrameEngineQuery, image: &RgbImage) -> Vec<u8> {
    let frame = Frame::packed(image.data(), image.width(), image.height());
    let wanted = Query::frame(query.size).with_head(&query.head);
    let output = perceptor(bundle).perceive(&frame, &wanted.with_color_range(query.range));
    output.unwrap().classes()
}

fn run(engine: &FrameEngine, image: &RgbImage) -> Vec<u8> {
    engine.run(image, <[u8]>::to_vec).unwrap()
}

#[test]
fn a_right_engine_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = scenes_bundle(directory.path());
    let right = Wrong {
        outputs: Outputs::None,
        by: 1.0,
    };
    let engine = engine(&bundle, Ok(Arc::new(right)));
    assert_eq!(engine.health().state, State::Healthy);
    let image = photo(CAMERA);
    let expected = expected(&bundle, engine.query(), &image);
    let found = run(&engine, &image);
    let different = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
    println!("{different} of {} differ", found.len());
    // Near ties.
    assert!(different <= 2);
    assert!(found.iter().any(|c| *c != found[0]), "only one class");
    assert_eq!(run(&engine, &image), found);
    let counters = engine.health().counters;
    // One of them for the comparison.
    assert_eq!((counters.preferred_runs, counters.fallback_runs), (3, 0));
    // Images of another size.
    let turned = Size {
        width: CAMERA.height,
        height: CAMERA.width,
    };
    for other in [SIZE, turned] {
        let wrong = engine.run(&photo(other), |_| ()).unwrap_err().to_string();
        assert!(wrong.contains("camera images of 71x53"), "{wrong}");
    }
    assert_eq!(run(&engine, &image), found);
}

#[test]
fn a_wrong_engine_is_never_used() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = scenes_bundle(directory.path());
    let wrong = Wrong {
        outputs: Outputs::Named("scores"),
        by: 1.5,
    };
    let engine = engine(&bundle, Ok(Arc::new(wrong)));
    let reason = engine.health().reason().unwrap().to_owned();
    println!("{reason}");
    assert!(
        reason.contains("frame.onnx") && reason.contains("relative error"),
        "{reason}"
    );
    let image = photo(CAMERA);
    assert_eq!(
        run(&engine, &image),
        expected(&bundle, engine.query(), &image)
    );
    assert_eq!(engine.health().counters.wrong, 1);
    assert_eq!(engine.health().counters.fallback_runs, 1);
}

#[test]
fn without_an_engine_the_perceptor_computes_every_frame() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = scenes_bundle(directory.path());
    let image = photo(CAMERA);
    let faults = Faults::none();
    faults.at_build(0);
    let failing = Arc::new(Faulty::new(CpuBackend, faults));
    for (backend, part) in [
        (Err(unavailable("no library")), "no library"),
        (Ok(failing as Arc<dyn Backend>), "injected"),
    ] {
        let engine = engine(&bundle, backend);
        let reason = engine.health().reason().unwrap().to_owned();
        assert!(reason.contains(part), "{reason}");
        assert_eq!(
            run(&engine, &image),
            expected(&bundle, engine.query(), &image)
        );
    }
}

#[test]
fn a_failure_is_carried_on_by_the_perceptor() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = scenes_bundle(directory.path());
    let image = photo(CAMERA);
    let expected = expected(&bundle, &query(), &image);
    for fault in [Fault::Error, Fault::Nan, Fault::Hang] {
        let faults = Faults::none();
        let backend = Arc::new(Faulty::new(CpuBackend, faults.clone()));
        let engine = engine(&bundle, Ok(backend));
        assert_eq!(engine.health().state, State::Healthy);
        run(&engine, &image);
        // After the comparison and the frame above.
        faults.at_run(faults.runs(), fault);
        assert_eq!(run(&engine, &image), expected, "{fault:?}");
        let health = engine.health();
        println!("{fault:?}: {}", health.reason().unwrap());
        assert_eq!(health.answering, "steps");
        assert_eq!(run(&engine, &image), expected, "{fault:?}");
        faults.release();
    }
}

fn options(fake: &Fake, cache: &Path) -> tensorrt::Options {
    tensorrt::Options {
        library: Some(fake.library()),
        libcuda: Some(fake.libcuda()),
        cache: EngineCache::at(cache),
        ..tensorrt::Options::default()
    }
}

fn times(fake: &Fake, call: &str) -> usize {
    let calls = fake.calls();
    calls.iter().filter(|line| line.starts_with(call)).count()
}

#[test]
fn on_tensorrt_a_frame_is_one_launch_and_copies_the_image_and_the_classes() {
    let directory = tempfile::tempdir().unwrap();
    // The outputs of the mocks are meaningless.
    let bundle = without_references(scenes_bundle(directory.path()));
    let image = photo(CAMERA);
    for layout in Layout::ALL {
        for zero_copy in [false, true] {
            let Some(fake) = Fake::new(layout) else {
                return;
            };
            if zero_copy {
                fake.set("integrated", "1");
            }
            let cache = tempfile::tempdir().unwrap();
            let mut options = options(&fake, cache.path());
            options.cuda_graph = true;
            let backend = Arc::new(TensorRt::open(options).unwrap());
            let engine = engine(&bundle, Ok(backend.clone()));
            // The first run is regular, and the second is captured and launched.
            let first = run(&engine, &image);
            assert_eq!(first.len(), SIZE.area());
            assert_eq!(run(&engine, &image), first);
            let calls = [
                "cuMemAlloc",
                "cuMemHostAlloc",
                "new ",
                "cuMemcpy",
                "enqueueV3",
            ];
            let before = calls.map(|call| times(&fake, call));
            let (launches, copied) = (times(&fake, "cuGraphLaunch"), backend.copied());
            for _ in 0..5 {
                assert_eq!(run(&engine, &image), first);
            }
            assert_eq!(calls.map(|call| times(&fake, call)), before);
            assert_eq!(times(&fake, "cuGraphLaunch"), launches + 5);
            let all = backend.copied();
            let frame = Copied {
                to_device: (all.to_device - copied.to_device) / 5,
                to_host: (all.to_host - copied.to_host) / 5,
            };
            let expected = match zero_copy {
                true => Copied::default(),
                false => Copied {
                    to_device: 3 * CAMERA.area() as u64,
                    to_host: SIZE.area() as u64,
                },
            };
            assert_eq!(frame, expected, "{layout:?}");
            assert_eq!(times(&fake, "cuMemcpy") == 0, zero_copy);
            assert_eq!(engine.health().state, State::Healthy);
            assert_eq!(times(&fake, "buildSerializedNetwork"), 1);
            // And a failure.
            fake.set("enqueue", "false");
            fake.set("stream", "broken");
            let carried_on = run(&engine, &image);
            assert_eq!(carried_on, self::expected(&bundle, engine.query(), &image));
            let reason = engine.health().reason().unwrap().to_owned();
            assert!(reason.contains("frame.onnx"), "{reason}");
            fake.set("stream", "ok");
            drop((engine, backend));
            assert_eq!(fake.violations(), Vec::<String>::new());
        }
    }
}

/// Bytes that a class map of 224 x 224 copies, with the engines of the perceptor and with one engine.
#[test]
fn one_engine_copies_a_small_part_of_what_three_engines_copy() {
    let size = Size {
        width: 224,
        height: 224,
    };
    let camera = Size {
        width: 640,
        height: 480,
    };
    let directory = tempfile::tempdir().unwrap();
    let image = photo(camera);
    let bundles: [fn(&Path) -> PathBuf; 2] = [scenes_bundle, |at| patches_bundle(384, at)];
    for bundle in bundles {
        let Some(fake) = Fake::new(Layout::V10) else {
            return;
        };
        let bundle = without_references(bundle(directory.path()));
        let bundle = Bundle::open(&bundle).unwrap();
        let backbone = bundle.manifest().backbone.as_ref().unwrap();
        let (side, patch, dim) = (backbone.size.width, backbone.patch, backbone.dim);
        let name = format!("d = {dim}, features of {0}x{0}", side / patch);
        fake.set("dim.tokens", &(side / patch).pow(2).to_string());
        fake.set("dim.pixels", &size.area().to_string());
        fake.set("dim.head_outputs", "16");
        let cache = tempfile::tempdir().unwrap();
        let tensorrt = Arc::new(TensorRt::open(options(&fake, cache.path())).unwrap());
        let options = ExecutionOptions::default();
        let perceptor = Perceptor::with_backend(bundle, tensorrt.clone(), options).unwrap();
        let perceptor = Arc::new(perceptor);
        let head = classes(dim, 16);
        let frame = Frame::packed(image.data(), camera.width, camera.height);
        let wanted = Query::frame(size).with_head(&head);
        let steps = || {
            perceptor.perceive(&frame, &wanted).unwrap();
            tensorrt.copied()
        };
        let before = steps();
        let after = steps();
        let steps = Copied {
            to_device: after.to_device - before.to_device,
            to_host: after.to_host - before.to_host,
        };

        let one = Arc::new(TensorRt::open(self::options(&fake, cache.path())).unwrap());
        let query = FrameEngineQuery {
            camera,
            size,
            head: head.clone(),
            range: ColorRange::PerImage,
        };
        let engine = FrameEngine::new(perceptor.clone(), Ok(one.clone()), quick(), query).unwrap();
        run(&engine, &image);
        let frame = one.copied();
        println!("{name}: {steps:?} in steps, {frame:?} as one engine");
        assert_eq!((frame.to_device, frame.to_host), (921_600, 50_176));
        assert!(steps.to_host > 40 * frame.to_host, "{name}");
        assert!(steps.to_device > frame.to_device, "{name}");
    }
}
