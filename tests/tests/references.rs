//! Backends with plausible but wrong outputs are detected with the bundle's reference outputs. Most
//! are tract with an injected error; the mock NVIDIA libraries can only be wrong.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use loftup_bundle::{Bundle, BundleWriter, Precision, References, Size};
use loftup_convert::{
    BackboneSource, Request, convert,
    quantize::{self, AsWritten, quantize},
    verify_with,
};
use loftup_import::vit::{Activation, VitOptions};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Perceptor, RuntimeError,
    backend::{
        Backend, BackendError, Choice, CpuBackend, Fallback, FallbackOptions, Graph, Model, Plan,
        Session, Settings, ShapeProfile, State, engine_cache::EngineCache, open, tensorrt,
    },
    image::{Orientation, RgbImage},
    references::test_image,
};
use loftup_tensorrt::{Layout, testing::Fake};
use loftup_tests::synthetic::{Noise, without_references};

/// The error in the outputs of a graph.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Skew {
    Nothing,
    /// Multiplied by this.
    Scaled(f32),
    /// Each token is replaced by the next one.
    Shuffled,
    /// Alternately increased and decreased by this much.
    Off(f32),
}

impl Skew {
    fn apply(self, values: &mut [f32], shape: &[usize]) {
        match self {
            Self::Nothing => {}
            Self::Scaled(by) => values.iter_mut().for_each(|x| *x *= by),
            // [pixels, d], or planes whose last axis is tokens.
            Self::Shuffled if shape.len() == 2 => values.rotate_left(shape[1]),
            Self::Shuffled => values.rotate_left(1),
            Self::Off(by) => {
                for (i, x) in values.iter_mut().enumerate() {
                    *x += if i % 2 == 0 { by } else { -by };
                }
            }
        }
    }
}

/// A backend that is wrong in one graph.
struct Skewed {
    inner: Arc<dyn Backend>,
    file: &'static str,
    skew: Skew,
}

impl Backend for Skewed {
    fn name(&self) -> &'static str {
        "skewed"
    }

    fn describe(&self) -> String {
        "Skewed 1.2.3".into()
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        let skew = match graph.name.ends_with(self.file) {
            true => self.skew,
            false => Skew::Nothing,
        };
        Ok(Arc::new(SkewedModel {
            inner: self.inner.load(graph)?,
            outputs: graph.outputs.len(),
            skew,
        }))
    }
}

struct SkewedModel {
    inner: Arc<dyn Model>,
    outputs: usize,
    skew: Skew,
}

impl Model for SkewedModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        Ok(Box::new(SkewedPlan {
            inner: self.inner.compile(shapes, profiles)?,
            outputs: self.outputs,
            skew: self.skew,
        }))
    }
}

struct SkewedPlan {
    inner: Box<dyn Plan>,
    outputs: usize,
    skew: Skew,
}

impl Plan for SkewedPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        self.inner.output_shape(index)
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let shapes = (0..self.outputs).map(|i| self.inner.output_shape(i).to_vec());
        Ok(Box::new(SkewedSession {
            inner: self.inner.session()?,
            values: vec![Vec::new(); self.outputs],
            shapes: shapes.collect(),
            skew: self.skew,
        }))
    }
}

struct SkewedSession {
    inner: Box<dyn Session>,
    values: Vec<Vec<f32>>,
    shapes: Vec<Vec<usize>>,
    skew: Skew,
}

impl Session for SkewedSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        self.inner.set(input, values)
    }

    fn run(&mut self) -> Result<(), BackendError> {
        self.inner.run()?;
        for (i, (values, shape)) in self.values.iter_mut().zip(&self.shapes).enumerate() {
            values.clear();
            values.extend_from_slice(self.inner.output(i));
            self.skew.apply(values, shape);
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        &self.values[index]
    }
}

fn skewed(file: &'static str, skew: Skew) -> Arc<dyn Backend> {
    let inner = Arc::new(CpuBackend);
    Arc::new(Skewed { inner, file, skew })
}

fn fallback(engine: Arc<dyn Backend>) -> Arc<dyn Backend> {
    let options = FallbackOptions::default();
    Arc::new(Fallback::new(Ok(engine), Arc::new(CpuBackend), options))
}

