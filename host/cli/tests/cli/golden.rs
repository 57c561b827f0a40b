//! Answers of PyTorch to the same inputs, case by case.

use std::{fs, path::Path};

use loftup_runtime::npy::Array;
use serde_json::Value;

use crate::support::*;

/// Two runtimes on the same backbone: rounding alone.
const BACKBONE_MAX: f64 = 1e-4;
/// One unit in the last place of the guidance, times a frequency of e^10, is a phase of 1e-3.
const UPSAMPLER_MAX: f64 = 5e-3;
const UPSAMPLER_MEAN: f64 = 2e-4;
const COSINE: f64 = 0.99999;

/// Largest and mean absolute difference, and the minimum cosine similarity at any pixel.
fn difference(a: &Array, b: &Array) -> (f64, f64, f64) {
    assert_eq!(a.shape, b.shape);
    let pixels = a.shape[2] * a.shape[3];
    let (mut max, mut sum, mut cosine) = (0f64, 0f64, 1f64);
    for i in 0..pixels {
        let (mut xy, mut xx, mut yy) = (0f64, 0f64, 0f64);
        for c in 0..a.shape[1] {
            let x = f64::from(a.data[c * pixels + i]);
            let y = f64::from(b.data[c * pixels + i]);
            assert!(x.is_finite() && y.is_finite());
            max = max.max((x - y).abs());
            sum += (x - y).abs();
            (xy, xx, yy) = (xy + x * y, xx + x * x, yy + y * y);
        }
        cosine = cosine.min(xy / (xx * yy).sqrt());
    }
    (max, sum / a.data.len() as f64, cosine)
}

fn number(case: &Value, key: &str) -> String {
    case[key].as_u64().unwrap().to_string()
}

fn check(case_dir: &Path) -> (f64, f64, f64) {
    let dir = dir();
    let (bundle, out) = (dir.path().join("b.loftup"), dir.path().join("out.npy"));
    let case: Value =
        serde_json::from_slice(&fs::read(case_dir.join("case.json")).unwrap()).unwrap();
    let weights = weights(case["weights"].as_str().unwrap());
    let (image, lr) = (case_dir.join("image.npy"), case_dir.join("lr.npy"));
    let kind = case["kind"].as_str().unwrap();
    let upsampler = kind == "loftup";
    let input: Vec<_> = if upsampler {
        done(&mut loftup!(
            "convert",
            "--upsampler-weights",
            &weights,
            "--out",
            &bundle
        ));
        vec![
            "--features".into(),
            lr.into_os_string(),
            "--guidance".into(),
            image.into_os_string(),
        ]
    } else {
        let shape = read(&image).shape;
        let activation: &[&str] = match kind {
            "clip" => &["--activation", "quick-gelu"],
            "siglip" => &["--activation", "gelu"],
            _ => &[],
        };
        done(
            loftup!(
                "convert",
                "--backbone",
                kind.replace('_', "-"),
                "--backbone-weights",
                &weights,
                "--heads",
                number(&case, "heads"),
                "--size",
                format!("{}x{}", shape[3], shape[2]),
                "--out",
                &bundle
            )
            .args(activation),
        );
        vec!["--image".into(), image.into_os_string()]
    };
    done(loftup!("run", &bundle, "--out", &out).args(&input));
    let reference = case_dir.join("out.npy");
    let ours = difference(&read(&out), &read(&reference));
    let (max, mean) = if upsampler {
        (UPSAMPLER_MAX, UPSAMPLER_MEAN)
    } else {
        (BACKBONE_MAX, BACKBONE_MAX)
    };
    println!(
        "{}: max {:.1e}, mean {:.1e}, cosine {:.8}",
        case_dir.file_name().unwrap().display(),
        ours.0,
        ours.1,
        ours.2
    );
    assert!(
        ours.0 <= max && ours.1 <= mean && ours.2 >= COSINE,
        "{}: {ours:?}",
        case_dir.display()
    );

    // The program comes to the same judgment.
    let json = done(loftup!("verify", &bundle, "--against", &reference, "--json").args(&input));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["passed"], true);
    let last = json["checks"].as_array().unwrap().last().unwrap();
    let theirs = &last["difference"];
    assert!(
        (theirs["max"].as_f64().unwrap() - ours.0).abs() < 1e-6,
        "{theirs}"
    );
    assert!(
        (theirs["mean"].as_f64().unwrap() - ours.1).abs() < 1e-6,
        "{theirs}"
    );
    assert!(
        (theirs["cosine"].as_f64().unwrap() - ours.2).abs() < 1e-6,
        "{theirs}"
    );
    ours
}

#[test]
fn every_case_is_as_pytorch_has_it() {
    let mut cases: Vec<_> = fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.json").is_file())
        .collect();
    cases.sort();
    assert!(cases.len() >= 9, "only {} cases", cases.len());
    let (mut max, mut mean, mut cosine) = (0f64, 0f64, 1f64);
    for case in &cases {
        let d = check(case);
        (max, mean, cosine) = (max.max(d.0), mean.max(d.1), cosine.min(d.2));
    }
    println!("worst: max {max:.1e}, mean {mean:.1e}, cosine {cosine:.8}");
}

#[test]
fn another_answer_is_told_from_the_right_one() {
    let dir = dir();
    let case = golden().join("loftup_odd");
    let bundle = upsampler();
    let wrong = dir.path().join("wrong.npy");
    let mut array = read(case.join("out.npy"));
    array.data[1234] += 0.02;
    loftup_runtime::npy::write(&wrong, &array.shape, &array.data).unwrap();
    let line = refused(
        dir.path(),
        loftup!("verify", bundle.path(), "--against", &wrong)
            .arg("--features")
            .arg(case.join("lr.npy"))
            .arg("--guidance")
            .arg(case.join("image.npy")),
    );
    names(&line, &["b.loftup", "reference", "max 2.0e-2 of 5e-3"]);
}
