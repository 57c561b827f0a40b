//! One call gives what the steps it stands for give.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use loftup_bundle::{HeadKind, Linear, Size};
use loftup_convert::Builtin;
use loftup_runtime::{
    ColorRange, ExecutionOptions, Frame, IncrementalUpsampler, Perceptor, PixelFormat, Point,
    Query, Rect, RuntimeError,
    class_map::ClassMap,
    heads::Head,
    image::{ImageError, RgbImage},
    jbu::{Jbu, JbuOptions},
    sinks::VecSink,
};

/// A bundle of the built-in model: images of 224x224, 64 channels.
fn bundle() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("default.loftup");
        Builtin::Scenes
            .write(&path, false, |_| ControlFlow::Continue(()))
            .unwrap();
        // Graphs are read when they are first used, so the folder must remain.
        (folder, path)
    });
    path
}

fn perceptor() -> &'static Perceptor {
    static OPENED: OnceLock<Perceptor> = OnceLock::new();
    let open = || Perceptor::open_on_cpu(bundle(), ExecutionOptions::default()).unwrap();
    OPENED.get_or_init(open)
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
            format: PixelFormat::Rgb8,
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

/// Joint bilateral upsampling through an encoded frame is that of the library function: whole frame,
/// region, points, tiles of any size, and with a head, which is applied to tokens.
#[test]
fn joint_bilateral_upsampling_is_the_same_in_tiles_regions_points_and_heads() {
    let (photo, size, head) = (photo(), size(41, 31), head());
    let inputs = perceptor().preprocess(&photo, size).unwrap();
    let features = perceptor().features(inputs.backbone()).unwrap();
    let resized = photo.resized(41, 31).unwrap();
    let grid = (features.width, features.height);
    let jbu = Jbu::new(JbuOptions::default(), grid, resized.data(), (41, 31));
    let expected = jbu.image(&features.tokens, features.dim);

    let dim = features.dim;
    let mut divided = Perceptor::open_on_cpu(bundle(), ExecutionOptions::default()).unwrap();
    for (tile, threads) in [(None, 1), (Some(7), 2), (Some(1), 3)] {
        divided.set_execution_options(ExecutionOptions { threads, tile });
        let encoded =
            || divided.encode_jbu(features.clone(), &inputs.guidance, JbuOptions::default());
        let mut frame = VecSink::new(Rect::whole(size), dim).unwrap();
        encoded().frame(&mut |tile| frame.push(tile)).unwrap();
        assert_eq!(frame.values(), expected, "tile {tile:?}");

        let rect = Rect {
            x: 5,
            y: 3,
            width: 19,
            height: 28,
        };
        let mut region = VecSink::new(rect, dim).unwrap();
        let mut video = IncrementalUpsampler::new();
        let update = video
            .region(&encoded(), rect, &mut |tile| region.push(tile))
            .unwrap();
        assert_eq!(update.computed, update.tiles);
        for (i, pixel) in region.values().chunks_exact(dim).enumerate() {
            let at = (rect.y + i / rect.width) * 41 + rect.x + i % rect.width;
            assert_eq!(pixel, &expected[at * dim..][..dim]);
        }

        let points = [Point { x: 40, y: 30 }, Point { x: 0, y: 17 }];
        let found = encoded().points(&points).unwrap();
        assert_eq!(found[..dim], expected[(30 * 41 + 40) * dim..][..dim]);
        assert_eq!(found[dim..], expected[17 * 41 * dim..][..dim]);

        let mut after = Vec::new();
        head.apply(&expected, &mut after);
        let with_head = encoded().with_head(&head).unwrap();
        let mut scores = VecSink::new(Rect::whole(size), 3).unwrap();
        with_head.frame(&mut |tile| scores.push(tile)).unwrap();
        let largest = after.iter().fold(0f32, |a, x| a.max(x.abs()));
        let worst = (scores.values().iter().zip(&after))
            .map(|(a, b)| (a - b).abs() / largest)
            .fold(0f32, f32::max);
        println!("tile {tile:?}: head before or after, worst {worst:.1e} of the largest score");
        // Sums of 64 products and of 25 weights, in another order: some roundings of 6e-8.
        assert!(worst < 2e-6, "{worst}");
    }
}
