//! `loftup head` and `loftup eval` on a small data set.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_runtime::{class_map::save_classes, image::RgbImage};

use crate::support::*;

/// Images in two halves of two colors, whose classes follow from the color, in `dir/data` with
/// train/ and val/.
pub fn data(dir: &Path) -> PathBuf {
    let (width, height) = SIDE;
    let data = dir.join("data");
    for (part, count) in [("train", 3), ("val", 2)] {
        let (images, labels) = (
            data.join(part).join("images"),
            data.join(part).join("labels"),
        );
        fs::create_dir_all(&images).unwrap();
        fs::create_dir_all(&labels).unwrap();
        for i in 0..count {
            let edge = width / 4 * (i + 1);
            let class = |at: usize| u8::from(at % width >= edge);
            let classes: Vec<u8> = (0..width * height).map(class).collect();
            let color = |c: &u8| [[220, 60, 40], [30, 90, 200]][usize::from(*c)];
            let rgb = classes.iter().flat_map(color).collect();
            let name = format!("{i}.png");
            RgbImage::new(width, height, rgb)
                .unwrap()
                .save_png(&images.join(&name))
                .unwrap();
            save_classes(&labels.join(&name), width, height, &classes).unwrap();
        }
    }
    fs::write(data.join("classes.txt"), "red\nblue\n").unwrap();
    data
}

#[test]
fn a_head_of_classes_is_trained_into_a_bundle_and_answers() {
    let (dir, bundle) = (dir(), full());
    let data = data(dir.path());
    let out = dir.path().join("seg.loftup");
    let json = done(&mut loftup!(
        "head",
        "classes",
        bundle.path(),
        "--data",
        &data,
        "--samples",
        "64",
        "--json",
        "--out",
        &out
    ));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["images"], 3);
    assert_eq!(json["pixels"], 3 * 64);
    // Even random weights keep two colors apart.
    assert!(json["fit"].as_f64().unwrap() > 0.9, "{json}");
    names(
        &done(&mut loftup!("inspect", &out)),
        &["classes: 2 classes: red, blue", "data of head classes"],
    );
    let map = dir.path().join("map.png");
    let photo = data.join("val/images/0.png");
    done(&mut loftup!(
        "run", &out, "--image", &photo, "--head", "classes", "--out", &map
    ));
    let map = image::open(&map).unwrap().into_luma8();
    assert_eq!(map.dimensions(), (SIDE.0 as u32, SIDE.1 as u32));
    let truth = image::open(data.join("val/labels/0.png")).unwrap();
    let same = map.iter().zip(truth.as_bytes()).filter(|(a, b)| a == b);
    assert!(same.count() > SIDE.0 * SIDE.1 * 8 / 10);
}

#[test]
fn descriptors_are_fitted_into_the_bundle_itself_with_force() {
    let (dir, bundle) = (dir(), full());
    let data = data(dir.path());
    let own = copy(&bundle, dir.path());
    let pca = |force: bool| {
        let mut command = loftup!(
            "head",
            "pca",
            &own,
            "--images",
            data.join("train/images"),
            "-k",
            "4",
            "--samples",
            "64",
            "--out",
            &own
        );
        if force {
            command.arg("--force");
        }
        command
    };
    names(&refused(dir.path(), &mut pca(false)), &["--force"]);
    names(
        &done(&mut pca(true)),
        &["4 descriptors", "explained variance"],
    );
    let out = dir.path().join("d.npy");
    done(&mut loftup!(
        "run",
        &own,
        "--image",
        png(dir.path()),
        "--head",
        "pca",
        "--out",
        &out
    ));
    assert_eq!(read(&out).shape, [1, 4, SIDE.1, SIDE.0]);
}

#[test]
fn heads_that_cannot_be_made_are_refused() {
    let (dir, bundle) = (dir(), full());
    let data = data(dir.path());
    let out = dir.path().join("o.loftup");
    let head = |bundle: PathBuf, data: &Path, more: &[&str]| {
        let mut command = loftup!("head", "classes", bundle, "--data", data, "--out", &out);
        refused(dir.path(), command.args(more))
    };
    let line = head(bundle.path(), &dir.path().join("none"), &[]);
    names(&line, &["none", "images"]);
    let line = head(backbone().path(), &data, &[]);
    names(&line, &["no upsampler", "--upsampler-weights"]);
    let line = head(bundle.path(), &data, &["--samples", "4", "--name", "a/b"]);
    names(&line, &["\"a/b\"", "ASCII letters"]);
    fs::remove_dir_all(data.join("train/images")).unwrap();
    let line = head(bundle.path(), &data, &[]);
    names(&line, &["train", "no images directory"]);
}

