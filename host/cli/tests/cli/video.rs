//! `--video` with a video file: the same bits as the images that it was made from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use loftup_runtime::{
    image::{RgbImage, open},
    video::{VideoFrame, VideoReader},
};

use crate::{measures::data, support::*};

/// Whether ffmpeg is installed; says so if it is not.
fn ffmpeg() -> bool {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !found {
        println!("SKIPPED: this test needs the program `ffmpeg`, which is not installed");
    }
    found
}

/// Images of a square that moves to the right, and a lossless video of them, 25 frames per second.
fn video(dir: &Path, frames: usize) -> (PathBuf, PathBuf) {
    let images = dir.join("images");
    fs::create_dir_all(&images).unwrap();
    for i in 0..frames {
        let color = |p: usize| match (20..44).contains(&(p / 91))
            && (14 + 3 * i..38 + 3 * i).contains(&(p % 91))
        {
            true => [240, 140, 20],
            false => [30, 60, (150 + p % 50) as u8],
        };
        let image = RgbImage::new(91, 63, (0..91 * 63).flat_map(color).collect());
        image
            .unwrap()
            .save_png(&images.join(format!("{i:06}.png")))
            .unwrap();
    }
    let video = dir.join("clip.mov");
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-framerate", "25", "-i"])
        .arg(images.join("%06d.png"))
        .args(["-c:v", "png", "-pix_fmt", "rgb24"])
        .arg(&video)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (images, video)
}

/// Sizes of the frames of a video.
fn sizes(video: &Path) -> Vec<(usize, usize)> {
    let (mut reader, mut frame) = (VideoReader::open(video).unwrap(), VideoFrame::default());
    let mut sizes = Vec::new();
    while reader.read(&mut frame).unwrap() {
        sizes.push((frame.width, frame.height));
    }
    sizes
}

#[test]
fn tracking_in_a_video_is_tracking_in_its_images() {
    if !ffmpeg() {
        return;
    }
    let (dir, bundle) = (dir(), full());
    let (images, video) = video(dir.path(), 5);
    let at = |name: &str| dir.path().join(name);
    let track = |video: &Path, out: &Path| {
        let mut command = loftup!("track", bundle.path(), "--video", video, "--out", out);
        command.args(["--grid", "42x28", "--box", "14,20,24,24"]);
        command
    };
    done(&mut track(&images, &at("a")));
    let json = done(
        track(&video, &at("b"))
            .arg("--json")
            .arg("--overlay")
            .arg(at("seen.mp4")),
    );
    assert!(
        listing(&at("a"))
            .into_values()
            .eq(listing(&at("b")).into_values())
    );
    assert_eq!(sizes(&at("seen.mp4")), [(92, 64); 5]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json[3]["frame"], &json[3]["seconds"]),
        (&3.into(), &0.12.into())
    );
    // Some of the frames, as a video only.
    let text = done(
        track(&video, &at("some.mkv")).args(["--start", "1", "--every", "2", "--frames", "2"]),
    );
    names(
        &text,
        &["some.mkv: 2 frames", "object 1: visible in 2 of 2"],
    );
    assert_eq!(sizes(&at("some.mkv")).len(), 2);
    let error = refused(dir.path(), track(&video, &at("c")).args(["--start", "5"]));
    names(&error, &["clip.mov", "5 frames, none from --start 5"]);
}

#[test]
fn a_video_takes_the_place_of_the_images_of_a_clip() {
    if !ffmpeg() {
        return;
    }
    let (dir, bundle) = (dir(), full());
    let (images, video) = video(dir.path(), 4);
    let (data, masks) = (
        dir.path().join("data"),
        dir.path().join("data/Annotations/480p/a"),
    );
    let mut track = loftup!("track", bundle.path(), "--video", &images, "--out", &masks);
    done(track.args(["--grid", "42x28", "--box", "14,20,24,24"]));
    let place = data.join("JPEGImages/480p");
    fs::create_dir_all(&place).unwrap();
    fs::rename(&images, place.join("a")).unwrap();
    let eval = || {
        let mut command = loftup!("eval", "vos", bundle.path(), "--data", &data, "--json");
        command.args(["--grid", "28x20", "--methods", "bilinear"]);
        command
    };
    let scores = || {
        let json: serde_json::Value = serde_json::from_str(&done(&mut eval())).unwrap();
        (json["results"][0]["j"].clone(), json["frames"].clone())
    };
    let by_images = scores();
    fs::remove_dir_all(place.join("a")).unwrap();
    fs::rename(&video, place.join("a.mov")).unwrap();
    assert_eq!(scores(), by_images);
    fs::copy(masks.join("000003.png"), masks.join("000004.png")).unwrap();
    names(
        &refused(dir.path(), &mut eval()),
        &["a.mov", "fewer frames"],
    );
}

