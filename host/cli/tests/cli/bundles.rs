//! Bundles that were changed after they were made.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::*;

/// Every command refuses the bundle, and names all of `parts`.
fn all_refuse(dir: &Path, bundle: &Path, parts: &[&str]) {
    let image = png(dir);
    let out = dir.join("out.npy");
    for mut command in [
        loftup!("run", bundle, "--image", &image, "--out", &out),
        loftup!("inspect", bundle),
        loftup!("verify", bundle),
    ] {
        names(&refused(dir, &mut command), parts);
    }
}

#[test]
fn a_changed_byte_is_found_in_every_file() {
    let (dir, bundle) = (dir(), full());
    let copy = copy(&bundle, dir.path());
    for file in [
        "backbone.onnx",
        "keys.onnx",
        "queries.onnx",
        "upsampler.onnx",
    ] {
        let path = copy.join(file);
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        all_refuse(dir.path(), &copy, &[file, "SHA-256", "again"]);
        fs::write(&path, &bytes[..middle]).unwrap();
        all_refuse(dir.path(), &copy, &[file, "bytes", "again"]);
        fs::write(&path, good).unwrap();
    }
    done(&mut loftup!("verify", &copy));
}

#[test]
fn a_missing_file_is_named() {
    let (dir, bundle) = (dir(), full());
    let copy = copy(&bundle, dir.path());
    fs::remove_file(copy.join("queries.onnx")).unwrap();
    all_refuse(dir.path(), &copy, &["queries.onnx", "missing", "again"]);
    fs::remove_file(copy.join("manifest.json")).unwrap();
    all_refuse(
        dir.path(),
        &copy,
        &["copy.loftup", "not a bundle", "manifest.json"],
    );
}

#[test]
fn what_is_no_bundle() {
    let dir = dir();
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    for path in [dir.path().to_owned(), weights("dinov2.bin")] {
        let line = refused(
            dir.path(),
            &mut loftup!("run", &path, "--image", &image, "--out", &out),
        );
        names(
            &line,
            &[path.to_str().unwrap(), "not a bundle", "loftup convert"],
        );
    }
    let missing = dir.path().join("missing.loftup");
    let line = refused(
        dir.path(),
        &mut loftup!("run", &missing, "--image", &image, "--out", &out),
    );
    names(&line, &["missing.loftup"]);
}

#[test]
fn manifests_that_cannot_be_trusted() {
    let (dir, bundle) = (dir(), full());
    let copy = copy(&bundle, dir.path());
    let path = copy.join("manifest.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let changed = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut manifest = good.clone();
        change(&mut manifest);
        fs::write(&path, manifest.to_string()).unwrap();
        all_refuse(dir.path(), &copy, &["manifest.json"]);
        all_refuse(dir.path(), &copy, parts);
    };
    changed(
        &|m| m["format"] = json!(99),
        &["format 99", "format 2", "convert again"],
    );
    // The version is what is told, whatever else there is in it.
    changed(
        &|m| *m = json!({ "format": 3, "novelty": [] }),
        &["format 3"],
    );
    for name in [
        "../keys.onnx",
        "/etc/passwd",
        "a/b.onnx",
        "..",
        "",
        ".hidden",
        "a\nb",
    ] {
        changed(
            &|m| {
                let entry = m["files"]["keys.onnx"].clone();
                m["files"][name] = entry;
                m["upsampler"]["graphs"]["fp32"]["keys"] = json!(name);
            },
            &["plain file name"],
        );
    }
    changed(
        &|m| m["upsampler"]["graphs"]["fp32"]["keys"] = json!("../keys.onnx"),
        &["../keys.onnx"],
    );
    changed(&|m| m["surprise"] = json!(1), &["surprise"]);
    changed(&|m| m["backbone"]["patch"] = json!(0), &["patch 0"]);
    changed(
        &|m| m["backbone"]["size"]["width"] = json!(1u64 << 60),
        &["backbone"],
    );
    changed(&|m| m["backbone"]["dim"] = json!(32), &["32", "48"]);
    changed(&|m| m["backbone"]["dim"] = json!(-1), &["-1"]);
    changed(&|m| m["upsampler"]["heads"] = json!(0), &["heads"]);
    changed(&|m| m["normalization"]["std"][1] = json!(0.0), &["std"]);
    for text in [
        "",
        "{",
        "not JSON at all\nin two lines",
        "[1, 2]",
        "\u{1}\u{2}",
    ] {
        fs::write(&path, text).unwrap();
        all_refuse(dir.path(), &copy, &["manifest.json"]);
    }
    fs::write(&path, [0xff; 64]).unwrap();
    all_refuse(dir.path(), &copy, &["manifest.json"]);
}

type Change<'a> = &'a dyn Fn(&mut Value);

/// The hashes are right, and what the manifest says of the graphs is not.
#[test]
fn manifests_that_do_not_fit_their_graphs() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let copy = copy(&bundle, dir.path());
    let path = copy.join("manifest.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let huge = json!(1u64 << 40);
    let changes: [(&str, Change<'_>); 8] = [
        ("backbone.onnx", &|m| {
            m["backbone"]["output"] = json!("nothing")
        }),
        ("backbone.onnx", &|m| {
            m["backbone"]["input"] = json!("nothing")
        }),
        ("backbone", &|m| m["backbone"]["patch"] = json!(7)),
        ("backbone", &|m| {
            m["backbone"]["layout"] = json!({ "tokens": { "extra": 1 } })
        }),
        ("backbone", &|m| {
            m["backbone"]["layout"] = json!({ "tokens": { "extra": u64::MAX } })
        }),
        ("keys.onnx", &|m| m["upsampler"]["layers"] = json!(3)),
        ("queries.onnx", &|m| m["upsampler"]["head_width"] = json!(8)),
        ("", &|m| {
            m["upsampler"]["heads"] = huge.clone();
            m["upsampler"]["head_width"] = huge.clone();
        }),
    ];
    for (part, change) in changes {
        let mut manifest = good.clone();
        change(&mut manifest);
        fs::write(&path, manifest.to_string()).unwrap();
        let out = dir.path().join("out.npy");
        let line = refused(
            dir.path(),
            &mut loftup!("run", &copy, "--image", &image, "--out", &out),
        );
        names(&line, &[part]);
    }
}
