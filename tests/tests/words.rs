//! Words: similarities of LoftUp's output with directions in the backbone's feature space.
//!
//! LoftUp imitates the channel norm of interpolated features. An engine that outputs exactly this
//! must give the similarities of the interpolated features themselves, wherever the undoing is
//! exact: where the mean over channels is 0, or the deviation is linear, or at the tokens' centers.

use std::{path::Path, sync::Arc};

use loftup_bundle::{Bundle, HeadKind, Linear, Precision, Size};
use loftup_import::checkpoint::Checkpoint;
use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, Features, ImageTensor, Perceptor, Point, Rect,
    RuntimeError,
    backend::{
        Arithmetic, Backend, BackendError, CpuBackend, Graph, Model, Plan, Session, ShapeProfile,
    },
    heads::{Head, NO_CLASS, argmax},
    jbu::{Jbu, JbuOptions},
    sinks::VecSink,
};
use loftup_spec::{EPS, HALO, io};
use loftup_tests::synthetic::{Noise, loftup, upsampler_bundle};

const DIM: usize = 12;
const SEED: u64 = 3;

/// PyTorch's bilinear interpolation without `align_corners`, in 64 bits.
fn interpolated(features: &Features, size: Size, x: usize, y: usize) -> Vec<f64> {
    let place = |i: usize, from: usize, to: usize| {
        let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let first = (at as usize).min(from - 1);
        (first, (first + 1).min(from - 1), at - first as f64)
    };
    let (left, right, tx) = place(x, features.width, size.width);
    let (top, bottom, ty) = place(y, features.height, size.height);
    let token = |row: usize, column: usize, c: usize| {
        f64::from(features.tokens[(row * features.width + column) * features.dim + c])
    };
    let line = |row, c| token(row, left, c) * (1.0 - tx) + token(row, right, c) * tx;
    (0..features.dim)
        .map(|c| line(top, c) * (1.0 - ty) + line(bottom, c) * ty)
        .collect()
}

/// An engine whose upsampler outputs the channel norm of the interpolated features.
struct Exact(Arc<Imitation>);

struct Imitation {
    features: Features,
    size: Size,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Imitation {
    fn of(directory: &Path, features: &Features, size: Size) -> Self {
        let (_, weight, bias) = bundle(directory);
        Self {
            features: features.clone(),
            size,
            weight,
            bias,
        }
    }

    fn output(&self, x: usize, y: usize) -> impl Iterator<Item = f32> {
        let f = interpolated(&self.features, self.size, x, y);
        let n = f.len() as f64;
        let mean = f.iter().sum::<f64>() / n;
        let variance = f.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let deviation = (variance + f64::from(EPS)).sqrt();
        let affine = self.weight.iter().zip(&self.bias);
        f.into_iter().zip(affine).map(move |(v, (weight, bias))| {
            ((v - mean) / deviation * f64::from(*weight) + f64::from(*bias)) as f32
        })
    }
}

impl Backend for Exact {
    fn name(&self) -> &'static str {
        "exact"
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        match graph.inputs.iter().any(|name| name == io::GUIDANCE) {
            true => Ok(Arc::new(Queries(self.0.clone()))),
            false => CpuBackend.load(graph),
        }
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }
}

struct Queries(Arc<Imitation>);

impl Model for Queries {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        _: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let coords = shapes[1].clone();
        let (tiles, height, width) = (coords[0], coords[2] - 2 * HALO, coords[3] - 2 * HALO);
        Ok(Box::new(ExactPlan {
            imitation: self.0.clone(),
            output: [tiles * height * width, self.0.features.dim],
            coords,
        }))
    }
}

struct ExactPlan {
    imitation: Arc<Imitation>,
    coords: Vec<usize>,
    output: [usize; 2],
}

impl Plan for ExactPlan {
    fn output_shape(&self, _: usize) -> &[usize] {
        &self.output
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(ExactSession {
            imitation: self.imitation.clone(),
            shape: self.coords.clone(),
            coords: Vec::new(),
            output: Vec::new(),
        }))
    }
}