#[test]
fn features_of_a_video_are_those_of_its_images() {
    if !ffmpeg() {
        return;
    }
    let (dir, bundle) = (dir(), full());
    let (images, video) = video(dir.path(), 3);
    let at = |name: &str| dir.path().join(name);
    let run = |input: &str, path: &Path, out: &Path| {
        let mut command = loftup!("run", bundle.path(), input, path, "--out", out);
        command.args(["--region", "8,8,20,10"]);
        command
    };
    let text = done(
        run("--video", &video, &at("out"))
            .arg("--picture")
            .arg(at("seen")),
    );
    names(
        &text,
        &["out: 3 frames", "seen: 3 frames", "frames per second"],
    );
    for i in 0..3 {
        let name = format!("{i:06}");
        let image = images.join(format!("{name}.png"));
        done(&mut run("--image", &image, &at("one.npy")));
        let (one, all) = (
            read(at("one.npy")),
            read(at("out").join(format!("{name}.npy"))),
        );
        assert_eq!((one.shape, one.data), (all.shape, all.data), "frame {i}");
        open(&at("seen").join(format!("{name}.png"))).unwrap();
    }
    let refuse = |more: &[&str], out: &str, parts: &[&str]| {
        let error = refused(dir.path(), run("--video", &video, &at(out)).args(more));
        names(&error, parts);
    };
    refuse(&[], "seen.mp4", &["seen.mp4", "--head", "--picture"]);
    refuse(&["--start", "3"], "new", &["3 frames, none from --start 3"]);
    let error = refused(
        dir.path(),
        run("--image", &images.join("000000.png"), &at("x.npy")).args(["--every", "2"]),
    );
    names(&error, &["--every", "--video"]);
}

/// Classes of each frame, and videos of them.
#[test]
fn classes_of_a_video_can_be_looked_at() {
    if !ffmpeg() {
        return;
    }
    let dir = dir();
    let (images, video) = video(dir.path(), 3);
    let at = |name: &str| dir.path().join(name);
    let (plain, bundle) = (full(), at("seg.loftup"));
    let data = data(dir.path());
    let mut head = loftup!(
        "head",
        "classes",
        plain.path(),
        "--data",
        data,
        "--out",
        &bundle
    );
    done(head.args(["--samples", "64"]));
    let run = |input: &str, path: &Path, out: &Path| {
        let mut command = loftup!(
            "run", &bundle, input, path, "--out", out, "--head", "classes"
        );
        command.args(["--size", "70x56"]);
        command
    };
    done(
        run("--video", &video, &at("classes"))
            .arg("--picture")
            .arg(at("beside.mkv")),
    );
    done(&mut run(
        "--image",
        &images.join("000002.png"),
        &at("one.png"),
    ));
    let one = fs::read(at("one.png")).unwrap();
    assert!(one == fs::read(at("classes/000002.png")).unwrap());
    assert_eq!(sizes(&at("beside.mkv")), [(140, 56); 3]);
    done(&mut run("--video", &images, &at("over.webm")));
    assert_eq!(sizes(&at("over.webm")), [(70, 56); 3]);
}

/// A machine with GStreamer only, and one with neither program.
#[test]
fn the_program_that_is_installed_decodes() {
    let gstreamer = ["/usr/bin/gst-launch-1.0", "/usr/local/bin/gst-launch-1.0"];
    let gstreamer = gstreamer.iter().find(|path| Path::new(path).exists());
    if !ffmpeg() {
        return;
    }
    let (dir, bundle) = (dir(), full());
    let (images, video) = video(dir.path(), 2);
    let at = |name: &str| dir.path().join(name);
    let programs = at("programs");
    fs::create_dir(&programs).unwrap();
    let track = |video: &Path, out: &str| {
        let mut command = loftup!("track", bundle.path(), "--video", video, "--out", at(out));
        command.env("PATH", &programs);
        command.args(["--grid", "42x28", "--box", "14,20,24,24"]);
        command
    };
    let error = refused(dir.path(), &mut track(&video, "a"));
    names(&error, &["clip.mov", "install ffmpeg", "GStreamer"]);
    let error = refused(dir.path(), &mut track(&images, "a.mp4"));
    names(&error, &["a.mp4", "ffmpeg", "install it"]);
    let Some(gstreamer) = gstreamer else {
        println!("SKIPPED: this test needs the program `gst-launch-1.0`, which is not installed");
        return;
    };
    std::os::unix::fs::symlink(gstreamer, programs.join("gst-launch-1.0")).unwrap();
    done(&mut track(&video, "a"));
    done(&mut track(&images, "b"));
    assert!(
        listing(&at("a"))
            .into_values()
            .eq(listing(&at("b")).into_values())
    );
}
