//! One call gives what the steps it stands for give.

use std::{ops::ControlFlow, sync::OnceLock};

use loftup_bundle::{HeadKind, Linear, Size};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Frame, Perceptor, Point, Query, Rect, RuntimeError,
    class_map::ClassMap,
    heads::Head,
    image::{ImageError, RgbImage},
    sinks::VecSink,
};

/// The built-in model: images of 224x224, 64 channels.
fn perceptor() -> &'static Perceptor {
    static OPENED: OnceLock<(tempfile::TempDir, Perceptor)> = OnceLock::new();
    let (_, perceptor) = OPENED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("default.loftup");
        loftup_convert::builtin(&path, false, |_| ControlFlow::Continue(())).unwrap();
        // Graphs are read when they are first needed: the folder stays.
        let perceptor = Perceptor::open_on_cpu(&path, ExecutionOptions::default()).unwrap();
        (folder, perceptor)
    });
    perceptor
}

fn photo() -> RgbImage {
    let frame = loftup_scenes::Scene::new(5).frame(0.0, 97, 61);
    RgbImage::new(frame.width, frame.height, frame.rgb).unwrap()
}

fn frame(photo: &RgbImage) -> Frame<'_> {
    Frame::packed(photo.data(), photo.width(), photo.height())
}

fn head() -> Head {
    let (inputs, outputs) = (64, 3);
    let kind = HeadKind::Classes {
        names: ["a", "b", "c"].map(String::from).to_vec(),
    };
    let file = loftup_bundle::Head::file_name("classes");
    let manifest = loftup_bundle::Head {
        kind,
        dim: inputs,
        file,
    };
    let weight = (0..inputs * outputs).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0);
    let linear = Linear {
        inputs,
        weight: weight.collect(),
        bias: vec![0.0; outputs],
    };
    Head::new(manifest, linear).unwrap()
}

/// The features `[d, H, W]` of the whole frame, step by step.
fn by_steps(photo: &RgbImage, size: Size, range: ColorRange) -> Vec<f32> {
    let perceptor = perceptor();
    let small = perceptor.backbone_size(size).unwrap();
    let image = perceptor.to_tensor(photo, small).unwrap();
    let features = perceptor.features(&image).unwrap();
    let guidance = perceptor.to_tensor(photo, size).unwrap();
    let view = perceptor
        .encode_features(&features, &guidance, range)
        .unwrap();
    let mut output = VecSink::new(Rect::whole(size), view.dim()).unwrap();
    view.frame(&mut |tile| output.push(tile)).unwrap();
    output.to_map()
}

fn size(width: usize, height: usize) -> Size {
    Size { width, height }
}

#[test]
fn a_frame_is_what_the_steps_give_in_sizes_that_no_tile_divides() {
    let fixed = ColorRange::Fixed {
        min: [-2.0; 3],
        max: [2.0; 3],
    };
    for (size, range) in [
        (size(45, 33), ColorRange::PerImage),
        (size(1, 7), fixed),
        (size(224, 224), ColorRange::PerImage),
    ] {
        let photo = photo();
        let output = perceptor()
            .perceive(&frame(&photo), &Query::frame(size).with_color_range(range))
            .unwrap();
        assert_eq!((output.width, output.height), (size.width, size.height));
        let steps = by_steps(&photo, size, range);
        let area = size.width * size.height;
        for (i, pixel) in output.values.chunks_exact(output.dim).enumerate() {
            for (c, value) in pixel.iter().enumerate() {
                assert_eq!(
                    *value,
                    steps[c * area + i],
                    "{size}: channel {c}, pixel {i}"
                );
            }
        }
    }
}

#[test]
fn regions_and_points_are_parts_of_the_frame() {
    let (photo, size) = (photo(), size(61, 47));
    let ask = |query: Query<'_>| perceptor().perceive(&frame(&photo), &query).unwrap();
    let whole = ask(Query::frame(size));
    let rect = Rect {
        x: 13,
        y: 5,
        width: 37,
        height: 41,
    };
    let part = ask(Query::region(size, rect));
    let mut worst = 0f32;
    let mut apart = |a: &[f32], b: &[f32]| {
        for (a, b) in a.iter().zip(b) {
            worst = worst.max((a - b).abs());
        }
    };
    for y in 0..rect.height {
        for x in 0..rect.width {
            let there = whole.pixel(rect.x + x, rect.y + y).unwrap();
            apart(part.pixel(x, y).unwrap(), there);
        }
    }
    let points = [(0, 0), (60, 46), (60, 0), (17, 29), (17, 29)].map(|(x, y)| Point { x, y });
    let some = ask(Query::points(size, &points));
    assert_eq!((some.width, some.height), (points.len(), 1));
    for (i, p) in points.iter().enumerate() {
        apart(some.pixel(i, 0).unwrap(), whole.pixel(p.x, p.y).unwrap());
    }
    assert_eq!(some.pixel(points.len(), 0), None);
    println!("worst {worst:.1e}");
    // Other tiles, other order of sums. Trained attention is sharp, and enlarges rounding more than
    // random weights do: the bound is that of `loftup verify`.
    assert!(worst <= 2e-3, "{worst}");
    assert!(ask(Query::points(size, &[])).values.is_empty());
}

