//! `loftup compact`: made with a head, interrupted and resumed, and refused.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{measures::data, support::*};

/// A directory of four images, whose name must be escaped in TOML and has a combining character.
fn images(dir: &Path) -> PathBuf {
    let images = dir.join("the \"cafe\u{301}\"");
    fs::create_dir(&images).unwrap();
    for i in 0..4 {
        let path = images.join(format!("{i}.png"));
        crate::training::disc(i).save_png(&path).unwrap();
    }
    images
}

#[test]
fn a_compact_bundle_keeps_a_head_and_verifies() {
    let (dir, bundle) = (dir(), full());
    let (images, wide) = (images(dir.path()), dir.path().join("wide.loftup"));
    let size = format!("{}x{}", SIDE.0, SIDE.1);
    let data = data(dir.path());
    let head = &mut loftup!("head", "classes", bundle.path(), "--data", &data);
    done(
        head.args(["--epochs", "2", "--samples", "64"])
            .arg("--out")
            .arg(&wide),
    );
    let out = dir.path().join("small.loftup");
    let compact = |more: &[&str]| {
        let mut command = loftup!("compact", &wide, "--images", &images, "--out", &out);
        command.args(more);
        command
    };
    let made = &mut compact(&[
        "--channels",
        "12",
        "--steps",
        "2",
        "--head",
        "classes",
        "--json",
    ]);
    let report: serde_json::Value = serde_json::from_str(&done(made)).unwrap();
    assert_eq!(report["channels"], 12);
    assert_eq!(report["wide_channels"], 48);
    assert_eq!(report["held_out"], 1);
    assert_eq!(report["size"], size);
    let share = report["explained_variance"].as_f64().unwrap();
    assert!(share > 0.1 && share < 1.0, "{share}");
    assert!(!dir.path().join("small.loftup.work").exists());
    names(
        &done(&mut loftup!("inspect", &out)),
        &[
            "pca12",
            "12 channels",
            "classes: 2 classes",
            "distilled from",
            "2 steps",
        ],
    );
    done(&mut loftup!("verify", &out));
    let map = dir.path().join("map.png");
    done(&mut loftup!(
        "run",
        &out,
        "--image",
        images.join("0.png"),
        "--head",
        "classes",
        "--out",
        &map
    ));
    assert!(map.exists());
    for (options, said) in [
        (&["--channels", "12"][..], &["small.loftup", "--force"][..]),
        (
            &["--channels", "48", "--force"],
            &["--channels 48", "48 channels"],
        ),
        (
            &["--channels", "12", "--force", "--head", "depth"],
            &["depth"],
        ),
    ] {
        let message = refused(dir.path(), &mut compact(options));
        names(&message, said);
    }
}

#[test]
fn a_resumed_training_makes_the_same_bundle() {
    let (dir, bundle) = (dir(), full());
    let images = images(dir.path());
    let compact = |name: &str| {
        let (out, work) = (
            dir.path().join(name),
            dir.path().join(format!("{name}-work")),
        );
        let mut command = loftup!("compact", bundle.path(), "--images", &images);
        command.args(["--channels", "12", "--steps", "12", "--out"]);
        command.arg(&out).arg("--work").arg(work);
        (command, out)
    };
    let (mut whole, whole_out) = compact("whole");
    done(&mut whole);
    let (mut parts, parts_out) = compact("parts");
    let child = parts.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = child.unwrap();
    let (log, start) = (dir.path().join("parts-work/run/losses.csv"), Instant::now());
    while !log.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no training");
        sleep(Duration::from_millis(2));
    }
    signal(&child, "INT");
    let said = stderr(&child.wait_with_output().unwrap());
    names(&said, &["interrupted after", "--resume"]);
    assert!(!parts_out.exists());
    let (mut again, _) = compact("parts");
    names(&refused(dir.path(), &mut again), &["--resume"]);
    let (mut rest, _) = compact("parts");
    done(rest.arg("--resume"));
    for file in ["backbone.onnx", "keys.onnx", "queries.onnx"] {
        let [a, b] = [&whole_out, &parts_out].map(|out| fs::read(out.join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn bundles_without_a_loftup_and_a_backbone_are_refused() {
    let dir = dir();
    let images = images(dir.path());
    for (bundle, said) in [(backbone(), "no upsampler"), (upsampler(), "no backbone")] {
        let out = dir.path().join("out.loftup");
        let command = &mut loftup!("compact", bundle.path(), "--images", &images, "--out", &out);
        names(&refused(dir.path(), command), &[said, "b.loftup"]);
    }
}