struct ExactSession {
    imitation: Arc<Imitation>,
    shape: Vec<usize>,
    coords: Vec<f32>,
    output: Vec<f32>,
}

impl Session for ExactSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        if input == 1 {
            self.coords = values.to_vec();
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        let [tiles, 2, rows, columns] = self.shape[..] else {
            panic!("{:?}", self.shape)
        };
        let Size { width, height } = self.imitation.size;
        let index = |c: f32, n: usize| ((c + 1.0) / 2.0 * (n - 1) as f32).round() as usize;
        self.output.clear();
        for tile in self.coords.chunks_exact(2 * rows * columns).take(tiles) {
            for i in (HALO..rows - HALO)
                .flat_map(|y| (HALO..columns - HALO).map(move |x| y * columns + x))
            {
                let (row, column) = (tile[i], tile[rows * columns + i]);
                let (x, y) = (index(column, width), index(row, height));
                self.output.extend(self.imitation.output(x, y));
            }
        }
        Ok(())
    }

    fn output(&self, _: usize) -> &[f32] {
        &self.output
    }
}

/// A bundle with a random upsampler, and its channel norm.
fn bundle(directory: &Path) -> (Bundle, Vec<f32>, Vec<f32>) {
    let path = directory.join("up.loftup");
    if !path.exists() {
        upsampler_bundle(DIM, SEED, directory);
    }
    let checkpoint: Checkpoint = loftup(DIM, SEED);
    let norm = |name: &str| {
        let name = format!("channelnorm.norm.{name}");
        checkpoint.tensor(&name, &[DIM]).unwrap().into_data()
    };
    (Bundle::open(&path).unwrap(), norm("weight"), norm("bias"))
}

fn exact(directory: &Path, features: &Features, size: Size, tile: usize) -> Perceptor {
    let (bundle, ..) = bundle(directory);
    let backend = Exact(Arc::new(Imitation::of(directory, features, size)));
    let options = ExecutionOptions {
        threads: 2,
        tile: Some(tile),
    };
    Perceptor::with_backend(bundle, Arc::new(backend), options).unwrap()
}

/// Words in random directions.
fn words(negative: usize, threshold: Option<f32>) -> (loftup_bundle::Head, Linear) {
    let names = |n: usize, what: &str| (0..n).map(|i| format!("{what} {i}")).collect();
    let head = loftup_bundle::Head {
        kind: HeadKind::Words {
            names: names(3, "word"),
            negative: names(negative, "not"),
            threshold,
        },
        dim: DIM,
        file: String::new(),
    };
    let rows = 3 + negative;
    let linear = Linear {
        inputs: DIM,
        // Lengths other than 1 must not matter.
        weight: Noise::new(8)
            .vec(rows * DIM)
            .iter()
            .map(|x| 3.0 * x)
            .collect(),
        bias: vec![0.0; rows],
    };
    (head, linear)
}

fn cosines(linear: &Linear, feature: &[f64]) -> Vec<f64> {
    let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let rows = linear.weight.chunks_exact(linear.inputs);
    rows.map(|row| {
        let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let dot: f64 = row.iter().zip(feature).map(|(a, b)| a * b).sum();
        dot / length(&row) / length(feature)
    })
    .collect()
}

fn features(
    (height, width): (usize, usize),
    mut value: impl FnMut(usize, usize) -> f32,
) -> Features {
    let tokens = (0..height * width * DIM).map(|i| value(i / DIM, i % DIM));
    Features {
        dim: DIM,
        height,
        width,
        tokens: tokens.collect(),
    }
}

fn image(size: Size) -> ImageTensor {
    ImageTensor {
        size,
        data: Noise::new(21).vec(3 * size.area()),
    }
}

fn encoded<'a>(perceptor: &'a Perceptor, features: &Features, size: Size) -> EncodedFrame<'a> {
    let view = perceptor.encode_features(features, &image(size), ColorRange::PerImage);
    view.unwrap()
}