const SIZE: Size = Size {
    width: 42,
    height: 42,
};

/// A vision transformer and an upsampler of 48 channels.
fn bundle(directory: &Path) -> PathBuf {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/weights");
    let out = directory.join("robot.loftup");
    let request = Request {
        backbone: Some(BackboneSource::Checkpoint {
            preset: "dinov2-s14".into(),
            weights: weights.join("dinov2.bin"),
            options: VitOptions {
                heads: Some(3),
                activation: Some(Activation::Gelu),
                ..VitOptions::default()
            },
        }),
        upsampler: Some(weights.join("loftup_odd.ckpt")),
        prefix: None,
        license: None,
        size: Some(SIZE),
        out: out.clone(),
        replace: false,
    };
    convert(&request, |_| ControlFlow::Continue(())).unwrap();
    out
}

fn perceptor(bundle: &Path, engine: Arc<dyn Backend>) -> Perceptor {
    let options = ExecutionOptions {
        threads: 1,
        tile: Some(8),
    };
    Perceptor::with_backend(Bundle::open(bundle).unwrap(), engine, options).unwrap()
}

/// Features of an image at two points.
fn answer(perceptor: &Perceptor) -> Result<Vec<f32>, RuntimeError> {
    let image = test_image(SIZE);
    let features = perceptor.features(&image)?;
    let frame = perceptor.encode_features(&features, &image, ColorRange::PerImage)?;
    let points = [(1, 2), (30, 40)].map(|(x, y)| loftup_runtime::Point { x, y });
    frame.points(&points)
}

#[test]
fn a_wrong_engine_is_replaced_or_refused_and_the_part_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle(directory.path());
    let expected = answer(&perceptor(&bundle, Arc::new(CpuBackend))).unwrap();
    let upsampler = "keys.onnx and queries.onnx";
    for (file, skew, part) in [
        ("backbone.onnx", Skew::Scaled(1.01), "backbone.onnx"),
        ("backbone.onnx", Skew::Shuffled, "backbone.onnx"),
        ("backbone.onnx", Skew::Off(0.42), "backbone.onnx"),
        ("keys.onnx", Skew::Shuffled, upsampler),
        ("keys.onnx", Skew::Off(0.42), upsampler),
        ("queries.onnx", Skew::Scaled(0.99), upsampler),
        ("queries.onnx", Skew::Shuffled, upsampler),
        ("queries.onnx", Skew::Off(0.42), upsampler),
    ] {
        let case = format!("{file}: {skew:?}");
        let auto = perceptor(&bundle, fallback(skewed(file, skew)));
        assert!(answer(&auto).unwrap() == expected, "{case}");
        let health = auto.health();
        let reason = health.reason().expect("degraded");
        println!("{case}: {reason}");
        for named in ["Skewed 1.2.3", part, "relative error", "allowed"] {
            assert!(reason.contains(named) && !reason.contains('\n'), "{reason}");
        }
        assert_eq!((health.answering, health.counters.wrong), ("tract", 1));
        // Permanently, and without retries.
        let runs = health.counters.preferred_runs;
        answer(&auto).unwrap();
        auto.compile(SIZE, (3, 3)).unwrap();
        let counters = auto.health().counters;
        assert_eq!((counters.preferred_runs, counters.wrong), (runs, 1));

        let alone = Fallback::alone(skewed(file, skew), FallbackOptions::default());
        let engines: [Arc<dyn Backend>; 2] = [skewed(file, skew), Arc::new(alone)];
        for engine in engines {
            let alone = perceptor(&bundle, engine);
            for e in [answer(&alone).err(), alone.compile(SIZE, (3, 3)).err()] {
                let e = e.expect("refused");
                let wrong = matches!(e, RuntimeError::Backend(BackendError::Wrong { .. }));
                assert!(wrong && e.to_string().contains(part), "{case}: {e}");
            }
        }
    }
}

