//! Places that cannot be written to, and what is kept there.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use crate::support::*;

fn convert(out: &Path) -> Command {
    loftup!(
        "convert",
        "--upsampler-weights",
        weights("loftup_odd.ckpt"),
        "--out",
        out
    )
}

fn run(bundle: &Bundle, image: &Path) -> Command {
    loftup!(
        "run",
        bundle.path(),
        "--image",
        image,
        "--region",
        "3,4,20,10"
    )
}

#[test]
fn a_bundle_is_replaced_only_on_request() {
    let dir = dir();
    let out = dir.path().join("b.loftup");
    done(&mut convert(&out));
    let inode = fs::metadata(&out).unwrap().ino();
    let line = refused(dir.path(), &mut convert(&out));
    names(&line, &["b.loftup", "already exists", "--force"]);
    done(convert(&out).arg("--force"));
    assert_ne!(fs::metadata(&out).unwrap().ino(), inode);
    done(&mut loftup!("inspect", &out));
    // A conversion that fails keeps the old one.
    let line = refused(
        dir.path(),
        &mut loftup!(
            "convert",
            "--upsampler-weights",
            weights("dinov2.bin"),
            "--out",
            &out,
            "--force"
        ),
    );
    names(&line, &["dinov2.bin"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nothing_but_a_bundle_is_deleted() {
    let dir = dir();
    let out = dir.path().join("thesis");
    let refuses = || {
        let line = refused(dir.path(), convert(&out).arg("--force"));
        names(&line, &["thesis", "not a bundle", "--out"]);
    };
    fs::create_dir(&out).unwrap();
    refuses();
    fs::write(out.join("chapter1.tex"), "It was a dark").unwrap();
    refuses();
    // The manifest of a web page.
    fs::write(
        out.join("manifest.json"),
        r#"{ "name": "thesis", "icons": [] }"#,
    )
    .unwrap();
    refuses();
    fs::remove_dir_all(&out).unwrap();
    fs::write(&out, "It was a dark").unwrap();
    refuses();
    fs::remove_file(&out).unwrap();
    // A bundle with somebody's notes in it.
    done(&mut convert(&out));
    fs::write(out.join("notes.txt"), "works well").unwrap();
    refuses();
    fs::remove_file(out.join("notes.txt")).unwrap();
    fs::create_dir(out.join("notes")).unwrap();
    refuses();
    fs::remove_dir(out.join("notes")).unwrap();
    done(convert(&out).arg("--force"));
}

#[test]
fn directories_that_are_not_there() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let nowhere = dir.path().join("no/such");
    names(
        &refused(dir.path(), &mut convert(&nowhere.join("b.loftup"))),
        &["no/such"],
    );
    let line = refused(
        dir.path(),
        run(&bundle, &image)
            .arg("--out")
            .arg(nowhere.join("out.npy")),
    );
    names(&line, &["no/such/out.npy"]);
    let line = refused(
        dir.path(),
        run(&bundle, &image)
            .arg("--picture")
            .arg(nowhere.join("p.png")),
    );
    names(&line, &["no/such/p.png"]);
    // Both or none.
    let line = refused(
        dir.path(),
        run(&bundle, &image)
            .arg("--out")
            .arg(dir.path().join("out.npy"))
            .arg("--picture")
            .arg(nowhere.join("p.png")),
    );
    names(&line, &["no/such/p.png"]);
}

#[test]
fn directories_in_place_of_files() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    for option in ["--out", "--picture"] {
        let line = refused(dir.path(), run(&bundle, &image).arg(option).arg(dir.path()));
        names(&line, &[dir.path().to_str().unwrap()]);
    }
    let both = run(&bundle, &image)
        .arg("--picture")
        .arg(dir.path())
        .arg("--out")
        .arg(dir.path().join("out.npy"))
        .output()
        .unwrap();
    assert_eq!(both.status.code(), Some(1));
    assert!(!dir.path().join("out.npy").exists());
    // Below a file.
    let below = image.join("out.npy");
    names(
        &refused(dir.path(), run(&bundle, &image).arg("--out").arg(&below)),
        &["photo.png/out.npy"],
    );
    names(
        &refused(dir.path(), &mut convert(&image.join("b.loftup"))),
        &["photo.png"],
    );
}

#[test]
fn an_old_answer_is_kept_until_there_is_a_new_one() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let (old, link) = (dir.path().join("old.npy"), dir.path().join("link.npy"));
    fs::write(&old, "old").unwrap();
    symlink("old.npy", &link).unwrap();
    let line = refused(
        dir.path(),
        run(&bundle, &image)
            .arg("--size")
            .arg("14x14")
            .arg("--out")
            .arg(&link),
    );
    names(&line, &["region"]);
    done(run(&bundle, &image).arg("--out").arg(&link));
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(read(&old).shape, [1, 48, 10, 20]);
}