/// The outputs of `head`, `[H, W, k]`.
fn outputs(view: EncodedFrame<'_>, head: &Head, rect: Rect) -> Vec<f32> {
    let view = view.with_head(head).unwrap();
    let mut sink = VecSink::new(rect, view.dim()).unwrap();
    view.region(rect, &mut |tile| sink.push(tile)).unwrap();
    sink.into_values()
}

#[test]
fn an_exact_imitation_of_the_channel_norm_gives_the_similarities_of_interpolated_features() {
    let directory = tempfile::tempdir().unwrap();
    let mut noise = Noise::new(5);
    let direction = noise.vec(DIM);
    // Grid, output, tile: sides that do not divide, one token, one pixel, fewer pixels than tokens.
    let shapes = [
        ((4, 5), (43, 29), 16),
        ((1, 1), (7, 3), 64),
        ((3, 2), (1, 1), 8),
        ((5, 4), (3, 4), 2),
        ((2, 7), (31, 17), 5),
    ];
    for (grid, (width, height), tile) in shapes {
        let size = Size { width, height };
        let tokens = grid.0 * grid.1;
        let random = noise.vec(tokens * DIM);
        let mean = |t: usize| random[t * DIM..][..DIM].iter().sum::<f32>() / DIM as f32;
        let (scales, offsets) = (noise.vec(tokens), noise.vec(tokens));
        let kinds = [
            (
                "mean 0",
                features(grid, |t, c| random[t * DIM + c] - mean(t)),
            ),
            (
                // All on one line and offset: the deviation is that of the line, times the scale.
                "linear deviation",
                features(grid, |t, c| (scales[t] + 2.0) * direction[c] + offsets[t]),
            ),
        ];
        let (manifest, linear) = words(0, None);
        for (name, features) in kinds {
            let perceptor = exact(directory.path(), &features, size, tile);
            let head = perceptor
                .custom_head(manifest.clone(), linear.clone())
                .unwrap();
            let whole = Rect {
                x: 0,
                y: 0,
                width,
                height,
            };
            let found = outputs(encoded(&perceptor, &features, size), &head, whole);
            let mut worst = 0f64;
            for (i, pixel) in found.chunks_exact(3).enumerate() {
                let feature = interpolated(&features, size, i % width, i / width);
                for (found, expected) in pixel.iter().zip(cosines(&linear, &feature)) {
                    worst = worst.max((f64::from(*found) - expected).abs());
                }
            }
            println!("{name}, {grid:?} to {size}: off by {worst:.1e}");
            // What LoftUp outputs has other cosines.
            let upsampled: Vec<f64> = Imitation::of(directory.path(), &features, size)
                .output(0, 0)
                .map(f64::from)
                .collect();
            let first = found[..3].iter().zip(cosines(&linear, &upsampled));
            let apart = first
                .map(|(a, b)| (f64::from(*a) - b).abs())
                .fold(0.0, f64::max);
            assert!(apart > 1e-2, "{name}, {grid:?} to {size}: {apart:e}");
            // Cosines of 12 products in 32 bits; the mean of the random offsets is up to 10 times
            // the length of the feature around it.
            assert!(worst < 2e-5, "{name}, {grid:?} to {size}: {worst:e}");
            // A region and points are at other places of their tiles.
            let part = Rect {
                x: width / 3,
                y: height / 2,
                width: width.div_ceil(2).min(width - width / 3),
                height: height.div_ceil(3).min(height - height / 2),
            };
            let region = outputs(encoded(&perceptor, &features, size), &head, part);
            let points: Vec<Point> = (0..part.area())
                .map(|i| Point {
                    x: part.x + i % part.width,
                    y: part.y + i / part.width,
                })
                .collect();
            let view = encoded(&perceptor, &features, size)
                .with_head(&head)
                .unwrap();
            let at_points = view.points(&points).unwrap();
            for (i, point) in points.iter().enumerate() {
                let same = &found[(point.y * width + point.x) * 3..][..3];
                assert_eq!(region[3 * i..][..3], *same, "{point:?}");
                assert_eq!(at_points[3 * i..][..3], *same, "{point:?}");
            }
        }
    }
}

