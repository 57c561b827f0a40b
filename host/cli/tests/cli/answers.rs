//! Frames, regions and points of one bundle agree with each other, however the work is divided.

use std::{fs, path::Path};

use loftup_runtime::{image, npy::Array};

use crate::support::*;

/// Rounding alone: the same arithmetic in other tiles.
const TILES: f32 = 1e-4;

/// The frame at the size the tests ask for, which the patch does not divide.
const SIZE: (usize, usize) = (75, 53);

fn run(bundle: &Bundle, image: &Path, out: &Path, more: &[&str]) -> Array {
    done(
        loftup!(
            "run",
            bundle.path(),
            "--image",
            image,
            "--out",
            out,
            "--size",
            "75x53"
        )
        .args(more),
    );
    read(out)
}

#[test]
fn a_region_is_its_part_of_the_frame() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let frame = run(&bundle, &image, &out, &[]);
    assert_eq!(frame.shape, [1, 48, SIZE.1, SIZE.0]);
    for (x, y, w, h) in [
        (13, 7, 41, 29),
        (0, 0, 75, 53),
        (74, 52, 1, 1),
        (3, 50, 70, 3),
    ] {
        let region = format!("{x},{y},{w},{h}");
        let part = run(&bundle, &image, &out, &["--region", &region]);
        let worst = apart(&part, &crop(&frame, x, y, w, h));
        println!("region {region}: max {worst:.1e}");
        assert!(worst <= TILES, "{region}: {worst}");
    }
}

#[test]
fn points_are_pixels_of_the_frame() {
    let (dir, bundle) = (dir(), full());
    let image = jpeg(dir.path());
    let out = dir.path().join("out.npy");
    let frame = run(&bundle, &image, &out, &[]);
    let points = [
        (0, 0),
        (74, 52),
        (13, 7),
        (13, 7),
        (0, 52),
        (74, 0),
        (31, 40),
    ];
    let lines: String = points.iter().map(|(x, y)| format!("{x},{y}\n")).collect();
    let csv = dir.path().join("points.csv");
    let headings = [
        String::new(),
        "x,y\n".into(),
        "# of the kerb\n\ncolumn,row\n".into(),
        "\u{feff}x, y\r\n".into(),
        "\u{feff}".into(),
    ];
    for heading in headings {
        fs::write(&csv, format!("{heading}{lines}")).unwrap();
        let answer = run(&bundle, &image, &out, &["--points", csv.to_str().unwrap()]);
        assert_eq!(answer.shape, [points.len(), 48]);
        let mut worst = 0f32;
        for (&(x, y), answer) in points.iter().zip(answer.data.chunks_exact(48)) {
            let answer = Array {
                shape: vec![1, 48, 1, 1],
                data: answer.to_vec(),
            };
            worst = worst.max(apart(&answer, &crop(&frame, x, y, 1, 1)));
        }
        println!("points after {heading:?}: max {worst:.1e}");
        assert!(worst <= TILES, "{worst}");
    }
}

