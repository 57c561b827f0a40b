//! NAF from a checkpoint to features: against PyTorch, in parts, with heads, in every order of steps.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use loftup_bundle::{Bundle, BundleWriter, HeadKind, Linear, Normalization, Size, UpsamplerKind};
use loftup_convert::{BackboneSource, Request, convert, verify};
use loftup_import::{builtin, bundle as new, vit::VitOptions};
use loftup_onnx::naf::{NafShape, whole_graph};
use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, Features, ImageTensor, IncrementalUpsampler,
    NafStatistics, Perceptor, Point, Rect,
    backend::{CpuBackend, compile_once},
    heads::Head,
    sinks::VecSink,
};
use loftup_spec::{SplitMix64, io, naf::NafWeights};
use loftup_tests::{
    frames::worst,
    naf::{around, inputs},
};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};

/// A bundle with only NAF, for features of `dim` channels, as the importer of a backbone would write
/// it.
fn bundle(folder: &Path, dim: usize, normalization: Normalization) -> PathBuf {
    let path = folder.join(format!("naf-{dim}.loftup"));
    let mut writer = BundleWriter::create(&path, true).unwrap();
    let upsampler = new::add_naf(&mut writer, &NafWeights::random(7), dim, None).unwrap();
    let manifest = new::manifest(normalization, None, Some(upsampler), Vec::new(), None);
    writer.seal(manifest).unwrap();
    writer.commit().unwrap();
    path
}

fn open(path: &Path, tile: Option<usize>, threads: usize) -> Perceptor {
    Perceptor::open_on_cpu(path, ExecutionOptions { threads, tile }).unwrap()
}

fn whole(view: &EncodedFrame<'_>) -> Vec<f32> {
    let mut sink = VecSink::new(Rect::whole(view.size()), view.dim()).unwrap();
    view.frame(&mut |tile| sink.push(tile)).unwrap();
    sink.into_values()
}

#[test]
fn it_computes_what_pytorch_computes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/naf/outputs.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (i, (name, dim, grid, size)) in [
        ("multiple", 8, (9, 10), (27, 40)),
        ("odd", 12, (9, 11), (31, 47)),
        ("fine", 4, (13, 10), (13, 19)),
        ("mixed", 8, (10, 9), (20, 23)),
    ]
    .into_iter()
    .enumerate()
    {
        let tensor = expected.tensor(name).unwrap();
        assert_eq!(tensor.shape(), [1, dim, size.0, size.1]);
        let (chunks, _) = tensor.data().as_chunks::<4>();
        let map: Vec<f32> = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let expected = Features::from_map(tensor.shape(), &map, dim)
            .unwrap()
            .tokens;
        let (features, image) = inputs(100 + i as u64, dim, grid, size);
        let path = bundle(folder.path(), dim, Normalization::IMAGENET);
        for (tile, threads) in [(None, 1), (Some(7), 3)] {
            let perceptor = open(&path, tile, threads);
            let view = perceptor
                .encode_features(&features, &image, ColorRange::PerImage)
                .unwrap();
            let error = worst(&whole(&view), &expected);
            println!("{name}, tiles of {tile:?}: {error:.1e}");
            assert!(error <= 1e-4, "{name}: {error:.1e}");
        }
    }
}