#[test]
fn features_are_compared_by_what_probes_see() {
    let (dir, bundle) = (dir(), full());
    let data = data(dir.path());
    let evaluation = |bundle: PathBuf| {
        loftup!(
            "eval",
            "segmentation",
            bundle,
            "--data",
            &data,
            "--samples",
            "64",
            "--json"
        )
    };
    let json: serde_json::Value =
        serde_json::from_str(&done(&mut evaluation(bundle.path()))).unwrap();
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.len(), 5);
    assert!(results.iter().any(|r| r["method"] == "jbu"));
    assert_eq!(json["val_images"], 2);
    for result in results {
        let share = result["mean_iou"].as_f64().unwrap();
        assert!(share > 0.5 && share <= 1.0, "{result}");
    }
    // Without an upsampler four kinds of features are left.
    let json: serde_json::Value =
        serde_json::from_str(&done(&mut evaluation(backbone().path()))).unwrap();
    assert_eq!(json["results"].as_array().unwrap().len(), 4);
    let line = refused(
        dir.path(),
        evaluation(backbone().path()).args(["--methods", "loftup"]),
    );
    names(&line, &["no upsampler", "--upsampler-weights"]);
    fs::remove_dir_all(data.join("val")).unwrap();
    let line = refused(dir.path(), &mut evaluation(bundle.path()));
    names(&line, &["data", "no val directory"]);
}

#[test]
#[cfg(feature = "train")]
fn training_targets_are_compared_by_what_probes_see() {
    let (dir, bundle) = (dir(), backbone());
    let data = data(dir.path());
    let evaluation = |more: &[&str]| {
        let mut command = loftup!("eval", "targets", bundle.path(), "--data", &data);
        command.args(["--samples", "64"]).args(more);
        command
    };
    let json: serde_json::Value =
        serde_json::from_str(&done(&mut evaluation(&["--json"]))).unwrap();
    let results = json["results"].as_array().unwrap();
    assert_eq!((results.len(), &json["val_images"]), (7, &2.into()));
    assert_eq!(results[0]["name"], "bilinear");
    assert_eq!(results[0]["difference"]["value"], 0.0);
    for result in results {
        let [share, low, value, high] = [
            &result["mean_iou"],
            &result["difference"]["low"],
            &result["difference"]["value"],
            &result["difference"]["high"],
        ]
        .map(|v| v.as_f64().unwrap());
        assert!(share > 0.5 && share <= 1.0, "{result}");
        assert!(low <= high && value.abs() < 0.5, "{result}");
    }
    let text = done(&mut evaluation(&[]));
    names(&text, &["bilinear", "JBU, four scales", "mIoU - bilinear"]);
    // Masks next to the images are one more target, and each image needs some.
    for (part, name) in [("train", 0), ("val", 0)] {
        let images = fs::read_dir(data.join(part).join("images")).unwrap();
        let mut images: Vec<PathBuf> = images.map(|e| e.unwrap().path()).collect();
        images.sort();
        fs::write(images[name].with_extension("json"), "{}").unwrap();
    }
    let line = refused(dir.path(), &mut evaluation(&[]));
    names(&line, &[".json", "annotations"]);
    fs::remove_dir_all(data.join("val")).unwrap();
    let line = refused(dir.path(), &mut evaluation(&[]));
    names(&line, &["data", "no val directory"]);
}

#[test]
fn flicker_is_measured_and_senseless_requests_are_refused() {
    let (dir, bundle) = (dir(), full());
    let video = |more: &[&str]| {
        let mut command = loftup!("eval", "video", bundle.path(), "--scenes", "3");
        command.args(["--samples", "128"]).args(more);
        command
    };
    let json = done(&mut video(&["--frames", "2", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["results"].as_array().unwrap().len(), 3);
    for result in json["results"].as_array().unwrap() {
        assert!(result["change"].as_f64().unwrap() > 0.0, "{result}");
    }
    let line = refused(dir.path(), &mut video(&["--frames", "1"]));
    names(&line, &["1 frames", "at least 2"]);
    let line = refused(dir.path(), &mut video(&["--noise", "300"]));
    names(&line, &["--noise 300", "0 to 255"]);
}
