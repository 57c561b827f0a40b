//! Tile size and threads are measured once, and the result does not change the output.

use std::{fs, sync::Arc, time::Instant};

use loftup_runtime::{
    ExecutionOptions,
    backend::{Backend, CpuBackend, Graph, Model, TilingHint},
    tuning::TuningCache,
};
use loftup_tests::{
    frames::{SIZE, frame, perceptor, view, worst},
    synthetic::upsampler_bundle,
};

#[test]
fn a_division_is_measured_once_and_gives_the_same_answer() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let cache = TuningCache::at(directory.path().join("tuning"));
    let mut tuned = perceptor(&bundle, Arc::new(CpuBackend), 1, 16);
    let before = frame(&view(&tuned, SIZE).unwrap()).unwrap();
    let start = Instant::now();
    // On a very busy machine a measurement may be abandoned.
    let found = (0..20).find_map(|_| tuned.tuning(&cache).unwrap());
    let found = found.expect("a small model");
    println!("{found:?} in {:?}", start.elapsed());
    assert!([32, 48, 64].contains(&found.tile) && found.threads > 0);
    let files: Vec<_> = fs::read_dir(directory.path().join("tuning"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let [file] = &files[..] else {
        panic!("one file, not {files:?}");
    };
    assert!(file.contains(&format!("tile: {}\n", found.tile)), "{file}");

    // Another process would find it; a value that only the file can contain shows that it is read.
    let path = fs::read_dir(directory.path().join("tuning"))
        .unwrap()
        .next();
    let path = path.unwrap().unwrap().path();
    for tile in [32, 48, 64] {
        let other = file.replace(&format!("tile: {}", found.tile), &format!("tile: {tile}"));
        fs::write(&path, other).unwrap();
        assert_eq!(tuned.tuning(&cache).unwrap().unwrap().tile, tile);
    }

    for tile in [32, 48, 64] {
        tuned.set_execution_options(ExecutionOptions {
            threads: found.threads,
            tile: Some(tile),
        });
        assert_eq!(tuned.options().tile, Some(tile));
        let after = frame(&view(&tuned, SIZE).unwrap()).unwrap();
        let difference = worst(&after, &before);
        println!("tiles of {tile}: worst difference {difference:.1e}");
        // Winograd's transforms amplify rounding errors by up to about 100; features are near 1.
        assert!(difference < 1e-4);
    }
}

/// A backend with the tiling hint of a GPU.
struct LikeAGpu;

impl Backend for LikeAGpu {
    fn name(&self) -> &'static str {
        "GPU-like"
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, loftup_runtime::backend::BackendError> {
        CpuBackend.load(graph)
    }

    fn tiling_hint(&self) -> TilingHint {
        TilingHint::GPU
    }
}

#[test]
fn nothing_is_measured_where_the_engine_is_no_cpu() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let cache = TuningCache::at(directory.path().join("tuning"));
    let gpu = perceptor(&bundle, Arc::new(LikeAGpu), 1, 16);
    assert_eq!(gpu.tuning(&cache).unwrap(), None);
    assert!(!directory.path().join("tuning").exists());
}