#[test]
fn regions_points_and_videos_are_parts_of_the_frame() {
    let folder = tempfile::tempdir().unwrap();
    let dim = 12;
    let (features, image) = inputs(5, dim, (9, 11), (76, 99));
    let path = bundle(folder.path(), dim, Normalization::IMAGENET);
    for tile in [None, Some(10)] {
        let perceptor = open(&path, tile, 2);
        let view = perceptor
            .encode_features(&features, &image, ColorRange::PerImage)
            .unwrap();
        let frame = whole(&view);
        let at = |x: usize, y: usize| &frame[(y * 99 + x) * dim..][..dim];
        let rect = Rect {
            x: 13,
            y: 40,
            width: 59,
            height: 36,
        };
        let mut region = VecSink::new(rect, dim).unwrap();
        view.region(rect, &mut |tile| region.push(tile)).unwrap();
        let expected: Vec<f32> = (rect.y..rect.y + rect.height)
            .flat_map(|y| (rect.x..rect.x + rect.width).flat_map(move |x| at(x, y)))
            .copied()
            .collect();
        // All read the same encodings; only the rounding of matrix products can differ.
        assert!(worst(region.values(), &expected) < 1e-6);
        let points = [(0, 0), (98, 75), (13, 40), (50, 1), (98, 0)].map(|(x, y)| Point { x, y });
        let expected: Vec<f32> = points.iter().flat_map(|p| at(p.x, p.y)).copied().collect();
        assert!(worst(&view.points(&points).unwrap(), &expected) < 1e-6);

        let mut video = IncrementalUpsampler::new();
        for _ in 0..2 {
            let view = perceptor.encode_features(&features, &image, ColorRange::PerImage);
            let view = view.unwrap();
            let mut sink = VecSink::new(Rect::whole(view.size()), dim).unwrap();
            let stats = video.frame(&view, &mut |tile| sink.push(tile)).unwrap();
            assert_eq!(stats.computed, stats.tiles);
            assert!(sink.values() == frame);
        }
    }
}

fn head(kind: HeadKind, dim: usize) -> Head {
    let rows = kind.rows();
    let mut random = SplitMix64::new(3);
    let manifest = loftup_bundle::Head {
        kind,
        dim,
        file: String::new(),
    };
    let linear = Linear {
        inputs: dim,
        weight: around(&mut random, 1.0, rows * dim),
        bias: around(&mut random, 0.5, rows),
    };
    Head::new(manifest, linear).unwrap()
}

#[test]
fn a_head_gives_the_same_before_and_after_attention() {
    let folder = tempfile::tempdir().unwrap();
    let dim = 20;
    let (features, image) = inputs(8, dim, (10, 9), (41, 37));
    let perceptor = open(
        &bundle(folder.path(), dim, Normalization::IMAGENET),
        None,
        2,
    );
    let view = || {
        perceptor
            .encode_features(&features, &image, ColorRange::PerImage)
            .unwrap()
    };
    let frame = whole(&view());
    let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    for kind in [
        HeadKind::Classes { names: names(19) },
        HeadKind::Descriptors { channels: 3 },
        HeadKind::Depth {
            min_meters: 0.5,
            max_meters: 10.0,
            bins: Some(7),
        },
        HeadKind::Words {
            names: names(4),
            negative: names(2),
            threshold: None,
        },
    ] {
        let head = head(kind, dim);
        let mut expected = Vec::new();
        head.apply(&frame, &mut expected);
        let view = view().with_head(&head).unwrap();
        assert_eq!(view.dim(), head.outputs());
        let found = whole(&view);
        // No class is negative infinity on both sides.
        let finite = |v: &[f32]| v.iter().map(|x| x.max(-1e9)).collect::<Vec<_>>();
        let error = worst(&finite(&found), &finite(&expected));
        // Sums of 20 products below 1.
        assert!(error < 5e-6, "{:?}: {error:.1e}", head.kind());
        let point = Point { x: 36, y: 40 };
        let last = &found[found.len() - view.dim()..];
        let at = view.points(&[point]).unwrap();
        assert!(worst(&finite(&at), &finite(last)) < 2e-6);
    }
}

/// The same image with other pixels in a rectangle.
fn changed(image: &ImageTensor, rect: Rect) -> ImageTensor {
    let mut image = image.clone();
    let Size { width, height } = image.size;
    for plane in image.data.chunks_exact_mut(width * height) {
        for row in plane.chunks_exact_mut(width).skip(rect.y).take(rect.height) {
            row[rect.x..rect.x + rect.width]
                .iter_mut()
                .for_each(|x| *x = 0.3 - *x);
        }
    }
    image
}

