//! One graph for a whole frame gives what the steps of the runtime give.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use loftup_bundle::{Bundle, HeadKind, Linear, Size};
use loftup_onnx::{
    Graph,
    frame::{Resize, Weights, resized},
};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Frame, FrameGraphOutput, FrameGraphQuery, Perceptor, Query,
    backend::{self, Session, TractBackend},
    heads::{Head, NO_CLASS},
    image::{RgbImage, resize_weights},
};
use loftup_spec::io;
use loftup_tests::camera::{classes, dino_bundle, naf_bundle, photo, scenes_bundle};

fn bundle() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    kept(&FOLDER, scenes_bundle)
}

fn random_bundle() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    kept(&FOLDER, dino_bundle)
}

fn kept(
    place: &'static OnceLock<(tempfile::TempDir, PathBuf)>,
    write: fn(&Path) -> PathBuf,
) -> &'static Path {
    let (_, path) = place.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path());
        (folder, path)
    });
    path
}

fn open(bundle: &Path) -> Perceptor {
    let bundle = Bundle::open(bundle).unwrap();
    Perceptor::with_backend(bundle, Arc::new(TractBackend), ExecutionOptions::default()).unwrap()
}

fn perceptor() -> Perceptor {
    open(bundle())
}

fn size(width: usize, height: usize) -> Size {
    Size { width, height }
}

/// Runs a frame graph on tract.
fn run(onnx: Vec<u8>, image: &RgbImage, outputs: &[&str]) -> Box<dyn Session> {
    let shape = [1, image.height(), image.width(), 3];
    let inputs = [(io::frame::IMAGE, &shape[..])];
    let plan = backend::compile_once(&TractBackend, "frame.onnx", onnx, &inputs, outputs).unwrap();
    let mut session = plan.session().unwrap();
    session.set_bytes(0, image.data()).unwrap();
    session.run().unwrap();
    session
}

#[test]
fn the_resize_has_the_bits_of_the_runtime() {
    for (from, to) in [
        (size(97, 61), size(42, 56)),
        (size(31, 45), size(224, 14)),
        (size(640, 3), size(20, 3)),
        (size(5, 480), size(5, 15)),
        (size(1, 7), size(9, 1)),
        (size(17, 17), size(17, 17)),
    ] {
        let image = photo(from);
        let along = |from: usize, to: usize| {
            (from != to).then(|| Weights {
                from,
                to,
                weights: resize_weights(from, to),
            })
        };
        let resize = Resize {
            columns: along(from.width, to.width),
            rows: along(from.height, to.height),
        };
        let mut g = Graph::new("resize");
        let x = g.input(
            "x",
            &[1.into(), 3.into(), from.height.into(), from.width.into()],
        );
        let y = resized(&mut g, &x, &resize);
        g.output(
            &y,
            "y",
            &[1.into(), 3.into(), to.height.into(), to.width.into()],
        );
        let shape = [1, 3, from.height, from.width];
        let plan = backend::compile_once(
            &TractBackend,
            "resize.onnx",
            g.finish(),
            &[("x", &shape)],
            &["y"],
        );
        let mut session = plan.unwrap().session().unwrap();
        let planes: Vec<f32> = (0..3)
            .flat_map(|c| image.data().iter().skip(c).step_by(3))
            .map(|level| f32::from(*level))
            .collect();
        session.set(0, &planes).unwrap();
        session.run().unwrap();
        let expected = image.resized(to.width, to.height).unwrap();
        let found = session.output(0);
        assert_eq!(found.len(), expected.data().len());
        for (i, level) in found.iter().enumerate() {
            let (c, pixel) = (i / to.area(), i % to.area());
            let there = f32::from(expected.data()[pixel * 3 + c]);
            assert_eq!(*level, there, "{from} to {to}: channel {c}, pixel {pixel}");
        }
    }
}

#[test]
fn a_pixel_is_resized_from_so_few_pixels_that_the_sums_are_exact() {
    for (from, to) in [(640, 224), (3, 7), (1920, 64)] {
        let weights = resize_weights(from, to);
        let most = weights
            .chunks(from)
            .map(|row| row.iter().filter(|w| **w != 0).count())
            .max();
        // The sums of the lower parts are then below 2^24.
        assert!(most.unwrap() <= 64, "{from} to {to}: {most:?}");
        for row in weights.chunks(from) {
            let sum: i32 = row.iter().sum();
            assert!((sum - (1 << 22)).abs() <= 64, "{sum}");
        }
    }
}

#[test]
fn features_are_those_of_the_runtime_in_odd_sizes_and_several_tiles() {
    let fixed = ColorRange::Fixed {
        min: [-2.0; 3],
        max: [2.0; 3],
    };
    let cases = [
        (size(97, 61), size(45, 33), ColorRange::PerImage, None),
        (size(97, 61), size(45, 33), ColorRange::PerImage, Some(16)),
        (size(33, 80), size(31, 50), fixed, Some(20)),
        (size(7, 5), size(1, 7), ColorRange::PerImage, None),
        (size(56, 42), size(56, 42), ColorRange::PerImage, Some(28)),
    ];
    // With a fixed range, the guidance has the same bits. Otherwise tract multiplies by the reciprocal of the
    // range instead of dividing, which changes the last bit of the guidance, and LoftUp multiplies it by up to
    // e^10. `loftup verify` allows 5e-3 for the same reason.
    let bundles = [(random_bundle(), 3e-3), (bundle(), 1e-3)];
    for ((bundle, most), (camera, size, range, tile)) in bundles
        .into_iter()
        .flat_map(|bundle| cases.map(|case| (bundle, case)))
    {
        let perceptor = open(bundle);
        let photo = photo(camera);
        let query = FrameGraphQuery {
            camera,
            size,
            range,
            tile,
            output: FrameGraphOutput::Features,
        };
        let onnx = perceptor.frame_graph(&query, Vec::new()).unwrap();
        let session = run(onnx, &photo, &[io::frame::FEATURES]);
        let frame = Frame::packed(photo.data(), camera.width, camera.height);
        let expected = perceptor
            .perceive(&frame, &Query::frame(size).with_color_range(range))
            .unwrap();
        let found = session.output(0);
        assert_eq!(found.len(), expected.values.len());
        let worst = (found.iter().zip(&expected.values))
            .map(|(a, b)| (a - b).abs())
            .fold(0f32, f32::max);
        println!("{camera} to {size}, tiles {tile:?}: worst {worst:.1e}");
        let most = if range == fixed { 1e-4 } else { most };
        assert!(worst <= most, "{camera} to {size}: {worst}");
    }
}

