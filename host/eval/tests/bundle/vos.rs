//! Tracking of objects in a small data set in DAVIS' layout.

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_bundle::Size;
use loftup_eval::{
    Method,
    vos::{self, Request},
};
use loftup_runtime::{ColorRange, class_map::save_palette, image::RgbImage, track::TrackOptions};

use crate::{quiet, support::Place};

const SIDE: usize = 96;

/// A red square (1) and a blue square (3) of 24 pixels on gray, which move by 4 pixels in each frame.
/// There is no object 2.
fn clip(data: &Path, name: &str, frames: usize, step: isize) -> PathBuf {
    let (images, masks) = (
        data.join("JPEGImages/480p").join(name),
        data.join("Annotations/480p").join(name),
    );
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&masks).unwrap();
    for frame in 0..frames {
        let start = (36 + step * frame as isize) as usize;
        let label = |i: usize| {
            let (x, y) = (i % SIDE, i / SIDE);
            match y {
                16..40 if (start..start + 24).contains(&x) => 1,
                56..80 if (start..start + 24).contains(&x) => 3,
                _ => 0u8,
            }
        };
        let labels: Vec<u8> = (0..SIDE * SIDE).map(label).collect();
        let color = |l: &u8| [[90, 90, 90], [220, 40, 40], [0; 3], [40, 40, 220]][usize::from(*l)];
        let rgb = labels.iter().flat_map(color).collect();
        // PNG data under the names of DAVIS: the format is found by content. Or PNG names.
        let ending = if name == "right" { "png" } else { "jpg" };
        let image = RgbImage::new(SIDE, SIDE, rgb).unwrap();
        image
            .save_png(&images.join(format!("{frame:05}.{ending}")))
            .unwrap();
        save_palette(&masks.join(format!("{frame:05}.png")), SIDE, SIDE, &labels).unwrap();
    }
    masks
}

fn request(data: &Path) -> Request<'_> {
    Request {
        data,
        clips: Vec::new(),
        max_frames: None,
        methods: vec![Method::Nearest, Method::Bilinear, Method::Jbu],
        grid: Size {
            width: 24,
            height: 24,
        },
        range: ColorRange::PerImage,
        naf_statistics_interval: 1,
        track: TrackOptions {
            radius: 4,
            threads: 2,
            max_objects: 1,
            ..TrackOptions::default()
        },
        seed: 0,
    }
}

#[test]
fn objects_are_followed_by_every_method() {
    let (place, dir) = (Place::new(), tempfile::tempdir().unwrap());
    clip(dir.path(), "left", 6, -4);
    clip(dir.path(), "right", 5, 4);
    let perceptor = place.perceptor();
    let mut seen = Vec::new();
    let report = vos::evaluate_watched(
        &perceptor,
        &request(dir.path()),
        &mut quiet(),
        &mut |method, clip, frame, mask| {
            assert_eq!(mask.labels.len(), SIDE * SIDE);
            if method == Method::Jbu {
                seen.push((clip.to_owned(), frame));
            }
        },
    )
    .unwrap();
    // All but the first and the last.
    let frames = [("left", 1..5), ("right", 1..4)];
    let expected = frames.map(|(clip, frames)| frames.map(move |i| (clip.to_owned(), i)));
    assert_eq!(seen, expected.into_iter().flatten().collect::<Vec<_>>());
    assert_eq!((report.clips, report.objects, report.frames), (2, 6, 11));
    for result in &report.results {
        let clips = &result.scores.clips;
        assert_eq!((&clips[0].clip[..], &clips[1].clip[..]), ("left", "right"));
        for (clip, frames) in clips.iter().zip([4, 3]) {
            for object in &clip.objects {
                assert_eq!(object.j_frames.len(), frames);
                // Frames move by half a patch, so that J of tokens is no better than this.
                let least = if object.label == 2 { 1.0 } else { 0.5 };
                assert!(object.j.mean >= least, "{:?}: {object:?}", result.method);
            }
        }
        let mean: f64 = clips
            .iter()
            .flat_map(|c| &c.objects)
            .map(|o| o.j.mean)
            .sum();
        assert!((result.scores.j.mean - mean / 6.0).abs() < 1e-12);
    }
    let [_, bilinear, jbu] = &report.results[..] else {
        panic!("three methods")
    };
    assert_eq!(bilinear.to_bilinear.unwrap().value, 0.0);
    let expected: f64 = (jbu.scores.clips.iter())
        .zip(&bilinear.scores.clips)
        .map(|(a, b)| a.j_and_f - b.j_and_f)
        .sum();
    let found = jbu.to_bilinear.unwrap();
    assert!((found.value - expected / 2.0).abs() < 1e-12 && found.low <= found.high);

    let short = Request {
        clips: vec!["right".into()],
        max_frames: Some(3),
        methods: vec![Method::LoftUp],
        ..request(dir.path())
    };
    let report = vos::evaluate(&perceptor, &short, &mut quiet()).unwrap();
    assert_eq!((report.clips, report.frames), (1, 3));
    assert!(report.results[0].to_jbu.is_none());
}

#[test]
fn masks_are_scored_and_wrong_ones_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let truth = clip(&data, "right", 4, 4);
    let masks = dir.path().join("masks");
    fs::create_dir_all(masks.join("right")).unwrap();
    let save = |name: &str, size: usize, labels: &[u8]| {
        save_palette(&masks.join("right").join(name), size, size, labels).unwrap();
    };
    // One frame as it is, one empty; first and last are not read.
    fs::copy(truth.join("00001.png"), masks.join("right/00001.png")).unwrap();
    save("00002.png", SIDE, &[0; SIDE * SIDE]);
    let score = || vos::score(&request(&data), &masks, &mut quiet());
    let scores = score().unwrap();
    let j: Vec<_> = scores.clips[0]
        .objects
        .iter()
        .map(|o| o.j_frames.clone())
        .collect();
    // Object 2 is in neither mask.
    assert_eq!(j, [[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]);
    assert_eq!(scores.j.mean, 4.0 / 6.0);
    assert_eq!(scores.f, scores.j);
    // Void is background.
    save("00002.png", SIDE, &[255; SIDE * SIDE]);
    assert_eq!(score().unwrap(), scores);

    let error = |labels: &[u8], size: usize| {
        save("00002.png", size, labels);
        score().unwrap_err().to_string()
    };
    let text = error(&[4; SIDE * SIDE], SIDE);
    assert!(
        text.contains("00002.png") && text.contains("object 4"),
        "{text}"
    );
    let text = error(&[0; 9], 3);
    assert!(text.contains("00002.png: a mask of 3x3"), "{text}");
    fs::remove_file(masks.join("right/00002.png")).unwrap();
    assert!(score().unwrap_err().to_string().contains("00002.png"));
    save_palette(&truth.join("00000.png"), SIDE, SIDE, &[0; SIDE * SIDE]).unwrap();
    assert!(score().unwrap_err().to_string().contains("no object"));
    let few = Request {
        max_frames: Some(2),
        ..request(&data)
    };
    let text = vos::score(&few, &masks, &mut quiet())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("2 frames") && text.contains("at least 3"),
        "{text}"
    );
}