#[test]
fn a_head_gives_its_outputs_and_their_classes() {
    let (photo, size, head) = (photo(), size(40, 31), head());
    let query = Query::frame(size).with_head(&head);
    let output = perceptor().perceive(&frame(&photo), &query).unwrap();
    assert_eq!(output.dim, 3);
    let view = perceptor()
        .encode(&photo, size, ColorRange::PerImage)
        .and_then(|view| view.with_head(&head))
        .unwrap();
    let mut map = ClassMap::new(Rect::whole(size));
    view.frame(&mut |tile| map.push(tile)).unwrap();
    let classes = output.classes();
    assert_eq!(classes, map.into_classes());
    assert!(classes.iter().any(|c| *c != classes[0]), "only one class");
}

#[test]
fn gaps_between_rows_change_nothing() {
    let (photo, size) = (photo(), size(30, 20));
    let row = photo.width() * 3;
    for (gap, last) in [(0, true), (5, true), (5, false), (row, false)] {
        let mut data = Vec::new();
        for y in 0..photo.height() {
            data.extend_from_slice(photo.row(y));
            if last || y + 1 < photo.height() {
                data.extend(std::iter::repeat_n(77, gap));
            }
        }
        let padded = Frame {
            data: &data,
            stride: row + gap,
            ..frame(&photo)
        };
        assert_eq!(padded.to_image().unwrap(), photo, "gap {gap}");
        let query = Query::frame(size);
        assert_eq!(
            perceptor().perceive(&padded, &query).unwrap(),
            perceptor().perceive(&frame(&photo), &query).unwrap()
        );
    }
}

#[test]
fn data_that_do_not_fit_the_sides_are_an_error() {
    let data = [0; 600];
    let of = |bytes: usize, width: usize, height: usize, stride: usize| {
        let frame = Frame {
            data: &data[..bytes],
            width,
            height,
            stride,
        };
        frame.to_image()
    };
    assert!(of(600, 20, 10, 60).is_ok());
    assert!(of(596, 10, 10, 63).is_err(), "ends within the last row");
    assert!(of(597, 10, 10, 63).is_ok(), "the last row has no gap");
    assert!(of(600, 10, 10, 29).is_err(), "rows overlap");
    assert!(of(600, 10, 9, 60).is_err(), "a row too many");
    assert!(of(0, 0, 10, 60).is_err());
    assert!(of(0, 10, 0, 30).is_err());
    assert!(of(600, usize::MAX, 2, usize::MAX).is_err());
    assert!(of(600, 1, usize::MAX, usize::MAX).is_err());
    assert!(of(600, 10, usize::MAX, 0).is_err());
    let error = of(100, 10, 10, 31).unwrap_err();
    assert!(matches!(error, ImageError::BadStride { .. }));
    let text = error.to_string();
    assert!(
        text.contains("100 bytes") && text.contains("31") && text.contains("10 x 10"),
        "{text}"
    );
}

#[test]
fn what_lies_outside_is_an_error() {
    let (photo, size) = (photo(), size(20, 10));
    let ask = |query: Query<'_>| perceptor().perceive(&frame(&photo), &query).unwrap_err();
    let rect = |x, width| Rect {
        x,
        y: 0,
        width,
        height: 10,
    };
    assert!(matches!(
        ask(Query::region(size, rect(15, 6))),
        RuntimeError::RegionOutside { .. }
    ));
    assert!(matches!(
        ask(Query::region(size, rect(usize::MAX, 2))),
        RuntimeError::RegionOutside { .. }
    ));
    assert!(matches!(
        ask(Query::region(size, rect(3, 0))),
        RuntimeError::EmptyRegion(_)
    ));
    let outside = [Point { x: 20, y: 0 }];
    assert!(matches!(
        ask(Query::points(size, &outside)),
        RuntimeError::PointOutside { .. }
    ));
    for size in [
        Size {
            width: 0,
            height: 5,
        },
        Size {
            width: 5,
            height: 1 << 20,
        },
    ] {
        assert!(matches!(ask(Query::frame(size)), RuntimeError::Image(_)));
    }
}
