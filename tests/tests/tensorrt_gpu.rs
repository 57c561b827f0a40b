//! Tests that need a GPU, run by `tools/gpu_checks.sh`. Without one they report that and do
//! nothing.

use std::{ops::ControlFlow, sync::Arc};

use loftup_bundle::Size;
use loftup_convert::{compare::Tolerance, convert};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Features, FrameEngine, FrameEngineQuery, ImageTensor, Perceptor,
    Rect,
    backend::{Backend, Choice, Settings, State, TensorRt, engine_cache::EngineCache, open},
    sinks::VecSink,
};
use loftup_tests::{
    camera::{classes, photo, scenes_bundle},
    conformance,
    golden::{BACKBONES, Case, UPSAMPLERS, compare},
};

/// What TensorRT does not support: nothing known. The suite has not been run on TensorRT yet.
const KNOWN_GAPS: &[&str] = &[];

/// TensorRT with an empty cache, or `None` with the reason on standard error.
fn settings() -> Option<(Settings, tempfile::TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.tensorrt.cache = EngineCache::at(directory.path());
    match TensorRt::open(settings.tensorrt.clone()) {
        Ok(backend) => {
            println!("{}", backend.describe());
            Some((settings, directory))
        }
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

#[test]
fn tensorrt_on_a_gpu_conforms() {
    let Some((settings, _cache)) = settings() else {
        return;
    };
    for cuda_graph in [false, true] {
        let mut settings = settings.clone();
        settings.tensorrt.cuda_graph = cuda_graph;
        println!("CUDA graph: {cuda_graph}");
        let backend = open(Choice::TensorRt, &settings).unwrap();
        conformance::run(&*backend, KNOWN_GAPS);
        assert_eq!(backend.health().state, State::Healthy);
    }
}

#[test]
fn a_whole_frame_on_a_gpu_is_what_the_steps_give() {
    let Some((settings, _cache)) = settings() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let bundle = loftup_bundle::Bundle::open(&scenes_bundle(directory.path())).unwrap();
    let [camera, size] = [(640, 480), (224, 224)].map(|(width, height)| Size { width, height });
    for cuda_graph in [false, true] {
        let mut settings = settings.clone();
        settings.tensorrt.cuda_graph = cuda_graph;
        let steps = open(Choice::TensorRt, &settings).unwrap();
        let options = ExecutionOptions::default();
        let perceptor = Perceptor::with_backend(bundle.clone(), steps, options).unwrap();
        let engine = Arc::new(TensorRt::open(settings.tensorrt.clone()).unwrap());
        let query = FrameEngineQuery {
            camera,
            size,
            head: classes(64, 5),
            range: ColorRange::PerImage,
        };
        // Compares the scores of a test image.
        let perceptor = Arc::new(perceptor);
        let frames = FrameEngine::new(perceptor, Ok(engine.clone()), settings.fallback, query);
        let frames = frames.unwrap();
        assert_eq!(frames.health().state, State::Healthy);
        let image = photo(camera);
        let first = frames.run(&image, <[u8]>::to_vec).unwrap();
        assert!(first.iter().any(|c| *c != first[0]), "only one class");
        for _ in 0..3 {
            assert_eq!(frames.run(&image, <[u8]>::to_vec).unwrap(), first);
        }
        println!("CUDA graph {cuda_graph}: copied {:?}", engine.copied());
        assert_eq!(frames.health().state, State::Healthy);
    }
}

/// A GPU adds in another order, and sines of large angles lose some digits.
const ON_GPU: Tolerance = Tolerance {
    max: 2e-2,
    mean: 1e-3,
    cosine: 0.9999,
};

#[test]
fn tensorrt_on_a_gpu_gives_the_original_features() {
    let Some((settings, _cache)) = settings() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let perceptor = |case: &Case, name: &str| {
        let out = directory.path().join(name);
        convert(&case.request(&out), |_| ControlFlow::Continue(())).expect("a bundle");
        let bundle = loftup_bundle::Bundle::open(&out).expect("a bundle");
        let backend: Arc<dyn Backend> = open(Choice::TensorRt, &settings).unwrap();
        Perceptor::with_backend(bundle, backend, ExecutionOptions::default()).expect("an engine")
    };
    for name in BACKBONES {
        let case = Case::load(name);
        let perceptor = perceptor(&case, name);
        let image = ImageTensor::from_array(case.array("image")).expect("an image");
        let features = perceptor.features(&image).expect("features");
        let expected = case.array("out");
        compare(
            name,
            &features.to_map(),
            &expected.data,
            features.dim,
            ON_GPU,
        );
    }
    for name in UPSAMPLERS {
        let case = Case::load(name);
        let perceptor = perceptor(&case, name);
        let expected = case.array("out");
        let lr = case.array("lr");
        let dim = lr.shape[1];
        let features = Features::from_map(&lr.shape, &lr.data, dim).expect("features");
        let image = ImageTensor::from_array(case.array("image")).expect("an image");
        let frame = perceptor
            .encode_features(&features, &image, ColorRange::PerImage)
            .expect("a frame");
        let mut sink = VecSink::new(Rect::whole(frame.size()), dim).expect("memory");
        frame.frame(&mut |tile| sink.push(tile)).expect("a frame");
        compare(name, &sink.to_map(), &expected.data, dim, ON_GPU);
        assert_eq!(perceptor.health().state, State::Healthy);
    }
}