#[test]
fn classes_are_those_of_the_runtime_except_for_near_ties() {
    let perceptor = perceptor();
    let (camera, size) = (size(120, 90), size(61, 47));
    let photo = photo(camera);
    let head = classes(64, 5);
    let query = |output| FrameGraphQuery {
        camera,
        size,
        range: ColorRange::PerImage,
        tile: Some(32),
        output,
    };
    let both = query(FrameGraphOutput::ClassesAndScores(&head));
    let onnx = perceptor.frame_graph(&both, Vec::new()).unwrap();
    let session = run(onnx, &photo, &[io::frame::CLASSES, io::frame::SCORES]);
    let frame = Frame::packed(photo.data(), camera.width, camera.height);
    let expected = perceptor
        .perceive(&frame, &Query::frame(size).with_head(&head))
        .unwrap();
    let (classes, scores) = (session.output_bytes(0), session.output(1));
    assert_eq!(
        (classes.len(), scores.len()),
        (size.area(), 5 * size.area())
    );
    let mut different = 0;
    for (i, class) in classes.iter().enumerate() {
        let there = &expected.values[5 * i..][..5];
        for (a, b) in scores[5 * i..][..5].iter().zip(there) {
            assert!((a - b).abs() <= 1e-3, "pixel {i}: {a} and {b}");
        }
        let best = expected.classes()[i];
        if *class != best {
            different += 1;
            let gap = there[usize::from(best)] - there[usize::from(*class)];
            assert!(gap <= 1e-3, "pixel {i}: {class} instead of {best}, {gap}");
        }
    }
    println!("{different} near ties");
    assert!(different <= 2);
    assert!(classes.iter().any(|c| *c != classes[0]), "only one class");
    // The same without the scores, and the scores alone.
    let onnx = perceptor
        .frame_graph(&query(FrameGraphOutput::Classes(&head)), Vec::new())
        .unwrap();
    assert_eq!(
        run(onnx, &photo, &[io::frame::CLASSES]).output_bytes(0),
        classes
    );
    let onnx = perceptor
        .frame_graph(&query(FrameGraphOutput::Scores(&head)), Vec::new())
        .unwrap();
    assert_eq!(run(onnx, &photo, &[io::frame::SCORES]).output(0), scores);
}

#[test]
fn scores_that_are_not_finite_have_no_class() {
    let perceptor = perceptor();
    let camera = size(30, 20);
    for bad in [f32::NAN, f32::INFINITY] {
        let kind = HeadKind::Classes {
            names: ["a", "b"].map(String::from).to_vec(),
        };
        let manifest = loftup_bundle::Head {
            kind,
            dim: 64,
            file: String::new(),
        };
        let linear = Linear {
            inputs: 64,
            weight: vec![0.5; 128],
            bias: vec![0.0, bad],
        };
        let head = Head::new(manifest, linear).unwrap();
        let query = FrameGraphQuery {
            camera,
            size: size(14, 9),
            range: ColorRange::PerImage,
            tile: None,
            output: FrameGraphOutput::Classes(&head),
        };
        let onnx = perceptor.frame_graph(&query, Vec::new()).unwrap();
        let session = run(onnx, &photo(camera), &[io::frame::CLASSES]);
        assert_eq!(session.output_bytes(0), vec![NO_CLASS; 14 * 9]);
    }
}

#[test]
fn naf_is_included_where_its_whole_graph_exists() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = naf_bundle(directory.path());
    let perceptor = open(&bundle);
    let (camera, out) = (size(97, 61), size(96, 80));
    let photo = photo(camera);
    let mut query = FrameGraphQuery {
        camera,
        size: out,
        range: ColorRange::PerImage,
        tile: None,
        output: FrameGraphOutput::Features,
    };
    let onnx = perceptor.frame_graph(&query, Vec::new()).unwrap();
    let session = run(onnx, &photo, &[io::frame::FEATURES]);
    let frame = Frame::packed(photo.data(), camera.width, camera.height);
    let expected = perceptor.perceive(&frame, &Query::frame(out)).unwrap();
    let found = session.output(0);
    assert_eq!(found.len(), expected.values.len());
    let worst = (found.iter().zip(&expected.values))
        .map(|(a, b)| (a - b).abs())
        .fold(0f32, f32::max);
    println!("worst {worst:.1e}");
    assert!(worst <= 1e-4, "{worst}");
    query.size = size(99, 80);
    let e = perceptor.frame_graph(&query, Vec::new()).unwrap_err();
    assert!(
        e.to_string().contains("multiples of the feature grid"),
        "{e}"
    );
}
