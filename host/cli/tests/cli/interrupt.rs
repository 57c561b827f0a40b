//! Ctrl-C leaves nothing behind.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::support::*;

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited in vain for {what}"
        );
        sleep(Duration::from_millis(2));
    }
}

fn hidden(dir: &Path) -> usize {
    fs::read_dir(dir)
        .unwrap()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.')
        })
        .count()
}

fn stopped(child: Child) {
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    println!("stopped after {:.2} s", start.elapsed().as_secs_f64());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.starts_with("error: interrupted") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_run_that_is_stopped_leaves_nothing() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let before = listing(dir.path());
    for name in ["INT", "TERM"] {
        let child = loftup!(
            "run",
            bundle.path(),
            "--image",
            &image,
            "--size",
            "1204x1204",
            "--out",
            dir.path().join("out.npy"),
            "--picture",
            dir.path().join("p.png")
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        wait_for("the temporary file", || hidden(dir.path()) > 0);
        sleep(Duration::from_millis(200));
        signal(&child, name);
        stopped(child);
        assert!(before == listing(dir.path()));
    }
}

#[test]
fn a_conversion_that_is_stopped_leaves_nothing() {
    let dir = dir();
    let child = loftup!(
        "convert",
        "--backbone",
        "dinov2",
        "--backbone-weights",
        weights("dinov2.bin"),
        "--heads",
        "3",
        "--size",
        "560x560",
        "--upsampler-weights",
        weights("loftup_odd.ckpt"),
        "--out",
        dir.path().join("b.loftup")
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    wait_for("the temporary directory", || hidden(dir.path()) > 0);
    signal(&child, "INT");
    stopped(child);
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn before_anything_is_written_a_stop_is_immediate() {
    let (dir, bundle) = (dir(), full());
    let points = dir.path().join("points");
    let made = Command::new("mkfifo").arg(&points).status().unwrap();
    assert!(made.success());
    let child = loftup!(
        "run",
        bundle.path(),
        "--image",
        png(dir.path()),
        "--points",
        &points,
        "--out",
        dir.path().join("out.npy")
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    // Opens once the program reads from the other end, and then never gets anything.
    let pipe = fs::OpenOptions::new().write(true).open(&points).unwrap();
    signal(&child, "INT");
    stopped(child);
    drop(pipe);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