#[test]
fn directories_that_may_not_be_written_to() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(closed.join("probe"), "").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    names(
        &refused(dir.path(), &mut convert(&closed.join("b.loftup"))),
        &["closed"],
    );
    let line = refused(
        dir.path(),
        run(&bundle, &image)
            .arg("--out")
            .arg(closed.join("out.npy")),
    );
    names(&line, &["closed/out.npy"]);
    let line = refused(
        dir.path(),
        run(&bundle, &image)
            .arg("--picture")
            .arg(closed.join("p.png")),
    );
    names(&line, &["closed/p.png"]);
}

/// The same command where no file may grow beyond `kib`: a full disk for every user.
fn limited(command: &Command, kib: u32) -> Command {
    let mut limited = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    limited
        .arg("-c")
        .arg(script)
        .arg(command.get_program())
        .args(command.get_args());
    limited
}

#[test]
fn files_that_find_no_room() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    // The keys graph fits, the queries graph does not.
    let line = refused(
        dir.path(),
        &mut limited(&convert(&dir.path().join("b.loftup")), 400),
    );
    names(&line, &["b.loftup/queries.onnx", "File too large"]);
    let whole = loftup!("run", bundle.path(), "--image", &image, "--out", &out);
    names(
        &refused(dir.path(), &mut limited(&whole, 400)),
        &["out.npy", "File too large"],
    );
    let csv = dir.path().join("p.csv");
    fs::write(&csv, "1,1\n".repeat(100)).unwrap();
    let points = loftup!(
        "run",
        bundle.path(),
        "--image",
        &image,
        "--points",
        &csv,
        "--out",
        &out
    );
    names(
        &refused(dir.path(), &mut limited(&points, 4)),
        &["out.npy", "File too large"],
    );
    let panels = dir.path().join("p.png");
    let drawn = loftup!(
        "run",
        bundle.path(),
        "--image",
        &image,
        "--picture",
        &panels
    );
    names(
        &refused(dir.path(), &mut limited(&drawn, 4)),
        &["p.png", "File too large"],
    );
}

#[test]
fn an_answer_that_no_disk_holds_is_known_before_the_work() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let huge = loftup!(
        "run",
        bundle.path(),
        "--image",
        &image,
        "--out",
        &out,
        "--size",
        "4096x4096"
    );
    let before = listing(dir.path());
    let clock = std::time::Instant::now();
    let output = limited(&huge, 100_000).output().unwrap();
    println!(
        "{:.1} s: {}",
        clock.elapsed().as_secs_f64(),
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(1));
    names(
        stderr(&output).lines().last().unwrap(),
        &["error: ", "out.npy", "File too large"],
    );
    // The answer itself would take many minutes.
    assert!(clock.elapsed().as_secs() < 60);
    assert!(before == listing(dir.path()));
}

#[test]
fn panels_that_are_too_large_are_known_before_the_work() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let mut command = loftup!(
        "run",
        bundle.path(),
        "--image",
        &image,
        "--size",
        "16002x14"
    );
    command.arg("--out").arg(dir.path().join("out.npy"));
    command.arg("--picture").arg(dir.path().join("p.png"));
    names(
        &refused(dir.path(), &mut command),
        &["p.png", "16384", "--picture"],
    );
}

/// `loftup ... | head -1`
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let commands = [
        loftup!("inspect", bundle.path()),
        loftup!("inspect", weights("dinov2.bin")),
        loftup!("inspect", bundle.path(), "--json"),
        loftup!("verify", bundle.path()),
        loftup!("run", bundle.path(), "--image", &image, "--out", &out),
        loftup!("--help"),
        loftup!("run", "--help"),
    ];
    for mut command in commands {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{command:?}");
    }
    assert_eq!(read(&out).shape, [1, 48, 56, 84]);
}