#[test]
fn at_the_centers_of_tokens_any_features_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let grid = (4, 5);
    let values = Noise::new(9).vec(20 * DIM);
    let features = features(grid, |t, c| values[t * DIM + c] + 0.5);
    let size = Size {
        width: 15,
        height: 12,
    };
    let perceptor = exact(directory.path(), &features, size, 8);
    let (manifest, linear) = words(0, None);
    let head = perceptor.custom_head(manifest, linear.clone()).unwrap();
    let centers: Vec<Point> = (0..20)
        .map(|t| Point {
            x: t % 5 * 3 + 1,
            y: t / 5 * 3 + 1,
        })
        .collect();
    let view = encoded(&perceptor, &features, size)
        .with_head(&head)
        .unwrap();
    let found = view.points(&centers).unwrap();
    for (found, token) in found.chunks_exact(3).zip(features.tokens.chunks_exact(DIM)) {
        let token: Vec<f64> = token.iter().map(|x| f64::from(*x)).collect();
        for (found, expected) in found.iter().zip(cosines(&linear, &token)) {
            assert!(
                (f64::from(*found) - expected).abs() < 2e-5,
                "{found} {expected}"
            );
        }
    }
}

#[test]
fn negative_words_and_the_threshold_take_pixels_away() {
    let directory = tempfile::tempdir().unwrap();
    let values = Noise::new(10).vec(20 * DIM);
    let features = features((4, 5), |t, c| values[t * DIM + c]);
    let size = Size {
        width: 15,
        height: 12,
    };
    let whole = Rect {
        x: 0,
        y: 0,
        width: 15,
        height: 12,
    };
    let perceptor = exact(directory.path(), &features, size, 8);
    let scores = |negative, threshold| {
        let (manifest, linear) = words(negative, threshold);
        let head = perceptor.custom_head(manifest, linear).unwrap();
        outputs(encoded(&perceptor, &features, size), &head, whole)
    };
    // The words of five, and all five of them as words of their own.
    let plain = scores(0, None);
    let (mut manifest, linear) = words(2, None);
    manifest.kind = HeadKind::Words {
        names: (0..5).map(|i| i.to_string()).collect(),
        negative: Vec::new(),
        threshold: None,
    };
    let head = perceptor.custom_head(manifest, linear).unwrap();
    let all = outputs(encoded(&perceptor, &features, size), &head, whole);
    let (mut negative_wins, mut below) = (0, 0);
    let with_negative = scores(2, None);
    let with_threshold = scores(0, Some(0.3));
    for (i, all) in all.chunks_exact(5).enumerate() {
        let of = |scores: &[f32]| scores[3 * i..][..3].to_vec();
        assert_eq!(of(&plain), all[..3]);
        let best = all[..3].iter().copied().fold(f32::MIN, f32::max);
        let taken = all[3].max(all[4]) >= best;
        let expected = if taken {
            vec![f32::NEG_INFINITY; 3]
        } else {
            of(&plain)
        };
        assert_eq!(of(&with_negative), expected);
        assert_eq!(argmax(&of(&with_negative)) == NO_CLASS, taken);
        let low = best < 0.3;
        let expected = if low {
            vec![f32::NEG_INFINITY; 3]
        } else {
            of(&plain)
        };
        assert_eq!(of(&with_threshold), expected);
        negative_wins += usize::from(taken);
        below += usize::from(low);
    }
    assert!((1..180).contains(&negative_wins) && (1..180).contains(&below));
}

