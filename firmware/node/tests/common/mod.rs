//! A small bundle with heads, and a configuration for it.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Child,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use loftup_bundle::{Bundle, BundleWriter, Head, HeadKind, Linear, Precision, References, Size};
use loftup_import::{
    checkpoint::Checkpoint,
    vit::{ConfigFiles, Preset, Vit, VitOptions},
};
use loftup_runtime::{ExecutionOptions, Perceptor, backend::CpuBackend};

pub const LABELS: [&str; 5] = ["road", "wall", "sky", "obstacle", "grass"];

fn weights(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/golden/weights")
        .join(name)
}

pub const WORDS: [&str; 3] = ["mug", "cable", "floor"];

/// Words of the file `kitchen.safetensors` that [`bundle`] writes to the directory `words`.
pub const OTHER_WORDS: [&str; 2] = ["kettle", "sink"];

fn words(names: &[&str]) -> HeadKind {
    HeadKind::Words {
        names: names.iter().map(|name| String::from(*name)).collect(),
        negative: vec!["wall".into()],
        threshold: Some(0.02),
    }
}

/// Writes a bundle of 48 channels with a class head `scene`, a descriptor head `pca` of 3 channels, a depth
/// head `depth`, a head of words `words`, and other words in a file.
pub fn bundle(folder: &Path) -> PathBuf {
    let plain = folder.join("plain.loftup");
    let backbone = Checkpoint::open(&weights("dinov2.bin")).unwrap();
    let options = VitOptions {
        heads: Some(3),
        ..VitOptions::default()
    };
    let preset = Preset::parse("dinov2-s14").unwrap();
    let model = Vit::from_checkpoint(&backbone, preset, &options, &ConfigFiles::default()).unwrap();
    let upsampler = Checkpoint::open(&weights("loftup_odd.ckpt")).unwrap();
    let upsampler = loftup_import::loftup::read(&upsampler).unwrap();
    let size = Size {
        width: 42,
        height: 42,
    };
    let _ = std::fs::remove_dir_all(&plain);
    loftup_import::bundle::write(&plain, (&model, size), &upsampler, Vec::new()).unwrap();
    let out = folder.join("robot.loftup");
    let bundle = Bundle::open(&plain).unwrap();
    let mut manifest = bundle.manifest().clone();
    let mut writer = BundleWriter::create(&out, true).unwrap();
    for name in manifest.files.keys() {
        writer.add(name, &bundle.read(name).unwrap()).unwrap();
    }
    let dim = manifest.upsampler.as_ref().unwrap().dim;
    let classes = HeadKind::Classes {
        names: LABELS.map(String::from).to_vec(),
    };
    for (name, kind) in [
        ("scene", classes),
        ("pca", HeadKind::Descriptors { channels: 3 }),
        (
            "depth",
            HeadKind::Depth {
                min_meters: 0.25,
                max_meters: 20.0,
                bins: None,
            },
        ),
        ("words", words(&WORDS)),
    ] {
        let linear = linear(&kind, dim, 7);
        let file = Head::file_name(name);
        writer.add(&file, &linear.to_bytes().unwrap()).unwrap();
        manifest.heads.insert(name.into(), Head { kind, dim, file });
    }
    // Reference outputs, as `loftup convert` writes them.
    let fp32 = Perceptor::with_precision(
        bundle,
        Arc::new(CpuBackend),
        ExecutionOptions::default(),
        Precision::Fp32,
    )
    .unwrap();
    let outputs = fp32.reference_outputs().unwrap();
    let outputs = outputs.to_bytes(&manifest).unwrap();
    writer.add(References::FILE, &outputs).unwrap();
    manifest.references = Some(References {
        file: References::FILE.into(),
        tool: "test".into(),
        errors: BTreeMap::new(),
    });
    writer.seal(manifest).unwrap();
    writer.commit().unwrap();
    let kind = words(&OTHER_WORDS);
    let linear = linear(&kind, dim, 8);
    let file = String::new();
    let bytes = Head { kind, dim, file }.to_file(&linear).unwrap();
    std::fs::create_dir_all(folder.join("words")).unwrap();
    std::fs::write(folder.join("words/kitchen.safetensors"), bytes).unwrap();
    out
}

/// Random weights. Those of a depth are small, because its output is a logarithm.
fn linear(kind: &HeadKind, dim: usize, mut seed: u32) -> Linear {
    let scale = match kind {
        HeadKind::Depth { .. } => 0.2,
        _ => 1.0,
    };
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        scale * ((seed >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    let rows = kind.rows();
    let weight = (0..rows * dim).map(|_| noise()).collect();
    let bias = match kind {
        HeadKind::Words { .. } => vec![0.0; rows],
        _ => (0..rows).map(|_| noise()).collect(),
    };
    Linear {
        inputs: dim,
        weight,
        bias,
    }
}

/// A configuration with a generated scene, followed by `more`.
pub fn config_text(more: &str) -> String {
    format!(
        r#"[model]
bundle = "robot.loftup"
head = "scene"
descriptors = "pca"
backend = "tract"
threads = 1
size = [42, 42]

[source]
kind = "scenes"
seed = 5
size = [96, 64]
rate_hz = 20

{more}"#
    )
}

/// Queries for classes, for regions in `region`, and for features at two points.
pub fn queries(region: [u16; 4]) -> String {
    format!(
        r#"
[[query]]
slot = 0
want = "classes"

[[query]]
slot = 1
want = "regions"
region = {region:?}

[[query]]
slot = 2
want = "features-f16"
points = [[3, 3], [90, 60]]
"#
    )
}

/// Queries for depth, objects and words, from slot 3 on, and what they need, with one object. The key
/// `depth` of `[model]` is [`DEPTH`].
pub const DENSE_QUERIES: &str = r#"
[words]
head = "words"
directory = "words"

[track]
grid = [14, 12]
radius = 3

[[track.object]]
object = 2
name = "first"
region = [20, 10, 30, 30]

[[query]]
slot = 3
want = "depth"

[[query]]
slot = 4
want = "objects"

[[query]]
slot = 5
want = "words"
"#;

/// To replace `threads = 1` by.
pub const DEPTH: &str = "threads = 1\ndepth = \"depth\"";

/// Kills the process when dropped.
pub struct KillOnDrop(pub Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds; panics after `seconds`.
pub fn until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        thread::sleep(Duration::from_millis(5));
    }
}
