//! Heads in the queries graph give what features and then the head give.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex},
};

use loftup_bundle::{HeadKind, Linear, Precision, Size};
use loftup_onnx::{
    loftup::with_head,
    rewrite::{self, Model},
};
use loftup_runtime::{
    EncodedFrame, Perceptor, Point, Rect, RuntimeError,
    backend::{
        Arithmetic, Backend, BackendError, CpuBackend, Fallback, FallbackOptions, Graph,
        Model as Loaded, State, TractBackend,
        fault::{Fault, Faults, Faulty},
    },
    heads::Head,
    sinks::VecSink,
};
use loftup_spec::{HALO, io};
use loftup_tests::{
    frames::{DIM, perceptor, view, worst},
    synthetic::{Noise, loftup, upsampler_bundle},
    wrong::{Outputs, Wrong},
};

/// A backend that runs heads or does not, whatever the inner one prefers; keeps the outputs of the
/// graphs that it loads.
struct Heads {
    inner: Arc<dyn Backend>,
    fused: bool,
    outputs: Mutex<Vec<Vec<String>>>,
}

impl Heads {
    fn new(inner: impl Backend + 'static, fused: bool) -> Arc<Self> {
        let inner = Arc::new(inner);
        let outputs = Mutex::default();
        Arc::new(Self {
            inner,
            fused,
            outputs,
        })
    }
}

impl Backend for Heads {
    fn name(&self) -> &'static str {
        "heads"
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }

    fn fuses_heads(&self) -> bool {
        self.fused
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Loaded>, BackendError> {
        self.outputs.lock().unwrap().push(graph.outputs.to_vec());
        self.inner.load(graph)
    }
}

fn head(perceptor: &Perceptor, kind: HeadKind) -> Head {
    let rows = kind.rows();
    let mut noise = Noise::new(rows as u64 + 4);
    let linear = Linear {
        inputs: DIM,
        weight: noise.vec(rows * DIM),
        bias: noise.vec(rows),
    };
    let (dim, file) = (DIM, String::new());
    let manifest = loftup_bundle::Head { kind, dim, file };
    perceptor.custom_head(manifest, linear).unwrap()
}

fn classes(n: usize) -> HeadKind {
    let names = (0..n).map(|i| i.to_string()).collect();
    HeadKind::Classes { names }
}

fn kinds() -> Vec<HeadKind> {
    let depth = |bins| HeadKind::Depth {
        min_meters: 0.1,
        max_meters: 10.0,
        bins,
    };
    let words = |n: usize, negative: usize, threshold| HeadKind::Words {
        names: (0..n).map(|i| i.to_string()).collect(),
        negative: (0..negative).map(|i| i.to_string()).collect(),
        threshold,
    };
    vec![
        classes(1),
        classes(5),
        // More outputs than channels.
        classes(30),
        HeadKind::Descriptors { channels: DIM },
        depth(None),
        // More outputs than an engine is built for.
        depth(Some(300)),
        words(1, 0, None),
        words(4, 2, None),
        words(3, 0, Some(0.05)),
    ]
}

/// The frame, a region and points, one after the other.
fn all_of(view: &EncodedFrame<'_>) -> Result<Vec<f32>, RuntimeError> {
    let Size { width, height } = view.size();
    let mut found = VecSink::new(Rect::whole(view.size()), view.dim())?;
    view.frame(&mut |tile| found.push(tile))?;
    let mut values = found.into_values();
    let rect = Rect {
        x: width / 3,
        y: height / 2,
        width: width.div_ceil(2).min(width - width / 3),
        height: height.div_ceil(3).min(height - height / 2),
    };
    let mut found = VecSink::new(rect, view.dim())?;
    view.region(rect, &mut |tile| found.push(tile))?;
    values.extend(found.values());
    let points: Vec<Point> = (0..3)
        .map(|i| Point {
            x: i * 7 % width,
            y: i * 5 % height,
        })
        .collect();
    values.extend(view.points(&points)?);
    Ok(values)
}

