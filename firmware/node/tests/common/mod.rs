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

/// Writes a bundle of 48 channels with a class head `scene` and a descriptor head `pca` of 3 channels.
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
    ] {
        let outputs = kind.outputs();
        let mut seed = 7u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let linear = Linear {
            inputs: dim,
            weight: (0..outputs * dim).map(|_| noise()).collect(),
            bias: (0..outputs).map(|_| noise()).collect(),
        };
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
    out
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
