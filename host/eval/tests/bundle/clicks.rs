use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_eval::{Method, clicks};
use loftup_runtime::{
    ColorRange,
    class_map::save_classes,
    image::{Orientation, RgbImage},
};

use crate::{
    quiet,
    support::{PATCH, Place, SIDE},
};

/// Images of one or two red rectangles, in whole patches, on green, with masks of their numbers.
fn data(place: &Place) -> PathBuf {
    let dir = place.path("objects");
    for (part, count) in [("train", 3), ("val", 2)] {
        let (images, masks) = (dir.join(part).join("images"), dir.join(part).join("masks"));
        fs::create_dir_all(&images).unwrap();
        fs::create_dir_all(&masks).unwrap();
        for i in 0..count {
            let object = |at: usize| {
                let (x, y) = (at % SIDE / PATCH, at / SIDE / PATCH);
                match (x, y) {
                    (1..=2, 1..=3) => 1,
                    (4.., 4..) if i > 0 => 2,
                    _ => 0u8,
                }
            };
            let values: Vec<u8> = (0..SIDE * SIDE).map(object).collect();
            let color = |v: &u8| if *v > 0 { [210, 40, 30] } else { [40, 180, 60] };
            let rgb = values.iter().flat_map(color).collect();
            let name = format!("{part}{i}.png");
            let image = RgbImage::new(SIDE, SIDE, rgb).unwrap();
            image.save_png(&images.join(&name)).unwrap();
            save_classes(&masks.join(&name), SIDE, SIDE, &values).unwrap();
        }
    }
    dir
}

fn request(data: &Path) -> clicks::Request<'_> {
    clicks::Request {
        data,
        train: None,
        size: None,
        range: ColorRange::PerImage,
        orientation: Orientation::Upright,
        methods: Vec::new(),
        most: None,
        min_area: clicks::MIN_AREA,
        clicks: 6,
        seed: 0,
    }
}

#[test]
fn methods_are_compared_by_simulated_clicks() {
    let place = Place::new();
    let dir = data(&place);
    let perceptor = place.perceptor();
    let report = clicks::evaluate(&perceptor, &request(&dir), &mut quiet()).unwrap();
    assert_eq!((report.train_images, report.train_objects), (3, 5));
    assert_eq!((report.images, report.objects, report.clicks), (2, 3, 6));
    let methods: Vec<_> = report.results.iter().map(|r| r.method).collect();
    assert_eq!(methods, Method::of(perceptor.manifest()));
    for r in &report.results {
        println!("{:?} {:.3} {:?}", r.method, r.threshold, r.iou);
        assert_eq!((r.iou.len(), r.to_reach.len()), (6, 3));
        assert!(r.iou.iter().all(|x| (0.0..=1.0).contains(x)));
    }
    let [nearest, bilinear, ..] = &report.results[..] else {
        panic!("{report:?}")
    };
    // Patches of one color have one feature: one click finds the object.
    assert_eq!(nearest.iou, [1.0; 6]);
    assert!(
        nearest
            .to_reach
            .iter()
            .all(|n| (n.clicks, n.never) == (1.0, 0))
    );
    assert!(bilinear.iou[0] < 1.0);
    let minus = nearest.minus_bilinear.unwrap();
    assert!((minus.iou_1.value - (1.0 - bilinear.iou[0])).abs() < 1e-12);
    assert!(bilinear.minus_bilinear.is_none() && bilinear.minus_jbu.is_some());
    serde_json::to_string(&report).unwrap();
}

#[test]
fn thresholds_go_into_a_bundle() {
    let place = Place::new();
    let dir = data(&place);
    let perceptor = place.perceptor();
    let fitted = clicks::fit(&perceptor, &request(&dir), &mut quiet()).unwrap();
    assert_eq!((fitted.images, fitted.objects), (3, 5));
    let (from, with) = (place.path("tiny.loftup"), place.path("with.loftup"));
    clicks::store(&from, &fitted, &with, false).unwrap();
    let stored = place.open("with.loftup").manifest().clicks.clone();
    for t in &fitted.thresholds {
        assert_eq!(
            clicks::threshold(stored.as_ref(), t.method),
            Some(t.threshold)
        );
    }
    assert_eq!(clicks::threshold(None, Method::Jbu), None);
    // Again, into the bundle itself: only what was fitted now remains.
    let one = clicks::Request {
        methods: vec![Method::Jbu],
        ..request(&dir)
    };
    let one = clicks::fit(&perceptor, &one, &mut quiet()).unwrap();
    clicks::store(&with, &one, &with, true).unwrap();
    let stored = place.open("with.loftup").manifest().clicks.clone().unwrap();
    assert_eq!(stored.thresholds.len(), 1);
    assert!(clicks::store(&from, &one, &with, false).is_err());
}

