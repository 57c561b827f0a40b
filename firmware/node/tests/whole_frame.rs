//! Class maps of whole frames by one engine.

mod common;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use loftup_bundle::{Bundle, Size};
use loftup_node::{
    assemble,
    config::{Config, Upsampler},
    frame::RawFrame,
    health::Reason,
    inject::Plan,
    model::{BundleModel, FrameRequest, Model},
    output::FrameOutput,
    pipeline::Node,
    regions::RegionFinder,
    source::{Pace, Scenes},
};
use loftup_runtime::{
    ColorRange, ExecutionOptions, FrameEngine, FrameEngineQuery, Perceptor,
    backend::{
        CpuBackend, FallbackOptions,
        fault::{Fault, Faults, Faulty},
    },
    image::RgbImage,
};

const CAMERA: Size = Size {
    width: 96,
    height: 64,
};
const SIZE: Size = Size {
    width: 42,
    height: 42,
};

/// Queries for a class map and for regions of the whole frame.
const MAPS: &str = r#"
[[query]]
slot = 0
want = "classes"

[[query]]
slot = 1
want = "regions"
"#;

fn config(folder: &std::path::Path, more: &str) -> Config {
    common::bundle(folder);
    Config::parse(&common::config_text(more), &folder.join("node.toml")).unwrap()
}

/// A model with an engine for whole frames, which is the CPU's with `faults`.
fn model(config: &Config, faults: &Arc<Faults>) -> BundleModel {
    let bundle = Bundle::open(&config.model.bundle).unwrap();
    let options = ExecutionOptions::default();
    let perceptor = Perceptor::with_backend(bundle, Arc::new(CpuBackend), options).unwrap();
    let perceptor = Arc::new(perceptor);
    let query = FrameEngineQuery {
        camera: CAMERA,
        size: SIZE,
        head: perceptor.head(&config.model.head).unwrap(),
        range: ColorRange::PerImage,
    };
    let engine = Ok(Arc::new(Faulty::new(CpuBackend, faults.clone())) as _);
    let options = FallbackOptions::default();
    let engine = FrameEngine::new(perceptor.clone(), engine, options, query).unwrap();
    let model = BundleModel::new(perceptor, config, ColorRange::PerImage, &[SIZE]).unwrap();
    model.with_frame_engine(engine)
}

fn image(number: u64) -> RgbImage {
    let mut raw = RawFrame::default();
    Scenes::new(5, CAMERA.width, CAMERA.height, Pace::new(10.0)).draw(number, &mut raw);
    RgbImage::new(raw.width, raw.height, raw.bytes).unwrap()
}

#[test]
fn the_outputs_are_those_of_the_steps() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), MAPS);
    let model = model(&config, &Faults::none());
    let queries = config.queries();
    let request = FrameRequest {
        queries: &queries,
        regions_only: false,
        upsampler: Upsampler::Loftup,
        words: None,
        min_area_px: 1,
        max_regions: 64,
        camera: CAMERA,
    };
    assert!(model.takes_whole_frame(&request, SIZE));
    let mut finder = RegionFinder::default();
    let (mut steps, mut whole) = (FrameOutput::default(), FrameOutput::default());
    for number in 0..3 {
        let image = image(number);
        let inputs = model.preprocess(&image, SIZE).unwrap();
        let features = model.features(&inputs).unwrap();
        model
            .upsample(&inputs, &features, &request, &mut finder, &mut steps)
            .unwrap();
        model
            .whole_frame(&image, &request, &mut finder, &mut whole)
            .unwrap();
        assert_eq!(whole.outputs().len(), 2);
        for (a, b) in whole.outputs().iter().zip(steps.outputs()) {
            let place = |o: &loftup_node::output::QueryOutput| {
                (o.slot, o.kind, o.source, o.width, o.height, o.labels)
            };
            assert_eq!(place(a), place(b));
            let different = a.classes.iter().zip(&b.classes).filter(|(a, b)| a != b);
            assert_eq!(a.classes.len(), SIZE.area());
            // Near ties.
            assert!(different.count() <= 3, "image {number}");
            assert_eq!(a.regions.is_empty(), b.regions.is_empty());
        }
    }
    // Whatever the engine does not compute is computed step by step.
    let other = Size {
        width: 40,
        ..CAMERA
    };
    for request in [
        FrameRequest {
            camera: other,
            ..request.clone()
        },
        FrameRequest {
            upsampler: Upsampler::Jbu,
            ..request.clone()
        },
        FrameRequest {
            queries: &Default::default(),
            ..request.clone()
        },
    ] {
        assert!(!model.takes_whole_frame(&request, SIZE));
    }
    assert!(!model.takes_whole_frame(&request, CAMERA));
    let part = Config::parse(
        &common::config_text(&common::queries([8, 8, 30, 20])),
        &folder.path().join("node.toml"),
    );
    let queries = part.unwrap().queries();
    let request = FrameRequest {
        queries: &queries,
        ..request
    };
    assert!(!model.takes_whole_frame(&request, SIZE));
}

#[test]
fn when_the_engine_fails_the_node_goes_on_and_its_health_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), MAPS);
    let faults = Faults::none();
    let (mut parts, _) = assemble::parts(config.clone(), &Plan::default()).unwrap();
    let injected = faults.clone();
    parts.model = Arc::new(move || Ok(Arc::new(model(&config, &injected)) as Arc<dyn Model>));
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());
    let start = Instant::now();
    let until = |what: &str, condition: &dyn Fn() -> bool| {
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    };
    until("a frame", &|| handle.metrics().published() >= 3);
    assert!(!handle.monitor().holds(Reason::Fallback));
    // Only the engine for whole frames has run: the steps run on another backend.
    assert!(faults.runs() >= 3);
    faults.at_run(faults.runs() + 1, Fault::Error);
    until("the fallback", &|| handle.monitor().holds(Reason::Fallback));
    let published = handle.metrics().published();
    until("frames of the steps", &|| {
        handle.metrics().published() >= published + 3
    });
    assert_eq!(faults.injected(), 1);
    handle.stop();
    thread.join().unwrap().unwrap();
    let m = handle.metrics();
    assert_eq!(m.captured(), m.published() + m.total_drops());
}