#[test]
fn frames_of_a_video_reuse_statistics_until_they_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let dim = 8;
    let (features, image) = inputs(5, dim, (9, 11), (60, 70));
    let perceptor = open(
        &bundle(folder.path(), dim, Normalization::IMAGENET),
        None,
        2,
    );
    let frames: Vec<ImageTensor> = (0..5)
        .map(|i| {
            let rect = Rect {
                x: 0,
                y: 0,
                width: 70,
                height: 10 * i + 1,
            };
            changed(&image, rect)
        })
        .collect();
    let own = |image: &ImageTensor| {
        let view = perceptor.encode_features(&features, image, ColorRange::PerImage);
        whole(&view.unwrap())
    };
    let next = |image: &ImageTensor, statistics: &mut NafStatistics| {
        let view = perceptor.encode_video(&features, image, ColorRange::PerImage, statistics);
        whole(&view.unwrap())
    };
    for interval in [0, 1, 3] {
        let mut statistics = NafStatistics::every(interval);
        for (i, image) in frames.iter().enumerate() {
            let (found, exact) = (next(image, &mut statistics), own(image));
            let error = worst(&found, &exact);
            match interval < 2 || i % 3 == 0 {
                true => assert_eq!(found, exact, "{i}"),
                false => assert!((1e-4..0.5).contains(&error), "{i}: {error:.1e}"),
            }
        }
    }
    // The first frame with its own statistics given: only rounding differs.
    let mut statistics = NafStatistics::every(100);
    next(&frames[0], &mut statistics);
    let error = worst(&next(&frames[0], &mut statistics), &own(&frames[0]));
    assert!(error < 2e-5, "{error:.1e}");
    assert_ne!(next(&frames[4], &mut statistics), own(&frames[4]));
    statistics.reset();
    assert_eq!(next(&frames[4], &mut statistics), own(&frames[4]));
    // Another size, and another bundle.
    let (_, other) = inputs(6, dim, (9, 11), (61, 70));
    assert_eq!(next(&other, &mut statistics), own(&other));
    let again = open(
        &bundle(folder.path(), dim, Normalization::IMAGENET),
        None,
        1,
    );
    let image = changed(&other, Rect::whole(other.size));
    let view = again.encode_video(&features, &image, ColorRange::PerImage, &mut statistics);
    assert_eq!(whole(&view.unwrap()), own(&image));
}

#[test]
fn a_video_computes_only_tiles_near_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let dim = 4;
    let (features, image) = inputs(5, dim, (36, 36), (288, 288));
    let (others, _) = inputs(6, dim, (36, 36), (288, 288));
    let perceptor = open(
        &bundle(folder.path(), dim, Normalization::IMAGENET),
        None,
        2,
    );
    let moving = |x: usize, y: usize| {
        let rect = Rect {
            x,
            y,
            width: 9,
            height: 5,
        };
        changed(&image, rect)
    };
    // The frame with its own statistics, the first with given ones, then changes at corners and inside.
    let frames = [
        (&features, image.clone(), 25),
        (&features, image.clone(), 25),
        (&features, image.clone(), 0),
        (&features, moving(2, 3), 9),
        (&features, moving(2, 3), 0),
        (&features, moving(279, 283), 13),
        (&features, image.clone(), 9),
        (&others, image.clone(), 25),
        (&others, moving(140, 130), 25),
    ];
    let mut statistics = NafStatistics::every(1000);
    let first = image.clone();
    let mut video = IncrementalUpsampler::new();
    let mut sink = VecSink::new(Rect::whole(image.size), dim).unwrap();
    for (i, (features, image, most)) in frames.into_iter().enumerate() {
        let range = ColorRange::PerImage;
        let view = perceptor.encode_video(features, &image, range, &mut statistics);
        let update = video.frame(&view.unwrap(), &mut |tile| sink.push(tile));
        let update = update.unwrap();
        println!("{i}: {update:?}");
        assert_eq!(update.tiles, 25);
        assert!(update.computed <= most, "{i}: {update:?}");
        if i > 0 {
            // From nothing but the statistics: the frame after one with its own shares no blocks.
            let mut fresh = NafStatistics::every(1000);
            perceptor
                .encode_video(features, &first, range, &mut fresh)
                .unwrap();
            let view = perceptor.encode_video(features, &image, range, &mut fresh);
            assert!(whole(&view.unwrap()) == sink.values(), "{i}");
        }
    }
}

