use std::{fs, path::PathBuf};

use loftup_bundle::{HeadKind, Size};
use loftup_eval::{EvalError, Method, depth, heads, labels::Labels};
use loftup_runtime::{
    ColorRange, Frame, Query, Rect,
    depth::{Camera, Depth, DepthMap, save_depth},
    image::{self, Orientation},
};

use crate::{
    quiet,
    support::{Place, SIDE},
};

/// Depth by the color of a patch.
const METERS: [f32; 3] = [1.0, 2.0, 4.0];

/// The images of [`Place::patches`] with depth instead of classes.
fn data(place: &Place) -> PathBuf {
    let dir = place.patches("depth");
    for part in ["train", "val"] {
        fs::create_dir(dir.join(part).join("depth")).unwrap();
        for file in fs::read_dir(dir.join(part).join("labels")).unwrap() {
            let file = file.unwrap();
            let labels = Labels::open(&file.path()).unwrap();
            let meters = |class: &u8| METERS[usize::from(*class)];
            let mut meters: Vec<f32> = labels.values.iter().map(meters).collect();
            // A row without depth.
            meters[..SIDE].fill(0.0);
            let to = dir.join(part).join("depth").join(file.file_name());
            save_depth(&to, SIDE, SIDE, &meters).unwrap();
        }
    }
    dir
}

fn request(data: &std::path::Path) -> depth::Request<'_> {
    depth::Request {
        data,
        set: None,
        size: None,
        range: ColorRange::PerImage,
        orientation: Orientation::Upright,
        methods: Vec::new(),
        samples: 300,
        most: None,
        max_depth: None,
        bins: None,
        camera: Camera::default(),
        ridge: 1e-6,
        seed: 0,
    }
}

#[test]
fn methods_are_compared_on_the_same_pixels() {
    let place = Place::new();
    let dir = data(&place);
    let perceptor = place.perceptor();
    let report = depth::evaluate(&perceptor, &request(&dir), &mut quiet()).unwrap();
    assert_eq!((report.train_images, report.val_images), (6, 3));
    assert_eq!(report.train_pixels, 6 * 300);
    assert_eq!(report.range_meters, (1.0, 4.0));
    // The band is one pixel wide at this size, on both sides of most edges of patches.
    assert_eq!((report.band_radius, report.band_images), (1, 3));
    assert!(report.band_fraction > 0.1 && report.band_fraction < 0.5);
    let methods: Vec<_> = report.results.iter().map(|r| r.method).collect();
    assert_eq!(methods, Method::of(perceptor.manifest()));
    let [nearest, bilinear, ..] = &report.results[..] else {
        panic!("{report:?}")
    };
    // A patch has one color, and so one depth: a linear function of its mean color is exact.
    let scores = nearest.whole.absolute;
    assert_eq!(scores.d1, 1.0);
    assert!(scores.abs_rel < 1e-3 && scores.silog < 0.2, "{scores:?}");
    assert!(nearest.train_r_squared > 0.9999);
    // Interpolation between patches is wrong, and most of all at jumps.
    let band = bilinear.band.unwrap().absolute;
    assert!(
        bilinear.whole.absolute.abs_rel > 0.05 && band.abs_rel > bilinear.whole.absolute.abs_rel
    );
    let difference = nearest.minus_bilinear.unwrap();
    let expected = scores.abs_rel - bilinear.whole.absolute.abs_rel;
    assert!((difference.abs_rel.value - expected).abs() < 1e-12);
    assert!(difference.abs_rel.high < 0.0 && difference.band_abs_rel.unwrap().high < 0.0);
    assert!(bilinear.minus_bilinear.is_none() && bilinear.minus_jbu.is_some());
    // Every patch is a wall that faces the camera; between patches, interpolation bends it.
    assert!(report.normal_fraction > 0.1 && report.normal_fraction < 0.9);
    let angle = |r: &depth::Outcome| r.normals.unwrap().mean_degrees;
    assert!(angle(nearest) < 1.0, "{:?}", nearest.normals);
    assert!(angle(bilinear) > 10.0, "{:?}", bilinear.normals);
    assert!(nearest.normals.unwrap().within_11_25 > 0.99);
    let expected = angle(nearest) - angle(bilinear);
    assert!((difference.normal_degrees.unwrap().value - expected).abs() < 1e-9);
    // A scale and a shift can only lower the squared error.
    for r in &report.results {
        assert!(
            r.whole.aligned.rmse <= r.whole.absolute.rmse + 1e-6,
            "{r:?}"
        );
    }
    serde_json::to_string(&report).unwrap();

    let two = depth::Request {
        methods: vec![Method::Nearest],
        max_depth: Some(2.5),
        ..request(&dir)
    };
    let report = depth::evaluate(&perceptor, &two, &mut quiet()).unwrap();
    assert_eq!((report.results.len(), report.range_meters), (1, (1.0, 2.0)));
    assert!(report.results[0].minus_bilinear.is_none());
}

