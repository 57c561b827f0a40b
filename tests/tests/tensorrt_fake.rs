//! The TensorRT backend with mock NVIDIA libraries: order of calls, lifetimes and failures. The
//! mocks compute meaningless values and verify nothing about NVIDIA's binary interface.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use loftup_bundle::{HeadKind, Linear};
use loftup_runtime::{
    Perceptor,
    backend::{
        Backend, BackendError, Choice, CpuBackend, FallbackOptions, Settings, State, TensorRt,
        engine_cache::EngineCache, open, tensorrt,
    },
    heads::Head,
};
use loftup_tensorrt::{
    Layout,
    testing::{Fake, cached, in_child},
};
use loftup_tests::{
    conformance,
    frames::{DIM, GRID, SIZE, frame, perceptor, view, worst},
    synthetic::{upsampler_bundle, without_references},
};

/// What the mocks do not support: they compute the mean of all inputs.
const KNOWN_GAPS: &[&str] = &[
    "computes what the graph says",
    "runs the upsampler at awkward sizes",
    "serves every shape of its profiles",
];

const TILE: usize = 8;
/// Number of tiles of a frame of 43 x 29 pixels.
const TILES: u64 = 24;

fn options(fake: &Fake, cache: &Path) -> tensorrt::Options {
    tensorrt::Options {
        library: Some(fake.library()),
        libcuda: Some(fake.libcuda()),
        cache: EngineCache::at(cache),
        ..tensorrt::Options::default()
    }
}

fn settings(tensorrt: tensorrt::Options) -> Settings {
    Settings {
        tensorrt,
        fallback: FallbackOptions {
            run_limit: Duration::from_secs(1),
            start_limit: Duration::from_secs(5),
            ..FallbackOptions::default()
        },
        ..Settings::default()
    }
}

/// Mock libraries that know the output sizes, which the real library would derive.
fn fake(layout: Layout) -> Option<Fake> {
    let fake = Fake::new(layout)?;
    fake.set("dim.tokens", &(GRID.0 * GRID.1).to_string());
    fake.set("dim.pixels", &(TILE * TILE).to_string());
    Some(fake)
}

/// A bundle without reference outputs, since the outputs of the mocks are meaningless.
fn nonsense_bundle(directory: &Path) -> PathBuf {
    without_references(upsampler_bundle(12, 3, directory))
}

/// A head of classes.
fn head(perceptor: &Perceptor, outputs: usize) -> Head {
    let names = (0..outputs).map(|i| i.to_string()).collect();
    let manifest = loftup_bundle::Head {
        kind: HeadKind::Classes { names },
        dim: DIM,
        file: String::new(),
    };
    let linear = Linear {
        inputs: DIM,
        weight: vec![0.5; outputs * DIM],
        bias: vec![0.0; outputs],
    };
    perceptor.custom_head(manifest, linear).unwrap()
}

fn times(fake: &Fake, call: &str) -> usize {
    let calls = fake.calls();
    calls.iter().filter(|line| line.starts_with(call)).count()
}

fn expected(bundle: &Path) -> Vec<f32> {
    let tract = perceptor(bundle, Arc::new(CpuBackend), 1, TILE);
    frame(&view(&tract, SIZE).unwrap()).unwrap()
}

#[test]
fn tensorrt_over_stand_ins_conforms_but_for_known_gaps() {
    for layout in Layout::ALL {
        let Some(fake) = fake(layout) else { return };
        let cache = tempfile::tempdir().unwrap();
        let backend = TensorRt::open(options(&fake, cache.path())).unwrap();
        println!("{layout:?}: {}", backend.describe());
        conformance::run(&backend, KNOWN_GAPS);
        drop(backend);
        assert_eq!(fake.violations(), Vec::<String>::new());
        // And with the watchdog, as the command uses it.
        let settings = settings(options(&fake, cache.path()));
        for choice in [Choice::TensorRt, Choice::Auto] {
            let backend = open(choice, &settings).unwrap();
            conformance::run(&*backend, KNOWN_GAPS);
            assert_eq!(backend.health().state, State::Healthy, "{layout:?}");
            assert_eq!(backend.health().answering, "tensorrt");
        }
    }
}

