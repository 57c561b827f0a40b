//! `loftup quantize`, and what becomes of its bundles.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::sha256_hex;
use loftup_import::checkpoint::Checkpoint;
use loftup_runtime::image::RgbImage;
use serde_json::Value;

use crate::support::{self, apart, dir, done, loftup, names, photo, read, refused, stderr};

/// Two images that are not alike.
fn images(dir: &Path) -> PathBuf {
    let images = dir.join("images");
    fs::create_dir(&images).unwrap();
    photo().save_png(&images.join("a.png")).unwrap();
    let turned: Vec<u8> = photo().data().iter().rev().copied().collect();
    let turned = RgbImage::new(131, 97, turned).unwrap();
    turned.save_png(&images.join("b.png")).unwrap();
    images
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn bytes(manifest: &Value, part: &str) -> u64 {
    let files = manifest["files"].as_object().unwrap().iter();
    let graphs = files.filter(|(name, _)| name.contains(part) && name.ends_with(".onnx"));
    graphs.map(|(_, f)| f["bytes"].as_u64().unwrap()).sum()
}

/// Changes a file of a bundle, and its entry in the manifest.
fn change(bundle: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = bundle.join(file);
    let mut data = fs::read(&path).unwrap();
    change(&mut data);
    fs::write(&path, &data).unwrap();
    let mut manifest = json(&bundle.join("manifest.json"));
    manifest["files"][file]["bytes"] = data.len().into();
    manifest["files"][file]["sha256"] = sha256_hex(&data).into();
    fs::write(bundle.join("manifest.json"), manifest.to_string()).unwrap();
}

/// Weights of the patch embedding, as they lie in the graph.
fn patch_weights() -> Vec<f32> {
    const NAME: &str = "patch_embed.proj.weight";
    let checkpoint = Checkpoint::open(&support::weights("dinov2.bin")).unwrap();
    let shape = checkpoint.shape(NAME).unwrap().to_vec();
    checkpoint.tensor(NAME, &shape).unwrap().data().to_vec()
}

/// Overwrites the first weights of the patch embedding.
fn poison(bundle: &Path, with: f32, count: usize) {
    let weight = patch_weights();
    let start: Vec<u8> = weight[..8].iter().flat_map(|x| x.to_le_bytes()).collect();
    change(bundle, "backbone.onnx", |data| {
        let at = data.windows(start.len()).position(|w| w == start).unwrap();
        for i in 0..count {
            data[at + 4 * i..][..4].copy_from_slice(&with.to_le_bytes());
        }
    });
}

#[test]
fn every_precision_is_smaller_verified_and_answers_nearly_the_same() {
    let dir = dir();
    let (bundle, images) = (support::full(), images(dir.path()));
    let image = support::png(dir.path());
    let fp32 = dir.path().join("fp32.npy");
    done(&mut loftup!(
        "run",
        bundle.path(),
        "--image",
        &image,
        "--out",
        &fp32
    ));
    let fp32 = read(fp32);
    let size = (fp32.data.iter().map(|x| x * x).sum::<f32>() / fp32.data.len() as f32).sqrt();
    // Allowed of an answer of the CPU: weights rounded to 11 bits, or to 8.
    for (precision, share, allowed) in [
        ("fp16", 0.6, 0.03),
        ("fp16-weights", 0.6, 0.03),
        ("int8", 0.5, 0.5),
    ] {
        let out = dir.path().join(precision);
        let (report, page) = (dir.path().join("r.json"), dir.path().join("r.html"));
        let said = done(&mut loftup!(
            "quantize",
            bundle.path(),
            "--precision",
            precision,
            "--calibrate",
            &images,
            "--out",
            &out,
            "--json",
            &report,
            "--report",
            &page,
            "--tiles",
            "2",
            "--max-error",
            "0.2",
        ));
        names(&said, &[precision, "end to end", "a frame on"]);
        let report = json(&report);
        let loss = report["quantization"]["error"]["relative_error"]
            .as_f64()
            .unwrap();
        println!("{precision}: relative error {loss:.2e}");
        assert!(loss > 1e-6 && loss <= 0.2);
        assert!(!report["layers"].as_array().unwrap().is_empty());
        let page = fs::read_to_string(page).unwrap();
        assert!(page.contains("<h2>Layers</h2>") && !page.contains("http"));

        let (before, after) = (
            json(&bundle.path().join("manifest.json")),
            json(&out.join("manifest.json")),
        );
        assert_eq!(
            after["quantization"][precision]["error"]["relative_error"],
            loss
        );
        let (before, after) = (
            bytes(&before, "keys") + bytes(&before, "queries") + bytes(&before, "backbone"),
            bytes(&after, ""),
        );
        println!("{precision}: {after} bytes of {before}");
        assert!((after as f64) < share * before as f64);

        done(&mut loftup!("verify", &out, "--backend", "tract"));
        names(
            &done(&mut loftup!("inspect", &out)),
            &[precision, "relative error"],
        );
        let answer = dir.path().join("answer.npy");
        done(&mut loftup!(
            "run", &out, "--image", &image, "--out", &answer
        ));
        let d = apart(&read(answer), &fp32) / size;
        println!("{precision} on the CPU: largest difference {d:.1e} of the root mean square");
        assert!(d > 0.0 && d < allowed);
    }
    // A bundle costs no more than it says.
    let int8 = dir.path().join("int8");
    let mut manifest = json(&int8.join("manifest.json"));
    manifest["quantization"]["int8"]["check"]["as_written"] = 1e-4.into();
    fs::write(int8.join("manifest.json"), manifest.to_string()).unwrap();
    let output = loftup!("verify", &int8, "--backend", "tract")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    names(&stderr(&output), &["int8 as written", "relative error"]);
    // Rounding twice is refused, whatever it is rounded to.
    let again = dir.path().join("again");
    for from in ["fp16", "fp16-weights"] {
        let said = refused(
            dir.path(),
            &mut loftup!(
                "quantize",
                dir.path().join(from),
                "--precision",
                "int8",
                "--calibrate",
                &images,
                "--out",
                &again,
            ),
        );
        names(&said, &[from, "already", "fp32"]);
    }
}

#[test]
fn both_precisions_stay_where_that_is_asked_for_and_layers_are_left_in_float() {
    let dir = dir();
    let (bundle, images) = (support::full(), images(dir.path()));
    let (out, report) = (dir.path().join("both"), dir.path().join("r.json"));
    let quantize = |max_error: &str| {
        done(&mut loftup!(
            "quantize",
            bundle.path(),
            "--precision",
            "int8",
            "--calibrate",
            &images,
            "--out",
            &out,
            "--keep",
            "--json",
            &report,
            "--tiles",
            "1",
            "--force",
            "--max-error",
            max_error,
        ));
        json(&report)
    };
    let loose = quantize("10");
    let loss = |report: &Value| {
        report["quantization"]["error"]["relative_error"]
            .as_f64()
            .unwrap()
    };
    assert!(loose["quantization"].get("fp32_layers").is_none());
    let wanted = loss(&loose) / 2.0;
    let tight = quantize(&wanted.to_string());
    let kept = tight["quantization"]["fp32_layers"]
        .as_array()
        .unwrap()
        .len();
    println!(
        "{:.4}, and {:.4} with {kept} layers in float",
        loss(&loose),
        loss(&tight)
    );
    assert!(kept > 0 && loss(&tight) <= wanted);
    let layers = tight["layers"].as_array().unwrap();
    let in_float = layers.iter().filter(|l| l["precision"] == "fp32").count();
    assert_eq!(in_float, kept);
    assert!(in_float < layers.len());
    // The CPU takes the graphs that were rounded least: the answer is that of the old bundle.
    let image = support::png(dir.path());
    let answers = [bundle.path(), out.clone()].map(|bundle| {
        let answer = dir.path().join("answer.npy");
        done(&mut loftup!(
            "run",
            bundle,
            "--image",
            &image,
            "--out",
            &answer,
            "--backend",
            "tract"
        ));
        read(answer)
    });
    assert_eq!(apart(&answers[0], &answers[1]), 0.0);
    done(&mut loftup!("verify", &out));
}

#[test]
fn what_cannot_be_calibrated_is_refused_in_one_line() {
    let dir = dir();
    let (bundle, upsampler) = (support::full(), support::upsampler());
    let images = images(dir.path());
    let (empty, constant) = (dir.path().join("empty"), dir.path().join("constant"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&constant).unwrap();
    for (i, color) in [[0, 0, 0], [7, 80, 200]].into_iter().enumerate() {
        let image = RgbImage::filled(40, 30, color).unwrap();
        image.save_png(&constant.join(format!("{i}.png"))).unwrap();
    }
    let out = dir.path().join("out");
    let refuse = |bundle: &Path, images: &Path, more: &[&str]| {
        let mut command = loftup!(
            "quantize",
            bundle,
            "--precision",
            "int8",
            "--calibrate",
            images,
            "--out",
            &out,
        );
        command.args(more);
        refused(dir.path(), &mut command)
    };
    names(
        &refuse(&bundle.path(), &empty, &[]),
        &["empty", "no images", "JPEG"],
    );
    names(
        &refuse(&bundle.path(), &dir.path().join("none"), &[]),
        &["none"],
    );
    names(
        &refuse(&bundle.path(), &constant, &[]),
        &["0.png", "same color"],
    );
    names(
        &refuse(&upsampler.path(), &images, &[]),
        &["no backbone", "convert"],
    );
    names(
        &refuse(&bundle.path(), &images, &["--max-error", "0"]),
        &["--max-error", "0.05"],
    );
    names(
        &refuse(&bundle.path(), &images, &["--max-error", "1e-9"]),
        &["--max-error", "fp16"],
    );
    names(
        &refuse(&bundle.path(), &images, &["--labels", "x"]),
        &["no head", "loftup head"],
    );

    let poisoned = support::copy(&support::backbone(), dir.path());
    poison(&poisoned, f32::NAN, 1);
    let said = refuse(&poisoned, &images, &[]);
    names(&said, &["backbone.onnx", "constant", "NaN", "index 0"]);
    // Finite weights whose products are not.
    poison_again(&poisoned);
    for precision in ["int8", "fp16", "fp16-weights"] {
        let said = refused(
            dir.path(),
            &mut loftup!(
                "quantize",
                &poisoned,
                "--precision",
                precision,
                "--calibrate",
                &images,
                "--out",
                &out,
            ),
        );
        names(&said, &["backbone.onnx", "NaN", ".png"]);
    }
}

/// Replaces the NaN by a number whose square is infinite.
fn poison_again(bundle: &Path) {
    let weight = patch_weights();
    let rest: Vec<u8> = weight[1..8].iter().flat_map(|x| x.to_le_bytes()).collect();
    change(bundle, "backbone.onnx", |data| {
        let at = data.windows(rest.len()).position(|w| w == rest).unwrap();
        data[at - 4..at].copy_from_slice(&3e38f32.to_le_bytes());
    });
}