#[test]
fn a_head_for_depth_goes_into_a_bundle_and_gives_meters() {
    let place = Place::new();
    let dir = data(&place);
    let head = depth::head(&place.perceptor(), &request(&dir), &mut quiet()).unwrap();
    println!("R squared {}", head.fit);
    // An upsampler of random weights keeps little of the colors.
    assert!(head.fit > 0.1 && head.fit < 1.0);
    let (from, with) = (place.path("tiny.loftup"), place.path("with.loftup"));
    heads::add(&from, "depth", &head, &dir, &with, false).unwrap();
    let perceptor = place.open("with.loftup");
    let head = perceptor.head("depth").unwrap();
    let kind = HeadKind::Depth {
        min_meters: 1.0,
        max_meters: 4.0,
        bins: None,
    };
    assert_eq!(head.kind(), &kind);
    let depth = Depth::of(&head).unwrap();
    let photo = image::open(&dir.join("val/images/0.png")).unwrap();
    let size = Size {
        width: SIDE,
        height: SIDE,
    };
    let query = Query::frame(size).with_head(&head);
    let frame = Frame::packed(photo.data(), SIDE, SIDE);
    let output = perceptor.perceive(&frame, &query).unwrap();
    assert_eq!(output.dim, 1);
    let meters = depth.map(&output.values);
    assert!(meters.iter().all(|m| (1.0..=4.0).contains(m)));
    // Tile by tile, the same.
    let encoded = perceptor
        .encode(&photo, size, ColorRange::PerImage)
        .unwrap();
    let encoded = encoded.with_head(&head).unwrap();
    let mut map = DepthMap::new(Rect::whole(size), depth);
    encoded.frame(&mut |tile| map.push(tile)).unwrap();
    assert_eq!(map.into_meters(), meters);
    // Near patches are nearer.
    let truth = Labels::open(&dir.join("val/labels/0.png")).unwrap();
    let mean = |class: u8| {
        let of = meters
            .iter()
            .zip(&truth.values)
            .filter(|(_, c)| **c == class);
        let (sum, count) = of.fold((0.0, 0.0), |(s, n), (m, _)| (s + m, n + 1.0));
        sum / count
    };
    assert!(
        mean(0) < mean(1) && mean(1) < mean(2),
        "{} {} {}",
        mean(0),
        mean(1),
        mean(2)
    );
}

#[test]
fn a_head_of_bins_is_trained_into_a_bundle() {
    let place = Place::new();
    let dir = data(&place);
    let with = depth::Request {
        bins: Some(16),
        samples: 150,
        methods: vec![Method::Nearest, Method::Bilinear],
        ..request(&dir)
    };
    let report = depth::evaluate(&place.perceptor(), &with, &mut quiet()).unwrap();
    // Windows of 12 x 12, four of each image; pixels in the row without depth do not count.
    assert!((6 * 4 * 12 * 11..=6 * 4 * 12 * 12).contains(&report.train_pixels));
    let scores = report.results[0].whole.absolute;
    println!("{scores:?}");
    // The best constant, 1 m, has an error of (0 + 1/2 + 3/4) / 3 = 0.42. Eight channels cannot raise the
    // scores far above the floor of every bin within the steps, so depths at the ends stay off.
    assert!(scores.abs_rel < 0.3 && scores.d3 == 1.0, "{scores:?}");
    let head = depth::head(&place.perceptor(), &with, &mut quiet()).unwrap();
    let (from, to) = (place.path("tiny.loftup"), place.path("with.loftup"));
    heads::add(&from, "depth", &head, &dir, &to, false).unwrap();
    assert_eq!(
        place.open("with.loftup").head("depth").unwrap().outputs(),
        16
    );
    for bins in [1, HeadKind::MOST_BINS + 1] {
        let wrong = depth::Request {
            bins: Some(bins),
            ..request(&dir)
        };
        let error = depth::head(&place.perceptor(), &wrong, &mut quiet()).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{bins} bins")),
            "{error}"
        );
    }
}

#[test]
fn data_that_cannot_be_used_are_named() {
    let place = Place::new();
    let dir = data(&place);
    let perceptor = place.perceptor();
    let evaluated = |data: &std::path::Path| {
        let result = depth::evaluate(&perceptor, &request(data), &mut quiet());
        result.map(|_| ()).unwrap_err()
    };
    // Without train/ and val/, both splits are the same images.
    let both = evaluated(&dir.join("train")).to_string();
    assert!(both.contains("both splits"), "{both}");
    let none = evaluated(&place.path("."));
    assert!(matches!(none, EvalError::Data { .. }), "{none}");
    // A depth image of another size is skipped and named.
    let broken = dir.join("train/depth/3.png");
    save_depth(&broken, 2, 1, &[1.0, 2.0]).unwrap();
    let report = depth::evaluate(&perceptor, &request(&dir), &mut quiet()).unwrap();
    assert_eq!((report.train_images, report.skipped.len()), (5, 1));
    assert!(report.skipped[0].contains("3.png") && report.skipped[0].contains("2x1"));
    // One depth everywhere cannot be learnt from.
    let flat = depth::Request {
        max_depth: Some(1.5),
        ..request(&dir)
    };
    let flat = depth::head(&perceptor, &flat, &mut quiet()).unwrap_err();
    assert!(flat.to_string().contains("all depths are 1 m"), "{flat}");
}
