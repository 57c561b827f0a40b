//! Images, features, regions and points that cannot be answered.

use std::{fs, path::Path, process::Command};

use loftup_runtime::npy;

use crate::support::*;

fn run(bundle: &Bundle, dir: &Path, option: &str, value: impl AsRef<std::ffi::OsStr>) -> Command {
    loftup!(
        "run",
        bundle.path(),
        "--out",
        dir.join("out.npy"),
        option,
        value.as_ref()
    )
}

#[test]
fn files_that_are_no_image() {
    let (dir, bundle) = (dir(), full());
    let jpeg = fs::read(jpeg(dir.path())).unwrap();
    let png = fs::read(png(dir.path())).unwrap();
    let mut broken = png.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 8].fill(0x55);
    let mut huge = b"P6\n60000 60000\n255\n".to_vec();
    huge.extend([0; 64]);
    let cases: [(&str, &[u8], &str); 8] = [
        ("text.jpg", b"hello, this is not an image", "text"),
        ("empty.png", b"", "empty"),
        ("cut.jpg", &jpeg[..jpeg.len() / 2], "truncated"),
        ("cut.png", &png[..png.len() / 2], "PNG"),
        ("broken.png", &broken, "PNG"),
        ("archive.jpg", b"PK\x03\x04 and so on", "ZIP"),
        ("huge.ppm", &huge, "60000"),
        ("header.jpg", &jpeg[..20], "JPEG"),
    ];
    for (name, bytes, what) in cases {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let line = refused(dir.path(), &mut run(&bundle, dir.path(), "--image", &path));
        names(&line, &[name, what]);
    }
    let line = refused(
        dir.path(),
        &mut run(&bundle, dir.path(), "--image", dir.path()),
    );
    names(&line, &["directory"]);
    let missing = dir.path().join("missing.jpg");
    names(
        &refused(
            dir.path(),
            &mut run(&bundle, dir.path(), "--image", missing),
        ),
        &["missing.jpg"],
    );
}

#[test]
fn arrays_that_are_no_image() {
    let (dir, full, backbone) = (dir(), full(), backbone());
    let path = dir.path().join("image.npy");
    let check = |shape: &[usize], data: &[f32], parts: &[&str]| {
        npy::write(&path, shape, data).unwrap();
        for bundle in [&full, &backbone] {
            let line = refused(dir.path(), &mut run(bundle, dir.path(), "--image", &path));
            names(&line, &["image.npy"]);
            names(&line, parts);
        }
    };
    check(
        &[3, 56, 84],
        &[0.0; 3 * 56 * 84],
        &["[3, 56, 84]", "[1, 3, H, W]"],
    );
    check(&[1, 4, 2, 2], &[0.0; 16], &["[1, 4, 2, 2]", "[1, 3, H, W]"]);
    check(&[1, 3, 0, 84], &[], &["[1, 3, 0, 84]"]);
    let mut values = vec![0.5; 3 * 56 * 84];
    values[77] = f32::NAN;
    check(&[1, 3, 56, 84], &values, &["NaN", "77"]);
    values[77] = f32::NEG_INFINITY;
    check(&[1, 3, 56, 84], &values, &["-inf", "77"]);
    // A normalized array is not resampled, so it must have the backbone's size.
    check(&[1, 3, 28, 42], &[0.5; 3 * 28 * 42], &["42x28", "84x56"]);

    npy::write(&path, &[1, 3, 56, 84], &[0.5; 3 * 56 * 84]).unwrap();
    let line = refused(
        dir.path(),
        run(&full, dir.path(), "--image", &path).args(["--size", "100x100"]),
    );
    names(&line, &["image.npy", "84x56", "--size"]);
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 4]).unwrap();
    names(
        &refused(dir.path(), &mut run(&full, dir.path(), "--image", &path)),
        &["image.npy", "damaged"],
    );
    let text = String::from_utf8_lossy(&good[..128]).replace("<f4", "<i4");
    fs::write(
        &path,
        [
            &[0x93],
            &text.as_bytes()[text.find("NUMPY").unwrap()..],
            &good[128..],
        ]
        .concat(),
    )
    .unwrap();
    names(
        &refused(dir.path(), &mut run(&full, dir.path(), "--image", &path)),
        &["image.npy", "<i4", "float32"],
    );
    fs::write(&path, b"not an array").unwrap();
    names(
        &refused(dir.path(), &mut run(&full, dir.path(), "--image", &path)),
        &["image.npy", "not a .npy"],
    );
}

#[test]
fn features_that_do_not_fit() {
    let (dir, bundle, backbone) = (dir(), upsampler(), backbone());
    let image = png(dir.path());
    let path = dir.path().join("lr.npy");
    let ask = |bundle: &Bundle| {
        let mut command = run(bundle, dir.path(), "--features", &path);
        command
            .arg("--guidance")
            .arg(&image)
            .args(["--size", "40x30"]);
        command
    };
    let good = vec![0.5; 48 * 12];
    let mut nan = good.clone();
    nan[100] = f32::NAN;
    let check = |bundle: &Bundle, shape: &[usize], values: &[f32], parts: &[&str]| {
        npy::write(&path, shape, values).unwrap();
        names(&refused(dir.path(), &mut ask(bundle)), parts);
    };
    let narrow = [1, 32, 3, 4];
    let parts = ["lr.npy", "[1, 32, 3, 4]", "[1, 48, h, w]"];
    check(&bundle, &narrow, &good[..32 * 12], &parts);
    check(&bundle, &[48, 3, 4], &good, &["lr.npy", "[48, 3, 4]"]);
    check(&bundle, &[1, 48, 3, 4], &nan, &["lr.npy", "NaN", "100"]);
    let parts = ["upsampler", "--upsampler-weights"];
    check(&backbone, &[1, 48, 3, 4], &good, &parts);
    // An image for a bundle that has no eyes.
    let line = refused(dir.path(), &mut run(&bundle, dir.path(), "--image", &image));
    names(&line, &["no backbone", "--features"]);
    done(&mut ask(&bundle));
}

