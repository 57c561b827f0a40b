//! A node does not use an engine that computes wrong results.

mod common;

use loftup_bundle::{Bundle, Size};
use loftup_node::{
    config::Config,
    model::{BundleModel, Model, ModelError},
};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Perceptor,
    backend::{Choice, Settings, engine_cache::EngineCache, open, tensorrt},
};
use loftup_tensorrt::{Layout, testing::Fake};

#[test]
fn the_model_falls_back_to_tract_or_does_not_start() {
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    fake.set("enqueue", "plausible");
    fake.set("dim.tokens", "grid.1*grid.2");
    fake.set("dim.pixels", "guidance.0*guidance.2-4*guidance.3-4");
    let folder = tempfile::tempdir().unwrap();
    let bundle = common::bundle(folder.path());
    let file = folder.path().join("node.toml");
    let config = Config::parse(&common::config_text(""), &file).unwrap();
    let settings = Settings {
        tensorrt: tensorrt::Options {
            library: Some(fake.library()),
            libcuda: Some(fake.libcuda()),
            cache: EngineCache::at(folder.path().join("engines")),
            ..tensorrt::Options::default()
        },
        ..Settings::default()
    };
    let start = |choice| -> Result<BundleModel, ModelError> {
        let engine = open(choice, &settings).unwrap();
        let bundle = Bundle::open(&bundle).unwrap();
        let perceptor = Perceptor::with_backend(bundle, engine, ExecutionOptions::default())?;
        let size = Size {
            width: 42,
            height: 42,
        };
        BundleModel::new(perceptor, &config, ColorRange::PerImage, &[size])
    };
    let reason = start(Choice::Auto).unwrap().fallback().unwrap();
    println!("{reason}");
    let refused = start(Choice::TensorRt).err().expect("refused").to_string();
    for text in [reason, refused] {
        for part in ["TensorRT 10.3.0", "backbone.onnx", "wrong outputs"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