/// The largest difference; pixels without a word are negative infinity in both.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    let finite = |v: &[f32]| -> Vec<f32> {
        let none = |x: &f32| if *x == f32::NEG_INFINITY { -9.0 } else { *x };
        v.iter().map(none).collect()
    };
    worst(&finite(a), &finite(b))
}

/// Opens an engine that runs heads, or not.
type Engine = fn(bool) -> Arc<Heads>;

#[test]
fn a_head_in_the_graph_gives_what_the_two_steps_give() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(DIM, 3, directory.path());
    // Size and tile: odd, one pixel, larger and smaller than a tile.
    let sizes = [((43, 29), 8), ((1, 1), 8), ((3, 17), 5), ((9, 2), 64)];
    let engines: [(&str, Engine); 2] = [
        ("tract", |fused| Heads::new(TractBackend, fused)),
        ("kernels", |fused| Heads::new(CpuBackend, fused)),
    ];
    for (name, engine) in engines {
        let (mut linear, mut words) = (0f32, 0f32);
        for ((width, height), tile) in sizes {
            let size = Size { width, height };
            let (fused, two_steps) = (engine(true), engine(false));
            let fused = (perceptor(&bundle, fused.clone(), 2, tile), fused);
            let two_steps = perceptor(&bundle, two_steps, 2, tile);
            // The features are those of the same graph.
            let features = all_of(&view(&fused.0, size).unwrap()).unwrap();
            assert!(features == all_of(&view(&two_steps, size).unwrap()).unwrap());
            for kind in kinds() {
                let head = head(&fused.0, kind.clone());
                let of = |perceptor: &Perceptor| {
                    all_of(&view(perceptor, size).unwrap().with_head(&head).unwrap()).unwrap()
                };
                let difference = apart(&of(&fused.0), &of(&two_steps));
                let values = match kind {
                    HeadKind::Words { .. } => head.kind().rows() + 2,
                    _ => head.outputs(),
                };
                assert_eq!(fused.0.values_per_pixel(Some(&head)), values);
                assert_eq!(two_steps.values_per_pixel(Some(&head)), DIM);
                let worst = match kind {
                    HeadKind::Words { .. } => &mut words,
                    _ => &mut linear,
                };
                *worst = worst.max(difference);
            }
            let outputs = fused.1.outputs.lock().unwrap();
            for wanted in [&[io::UPSAMPLED][..], &[io::HEAD], &[io::HEAD, io::MOMENTS]] {
                assert!(
                    outputs.iter().any(|names| names[..] == *wanted),
                    "{outputs:?}"
                );
            }
        }
        println!("{name}: linear heads differ by {linear:.1e}, words by {words:.1e}");
        // Sums of 12 products of about 1 in 32 bits, in another order; cosines of such sums.
        assert!(linear < 1e-5 && words < 1e-5);
        // The kernels' product is the one that runs after them.
        assert!(name == "tract" || linear == 0.0);
    }
}

type Shapes = Vec<(String, Vec<usize>)>;

/// Inputs of a queries graph with a head of 7 outputs for a tile of 9x6 pixels.
fn question() -> (Vec<u8>, Shapes, Vec<Vec<f32>>) {
    let model = loftup_import::loftup::read(&loftup(48, 2)).unwrap();
    let config = model.config();
    let (rows, cols, tokens) = (9 + 2 * HALO, 6 + 2 * HALO, 20);
    let mut shapes = vec![
        (io::GUIDANCE.to_owned(), vec![1, 3, rows, cols]),
        (io::COORDS.to_owned(), vec![1, 2, rows, cols]),
        (io::MASK.to_owned(), vec![1, 1, rows, cols]),
    ];
    let (heads, width) = (config.heads, config.padded_head_width());
    for i in 0..config.layers {
        shapes.push((io::key(i), vec![heads, width, tokens]));
        shapes.push((io::value(i), vec![heads, tokens, width]));
    }
    shapes.extend([
        (io::HEAD_WEIGHT.to_owned(), vec![7, 48]),
        (io::HEAD_BIAS.to_owned(), vec![7]),
        (io::HEAD_SCALE.to_owned(), vec![48]),
        (io::HEAD_OFFSET.to_owned(), vec![48]),
    ]);
    let mut noise = Noise::new(4);
    let mut values: Vec<Vec<f32>> = shapes
        .iter()
        .map(|(_, s)| noise.vec(s.iter().product()))
        .collect();
    values[2].fill(1.0);
    (model.queries_graph(), shapes, values)
}