#[test]
fn an_engine_that_is_given_up_for_good_is_not_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle(directory.path());
    let options = FallbackOptions {
        retry_after: Some(std::time::Duration::ZERO),
        ..FallbackOptions::default()
    };
    let engine = skewed("queries.onnx", Skew::Shuffled);
    let auto = Arc::new(Fallback::new(Ok(engine), Arc::new(CpuBackend), options));
    let auto = perceptor(&bundle, auto);
    for _ in 0..3 {
        answer(&auto).unwrap();
    }
    let counters = auto.health().counters;
    assert_eq!((counters.retries, counters.wrong), (0, 1));
}

#[test]
fn a_right_engine_passes() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle(directory.path());
    let auto = perceptor(&bundle, fallback(skewed("", Skew::Nothing)));
    let start = Instant::now();
    answer(&auto).unwrap();
    println!("first output with the comparison: {:?}", start.elapsed());
    let health = auto.health();
    assert_eq!((health.state, health.counters.wrong), (State::Healthy, 0));
    assert!(health.counters.preferred_runs > 0);
    let runs = auto.health().counters.preferred_runs;
    answer(&auto).unwrap();
    // One run each of backbone, keys and points: the comparison is made only once.
    assert_eq!(auto.health().counters.preferred_runs, runs + 3);
    let (again, tract) = (Bundle::open(&bundle).unwrap(), Arc::new(CpuBackend));
    for check in verify_with(again, tract).unwrap() {
        println!("{check}");
        assert!(check.passed);
    }
}

#[test]
fn honest_16_and_8_bits_pass_and_wrong_ones_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle(directory.path());
    let mut noise = Noise::new(5);
    let file = directory.path().join("image.png");
    let pixels = noise.vec(3 * SIZE.area());
    let pixels = pixels.iter().map(|x| (127.0 + 120.0 * x) as u8).collect();
    let image = RgbImage::new(SIZE.width, SIZE.height, pixels).unwrap();
    image.save_png(&file).unwrap();
    for precision in [Precision::Fp16, Precision::Int8, Precision::Fp16Weights] {
        let out = bundle.with_extension(precision.name());
        let request = quantize::Request {
            bundle: bundle.clone(),
            precision,
            images: vec![file.clone()],
            size: None,
            orientation: Orientation::Upright,
            tiles: 1,
            max_error: None,
            keep: false,
            out: out.clone(),
            replace: false,
        };
        quantize(&request, None, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
        let manifest = Bundle::open(&out).unwrap().manifest().clone();
        let references = manifest.references.unwrap();
        let errors = references.errors[&precision];
        assert!(errors.backbone.is_some() && errors.upsampler.is_some());
        let same = |name: &Path| std::fs::read(name.join(References::FILE)).unwrap();
        assert!(same(&bundle) == same(&out));

        // As written, including the rounding, and converted to 32 bits.
        let engines: [Arc<dyn Backend>; 2] = [Arc::new(AsWritten), Arc::new(CpuBackend)];
        for inner in engines {
            let honest = Skewed {
                inner: inner.clone(),
                file: "",
                skew: Skew::Nothing,
            };
            let honest = perceptor(&out, Arc::new(honest));
            for c in honest.compare_with_references().unwrap() {
                println!(
                    "{precision} on {}: {} ({}): {c}",
                    inner.name(),
                    c.part,
                    c.asked
                );
                assert!(c.passed());
            }
            answer(&honest).unwrap();
            let file = match precision {
                Precision::Fp16 => "backbone-fp16.onnx",
                Precision::Int8 => "backbone-int8.onnx",
                _ => "backbone-fp16-weights.onnx",
            };
            for skew in [Skew::Shuffled, Skew::Off(0.42)] {
                let inner = inner.clone();
                let wrong = Skewed { inner, file, skew };
                let e = answer(&perceptor(&out, Arc::new(wrong))).unwrap_err();
                assert!(e.to_string().contains("backbone-"), "{e}");
            }
        }
    }
}

#[test]
fn a_bundle_without_references_is_run_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = without_references(bundle(directory.path()));
    let auto = perceptor(&bundle, fallback(skewed("queries.onnx", Skew::Scaled(2.0))));
    answer(&auto).unwrap();
    assert_eq!(auto.health().state, State::Healthy);
    let checks = verify_with(Bundle::open(&bundle).unwrap(), Arc::new(CpuBackend)).unwrap();
    assert!(
        checks
            .iter()
            .all(|c| c.passed && !c.name.contains("references"))
    );
}