#[test]
fn images_are_normalized_as_naf_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let dim = 4;
    let (features, image) = inputs(9, dim, (9, 9), (20, 21));
    let imagenet = open(
        &bundle(folder.path(), dim, Normalization::IMAGENET),
        None,
        1,
    );
    let frame = |perceptor: &Perceptor, image: &ImageTensor| {
        let view = perceptor.encode_features(&features, image, ColorRange::PerImage);
        whole(&view.unwrap())
    };
    let expected = frame(&imagenet, &image);
    let own = Normalization {
        mean: [0.5, 0.4, 0.45],
        std: [0.5, 0.25, 0.3],
    };
    let Normalization { mean, std } = Normalization::IMAGENET;
    let mut same = image.clone();
    for (c, plane) in same.data.chunks_exact_mut(20 * 21).enumerate() {
        for x in plane {
            *x = (*x * std[c] + mean[c] - own.mean[c]) / own.std[c];
        }
    }
    let perceptor = open(&bundle(folder.path(), dim, own), None, 1);
    assert!(worst(&frame(&perceptor, &same), &expected) < 1e-5);
    assert!(worst(&frame(&perceptor, &image), &expected) > 1e-3);
}

#[test]
fn what_naf_does_not_take_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let perceptor = open(&bundle(folder.path(), 8, Normalization::IMAGENET), None, 1);
    for (dim, grid, size, what) in [
        (8, (8, 9), (64, 64), "at least 9 cells"),
        (8, (12, 12), (11, 40), "no more cells than pixels"),
        (12, (9, 9), (64, 64), "the upsampler takes [1, 8, h, w]"),
    ] {
        let (features, image) = inputs(1, dim, grid, size);
        let view = perceptor.encode_features(&features, &image, ColorRange::PerImage);
        let text = view.err().unwrap().to_string();
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn the_graph_for_other_tools_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let weights = NafWeights::random(7);
    for (dim, grid, size) in [(8, (9, 10), (27, 40)), (12, (10, 9), (10, 18))] {
        let shape = NafShape { dim, grid, size };
        let onnx = whole_graph(&weights, shape).unwrap();
        let (features, image) = inputs(11, dim, grid, size);
        let plan = compile_once(
            &CpuBackend,
            "naf.onnx",
            &onnx[..],
            &[
                (io::FEATURES, &[1, dim, grid.0, grid.1]),
                (io::GUIDANCE, &[1, 3, size.0, size.1]),
            ],
            &[io::UPSAMPLED],
        );
        let mut session = plan.unwrap().session().unwrap();
        session.set(0, &features.to_map()).unwrap();
        session.set(1, &image.data).unwrap();
        session.run().unwrap();
        let shape = [1, dim, size.0, size.1];
        let found = Features::from_map(&shape, session.output(0), dim)
            .unwrap()
            .tokens;
        let path = bundle(folder.path(), dim, Normalization::IMAGENET);
        let perceptor = open(&path, None, 1);
        let view = perceptor
            .encode_features(&features, &image, ColorRange::PerImage)
            .unwrap();
        let error = worst(&found, &whole(&view));
        println!("{grid:?} {size:?}: {error:.1e}");
        assert!(error <= 1e-4, "{grid:?} {size:?}: {error:.1e}");
    }
    for (dim, grid, size) in [
        (8, (9, 9), (28, 27)),
        (8, (8, 9), (16, 18)),
        (6, (9, 9), (9, 9)),
    ] {
        assert!(whole_graph(&weights, NafShape { dim, grid, size }).is_none());
    }
}