#[test]
fn the_kernels_run_queries_with_a_head_in_every_precision() {
    let (onnx, shapes, values) = question();
    let model = Model::decode(&onnx).unwrap();
    let layers = rewrite::layers(&model);
    let chosen: HashSet<String> = layers.iter().map(|l| l.output.clone()).collect();
    let ranges: BTreeMap<String, f32> =
        layers.iter().map(|l| (l.activation.clone(), 4.0)).collect();
    let graphs = [
        (Precision::Fp32, onnx),
        (
            Precision::Fp16,
            rewrite::to_half(&model, &BTreeSet::new()).unwrap().encode(),
        ),
        (
            Precision::Int8,
            rewrite::to_int8(&model, &chosen, &ranges).unwrap().encode(),
        ),
        (
            Precision::Fp16Weights,
            rewrite::half_weights(&model).unwrap().encode(),
        ),
    ];
    let (names, sizes): (Vec<_>, Vec<_>) = shapes.into_iter().unzip();
    let wanted = [io::MOMENTS, io::UPSAMPLED, io::HEAD];
    let expected_shapes = [[54, 2], [54, 48], [54, 7]];
    for (precision, onnx) in graphs {
        let onnx = with_head(&onnx).unwrap();
        let ask = |backend: &dyn Backend| {
            let graph = Graph {
                precision,
                ..Graph::new("queries.onnx", &*onnx, &names, &wanted)
            };
            let plan = backend.load(&graph).unwrap().compile(&sizes, &[]).unwrap();
            let mut session = plan.session().unwrap();
            for (i, values) in values.iter().enumerate() {
                session.set(i, values).unwrap();
            }
            assert!(session.output(2).is_empty());
            session.run().unwrap();
            for (i, shape) in expected_shapes.iter().enumerate() {
                assert_eq!(plan.output_shape(i), shape);
            }
            [0, 1, 2].map(|i| session.output(i).to_vec())
        };
        let (kernels, tract) = (ask(&CpuBackend), ask(&TractBackend));
        let differences = [0, 1, 2].map(|i| worst(&kernels[i], &tract[i]));
        let [moments, features, scores] = differences;
        println!(
            "{precision}: kernels and tract differ by {features:.1e}, heads by {scores:.1e}, moments by {moments:.1e}"
        );
        // As for features. The head adds 48 of them with weights of about 0.6.
        assert!(differences[1] > 0.0, "tract ran both");
        assert!(differences[0] < 2e-3 && differences[1] < 2e-3 && differences[2] < 1e-2);
        // The head of these features, in 64 bits.
        let [weight, bias, scale, offset] = [7, 8, 9, 10].map(|i| &values[i]);
        for [moments, features, scores] in [&kernels, &tract] {
            let pixels = features
                .chunks(48)
                .zip(scores.chunks(7))
                .zip(moments.chunks(2));
            for ((pixel, scores), moments) in pixels {
                let x: Vec<f64> = (0..48)
                    .map(|i| f64::from(pixel[i]) * f64::from(scale[i]) + f64::from(offset[i]))
                    .collect();
                let close = |found: f32, expected: f64| {
                    assert!(
                        (f64::from(found) - expected).abs() < 1e-5,
                        "{found} {expected}"
                    );
                };
                for k in 0..7 {
                    let row = weight[k * 48..][..48].iter().zip(&x);
                    let sum: f64 = row.map(|(w, x)| f64::from(*w) * x).sum();
                    close(scores[k], sum + f64::from(bias[k]));
                }
                close(moments[0], x.iter().sum::<f64>() / 48.0);
                close(moments[1], x.iter().map(|x| x * x).sum::<f64>() / 48.0);
            }
        }
    }
}