#[test]
fn damaged_references_are_errors_that_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let good = bundle(directory.path());
    // With another width and the correct hash.
    let other = directory.path().join("other.loftup");
    let bundle = Bundle::open(&good).unwrap();
    let mut outputs = bundle.reference_outputs().unwrap().unwrap();
    let mut wide = bundle.manifest().clone();
    let dim = wide.upsampler.as_ref().unwrap().dim;
    wide.upsampler.as_mut().unwrap().dim = dim / 2;
    outputs
        .upsampler
        .as_mut()
        .unwrap()
        .truncate(References::PIXELS * dim / 2);
    let mut writer = BundleWriter::create(&other, false).unwrap();
    for name in bundle.manifest().files.keys() {
        match name == References::FILE {
            true => writer.add(name, &outputs.to_bytes(&wide).unwrap()),
            false => writer.add(name, &bundle.read(name).unwrap()),
        }
        .unwrap();
    }
    writer.seal(bundle.manifest().clone()).unwrap();
    writer.commit().unwrap();
    let e = answer(&perceptor(&other, fallback(skewed("", Skew::Nothing)))).unwrap_err();
    let e = e.to_string();
    println!("{e}");
    assert!(
        e.contains(References::FILE) && e.contains("expected F32 [64, 48]"),
        "{e}"
    );
    let e = verify_with(Bundle::open(&other).unwrap(), Arc::new(CpuBackend)).unwrap_err();
    assert!(e.to_string().contains(References::FILE), "{e}");

    let file = good.join(References::FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let e = Bundle::open(&good).unwrap_err().to_string();
    assert!(e.contains(References::FILE) && e.contains("SHA-256"), "{e}");
}

#[test]
fn a_plausible_tensorrt_is_replaced_or_refused_with_its_version() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle(directory.path());
    let expected = answer(&perceptor(&bundle, Arc::new(CpuBackend))).unwrap();
    for layout in [Layout::V8, Layout::V10, Layout::V11] {
        let Some(fake) = Fake::new(layout) else {
            return;
        };
        fake.set("enqueue", "plausible");
        fake.set("dim.tokens", "grid.1*grid.2");
        fake.set("dim.pixels", "guidance.0*guidance.2-4*guidance.3-4");
        let cache = tempfile::tempdir().unwrap();
        let settings = Settings {
            tensorrt: tensorrt::Options {
                library: Some(fake.library()),
                libcuda: Some(fake.libcuda()),
                cache: EngineCache::at(cache.path()),
                ..tensorrt::Options::default()
            },
            fallback: FallbackOptions::default(),
            ..Settings::default()
        };
        let auto = perceptor(&bundle, open(Choice::Auto, &settings).unwrap());
        let version = auto.engine();
        assert!(answer(&auto).unwrap() == expected, "{layout:?}");
        let health = auto.health();
        let reason = health.reason().expect("degraded");
        println!("{layout:?}: {reason}");
        assert!(
            reason.contains(&version) && reason.contains("backbone.onnx"),
            "{reason}"
        );
        assert_eq!((health.answering, health.counters.wrong), ("tract", 1));

        let alone = perceptor(&bundle, open(Choice::TensorRt, &settings).unwrap());
        let e = answer(&alone).unwrap_err().to_string();
        assert!(e.contains(&version) && e.contains("wrong outputs"), "{e}");

        if layout != Layout::V10 {
            continue;
        }
        // `verify` gives the same two results.
        let opened = || Bundle::open(&bundle).unwrap();
        let auto = open(Choice::Auto, &settings).unwrap();
        let checks = verify_with(opened(), auto.clone()).unwrap();
        assert!(checks.iter().all(|c| c.passed));
        assert!(auto.health().reason().unwrap().contains("wrong outputs"));
        let e = verify_with(opened(), open(Choice::TensorRt, &settings).unwrap());
        assert!(e.unwrap_err().to_string().contains(&version));
    }
}