#[test]
fn objects_are_read_from_every_layout() {
    let place = Place::new();
    let dir = data(&place);
    let perceptor = place.perceptor();
    let expected = clicks::fit(&perceptor, &request(&dir), &mut quiet()).unwrap();
    let thresholds = |fitted: &clicks::Fitted| -> Vec<(f32, f64)> {
        fitted
            .thresholds
            .iter()
            .map(|t| (t.threshold, t.iou))
            .collect()
    };
    let images = dir.join("train/images");
    let copy = |to: &Path| {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(&images).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    // Beside each image, a JSON as in SA-1B: column by column, runs of 0 first.
    let beside = place.path("beside");
    copy(&beside);
    // Panoptic: what is no thing, or a crowd, is no object.
    let panoptic = place.path("panoptic");
    copy(&panoptic.join("images"));
    fs::create_dir(panoptic.join("panoptic")).unwrap();
    for i in 0..3 {
        let name = format!("train{i}.png");
        let mask = dir.join("train/masks").join(&name);
        let labels = loftup_eval::labels::Labels::open(&mask).unwrap();
        let object = |value: u8| {
            let (mut runs, mut inside) = (vec![0], false);
            for k in 0..SIDE * SIDE {
                if (labels.values[k % SIDE * SIDE + k / SIDE] == value) != inside {
                    inside = !inside;
                    runs.push(0);
                }
                *runs.last_mut().unwrap() += 1;
            }
            serde_json::json!({"segmentation": {"size": [SIDE, SIDE], "counts": runs}})
        };
        let values = if i > 0 { 1..3 } else { 1..2 };
        let json = serde_json::json!({"annotations": values.map(object).collect::<Vec<_>>()});
        fs::write(beside.join(&name).with_extension("json"), json.to_string()).unwrap();

        let to = panoptic.join("panoptic").join(&name);
        // The background is a segment, too.
        let segments: Vec<_> = (0..3)
            .map(|v| serde_json::json!({"value": v, "thing": v > 0, "crowd": false, "category": "c"}))
            .chain([serde_json::json!({"value": 0, "thing": true, "crowd": true})])
            .collect();
        fs::copy(&mask, &to).unwrap();
        fs::write(
            to.with_extension("json"),
            serde_json::json!(segments).to_string(),
        )
        .unwrap();
    }
    for layout in [&beside, &panoptic] {
        let fitted = clicks::fit(&perceptor, &request(layout), &mut quiet()).unwrap();
        assert_eq!((fitted.images, fitted.objects), (3, 5), "{layout:?}");
        assert_eq!(thresholds(&fitted), thresholds(&expected), "{layout:?}");
    }
    // A black and white mask; and 255 beside other values is void.
    for (i, values) in [(0, [0, 255]), (1, [7, 255])] {
        let one = place.path(&format!("one{i}"));
        fs::create_dir_all(one.join("images")).unwrap();
        fs::create_dir_all(one.join("masks")).unwrap();
        fs::copy(images.join("train0.png"), one.join("images/a.png")).unwrap();
        let half: Vec<u8> = (0..SIDE * SIDE)
            .map(|k| values[k / (SIDE * SIDE / 2)])
            .collect();
        save_classes(&one.join("masks/a.png"), SIDE, SIDE, &half).unwrap();
        let fitted = clicks::fit(&perceptor, &request(&one), &mut quiet()).unwrap();
        assert_eq!(fitted.objects, 1, "{values:?}");
        // With the other half void, everything that counts is the object.
        let perfect = fitted.thresholds.iter().all(|t| t.iou == 1.0);
        assert_eq!(perfect, i == 1, "{fitted:?}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_named() {
    let place = Place::new();
    let dir = data(&place);
    let perceptor = place.perceptor();
    let refused = |request: &clicks::Request<'_>| {
        let result = clicks::evaluate(&perceptor, request, &mut quiet());
        result.map(|_| ()).unwrap_err().to_string()
    };
    let train = dir.join("train");
    let same = refused(&request(&train));
    assert!(same.contains("--train"), "{same}");
    let val = dir.join("val");
    let other = clicks::Request {
        train: Some(&train),
        ..request(&val)
    };
    clicks::evaluate(&perceptor, &other, &mut quiet()).unwrap();
    let none = clicks::Request {
        clicks: 0,
        ..request(&dir)
    };
    assert!(refused(&none).contains("0 clicks"));
    let large = clicks::Request {
        min_area: 0.9,
        ..request(&dir)
    };
    assert!(refused(&large).contains("no object is large enough"));
    assert!(refused(&request(&place.path("."))).contains("no masks of objects"));
    // A mask of another size: the image is skipped and named.
    save_classes(&train.join("masks/train0.png"), 2, 1, &[0, 1]).unwrap();
    let fitted = clicks::fit(&perceptor, &request(&dir), &mut quiet()).unwrap();
    assert_eq!((fitted.images, fitted.skipped.len()), (2, 1));
    assert!(
        fitted.skipped[0].contains("train0.png"),
        "{:?}",
        fitted.skipped
    );
}
