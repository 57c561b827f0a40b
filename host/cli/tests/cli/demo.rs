//! `loftup demo`: what it says of itself, and what it refuses. The whole of it runs where the
//! project is checked from end to end.

use std::{
    fs,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::support::*;

#[test]
fn its_help_says_what_it_does_and_leaves() {
    let said = done(&mut loftup!("demo", "--help"));
    names(
        &said,
        &[
            "report.html",
            "--out",
            "--open",
            "--force",
            "[default: demo]",
        ],
    );
}

#[test]
fn places_that_are_taken_or_missing_are_refused_before_any_work() {
    let dir = dir();
    let start = Instant::now();
    let out = dir.path().join("no").join("demo");
    let line = refused(dir.path(), &mut loftup!("demo", "--out", &out));
    names(&line, &["no such directory", "--out"]);
    let line = refused(dir.path(), &mut loftup!("demo", "--out", out.join("..")));
    names(&line, &["no/demo/..", "name of a new directory"]);
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    // A file of the right name that no demo wrote.
    fs::write(other.join("demo.json"), "{}").unwrap();
    for taken in [&file, &other] {
        for force in [false, true] {
            let mut command = loftup!("demo", "--out", taken);
            if force {
                command.arg("--force");
            }
            names(&refused(dir.path(), &mut command), &["is not a demo"]);
        }
    }
    let demo = dir.path().join("demo");
    fs::create_dir(&demo).unwrap();
    fs::write(demo.join("demo.json"), r#"{"loftup_demo": 1, "more": []}"#).unwrap();
    let line = refused(dir.path(), &mut loftup!("demo", "--out", &demo));
    names(&line, &["already exists", "--force"]);
    let steps = loftup!("demo", "--steps", "0").output().unwrap();
    assert_eq!(steps.status.code(), Some(2));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing() {
    // In its first stages, and in the training.
    for pause in [300, 2500] {
        let dir = dir();
        let child = loftup!("demo", "--out", dir.path().join("demo"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while listing(dir.path()).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing begins");
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(pause));
        signal(&child, "INT");
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert_eq!(said, "error: interrupted; nothing was written\n");
        assert!(listing(dir.path()).is_empty());
    }
}