#[test]
fn regions_that_cannot_be_answered() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    for (region, what) in [
        ("5,5,0,10", "empty"),
        ("5,5,10,0", "empty"),
        ("80,0,5,5", "84x56"),
        ("0,52,1,5", "84x56"),
        ("84,0,1,1", "84x56"),
        ("18446744073709551615,0,2,1", "84x56"),
        ("1,1,18446744073709551615,18446744073709551615", "84x56"),
    ] {
        let line = refused(
            dir.path(),
            run(&bundle, dir.path(), "--image", &image).args(["--region", region]),
        );
        names(&line, &[region, what]);
    }
    let line = refused(
        dir.path(),
        run(&backbone(), dir.path(), "--image", &image).args(["--region", "0,0,2,2"]),
    );
    names(&line, &["--region", "--upsampler-weights"]);
}

#[test]
fn points_that_cannot_be_answered() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let csv = dir.path().join("points.csv");
    for (text, parts) in [
        ("84,0\n", ["(84, 0)", "84x56"]),
        ("x,y\n1,1\n3,56\n", ["(3, 56)", "84x56"]),
        (
            "18446744073709551615,0\n",
            ["18446744073709551615", "84x56"],
        ),
        ("-1,5\n", ["line 1", "-1,5"]),
        ("1,2\nthree,four\n", ["line 2", "three,four"]),
        ("1.5,2\n", ["line 1", "1.5,2"]),
        ("1,2\n7\n", ["line 2", "x,y"]),
        ("x,y\nx,y\n1,2\n", ["line 2", "x,y"]),
        ("", ["no points", "x,y"]),
        ("x,y\n# nothing\n\n", ["no points", "x,y"]),
    ] {
        fs::write(&csv, text).unwrap();
        let line = refused(
            dir.path(),
            run(&bundle, dir.path(), "--image", &image)
                .arg("--points")
                .arg(&csv),
        );
        names(&line, &["points.csv"]);
        names(&line, &parts);
    }
    fs::write(&csv, [0xff, 0xfe, 0x31, 0x00]).unwrap();
    let line = refused(
        dir.path(),
        run(&bundle, dir.path(), "--image", &image)
            .arg("--points")
            .arg(&csv),
    );
    names(&line, &["points.csv", "not a text file", "x,y"]);
}

/// What clap refuses has exit code 2.
#[test]
fn wrong_options_are_a_matter_of_usage() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let base = || loftup!("run", bundle.path(), "--image", &image, "--out", &out);
    let wrong: [&[&str]; 11] = [
        &["--size", "0x5"],
        &["--size", "5"],
        &["--size", "5x99999999"],
        &["--region", "1,2,3"],
        &["--region", "-1,0,2,2"],
        &["--range", "200,100"],
        &["--threads", "0"],
        &["--tile", "0"],
        &["--features", "a.npy", "--guidance", "b.npy"],
        &["--region", "0,0,1,1", "--points", "p.csv"],
        &["--backend", "abacus"],
    ];
    let before = listing(dir.path());
    let usage = |command: &mut Command| {
        let output = command.output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.starts_with("error: "), "{said}");
    };
    for options in wrong {
        usage(base().args(options));
    }
    for option in ["--limit", "--samples", "--epochs"] {
        let none = [option, "0"];
        usage(loftup!("eval", "segmentation", bundle.path(), "--data", dir.path()).args(none));
        let head = &mut loftup!("head", "classes", bundle.path(), "--data", dir.path());
        usage(
            head.arg("--out")
                .arg(dir.path().join("h.loftup"))
                .args(none),
        );
    }
    // Options that are missing.
    let to = dir.path().join("b.loftup");
    let commands = [
        loftup!("run", bundle.path(), "--image", &image),
        loftup!("run", bundle.path(), "--image", &image, "--json"),
        loftup!("run", bundle.path(), "--out", &out),
        loftup!("run", bundle.path(), "--out", &out, "--size", "8x8"),
        loftup!("run", bundle.path(), "--out", &out, "--features", &image),
        loftup!("convert", "--out", &to),
        loftup!("convert", "--backbone", "dinov2", "--out", &to),
        loftup!("convert", "--backbone-onnx", "x.onnx", "--out", &to),
        loftup!(
            "convert",
            "--upsampler-weights",
            "x",
            "--mean",
            "0,0,0",
            "--out",
            &to
        ),
        loftup!(
            "convert",
            "--upsampler-weights",
            "x",
            "--license",
            "",
            "--out",
            &to
        ),
    ];
    for mut command in commands {
        usage(&mut command);
    }
    assert!(before == listing(dir.path()));
}

#[test]
fn verify_wants_a_reference_with_its_input() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let reference = dir.path().join("reference.npy");
    let line = refused(
        dir.path(),
        &mut loftup!("verify", bundle.path(), "--image", &image),
    );
    names(&line, &["--against"]);
    let line = refused(
        dir.path(),
        &mut loftup!("verify", bundle.path(), "--against", &reference),
    );
    names(&line, &["--image"]);
    npy::write(&reference, &[1, 48, 2, 2], &[0.0; 192]).unwrap();
    let line = refused(
        dir.path(),
        &mut loftup!(
            "verify",
            bundle.path(),
            "--image",
            &image,
            "--against",
            &reference
        ),
    );
    names(
        &line,
        &["reference.npy", "[1, 48, 2, 2]", "[1, 48, 56, 84]"],
    );
}
