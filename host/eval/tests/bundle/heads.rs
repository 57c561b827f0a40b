use std::fs;

use loftup_bundle::{BundleError, HeadKind, Size};
use loftup_eval::{EvalError, heads, probe};
use loftup_runtime::{
    ColorRange, Point, Rect, RuntimeError, class_map::ClassMap, heads::argmax, image,
    sinks::VecSink,
};

use crate::{
    quiet,
    support::{DIM, Place, SIDE},
};

fn request() -> heads::Request {
    heads::Request {
        size: None,
        range: ColorRange::PerImage,
        orientation: loftup_runtime::image::Orientation::Upright,
        samples: 200,
        most: None,
        probe: probe::Options::default(),
    }
}

#[test]
fn heads_go_into_bundles_and_give_what_they_give_on_the_features() {
    let place = Place::new();
    let data = place.patches("patches");
    let perceptor = place.perceptor();
    let classes = heads::classes(&perceptor, &data, &request(), &mut quiet()).unwrap();
    assert_eq!((classes.images, classes.pixels), (6, 1200));
    let images = data.join("train/images");
    let pca = heads::pca(&perceptor, &images, 3, &request(), &mut quiet()).unwrap();
    println!(
        "probe right on {:.3}, PCA keeps {:.3}",
        classes.fit, pca.fit
    );
    assert!(classes.fit > 0.5 && pca.fit > 0.3 && pca.fit <= 1.0);

    let (from, with) = (place.path("tiny.loftup"), place.path("with.loftup"));
    heads::add(&from, "colors", &classes, &data, &with, false).unwrap();
    // Into the bundle itself, beside the other.
    heads::add(&with, "pca", &pca, &data, &with, true).unwrap();
    let perceptor = place.open("with.loftup");
    let names: Vec<_> = perceptor.manifest().heads.keys().cloned().collect();
    assert_eq!(names, ["colors", "pca"]);

    let photo = image::open(&data.join("val/images/0.png")).unwrap();
    let size = Size {
        width: SIDE,
        height: SIDE,
    };
    let image = perceptor.to_tensor(&photo, size).unwrap();
    let features = perceptor.features(&image).unwrap();
    let view = || {
        perceptor
            .encode_features(&features, &image, ColorRange::PerImage)
            .unwrap()
    };
    let rect = Rect::whole(Size {
        width: SIDE,
        height: SIDE,
    });
    let mut all = VecSink::new(rect, DIM).unwrap();
    view().frame(&mut |tile| all.push(tile)).unwrap();
    let all = all.to_map();
    let pixel = |i: usize| -> Vec<f32> { (0..DIM).map(|c| all[c * rect.area() + i]).collect() };

    let head = perceptor.head("colors").unwrap();
    assert_eq!(
        head.kind(),
        &HeadKind::Classes {
            names: ["red", "green", "blue"].map(Into::into).to_vec()
        }
    );
    let encoded = view().with_head(&head).unwrap();
    assert_eq!(encoded.dim(), 3);
    let mut map = ClassMap::new(rect);
    encoded.frame(&mut |tile| map.push(tile)).unwrap();
    let map = map.into_classes();
    for (i, class) in map.iter().enumerate() {
        let mut scores = Vec::new();
        head.apply(&pixel(i), &mut scores);
        assert_eq!(argmax(&scores), *class, "pixel {i}");
    }
    assert!(
        (0..3).all(|c| map.contains(&c)),
        "all classes are predicted"
    );

    // A region gives the same classes, and points the same scores.
    let part = Rect {
        x: 7,
        y: 11,
        width: 30,
        height: 20,
    };
    let mut region = ClassMap::new(part);
    encoded.region(part, &mut |tile| region.push(tile)).unwrap();
    for (i, class) in region.into_classes().iter().enumerate() {
        let whole = map[(part.y + i / part.width) * SIDE + part.x + i % part.width];
        assert_eq!(*class, whole, "pixel {i} of the region");
    }
    let scores = encoded
        .points(&[Point { x: 5, y: 9 }, Point { x: 40, y: 2 }])
        .unwrap();
    assert_eq!(scores.len(), 6);
    assert_eq!(argmax(&scores[..3]), map[9 * SIDE + 5]);

    let head = perceptor.head("pca").unwrap();
    let mut components = VecSink::new(rect, 3).unwrap();
    view()
        .with_head(&head)
        .unwrap()
        .frame(&mut |tile| components.push(tile))
        .unwrap();
    let components = components.to_map();
    let mut worst = 0f32;
    for i in 0..rect.area() {
        let mut expected = Vec::new();
        head.apply(&pixel(i), &mut expected);
        for (c, expected) in expected.iter().enumerate() {
            worst = worst.max((components[c * rect.area() + i] - expected).abs());
        }
    }
    println!("descriptors differ by {worst:e} at most");
    assert_eq!(worst, 0.0);
}

#[test]
fn a_head_can_be_replaced_and_its_file_is_checked() {
    let place = Place::new();
    let data = place.patches("patches");
    let bundle = place.path("tiny.loftup");
    let perceptor = place.perceptor();
    let images = data.join("train/images");
    for channels in [2, 4] {
        let pca = heads::pca(&perceptor, &images, channels, &request(), &mut quiet()).unwrap();
        heads::add(&bundle, "d", &pca, &data, &bundle, true).unwrap();
        assert_eq!(place.perceptor().head("d").unwrap().outputs(), channels);
    }
    assert_eq!(place.perceptor().manifest().heads.len(), 1);
    let perceptor = place.perceptor();
    let sources = &perceptor.manifest().provenance.sources;
    assert_eq!(
        sources
            .iter()
            .filter(|s| s.role == "data of head d")
            .count(),
        1
    );

    let missing = place.perceptor().head("e").unwrap_err().to_string();
    assert!(
        missing.contains("\"e\"") && missing.ends_with("the bundle has: d"),
        "{missing}"
    );

    let file = bundle.join("head-d.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let damaged = place.perceptor_error();
    assert!(
        matches!(damaged, RuntimeError::Bundle(BundleError::Damaged { .. })),
        "{damaged}"
    );
}

#[test]
fn what_cannot_be_a_head_is_refused() {
    let place = Place::new();
    let data = place.patches("patches");
    let perceptor = place.perceptor();
    let images = data.join("train/images");
    let too_many = heads::pca(&perceptor, &images, DIM + 1, &request(), &mut quiet());
    assert!(matches!(too_many, Err(EvalError::Pca(_))));
    let nothing = heads::pca(&perceptor, &place.path("."), 2, &request(), &mut quiet());
    assert!(nothing.unwrap_err().to_string().contains("no images"));
    let pca = heads::pca(&perceptor, &images, 2, &request(), &mut quiet()).unwrap();
    let bundle = place.path("tiny.loftup");
    let bad = heads::add(&bundle, "../x", &pca, &data, &place.path("new"), false);
    assert!(
        bad.unwrap_err()
            .to_string()
            .contains("is not a valid head name")
    );
    let taken = heads::add(&bundle, "x", &pca, &data, &bundle, false);
    assert!(taken.unwrap_err().to_string().contains("already exists"));
    assert!(!place.path("new").exists());
}

#[test]
fn a_broken_image_is_skipped_and_named() {
    let place = Place::new();
    let data = place.patches("patches");
    fs::write(data.join("train/images/2.png"), b"broken").unwrap();
    let head = heads::classes(&place.perceptor(), &data, &request(), &mut quiet()).unwrap();
    assert_eq!((head.images, head.skipped.len()), (5, 1));
    assert!(head.skipped[0].contains("2.png"));
}
