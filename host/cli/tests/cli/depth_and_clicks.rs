//! Depth heads and segmentation from clicks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::Size;
use loftup_runtime::{
    class_map::save_classes,
    depth::{self, NormalOptions, Pinhole, save_depth},
    image::RgbImage,
};

use crate::support::*;

/// Images in two halves of two colors: the left one is an object at 1 m, the right one is at 3 m.
fn data(dir: &Path) -> PathBuf {
    let (width, height) = SIDE;
    let data = dir.join("data");
    for (part, count) in [("train", 3), ("val", 2)] {
        let folder = |kind: &str| {
            let folder = data.join(part).join(kind);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let (images, depths, masks) = (folder("images"), folder("depth"), folder("masks"));
        for i in 0..count {
            let left = |at: usize| at % width < width / 4 * (i + 1);
            let all = 0..width * height;
            let color = |at| {
                if left(at) {
                    [220, 60, 40]
                } else {
                    [30, 90, 200]
                }
            };
            let rgb = all.clone().flat_map(color).collect();
            let meters: Vec<f32> = all
                .clone()
                .map(|at| if left(at) { 1.0 } else { 3.0 })
                .collect();
            let mask: Vec<u8> = all.map(|at| u8::from(left(at))).collect();
            let name = format!("{part}{i}.png");
            let image = RgbImage::new(width, height, rgb).unwrap();
            image.save_png(&images.join(&name)).unwrap();
            save_depth(&depths.join(&name), width, height, &meters).unwrap();
            save_classes(&masks.join(&name), width, height, &mask).unwrap();
        }
    }
    data
}

fn json(command: &mut std::process::Command) -> serde_json::Value {
    serde_json::from_str(&done(command.arg("--json"))).unwrap()
}

#[test]
fn a_depth_head_is_fitted_into_a_bundle_and_gives_depth() {
    let (dir, bundle) = (dir(), full());
    let data = data(dir.path());
    let at = |name: &str| dir.path().join(name);
    let out = at("d.loftup");
    let told = done(&mut loftup!(
        "head",
        "depth",
        bundle.path(),
        "--data",
        &data,
        "--samples",
        "200",
        "--out",
        &out
    ));
    names(
        &told,
        &["head depth", "1.00 to 3.00 m", "600 pixels of 3 images"],
    );
    names(
        &done(&mut loftup!("inspect", &out)),
        &["depth: depth, 1.00 to 3.00 m"],
    );
    let photo = data.join("val/images/val1.png");
    let run = |out_file: &Path| {
        loftup!(
            "run", &out, "--image", &photo, "--head", "depth", "--out", out_file
        )
    };
    let told = done(run(&at("depth.png")).arg("--picture").arg(at("colors.png")));
    names(&told, &["uint16, millimeters [56, 84]", "image, depth"]);
    let png = image::open(at("depth.png")).unwrap().into_luma16();
    assert_eq!(png.dimensions(), (SIDE.0 as u32, SIDE.1 as u32));
    names(
        &done(&mut run(&at("depth.npy"))),
        &["float32, meters [56, 84]"],
    );
    let npy = read(at("depth.npy"));
    assert_eq!(npy.shape, [SIDE.1, SIDE.0]);
    for (level, meters) in png.iter().zip(&npy.data) {
        assert!((1.0..=3.0).contains(meters));
        assert_eq!(f32::from(*level), (1000.0 * meters).round());
    }
    let column =
        |x: usize| (0..SIDE.1).map(|y| npy.data[y * SIDE.0 + x]).sum::<f32>() / SIDE.1 as f32;
    assert!(
        column(5) + 0.5 < column(SIDE.0 - 5),
        "{} {}",
        column(5),
        column(SIDE.0 - 5)
    );
    let colors = image::open(at("colors.png")).unwrap();
    assert_eq!(colors.width() as usize, 2 * SIDE.0);
    let points = at("points.csv");
    fs::write(&points, "5,7\n").unwrap();
    done(run(&at("point.npy")).arg("--points").arg(&points));
    let point = read(at("point.npy"));
    assert_eq!(point.shape, [1, 1]);
    assert!((point.data[0] - npy.data[7 * SIDE.0 + 5]).abs() < 1e-4);
    let line = refused(dir.path(), &mut run(&at("depth.jpg")));
    names(&line, &["depth.jpg", ".png", ".npy"]);

    let normals = |file: &str, more: &[&str]| {
        let mut command = loftup!("run", &out, "--image", &photo, "--head", "depth");
        command.arg("--normals").arg(at(file)).args(more);
        command
    };
    let camera = ["--intrinsics", "80,70,41.5,20.25"];
    names(
        &done(&mut normals("normals.npy", &camera)),
        &["normals.npy: surface normals\n"],
    );
    let found = read(at("normals.npy"));
    assert_eq!(found.shape, [SIDE.1, SIDE.0, 3]);
    // The library's, of the depth that the same command writes. The image is not resized.
    let pinhole = Pinhole {
        fx: 80.0,
        fy: 70.0,
        cx: 41.5,
        cy: 20.25,
    };
    let (size, options) = (
        Size {
            width: SIDE.0,
            height: SIDE.1,
        },
        NormalOptions::default(),
    );
    let mut expected = Vec::new();
    depth::normals(&npy.data, size, &pinhole, &options, &mut expected).unwrap();
    assert_eq!(found.data, expected);
    // A part has the rays of its place, and those at its border see less of the surface.
    let region = [&camera[..], &["--region", "20,10,30,24"]].concat();
    done(&mut normals("part.npy", &region));
    let part = read(at("part.npy"));
    assert_eq!(part.shape, [24, 30, 3]);
    for (x, y) in [(2, 2), (15, 12), (27, 21)] {
        let at = 3 * ((10 + y) * SIDE.0 + 20 + x);
        for c in 0..3 {
            let (a, b) = (part.data[3 * (y * 30 + x) + c], expected[at + c]);
            assert!((a - b).abs() < 1e-3, "{x}, {y}: {a} {b}");
        }
    }
    names(
        &done(&mut normals("normals.png", &[])),
        &["assumed horizontal field of view of 60 degrees"],
    );
    let png = image::open(at("normals.png")).unwrap();
    assert_eq!(
        (png.width() as usize, png.color()),
        (SIDE.0, image::ColorType::Rgb8)
    );
    let line = refused(dir.path(), &mut normals("normals.jpg", &[]));
    names(&line, &["normals.jpg", ".png", ".npy"]);
    let line = refused(
        dir.path(),
        run(&at("d.npy")).args(["--field-of-view", "50"]),
    );
    names(&line, &["--field-of-view", "--normals"]);

    let report = json(&mut loftup!(
        "eval",
        "depth",
        bundle.path(),
        "--data",
        &data,
        "--samples",
        "200"
    ));
    let methods: Vec<_> = report["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["method"])
        .collect();
    assert_eq!(methods, ["nearest", "bilinear", "bicubic", "jbu", "loftup"]);
    for r in report["results"].as_array().unwrap() {
        let d1 = r["whole"]["absolute"]["d1"].as_f64().unwrap();
        assert!((0.5..=1.0).contains(&d1), "{r}");
        let degrees = r["normals"]["mean_degrees"].as_f64().unwrap();
        assert!((0.0..=90.0).contains(&degrees), "{r}");
    }
    let told = done(&mut loftup!(
        "eval",
        "depth",
        bundle.path(),
        "--data",
        &data,
        "--samples",
        "200",
        "--methods",
        "jbu,bilinear"
    ));
    names(
        &told,
        &["whole image", "band", "minus bilinear", "minus JBU"],
    );
    // Missing data.
    let missing = loftup!("eval", "depth", bundle.path(), "--data", at("no.csv"))
        .output()
        .unwrap();
    names(&stderr(&missing), &["no.csv"]);
}

#[test]
fn objects_are_segmented_from_clicks() {
    let (dir, bundle) = (dir(), full());
    let data = data(dir.path());
    let at = |name: &str| dir.path().join(name);
    let photo = data.join("val/images/val1.png");
    let segment = |bundle: &Path, out: &Path| {
        loftup!(
            "segment", bundle, "--image", &photo, "--click", "8,20", "--out", out
        )
    };
    // Without a fitted threshold, the default is used and said.
    let (_, said) = told(&mut segment(&bundle.path(), &at("default.png")));
    names(&said, &["no threshold was fitted", "loftup head clicks"]);

    let fitted = at("c.loftup");
    let said = done(&mut loftup!(
        "head",
        "clicks",
        bundle.path(),
        "--data",
        &data,
        "--out",
        &fitted
    ));
    names(
        &said,
        &["3 objects in 3 images", "nearest", "JBU", "LoftUp"],
    );
    names(
        &done(&mut loftup!("inspect", &fitted)),
        &["clicks", "jbu ", "loftup "],
    );
    let said = json(
        segment(&fitted, &at("mask.png"))
            .args(["--not", "70,20"])
            .arg("--overlay")
            .arg(at("over.png")),
    );
    assert_eq!(said["threshold_from"], "bundle");
    assert_eq!(said["milliseconds_per_click"].as_array().unwrap().len(), 2);
    let mask = image::open(at("mask.png")).unwrap().into_luma8();
    assert_eq!(mask.dimensions(), (SIDE.0 as u32, SIDE.1 as u32));
    assert!(mask.iter().all(|v| [0, 255].contains(v)));
    assert_eq!(
        (mask.get_pixel(8, 20)[0], mask.get_pixel(70, 20)[0]),
        (255, 0)
    );
    let inside = mask.iter().filter(|v| **v == 255).count();
    assert_eq!(said["pixels"], inside);
    let overlay = image::open(at("over.png")).unwrap().into_rgb8();
    let colors = [overlay.get_pixel(8, 20).0, overlay.get_pixel(70, 20).0];
    assert_eq!(colors, [[40, 220, 60], [230, 40, 40]]);
    // The bundle of the backbone alone is enough for other methods.
    let alone = backbone();
    let said = json(segment(&alone.path(), &at("m.npy")).args([
        "--upsampler",
        "bilinear",
        "--threshold",
        "0.5",
    ]));
    assert_eq!(
        (&said["method"], &said["threshold_from"]),
        (&"bilinear".into(), &"command-line".into())
    );
    assert!(at("m.npy").is_file());

    let outside = refused(
        dir.path(),
        segment(&fitted, &at("no.png")).args(["--click", "84,0"]),
    );
    names(&outside, &["84,0", "84x56"]);
    let bad = refused(
        dir.path(),
        segment(&fitted, &at("no.png")).args(["--threshold", "2"]),
    );
    names(&bad, &["threshold 2"]);
    names(
        &refused(dir.path(), &mut segment(&fitted, &at("no.jpg"))),
        &["no.jpg", ".png"],
    );
    names(
        &refused(dir.path(), &mut segment(&alone.path(), &at("no.png"))),
        &["LoftUp", "--upsampler-weights"],
    );

    let report = json(&mut loftup!(
        "eval",
        "clicks",
        bundle.path(),
        "--data",
        &data,
        "--clicks",
        "3"
    ));
    assert_eq!(
        (&report["objects"], &report["clicks"]),
        (&2.into(), &3.into())
    );
    let said = done(&mut loftup!(
        "eval",
        "clicks",
        bundle.path(),
        "--data",
        &data,
        "--clicks",
        "3",
        "--methods",
        "jbu,bilinear"
    ));
    names(
        &said,
        &[
            "2 objects in 2 images",
            "IoU@1",
            "IoU@3",
            "NoC@90",
            "minus bilinear",
            "minus JBU",
        ],
    );
}
