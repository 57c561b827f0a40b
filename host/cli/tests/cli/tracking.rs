//! `loftup track` and `loftup eval vos`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_runtime::{
    class_map::save_palette,
    image::{RgbImage, open},
};

use crate::support::*;

const WIDTH: usize = 84;
const HEIGHT: usize = 56;

/// 1 inside a square that moves 3 pixels to the right in each frame.
fn labels(frame: usize) -> Vec<u8> {
    let inside = |i: usize| {
        (16..40).contains(&(i / WIDTH)) && (14 + 3 * frame..38 + 3 * frame).contains(&(i % WIDTH))
    };
    (0..WIDTH * HEIGHT).map(|i| u8::from(inside(i))).collect()
}

/// Frames with the square in orange on blue, and their masks, in DAVIS' layout.
fn video(dir: &Path, frames: usize) -> (PathBuf, PathBuf) {
    let images = dir.join("JPEGImages/480p/square");
    let masks = dir.join("Annotations/480p/square");
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&masks).unwrap();
    for i in 0..frames {
        let labels = labels(i);
        let color = |l: &u8| [[30, 60, 180], [240, 140, 20]][usize::from(*l)];
        let rgb = labels.iter().flat_map(color).collect();
        let image = RgbImage::new(WIDTH, HEIGHT, rgb).unwrap();
        image.save_png(&images.join(format!("{i:05}.jpg"))).unwrap();
        save_palette(&masks.join(format!("{i:05}.png")), WIDTH, HEIGHT, &labels).unwrap();
    }
    (images, masks)
}

fn iou(path: &Path, frame: usize) -> f64 {
    let found = loftup_eval::labels::Labels::open(path).unwrap();
    let pairs = || found.values.iter().zip(labels(frame));
    let both = pairs().filter(|(a, b)| **a == 1 && *b == 1).count();
    let any = pairs().filter(|(a, b)| **a == 1 || *b == 1).count();
    both as f64 / any as f64
}

#[test]
fn an_object_is_followed_from_a_mask_or_a_box() {
    let (dir, bundle, tokens) = (dir(), full(), backbone());
    let (images, masks) = video(dir.path(), 4);
    let (out, overlay) = (dir.path().join("new/masks"), dir.path().join("seen"));
    let track = |more: &[&str]| {
        let mut command = loftup!("track", bundle.path(), "--video", &images, "--out", &out);
        command.args(["--grid", "42x28"]).args(more);
        command
    };
    let first = masks.join("00000.png");
    let first = ["--mask", first.to_str().unwrap()];
    let text = done(track(&first).arg("--overlay").arg(&overlay));
    names(
        &text,
        &[
            "masks: 4 masks",
            "seen: overlays",
            "object 1: visible in 4 of 4 frames",
        ],
    );
    for i in 0..4 {
        let name = format!("{i:05}.png");
        // Even random weights keep two colors apart; a cell has 2 x 2 pixels.
        assert!(
            iou(&out.join(&name), i) > 0.7,
            "frame {i}: {}",
            iou(&out.join(&name), i)
        );
        let image = open(&overlay.join(&name)).unwrap();
        assert_eq!((image.width(), image.height()), (WIDTH, HEIGHT));
    }
    // The backbone is enough for another method; a glob picks frames; boxes take the next labels.
    let few = format!("{}/0000[01].*", images.display());
    let json = done(
        loftup!(
            "track",
            tokens.path(),
            "--video",
            few,
            "--out",
            &out,
            "--json"
        )
        .args(["--upsampler", "jbu", "--grid", "42x28"])
        .args(["--click", "60,8", "--box", "14,16,24,24"]),
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    let objects = json[1]["objects"].as_array().unwrap();
    assert_eq!(
        (&objects[0]["label"], &objects[1]["label"]),
        (&1.into(), &2.into())
    );
    assert!(
        objects.iter().all(|o| o["area"].as_u64() > Some(0)),
        "{json}"
    );
    assert!(iou(&out.join("00001.png"), 1) > 0.5);

    // What eval vos makes of the same video, and of the masks.
    let data = ["--data", dir.path().to_str().unwrap()];
    let json = done(loftup!("eval", "vos", bundle.path(), "--json", "--grid", "42x28").args(data));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["results"].as_array().unwrap().len(), 5);
    assert_eq!((&json["clips"], &json["frames"]), (&1.into(), &4.into()));
    let loftup = json["results"][4]["j"]["mean"].as_f64().unwrap();
    done(&mut track(&first));
    fs::rename(&out, dir.path().join("new/square")).unwrap();
    let masks = dir.path().join("new");
    let score = || {
        let mut command = loftup!("eval", "vos", "--masks", &masks);
        command.args(data);
        command
    };
    let json = done(score().arg("--json"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["j"]["mean"].as_f64().unwrap(), loftup);
    names(&done(&mut score()), &["square", "all", "J mean"]);
    let text = done(loftup!("eval", "vos", tokens.path(), "--grid", "9x7").args(data));
    names(
        &text,
        &["1 objects, 4 frames", "nearest", "JBU", "J&F - bilinear"],
    );
}

#[test]
fn what_cannot_be_tracked_is_refused() {
    let (dir, bundle, tokens) = (dir(), full(), backbone());
    let (images, masks) = video(dir.path(), 3);
    let out = dir.path().join("out");
    let track = |bundle: PathBuf, video: &Path, more: &[&str]| {
        let mut command = loftup!("track", bundle, "--video", video, "--out", &out);
        refused(dir.path(), command.args(more))
    };
    let rect = ["--box", "14,16,24,24"];
    names(
        &track(bundle.path(), &dir.path().join("none"), &rect),
        &["none", "no such file or directory"],
    );
    names(
        &track(bundle.path(), &dir.path().join("*.jpg"), &rect),
        &["*.jpg: no images"],
    );
    names(
        &track(tokens.path(), &images, &rect),
        &["no upsampler", "--upsampler-weights"],
    );
    names(
        &track(bundle.path(), &images, &["--box", "80,0,5,5"]),
        &["00000.jpg", "object 1", "80,0,5,5", "84x56"],
    );
    names(
        &track(bundle.path(), &images, &["--click", "84,0"]),
        &["84,0", "84x56"],
    );
    let small = dir.path().join("small.png");
    save_palette(&small, 2, 1, &[0, 1]).unwrap();
    names(
        &track(bundle.path(), &images, &["--mask", small.to_str().unwrap()]),
        &["small.png", "2x1", "84x56"],
    );
    save_palette(&small, 2, 1, &[0, 255]).unwrap();
    names(
        &track(bundle.path(), &images, &["--mask", small.to_str().unwrap()]),
        &["small.png", "no object"],
    );
    fs::copy(images.join("00000.jpg"), images.join("00000.png")).unwrap();
    names(
        &track(bundle.path(), &images, &rect),
        &["00000.jpg", "00000.png", "same output"],
    );
    let vos = |more: &[&str]| {
        let mut command = loftup!("eval", "vos", bundle.path(), "--data", dir.path());
        refused(dir.path(), command.args(more))
    };
    names(&vos(&["--clips", "other"]), &["480p/other"]);
    names(&vos(&["--max-frames", "2"]), &["2 frames", "at least 3"]);
    fs::remove_dir_all(masks).unwrap();
    names(&vos(&[]), &["480p", "no clips"]);
}