/// The weights as a checkpoint file, some changed.
fn checkpoint(
    path: &Path,
    change: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>),
) -> PathBuf {
    let tensors = NafWeights::random(7).tensors().into_iter();
    let mut tensors = tensors
        .map(|(name, shape, values)| (name, (shape, values)))
        .collect();
    change(&mut tensors);
    let raw: Vec<_> = tensors
        .into_iter()
        .map(|(name, (shape, values))| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = (raw.iter()).map(|(name, shape, bytes)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
    path.to_owned()
}

#[test]
fn a_checkpoint_becomes_a_bundle_that_passes_its_checks() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = folder.path().join("backbone.safetensors");
    std::fs::write(&backbone, builtin::scenes::BACKBONE).unwrap();
    let out = folder.path().join("naf.loftup");
    let request = |weights: PathBuf, with_backbone: bool, side: Option<usize>| Request {
        backbone: with_backbone.then(|| BackboneSource::Checkpoint {
            preset: builtin::scenes::PRESET.into(),
            weights: backbone.clone(),
            options: VitOptions {
                heads: Some(builtin::scenes::HEADS),
                ..Default::default()
            },
        }),
        upsampler: Some(weights),
        size: side.map(|side| Size {
            width: side,
            height: side,
        }),
        out: out.clone(),
        prefix: None,
        license: None,
        replace: true,
    };
    let go = |request: &Request| convert(request, |_| ControlFlow::Continue(()));
    let file = folder.path().join("naf.safetensors");

    let good = checkpoint(&file, |tensors| {
        // As a training loop would save it.
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (format!("model.{name}"), tensor))
            .collect();
    });
    let converted = go(&request(good, true, None)).unwrap();
    let upsampler = converted.manifest.upsampler.unwrap();
    assert_eq!((upsampler.kind, upsampler.dim), (UpsamplerKind::Naf, 64));
    assert_eq!(upsampler.whole.as_deref(), Some("upsampler.onnx"));
    let checks: Vec<_> = converted.checks.iter().map(|c| c.name.as_str()).collect();
    for what in [
        "a region matches",
        "points match",
        "matches the reference outputs (points)",
    ] {
        assert!(checks.iter().any(|name| name.contains(what)), "{checks:?}");
    }
    let again = verify(Bundle::open(&out).unwrap()).unwrap();
    assert!(again.iter().all(|check| check.passed));

    let plain = || checkpoint(&file, |_| {});
    let error = |request: Request| go(&request).unwrap_err().to_string();
    let text = error(request(plain(), false, None));
    assert!(
        text.contains("naf.safetensors: NAF takes features of any backbone"),
        "{text}"
    );
    let text = error(request(plain(), true, Some(64)));
    assert!(text.contains("at least 9 patches per side"), "{text}");
    let bias = "image_encoder.encoder.2.conv1.bias";
    let lacks = checkpoint(&file, |tensors| {
        tensors.remove(bias);
    });
    let text = error(request(lacks, true, None));
    assert!(
        text.contains(&format!("tensor {bias} is missing")),
        "{text}"
    );
    let wide = checkpoint(&file, |tensors| {
        tensors.insert(bias.into(), (vec![129], vec![0.0; 129]));
    });
    let text = error(request(wide, true, None));
    assert!(text.contains("has shape [129], expected [128]"), "{text}");
    let still = checkpoint(&file, |tensors| {
        let (_, periods) = tensors.get_mut("image_encoder.rope.periods").unwrap();
        periods[3] = 0.0;
    });
    let text = error(request(still, true, None));
    assert!(text.contains("contains 0, which is no period"), "{text}");
    let mut both = folder.path().join("both.safetensors");
    std::fs::write(&both, builtin::scenes::UPSAMPLER).unwrap();
    let loftup = loftup_import::checkpoint::Checkpoint::open(&both).unwrap();
    both = checkpoint(&both, |tensors| {
        for name in loftup.names() {
            let shape = loftup.shape(name).unwrap().to_vec();
            let values = loftup.tensor(name, &shape).unwrap().into_data();
            tensors.insert(name.into(), (shape, values));
        }
    });
    let text = error(request(both, true, None));
    assert!(text.contains("a LoftUp and a NAF upsampler"), "{text}");
}

#[test]
fn manifests_state_the_kind_and_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = bundle(folder.path(), 8, Normalization::IMAGENET);
    let file = path.join("manifest.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"kind\": \"naf\""), "{text}");
    for (from, to, what) in [
        ("\"kind\": \"naf\",", "", "LoftUp of 8 channels"),
        ("\"dim\": 8", "\"dim\": 6", "NAF of 6 channels"),
        (
            "\"weights\": \"naf.",
            "\"weights\": \"other.",
            "not among the files",
        ),
        ("\"naf\"", "\"nag\"", "nag"),
    ] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let error = Bundle::open(&path).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}