#[test]
fn joint_bilateral_upsampling_needs_no_upsampler() {
    let (dir, backbone, full) = (dir(), backbone(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let jbu = ["--upsampler", "jbu"];
    let frame = run(&backbone, &image, &out, &jbu);
    assert_eq!(frame.data, run(&full, &image, &out, &jbu).data);
    assert_ne!(frame.data, run(&full, &image, &out, &[]).data);
    let region = run(
        &backbone,
        &image,
        &out,
        &[&jbu[..], &["--region", "3,5,20,17"]].concat(),
    );
    assert_eq!(region.data, crop(&frame, 3, 5, 20, 17).data);
    let panels = dir.path().join("panels.png");
    done(
        loftup!("run", backbone.path(), "--image", &image)
            .args(jbu)
            .arg("--picture")
            .arg(&panels),
    );
    assert!(panels.exists());
}

#[test]
fn tiles_and_threads_change_nothing_but_rounding() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let frame = run(&bundle, &image, &out, &["--threads", "1", "--tile", "4096"]);
    for tile in ["16", "32", "56", "4096", "18446744073709551615"] {
        for threads in ["1", "2", "1000000"] {
            let other = run(
                &bundle,
                &image,
                &out,
                &["--tile", tile, "--threads", threads],
            );
            let worst = apart(&frame, &other);
            println!("tile {tile}, {threads} threads: max {worst:.1e}");
            assert!(worst <= TILES, "{tile}, {threads}: {worst}");
        }
    }
}

#[test]
fn panels_show_photograph_and_features_side_by_side() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let pca = dir.path().join("pca.png");
    done(&mut loftup!(
        "run",
        bundle.path(),
        "--image",
        &image,
        "--picture",
        &pca,
        "--size",
        "75x53"
    ));
    let bytes = fs::read(&pca).unwrap();
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    let drawn = image::open(&pca).unwrap();
    // A small answer is enlarged by a whole factor.
    let factor = drawn.height() / SIZE.1;
    assert_eq!(drawn.height(), factor * SIZE.1);
    assert!(drawn.width() > 3 * factor * SIZE.0, "{drawn:?}");
    // The first panel is the photograph.
    let (width, height) = (factor * SIZE.0, factor * SIZE.1);
    let photo = photo().resized(SIZE.0, SIZE.1).unwrap();
    let photo = photo.resized(width, height).unwrap();
    assert_eq!(drawn.row(100)[..3 * width], photo.row(100)[..3 * width]);

    let out = dir.path().join("out.npy");
    let region = run(
        &bundle,
        &image,
        &out,
        &["--region", "5,6,30,20", "--picture", pca.to_str().unwrap()],
    );
    assert_eq!(region.shape, [1, 48, 20, 30]);
    let drawn = image::open(&pca).unwrap();
    assert!(drawn.height().is_multiple_of(20));
    assert!(drawn.width() > 3 * 30 * drawn.height() / 20);
}

#[test]
fn a_fixed_color_range_gives_another_answer() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let own = run(&bundle, &image, &out, &[]);
    let full = run(&bundle, &image, &out, &["--range", "full"]);
    let same = run(&bundle, &image, &out, &["--range", "0,255"]);
    assert_eq!(apart(&full, &same), 0.0);
    assert!(apart(&own, &full) > 1e-2, "{}", apart(&own, &full));
}

#[test]
fn a_size_that_the_patch_does_not_divide_is_answered_and_explained() {
    let (dir, full, backbone) = (dir(), full(), backbone());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let command = |bundle: &Bundle, size: &str| {
        let command = &mut loftup!(
            "run",
            bundle.path(),
            "--image",
            &image,
            "--out",
            &out,
            "--size",
            size
        );
        told(command).1
    };
    let said = command(&full, "75x53");
    names(
        &said,
        &["75x53", "patch 14", "84x56", "the output is 75x53"],
    );
    let said = command(&backbone, "75x53");
    names(&said, &["75x53", "patch 14", "84x56"]);
    assert_eq!(read(&out).shape, [1, 48, 4, 6]);
    assert_eq!(command(&full, "84x56"), "");

    // Likewise where the backbone is made.
    let bundle = dir.path().join("b.loftup");
    let (_, said) = told(&mut loftup!(
        "convert",
        "--backbone",
        "dinov2",
        "--backbone-weights",
        weights("dinov2.bin"),
        "--heads",
        "3",
        "--size",
        "80x50",
        "--out",
        &bundle
    ));
    names(&said, &["80x50", "patch size 14", "84x56"]);
    done(&mut loftup!(
        "run", &bundle, "--image", &image, "--out", &out
    ));
    assert_eq!(read(&out).shape, [1, 48, 4, 6]);
}