#[test]
fn a_frame_goes_through_profiles_sessions_and_the_cache() {
    for layout in Layout::ALL {
        let Some(fake) = fake(layout) else { return };
        let cache = tempfile::tempdir().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bundle = nonsense_bundle(directory.path());
        let settings = settings(options(&fake, cache.path()));
        for start in 0..2 {
            let backend = open(Choice::Auto, &settings).unwrap();
            let perceptor = perceptor(&bundle, backend, 2, TILE);
            let view = view(&perceptor, SIZE).unwrap();
            let first = frame(&view).unwrap();
            assert!(frame(&view).unwrap() == first);
            let health = perceptor.health();
            assert_eq!(
                (health.answering, health.state),
                ("tensorrt", State::Healthy)
            );
            assert_eq!(health.counters.preferred_runs, 1 + 2 * TILES);
            // Keys and queries are built the first time and read the second time.
            let built = times(&fake, "buildSerializedNetwork");
            assert_eq!(built, 2, "{layout:?}, start {start}");
            // Heads of any number of outputs run in the same engine, and only their outputs are copied.
            for outputs in [1, 5] {
                let head = head(&perceptor, outputs);
                let view = self::view(&perceptor, SIZE).unwrap();
                let view = view.with_head(&head).unwrap();
                let mut pixels = 0;
                view.frame(&mut |tile| {
                    assert_eq!(tile.row(0).len(), outputs * tile.rect.width);
                    pixels += tile.rect.area();
                    Ok(())
                })
                .unwrap();
                assert_eq!(pixels, SIZE.area());
            }
            assert_eq!(perceptor.health().state, State::Healthy, "{layout:?}");
            assert_eq!(times(&fake, "buildSerializedNetwork"), 2, "{layout:?}");
            // Sessions are dropped on their own threads; the GPU is released last.
            drop(view);
            drop(perceptor);
            let dropped = std::time::Instant::now();
            while times(&fake, "~CudaContext") <= start {
                assert!(dropped.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let entries = EngineCache::at(cache.path()).entries().unwrap();
        let names: Vec<String> = entries
            .iter()
            .map(|e| e.content.as_ref().unwrap().graph.clone())
            .collect();
        assert_eq!(names, ["keys.onnx", "queries.onnx"]);
        let queries = entries[1].content.as_ref().unwrap();
        println!("{}", queries.profiles);
        assert!(
            queries
                .profiles
                .contains("guidance 1x3x5x5..64x3x5x5 (64x3x5x5)")
        );
        assert!(
            queries
                .profiles
                .contains("guidance 1x3x5x5..1x3x12x12 (1x3x12x12)")
        );
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
}

#[test]
fn steady_runs_reserve_no_memory_of_the_gpu() {
    let Some(fake) = fake(Layout::V10) else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bundle = nonsense_bundle(directory.path());
    let mut options = options(&fake, cache.path());
    options.cuda_graph = true;
    let backend = open(Choice::TensorRt, &settings(options)).unwrap();
    let perceptor = perceptor(&bundle, backend, 1, TILE);
    let view = view(&perceptor, SIZE).unwrap();
    let first = frame(&view).unwrap();
    let before = ["cuMemAlloc", "cuMemHostAlloc", "new "].map(|call| times(&fake, call));
    assert!(frame(&view).unwrap() == first);
    let after = ["cuMemAlloc", "cuMemHostAlloc", "new "].map(|call| times(&fake, call));
    assert_eq!(before, after);
    assert!(times(&fake, "cuGraphLaunch") as u64 >= TILES);
}

#[test]
fn a_failure_in_the_middle_of_a_frame_is_carried_on_by_tract() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = nonsense_bundle(directory.path());
    let expected = expected(&bundle);
    for (key, value, part) in [
        ("enqueue", "false", "illegal memory access"),
        ("enqueue", "nan", "returned NaN at flat index 0"),
        ("enqueue", "hang", "timed out after 1000 ms"),
        ("stream", "stuck", "timed out after 1000 ms"),
        ("stream", "broken", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    ] {
        let Some(fake) = fake(Layout::V10) else {
            return;
        };
        let cache = tempfile::tempdir().unwrap();
        let backend = open(Choice::Auto, &settings(options(&fake, cache.path()))).unwrap();
        let perceptor = perceptor(&bundle, backend, 1, TILE);
        // Compute the keys with tract as well, so that tiles can be compared: the mock's are
        // meaningless.
        let reference = perceptor_of_tract(&bundle);
        let view = view(&perceptor, SIZE).unwrap();
        let mut tiles = 0;
        let mut seen = vec![0u8; SIZE.area()];
        view.frame(&mut |tile| {
            tiles += 1;
            if tiles == 5 {
                fake.set(key, value);
            }
            for y in tile.rect.y..tile.rect.y + tile.rect.height {
                for x in tile.rect.x..tile.rect.x + tile.rect.width {
                    seen[y * SIZE.width + x] += 1;
                }
            }
            for y in 0..tile.rect.height {
                assert!(tile.row(y).iter().all(|v| v.is_finite()));
            }
            Ok(())
        })
        .unwrap();
        assert!(seen.iter().all(|n| *n == 1), "{key}={value}");
        let health = perceptor.health();
        let reason = health.reason().unwrap();
        println!("{key}={value}: {reason}");
        assert!(reason.contains(part) && !reason.contains('\n'), "{reason}");
        assert_eq!(health.answering, "tract");
        assert_eq!(health.counters.preferred_runs, 1 + 5, "keys and five tiles");
        assert_eq!(health.counters.fallback_runs, TILES - 5);
        // From here on, tract computes complete frames.
        let again = frame(&self::view(&perceptor, SIZE).unwrap()).unwrap();
        assert!(again == expected, "{key}={value}");
        assert!(frame(&self::view(&reference, SIZE).unwrap()).unwrap() == expected);
        fake.set(key, "ok");
        drop(view);
        drop(perceptor);
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
}

fn perceptor_of_tract(bundle: &Path) -> Perceptor {
    perceptor(bundle, Arc::new(CpuBackend), 1, TILE)
}

#[test]
fn alone_the_same_failures_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = nonsense_bundle(directory.path());
    for (key, value, part) in [
        ("enqueue", "false", "illegal memory access"),
        ("enqueue", "nan", "returned NaN"),
        ("enqueue", "hang", "timed out after"),
        ("stream", "broken", "must be restarted"),
    ] {
        let Some(fake) = fake(Layout::V11) else {
            return;
        };
        let cache = tempfile::tempdir().unwrap();
        let backend = open(Choice::TensorRt, &settings(options(&fake, cache.path()))).unwrap();
        let perceptor = perceptor(&bundle, backend, 1, TILE);
        let view = view(&perceptor, SIZE).unwrap();
        frame(&view).unwrap();
        fake.set(key, value);
        let e = frame(&view).unwrap_err().to_string();
        assert!(e.contains(part) && !e.contains('\n'), "{e}");
        fake.set(key, "ok");
        frame(&view).unwrap();
    }
}

#[test]
fn an_engine_that_the_library_refuses_is_built_again_once() {
    let Some(fake) = fake(Layout::V10) else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bundle = nonsense_bundle(directory.path());
    let settings = settings(options(&fake, cache.path()));
    let run = || {
        let backend = open(Choice::Auto, &settings).unwrap();
        let perceptor = perceptor(&bundle, backend, 1, TILE);
        let answer = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
        (answer, perceptor.health())
    };
    run();
    fake.set("deserialize", "null");
    let (answer, health) = run();
    println!("{}", health.reason().unwrap());
    assert!(health.reason().unwrap().contains("cannot be used here"));
    assert!(answer == expected(&bundle));
    // The keys once more, without success; after that TensorRT is not used any more.
    assert_eq!(times(&fake, "buildSerializedNetwork"), 3);
    fake.set("deserialize", "ok");
    assert_eq!(run().1.state, State::Healthy);
}

#[test]
fn dla_and_workspace_reach_the_builder_and_the_key() {
    let Some(fake) = fake(Layout::V10) else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    fake.set("dla_cores", "2");
    let mut options = options(&fake, cache.path());
    options.dla_core = Some(1);
    options.workspace = 123 << 20;
    let backend = TensorRt::open(options).unwrap();
    let (_, case) = conformance::CASES[0];
    case(&backend);
    assert_eq!(times(&fake, "setDLACore 1"), 1);
    assert_eq!(times(&fake, "runtime setDLACore 1"), 1);
    let entries = EngineCache::at(cache.path()).entries().unwrap();
    let key = entries[0].content.as_ref().unwrap();
    assert_eq!(key.settings, "workspace 128974848, tf32 false, dla 1");
    assert_eq!(
        (key.capability.as_str(), key.library.as_str()),
        ("8.7", "TensorRT 10.3.0")
    );
}

#[test]
fn too_little_workspace_and_refused_graphs_are_reasons_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = nonsense_bundle(directory.path());
    let expected = expected(&bundle);
    for (key, value, part) in [
        (
            "build_error",
            "Requested size was 285614268 bytes.",
            "workspace limit",
        ),
        ("build", "null", "could not build the engine"),
        (
            "parse_error",
            "unsupported",
            "rejected the model at node fake_node",
        ),
        ("context", "null", "createExecutionContext"),
        ("memory", "full", "out of memory"),
    ] {
        let Some(fake) = fake(Layout::V10) else {
            return;
        };
        fake.set(key, value);
        let cache = tempfile::tempdir().unwrap();
        let settings = settings(options(&fake, cache.path()));
        let perceptor = perceptor(&bundle, open(Choice::Auto, &settings).unwrap(), 1, TILE);
        let answer = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
        assert!(answer == expected);
        let health = perceptor.health();
        let reason = health.reason().unwrap();
        println!("{key}: {reason}");
        assert!(
            reason.contains(part) && reason.contains("keys.onnx"),
            "{reason}"
        );
        let alone = self::perceptor(&bundle, open(Choice::TensorRt, &settings).unwrap(), 1, TILE);
        let e = view(&alone, SIZE).err().expect("an error").to_string();
        assert!(e.contains(part) && !e.contains('\n'), "{e}");
    }
}

/// With these libraries, `auto` returns tract's features with this reason, and `tensorrt` fails
/// with it.
fn falls_back(tensorrt: tensorrt::Options, parts: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let bundle = nonsense_bundle(directory.path());
    let settings = settings(tensorrt);
    let e = open(Choice::TensorRt, &settings)
        .err()
        .expect("no TensorRT");
    assert!(matches!(e, BackendError::Unavailable { .. }), "{e}");
    let text = e.to_string();
    println!("{text}");
    let backend = open(Choice::Auto, &settings).unwrap();
    assert_eq!(backend.tiling_hint(), CpuBackend.tiling_hint());
    let perceptor = perceptor(&bundle, backend, 1, TILE);
    let answer = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
    let health = perceptor.health();
    assert_eq!(
        (health.answering, health.reason()),
        ("tract", Some(text.as_str()))
    );
    for part in parts {
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
    let expected = expected(&bundle);
    println!("worst difference to tract {:e}", worst(&answer, &expected));
    assert!(answer == expected);
}

#[test]
fn without_a_library_tract_answers() {
    let Some(fake) = fake(Layout::V10) else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let mut without = options(&fake, cache.path());
    without.library = Some("/nowhere/libnvinfer.so.10".into());
    falls_back(
        without,
        &["/nowhere/libnvinfer.so.10: not found", "LOFTUP_TENSORRT"],
    );
}

#[test]
fn without_libcuda_tract_answers() {
    let Some(fake) = fake(Layout::V10) else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let mut without = options(&fake, cache.path());
    without.libcuda = Some("/nowhere/libcuda.so.1".into());
    falls_back(
        without,
        &["CUDA is not available", "/nowhere/libcuda.so.1", "driver"],
    );
    assert_eq!(
        times(&fake, "createInfer"),
        0,
        "TensorRT must not be called"
    );
}

#[test]
fn without_a_device_or_a_driver_that_starts_tract_answers() {
    for (key, value, part) in [
        ("devices", "0", "reports no GPU"),
        ("init", "100", "reports no GPU"),
        ("init", "999", "CUDA_ERROR_UNKNOWN"),
        ("init", "34", "stub"),
    ] {
        let Some(fake) = fake(Layout::V10) else {
            return;
        };
        fake.set(key, value);
        let cache = tempfile::tempdir().unwrap();
        falls_back(options(&fake, cache.path()), &[part]);
        assert_eq!(
            times(&fake, "createInfer"),
            0,
            "TensorRT must not be called"
        );
    }
}

#[test]
fn a_runtime_that_is_no_object_is_not_called() {
    let Some(fake) = fake(Layout::V10) else {
        return;
    };
    fake.set("runtime", "0x228");
    let cache = tempfile::tempdir().unwrap();
    falls_back(
        options(&fake, cache.path()),
        &["createInferRuntime_INTERNAL"],
    );
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let Some(fake) = fake(Layout::V10) else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let mut third = options(&fake, cache.path());
    third.device = 3;
    falls_back(third, &["there is no GPU 3: this machine has 1"]);
}

/// NVIDIA's real library of this name, if it has been downloaded, without a driver and with a mock
/// one; in its own process, because it may crash.
fn real_library(name: &str, test: &str) {
    let Some(library) = cached(name) else { return };
    in_child(test, || {
        let with = |library: &Path, libcuda: Option<PathBuf>| tensorrt::Options {
            library: Some(library.to_path_buf()),
            libcuda,
            cache: EngineCache::none(),
            ..tensorrt::Options::default()
        };
        if TensorRt::no_gpu(&with(&library, None)).is_none() {
            eprintln!("skipped: this machine has a GPU");
            return;
        }
        falls_back(with(&library, None), &["CUDA is not available"]);
        let Some(fake) = fake(Layout::V10) else {
            return;
        };
        falls_back(with(&library, Some(fake.libcuda())), &["cannot be used"]);
    });
}

#[test]
fn with_the_lean_runtime_10_16_and_no_gpu_tract_answers() {
    real_library(
        "lean-10.16",
        "with_the_lean_runtime_10_16_and_no_gpu_tract_answers",
    );
}

#[test]
fn with_the_lean_runtime_11_4_and_no_gpu_tract_answers() {
    real_library(
        "lean-11.4",
        "with_the_lean_runtime_11_4_and_no_gpu_tract_answers",
    );
}
