//! `loftup export`: one graph that gives what `loftup run` gives.

use std::path::{Path, PathBuf};

use loftup_bundle::{Head, HeadKind, Linear};
use loftup_runtime::backend::{self, TractBackend};

use crate::support::*;

/// A head of four classes in a file, for features of `dim` channels.
fn head(dir: &Path, dim: usize, words: bool) -> PathBuf {
    let names: Vec<String> = ["sky", "road", "tree", "car"].map(String::from).to_vec();
    let kind = match words {
        false => HeadKind::Classes { names },
        true => HeadKind::Words {
            names,
            negative: Vec::new(),
            threshold: None,
        },
    };
    let weight = (0..4 * dim).map(|i| ((i * 31 % 89) as f32 - 44.0) / 44.0);
    let linear = Linear {
        inputs: dim,
        weight: weight.collect(),
        bias: vec![0.0; 4],
    };
    let file = String::new();
    let bytes = Head { kind, dim, file }.to_file(&linear).unwrap();
    let path = dir.join(format!("head-{words}.safetensors"));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_graph_gives_the_classes_of_run() {
    let (dir, bundle) = (dir(), full());
    let manifest = loftup_bundle::Bundle::open(&bundle.path()).unwrap();
    let head = head(
        dir.path(),
        manifest.manifest().upsampler.as_ref().unwrap().dim,
        false,
    );
    let (image, photo) = (png(dir.path()), photo());
    let (onnx, map) = (dir.path().join("frame.onnx"), dir.path().join("map.npy"));
    let camera = format!("{}x{}", photo.width(), photo.height());
    let export = |out: &Path| {
        let mut command = loftup!("export", bundle.path(), "--camera", &camera);
        command.args(["--size", "45x31", "--tile", "20", "--head"]);
        command.arg(&head).arg("--out").arg(out);
        command
    };
    let text = done(&mut export(&onnx));
    names(
        &text,
        &[
            "frame.onnx",
            "image: uint8 [1, ",
            "classes: uint8 [1, 31, 45]",
        ],
    );
    let text = done(export(&dir.path().join("again.onnx")).arg("--json"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["outputs"][0]["shape"], serde_json::json!([1, 31, 45]));
    let bytes = std::fs::read(&onnx).unwrap();
    assert!(bytes == std::fs::read(dir.path().join("again.onnx")).unwrap());

    let shape = [1, photo.height(), photo.width(), 3];
    let inputs = [("image", &shape[..])];
    let plan = backend::compile_once(&TractBackend, "frame", bytes, &inputs, &["classes"]).unwrap();
    let mut session = plan.session().unwrap();
    session.set_bytes(0, photo.data()).unwrap();
    session.run().unwrap();
    let mut run = loftup!("run", bundle.path(), "--image", &image, "--size", "45x31");
    done(
        run.arg("--backend")
            .arg("tract")
            .arg("--head")
            .arg(&head)
            .arg("--out")
            .arg(&map),
    );
    let expected = std::fs::read(&map).unwrap();
    let expected = &expected[expected.len() - 31 * 45..];
    let found = session.output_bytes(0);
    let different = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    assert!(found.iter().any(|c| *c != found[0]), "only one class");
    // Near ties.
    assert!(different <= 2, "{different} of {} differ", found.len());
}

#[test]
fn what_no_graph_can_be_made_of_is_refused() {
    let (dir, full, upsampler) = (dir(), full(), upsampler());
    let manifest = loftup_bundle::Bundle::open(&full.path()).unwrap();
    let dim = manifest.manifest().upsampler.as_ref().unwrap().dim;
    let [classes, words] = [false, true].map(|words| head(dir.path(), dim, words));
    let other = head(&dir.path().join("."), dim, false);
    let (full, upsampler) = (full.path(), upsampler.path());
    let out = dir.path().join("frame.onnx");
    let cases: &[(&Path, &[&str], &[&str])] = &[
        (&upsampler, &[], &["no backbone"]),
        (&full, &["--output", "classes"], &["--head"]),
        (
            &full,
            &["--precision", "fp16"],
            &["fp16", "fp32", "loftup quantize"],
        ),
        (&full, &["--head", words.to_str().unwrap()], &["words"]),
        (
            &full,
            &["--head", classes.to_str().unwrap(), "--output", "features"],
            &["--head"],
        ),
        (&full, &["--head", "none"], &["none"]),
    ];
    for (bundle, options, parts) in cases {
        let mut command = loftup!("export", bundle, "--camera", "64x48", "--out", &out);
        let line = refused(dir.path(), command.args(*options));
        names(&line, parts);
    }
    let mut command = loftup!("export", &full, "--camera", "64x48", "--head", &other);
    let line = refused(
        dir.path(),
        command.arg("--out").arg(dir.path().join("no/frame.onnx")),
    );
    names(&line, &["no/frame.onnx"]);
}