#[test]
fn joint_bilateral_upsampling_enlarges_similarities() {
    let directory = tempfile::tempdir().unwrap();
    let (bundle, ..) = bundle(directory.path());
    let perceptor =
        Perceptor::with_backend(bundle, Arc::new(CpuBackend), ExecutionOptions::default()).unwrap();
    let values = Noise::new(11).vec(20 * DIM);
    let features = features((4, 5), |t, c| values[t * DIM + c]);
    let size = Size {
        width: 23,
        height: 13,
    };
    let whole = Rect {
        x: 0,
        y: 0,
        width: 23,
        height: 13,
    };
    let (manifest, linear) = words(2, Some(0.1));
    let tokens: Vec<f32> = features
        .tokens
        .chunks_exact(DIM)
        .flat_map(|token| {
            let token: Vec<f64> = token.iter().map(|x| f64::from(*x)).collect();
            cosines(&linear, &token)
        })
        .map(|x| x as f32)
        .collect();
    let guidance = image(size);
    let rgb = guidance.to_rgb(&perceptor.manifest().normalization);
    let options = JbuOptions::default();
    let enlarged = Jbu::new(options, (5, 4), rgb, (23, 13)).image(&tokens, 5);
    // Also without what only LoftUp needs.
    for head in [
        perceptor
            .custom_head(manifest.clone(), linear.clone())
            .unwrap(),
        Head::new(manifest, linear).unwrap(),
    ] {
        let view = perceptor.encode_jbu(features.clone(), &guidance, options);
        let found = outputs(view, &head, whole);
        let mut none = 0;
        for (found, all) in found.chunks_exact(3).zip(enlarged.chunks_exact(5)) {
            let best = all[..3].iter().copied().fold(f32::MIN, f32::max);
            let limit = all[3].max(all[4]).max(0.1);
            if (best - limit).abs() < 1e-5 {
                continue;
            }
            for (found, expected) in found.iter().zip(all) {
                match best > limit {
                    // Cosines in 32 and 64 bits.
                    true => assert!((found - expected).abs() < 1e-5, "{found} {expected}"),
                    false => assert_eq!(*found, f32::NEG_INFINITY),
                }
            }
            none += usize::from(best < limit);
        }
        assert!((1..size.area()).contains(&none), "{none}");
    }
}

#[test]
fn words_are_replaced_at_run_time_by_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let values = Noise::new(12).vec(20 * DIM);
    let features = features((4, 5), |t, c| values[t * DIM + c]);
    let size = Size {
        width: 15,
        height: 12,
    };
    let point = [Point { x: 7, y: 4 }];
    let perceptor = exact(directory.path(), &features, size, 8);
    let scores = |head: &Head| {
        let view = encoded(&perceptor, &features, size)
            .with_head(head)
            .unwrap();
        view.points(&point).unwrap()
    };
    let path = directory.path().join("words.safetensors");
    let (manifest, mut linear) = words(0, None);
    let mut last = Vec::new();
    for _ in 0..2 {
        std::fs::write(&path, manifest.to_file(&linear).unwrap()).unwrap();
        let from_file = perceptor.head_from_file(&path).unwrap();
        let made = perceptor
            .custom_head(manifest.clone(), linear.clone())
            .unwrap();
        assert_eq!(scores(&from_file), scores(&made));
        assert_ne!(scores(&made), last);
        last = scores(&made);
        linear.weight.rotate_left(DIM);
    }
    // For another number of channels, and what is no head.
    let small = loftup_bundle::Head {
        dim: 1,
        ..manifest.clone()
    };
    let one = Linear {
        inputs: 1,
        weight: vec![1.0; 3],
        bias: vec![0.0; 3],
    };
    std::fs::write(&path, small.to_file(&one).unwrap()).unwrap();
    let message = perceptor.head_from_file(&path).unwrap_err().to_string();
    assert!(
        message.contains("1 channels") && message.contains("has 12"),
        "{message}"
    );
    std::fs::write(&path, b"{}").unwrap();
    let message = perceptor.head_from_file(&path).unwrap_err().to_string();
    assert!(message.contains("words.safetensors"), "{message}");
    // Without the way back to the backbone's space, LoftUp's output is not compared with words.
    let bare = Head::new(manifest, linear).unwrap();
    let refused = encoded(&perceptor, &features, size).with_head(&bare);
    assert!(matches!(refused, Err(RuntimeError::WordsWithoutNorm)));
}