#[test]
fn a_bundle_records_the_license_and_the_colors_given() {
    let dir = dir();
    let bundle = dir.path().join("b.loftup");
    done(&mut loftup!(
        "convert",
        "--backbone",
        "dinov2",
        "--backbone-weights",
        weights("dinov2.bin"),
        "--heads",
        "3",
        "--size",
        "28x28",
        "--mean",
        "0.5,0.25,0.125",
        "--license",
        "LicenseRef-Test",
        "--out",
        &bundle
    ));
    let said = done(&mut loftup!("inspect", &bundle));
    // The standard deviation remains the family's.
    let parts = [
        "license    LicenseRef-Test",
        "mean [0.5, 0.25, 0.125], std [0.229, 0.224, 0.225] (command line)",
    ];
    names(&said, &parts);
}

#[test]
fn half_a_bundle_does_its_half() {
    let (dir, full) = (dir(), full());
    let (backbone, upsampler) = (backbone(), upsampler());
    let image = png(dir.path());
    let (lr, exact, out) = (
        dir.path().join("lr.npy"),
        dir.path().join("exact.npy"),
        dir.path().join("out.npy"),
    );
    done(&mut loftup!(
        "run",
        backbone.path(),
        "--image",
        &image,
        "--out",
        &lr
    ));
    assert_eq!(read(&lr).shape, [1, 48, 4, 6]);
    done(&mut loftup!(
        "run",
        upsampler.path(),
        "--features",
        &lr,
        "--guidance",
        &image,
        "--size",
        "84x56",
        "--out",
        &out
    ));
    let halves = read(&out);
    done(&mut loftup!(
        "run",
        full.path(),
        "--image",
        &image,
        "--out",
        &out
    ));
    let whole = read(&out);
    let worst = apart(&halves, &whole);
    println!("two halves: max {worst:.1e}");
    assert!(worst <= TILES);

    // An exact image is the photograph that was prepared elsewhere.
    let n = loftup_bundle::Normalization::IMAGENET;
    let prepared = photo().resized(84, 56).unwrap().normalized(n.mean, n.std);
    loftup_runtime::npy::write(&exact, &[1, 3, 56, 84], &prepared).unwrap();
    done(&mut loftup!(
        "run",
        full.path(),
        "--image",
        &exact,
        "--out",
        &out
    ));
    assert_eq!(apart(&read(&out), &whole), 0.0);
    // Without a size, the answer has that of the guidance.
    done(&mut loftup!(
        "run",
        upsampler.path(),
        "--features",
        &lr,
        "--guidance",
        &exact,
        "--out",
        &out
    ));
    assert!(apart(&read(&out), &whole) <= TILES);
}

#[test]
fn figures_are_printed_as_json() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let json = done(&mut loftup!(
        "run",
        bundle.path(),
        "--image",
        &image,
        "--out",
        &out,
        "--region",
        "0,0,5,4",
        "--json"
    ));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["shape"], serde_json::json!([1, 48, 4, 5]));
    assert_eq!(json["backend"], "tract");
    assert!(json["seconds"]["total"].as_f64().unwrap() > 0.0);

    let json = done(&mut loftup!("inspect", bundle.path(), "--json"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["backbone"]["patch"], 14);
    assert_eq!(json["upsampler"]["dim"], 48);

    // Also of files that are no bundle.
    let json = done(&mut loftup!("inspect", weights("dinov2.bin"), "--json"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["patch_embed.proj.weight"],
        serde_json::json!([48, 3, 14, 14])
    );
    let graph = bundle.path().join("keys.onnx");
    let json = done(&mut loftup!("inspect", graph, "--json"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["outputs"].as_array().unwrap().len(), 4);
    names(
        &done(&mut loftup!("inspect", weights("loftup_odd.ckpt"))),
        &["upsampler.final_conv.0.weight"],
    );
}

#[test]
fn a_bundle_is_verified_without_a_reference() {
    let bundle = full();
    let json = done(&mut loftup!("verify", bundle.path(), "--json"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["passed"], true);
    assert!(json["checks"].as_array().unwrap().len() >= 6);
}