#[test]
fn the_fallback_goes_on_with_the_head_in_the_middle_of_a_frame() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(DIM, 3, directory.path());
    let size = Size {
        width: 43,
        height: 29,
    };
    let cpu = perceptor(&bundle, Arc::new(CpuBackend), 1, 8);
    for kind in kinds() {
        let head = head(&cpu, kind.clone());
        let of = |perceptor: &Perceptor| {
            all_of(&view(perceptor, size).unwrap().with_head(&head).unwrap()).unwrap()
        };
        let faults = Faults::none();
        faults.at_run(5, Fault::Error);
        let preferred: Arc<dyn Backend> = Arc::new(Faulty::new(TractBackend, faults));
        let options = FallbackOptions::default();
        let auto = Fallback::new(Ok(preferred), Arc::new(CpuBackend), options);
        assert!(auto.fuses_heads());
        let auto = perceptor(&bundle, Arc::new(auto), 1, 8);
        let difference = apart(&of(&auto), &of(&cpu));
        assert!(matches!(auto.health().state, State::Degraded { .. }));
        println!("{kind:?}: {difference:.1e}");
        // Some tiles are tract's, which differ by 1e-4 in each of 12 channels.
        assert!(difference < 1e-3, "{difference}");
    }
}

#[test]
fn an_engine_with_a_wrong_head_is_refused_or_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(DIM, 3, directory.path());
    let cpu = perceptor(&bundle, Arc::new(CpuBackend), 1, 8);
    let size = Size {
        width: 11,
        height: 9,
    };
    let head = head(&cpu, classes(3));
    let of = |perceptor: &Perceptor| {
        let view = view(perceptor, size)?;
        all_of(&view.with_head(&head)?)
    };
    let expected = of(&cpu).unwrap();
    for (output, asked) in [
        (io::UPSAMPLED, "(points)"),
        (io::HEAD, "(head, points)"),
        (io::MOMENTS, "(head, points)"),
    ] {
        let outputs = Outputs::Named(output);
        let wrong = || Arc::new(Wrong { outputs, by: 1.01 });
        let alone = perceptor(&bundle, wrong(), 1, 8);
        let e = of(&alone).unwrap_err().to_string();
        println!("{output}: {e}");
        assert!(e.contains("wrong outputs") && e.contains(asked), "{e}");
        let options = FallbackOptions::default();
        let auto = Fallback::new(Ok(wrong()), Arc::new(CpuBackend), options);
        let auto = perceptor(&bundle, Arc::new(auto), 1, 8);
        assert!(of(&auto).unwrap() == expected, "{output}");
        assert_eq!(auto.health().counters.wrong, 1);
    }
    let right = Wrong {
        outputs: Outputs::None,
        by: 1.0,
    };
    let right = perceptor(&bundle, Arc::new(right), 1, 8);
    assert!(worst(&of(&right).unwrap(), &expected) < 1e-3);
    for comparison in right.compare_with_references().unwrap() {
        println!("{}: {comparison}", comparison.asked);
        assert!(comparison.passed());
    }
}

#[test]
fn a_graph_that_no_head_fits_is_refused_in_one_line() {
    let (onnx, ..) = question();
    let fused = with_head(&onnx).unwrap();
    let keys = loftup_import::loftup::read(&loftup(48, 2))
        .unwrap()
        .keys_graph();
    for (onnx, named) in [
        (&fused[..], io::HEAD_WEIGHT),
        (&keys[..], io::UPSAMPLED),
        (&b"no model"[..], "ONNX"),
    ] {
        let e = with_head(onnx).unwrap_err().to_string();
        assert!(e.contains(named) && e.lines().count() == 1, "{e}");
    }
}
