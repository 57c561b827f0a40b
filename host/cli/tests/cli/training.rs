//! `loftup train`: interrupted, killed, resumed, and invalid settings.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use loftup_runtime::image::RgbImage;
use loftup_train::{checkpoint, files};

use crate::support::*;

/// Settings for a training of seconds of the backbone that tests share, in `dir/NAME.toml`, with
/// the output in `dir/NAME`; images are made if there are none.
fn settings(dir: &Path, bundle: &Bundle, name: &str, steps: u64) -> PathBuf {
    let images = dir.join("images");
    if !images.exists() {
        fs::create_dir(&images).unwrap();
        for i in 0..3 {
            disc(i).save_png(&images.join(format!("{i}.png"))).unwrap();
        }
    }
    let text = format!(
        r#"
bundle = {:?}
out = "{name}"
stage = 1
seed = 3

[data]
paths = ["images"]

[run]
batch_size = 2
steps = {steps}
checkpoint_every = 1
log_every = 1
preview_every = 0
device = "cpu"

[loss]
augmentations = 1
pad = 2
projection = 16

[stage1]
guidance = "42x28"
backbone = "{}x{}"
"#,
        bundle.path(),
        SIDE.0,
        SIDE.1
    );
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

pub fn disc(seed: usize) -> RgbImage {
    let (width, height) = (90, 60);
    let mut image = RgbImage::filled(width, height, [40, 90 + 40 * seed as u8, 160]).unwrap();
    let (x, y, radius) = (25 + 20 * seed, 20 + 8 * seed, 14);
    for row in 0..height {
        for column in 0..width {
            if row.abs_diff(y).pow(2) + column.abs_diff(x).pow(2) < radius * radius {
                image.row_mut(row)[3 * column..][..3].copy_from_slice(&[230, 120, 60]);
            }
        }
    }
    image
}

fn start(settings: &Path, resume: bool) -> Child {
    let mut command = loftup!("train", settings);
    if resume {
        command.arg("--resume");
    }
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn written(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

/// Waits until a file has been written since `before`, or the child is done.
fn wait(child: &mut Child, file: &Path, before: Option<SystemTime>) {
    let start = Instant::now();
    while written(file) == before && child.try_wait().unwrap().is_none() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "no {}",
            file.display()
        );
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_training_ends_with_weights_that_can_be_converted() {
    let (dir, bundle) = (dir(), backbone());
    let settings = settings(dir.path(), &bundle, "out", 2);
    let said = done(&mut loftup!("train", &settings));
    let weights = PathBuf::from(said.trim_end());
    assert_eq!(weights, dir.path().join("out").join(files::WEIGHTS));
    let up = dir.path().join("up.loftup");
    done(&mut loftup!(
        "convert",
        "--upsampler-weights",
        &weights,
        "--out",
        &up
    ));
    let inspected = done(&mut loftup!("inspect", &up));
    names(
        &inspected,
        &["stage 1, 2 steps, seed 3, from random weights", "3 images"],
    );
    // Weights that were changed afterwards: the record is not of them.
    let mut changed = tensors(&weights);
    for (_, values) in changed.values_mut() {
        values[0] *= 1.5;
    }
    save(&weights, &changed);
    let other = dir.path().join("other.loftup");
    let (_, said) = told(&mut loftup!(
        "convert",
        "--upsampler-weights",
        &weights,
        "--out",
        &other
    ));
    names(&said, &["provenance.json", "other weights"]);
    assert!(!done(&mut loftup!("inspect", &other)).contains("trained"));
    // What was trained is not trained over.
    let line = refused(dir.path(), &mut loftup!("train", &settings));
    names(&line, &["checkpoint.safetensors", "--resume", "`out`"]);
}

#[test]
fn a_training_that_is_killed_at_any_moment_can_be_resumed_and_ends_the_same() {
    let (dir, bundle) = (dir(), backbone());
    let steps = 30;
    let whole = settings(dir.path(), &bundle, "whole", steps);
    done(&mut loftup!("train", &whole));
    let killed = settings(dir.path(), &bundle, "killed", steps);
    let file = dir.path().join("killed").join(files::CHECKPOINT);
    let (mut seen, mut kills) = (0, 0);
    // Some are ended in a step, some while a file is written.
    for pause in [3, 61, 17, 95, 40] {
        let before = written(&file);
        let mut child = start(&killed, file.exists());
        wait(&mut child, &file, before);
        sleep(Duration::from_millis(pause));
        let running = child.try_wait().unwrap().is_none();
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        let (_, progress) = checkpoint::load(&file).expect("a checkpoint that can be read");
        assert!(progress.step >= seen, "it never goes back");
        seen = progress.step;
        kills += usize::from(running);
        if !running {
            break;
        }
    }
    println!("killed {kills} times; the last checkpoint is of step {seen}");
    assert!(kills >= 2, "it was over before it could be killed");
    if seen < steps {
        done(&mut loftup!("train", &killed, "--resume"));
    }
    for name in ["losses.csv", files::WEIGHTS] {
        let read = |run: &str| fs::read(dir.path().join(run).join(name)).unwrap();
        assert_eq!(read("whole"), read("killed"), "{name}");
    }
}

#[test]
fn a_training_that_is_interrupted_says_how_to_go_on() {
    let (dir, bundle) = (dir(), backbone());
    let settings = settings(dir.path(), &bundle, "out", 100_000);
    let file = dir.path().join("out").join(files::CHECKPOINT);
    let mut child = start(&settings, false);
    wait(&mut child, &file, None);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    names(
        &said,
        &["after this step", "error: interrupted", "--resume"],
    );
    let (_, progress) = checkpoint::load(&file).unwrap();
    assert!(said.contains(&format!("after {} steps", progress.step)));
}

#[test]
fn all_settings_are_printed_and_nothing_else_is_done() {
    let (dir, bundle) = (dir(), backbone());
    let settings = settings(dir.path(), &bundle, "out", 2);
    let said = done(&mut loftup!("train", &settings, "--print-settings"));
    names(
        &said,
        &["guidance = \"42x28\"", "method = \"nadam\"", "alpha = 0.8"],
    );
    assert!(!dir.path().join("out").exists());
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let (dir, bundle) = (dir(), backbone());
    let line = refused(
        dir.path(),
        &mut loftup!("train", dir.path().join("none.toml")),
    );
    names(&line, &["none.toml", "No such file"]);
    let path = settings(dir.path(), &bundle, "out", 2);
    let text = fs::read_to_string(&path).unwrap();
    for (old, new, parts) in [
        ("seed = 3", "sead = 3", ["out.toml: line", "`sead`"]),
        (
            "batch_size = 2",
            "batch_size = 0",
            ["run.batch_size", "1 to 4096"],
        ),
        (
            "batch_size = 2",
            "batch = 2",
            ["out.toml: line", "now `run.batch_size`"],
        ),
        ("\"cpu\"", "\"gpu\"", ["device \"gpu\"", "cuda"]),
    ] {
        fs::write(&path, text.replace(old, new)).unwrap();
        names(&refused(dir.path(), &mut loftup!("train", &path)), &parts);
    }
}
