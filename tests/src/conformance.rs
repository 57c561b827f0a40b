//! Conformance tests for backends, one function per requirement.
//!
//! The test of a backend runs all of [`CASES`] except its list of known gaps.

use std::thread;

use loftup_onnx::Graph;
use loftup_runtime::backend::{
    Backend, BackendError, Graph as Source, Plan, ShapeBounds, ShapeProfile, compile_once,
};
use loftup_spec::{HALO, io, linspace};

use crate::synthetic::{Noise, loftup};

/// A test case: its name, and a function that panics if the backend fails.
pub type Case = (&'static str, fn(&dyn Backend));

/// All test cases.
pub const CASES: &[Case] = &[
    ("reports the shapes of outputs", reports_output_shapes),
    ("computes what the graph says", computes_the_graph),
    ("keeps inputs between runs", keeps_inputs),
    ("gives the same answer every time", repeats_itself),
    ("runs sessions side by side", runs_side_by_side),
    ("runs the upsampler at awkward sizes", runs_awkward_sizes),
    ("serves every shape of its profiles", serves_profiles),
    (
        "compiles one model for several shapes at a time",
        compiles_side_by_side,
    ),
    ("refuses another number of shapes", refuses_other_counts),
    (
        "puts nothing out before a run",
        puts_nothing_out_before_a_run,
    ),
    ("drops sessions in any order", drops_in_any_order),
    ("says how it is", says_how_it_is),
    ("refuses inputs of another size", refuses_other_sizes),
    ("refuses to run without its inputs", refuses_missing_inputs),
    ("refuses what is no graph", refuses_garbage),
    ("refuses unknown names", refuses_unknown_names),
];

/// Runs all test cases except `known_gaps`.
///
/// # Panics
/// If a case fails, or a known gap is not a case.
pub fn run(backend: &dyn Backend, known_gaps: &[&str]) {
    for gap in known_gaps {
        assert!(
            CASES.iter().any(|(name, _)| name == gap),
            "{gap:?} is no case"
        );
    }
    for (name, case) in CASES {
        if known_gaps.contains(name) {
            println!("{}: {name}: known gap", backend.name());
            continue;
        }
        println!("{}: {name}", backend.name());
        case(backend);
    }
}

const ROWS: usize = 3;
const COLS: usize = 5;

/// `y = gelu(x W + b) + z` with x and z `[3, 5]`.
fn small_graph() -> Vec<u8> {
    let mut noise = Noise::new(1);
    let mut tensor = |shape: &[usize]| {
        let data = noise.vec(shape.iter().product());
        loftup_onnx::Tensor::new(shape, data).expect("a tensor")
    };
    let mut g = Graph::new("small");
    let shape = [ROWS.into(), COLS.into()];
    let x = g.input("x", &shape);
    let z = g.input("z", &shape);
    let y = g.linear(&x, &tensor(&[COLS, COLS]), Some(&tensor(&[COLS])));
    let y = g.gelu(&y);
    let y = g.add(&y, &z);
    g.output(&y, "y", &shape);
    g.finish()
}

fn compile(backend: &dyn Backend, onnx: &[u8]) -> Result<Box<dyn Plan>, BackendError> {
    let shape: &[usize] = &[ROWS, COLS];
    compile_once(
        backend,
        "small.onnx",
        onnx,
        &[("x", shape), ("z", shape)],
        &["y"],
    )
}

fn small(backend: &dyn Backend) -> Box<dyn Plan> {
    compile(backend, &small_graph()).expect("the small graph")
}

/// The output of the small graph, computed in 64 bits.
fn reference(x: &[f32], z: &[f32]) -> Vec<f64> {
    let mut noise = Noise::new(1);
    let (w, b) = (noise.vec(COLS * COLS), noise.vec(COLS));
    let at = |v: &[f32], i: usize| f64::from(v[i]);
    (0..ROWS * COLS)
        .map(|i| {
            let (r, o) = (i / COLS, i % COLS);
            let dot: f64 = (0..COLS)
                .map(|c| at(x, r * COLS + c) * at(&w, o * COLS + c))
                .sum();
            let t = dot + at(&b, o);
            t * 0.5 * (1.0 + erf(t / 2f64.sqrt())) + at(z, i)
        })
        .collect()
}

/// The error function by its power series: slow, but accurate to 1e-12 for arguments up to 4.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn inputs(seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut noise = Noise::new(seed);
    (noise.vec(ROWS * COLS), noise.vec(ROWS * COLS))
}

fn answer(plan: &dyn Plan, x: &[f32], z: &[f32]) -> Vec<f32> {
    let mut session = plan.session().expect("a session");
    session.set(0, x).expect("x");
    session.set(1, z).expect("z");
    session.run().expect("a run");
    session.output(0).to_vec()
}

fn reports_output_shapes(backend: &dyn Backend) {
    assert_eq!(small(backend).output_shape(0), [ROWS, COLS]);
}

fn computes_the_graph(backend: &dyn Backend) {
    let (x, z) = inputs(2);
    let worst = answer(&*small(backend), &x, &z)
        .iter()
        .zip(reference(&x, &z))
        .map(|(a, b)| (f64::from(*a) - b).abs())
        .fold(0.0, f64::max);
    println!("  worst error {worst:.1e}");
    // Five products in 32 bits and an erf with seven digits.
    assert!(worst < 2e-6, "{worst}");
}

fn keeps_inputs(backend: &dyn Backend) {
    let plan = small(backend);
    let ((x, z), (other, _)) = (inputs(3), inputs(4));
    let mut session = plan.session().expect("a session");
    session.set(0, &x).expect("x");
    session.set(1, &z).expect("z");
    session.run().expect("a run");
    session.set(0, &other).expect("x");
    session.run().expect("a second run");
    assert_eq!(session.output(0), answer(&*plan, &other, &z));
}

fn repeats_itself(backend: &dyn Backend) {
    let plan = small(backend);
    let (x, z) = inputs(5);
    let first = answer(&*plan, &x, &z);
    for _ in 0..20 {
        assert_eq!(answer(&*plan, &x, &z), first);
    }
}

fn runs_side_by_side(backend: &dyn Backend) {
    let plan = small(backend);
    let expected: Vec<_> = (0..4)
        .map(|seed| {
            let (x, z) = inputs(seed);
            answer(&*plan, &x, &z)
        })
        .collect();
    thread::scope(|scope| {
        for (seed, expected) in expected.iter().enumerate() {
            let plan = &*plan;
            scope.spawn(move || {
                let (x, z) = inputs(seed as u64);
                for _ in 0..50 {
                    assert_eq!(&answer(plan, &x, &z), expected);
                }
            });
        }
    });
}

/// Keys, then queries for tiles of one pixel, of odd sides, and several at once, each compared with
/// the same tile computed alone.
fn runs_awkward_sizes(backend: &dyn Backend) {
    let model = loftup_import::loftup::read(&loftup(12, 9)).expect("an upsampler");
    let config = *model.config();
    let (h, w) = (3, 5);
    let outputs: Vec<String> = (0..config.layers)
        .flat_map(|i| [io::key(i), io::value(i)])
        .collect();
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let keys = compile_once(
        backend,
        "keys.onnx",
        model.keys_graph(),
        &[(io::FEATURES, &[1, h * w, 12]), (io::GRID, &[2, h * w])],
        &names,
    )
    .expect("the keys graph");
    let mut session = keys.session().expect("a session");
    let mut noise = Noise::new(10);
    session.set(0, &noise.vec(12 * h * w)).expect("features");
    let mut grid: Vec<f32> = Vec::new();
    grid.extend(linspace(-1.0, 1.0, h).iter().flat_map(|y| [*y; 5]));
    (0..h).for_each(|_| grid.extend(linspace(-1.0, 1.0, w)));
    session.set(1, &grid).expect("the grid");
    session.run().expect("keys");
    let pairs: Vec<Vec<f32>> = (0..names.len())
        .map(|i| session.output(i).to_vec())
        .collect();
    let shapes: Vec<Vec<usize>> = (0..names.len())
        .map(|i| keys.output_shape(i).to_vec())
        .collect();

    let pixels = [io::GUIDANCE, io::COORDS, io::MASK];
    let inputs: Vec<&str> = pixels.into_iter().chain(names.iter().copied()).collect();
    let graph = Source::new(
        "queries.onnx",
        model.queries_graph(),
        &inputs,
        &[io::UPSAMPLED],
    );
    let loaded = backend.load(&graph).expect("the queries graph");
    let queries = |tiles: usize, height: usize, width: usize, data: &[Vec<f32>; 3]| {
        let tile = |c: usize| vec![tiles, c, height + 2 * HALO, width + 2 * HALO];
        let shapes = [&[tile(3), tile(2), tile(1)], &shapes[..]].concat();
        let plan = loaded.compile(&shapes, &[]).expect("a plan for the tiles");
        assert_eq!(plan.output_shape(0), [tiles * height * width, 12]);
        let mut session = plan.session().expect("a session");
        for (i, values) in data.iter().chain(&pairs).enumerate() {
            session.set(i, values).expect("an input");
        }
        session.run().expect("a run");
        session.output(0).to_vec()
    };
    for (height, width) in [(1, 1), (1, 7), (5, 1), (7, 3), (32, 32)] {
        let pixels = (height + 2 * HALO) * (width + 2 * HALO);
        let tile = |noise: &mut Noise| {
            let mask = noise
                .vec(pixels)
                .iter()
                .map(|x| f32::from(u8::from(*x > -0.5)))
                .collect();
            [noise.vec(3 * pixels), noise.vec(2 * pixels), mask]
        };
        let (a, b) = (tile(&mut noise), tile(&mut noise));
        let both = [0, 1, 2].map(|i| [a[i].as_slice(), &b[i]].concat());
        let alone = [queries(1, height, width, &a), queries(1, height, width, &b)].concat();
        let together = queries(2, height, width, &both);
        let worst = alone
            .iter()
            .zip(&together)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |worst: f32, x| {
                if x.is_nan() {
                    f32::INFINITY
                } else {
                    worst.max(x)
                }
            });
        println!("  {height}x{width}: worst difference to the tile alone {worst:.1e}");
        assert!(worst < 1e-4, "{height}x{width}: {worst}");
    }
}

/// `y = relu(x W)` with x `[n, 5]`, for any n.
fn growing_graph() -> Vec<u8> {
    let weight = loftup_onnx::Tensor::new([COLS, COLS], Noise::new(7).vec(COLS * COLS));
    let mut g = Graph::new("growing");
    let shape = ["n".into(), COLS.into()];
    let x = g.input("x", &shape);
    let y = g.linear(&x, &weight.expect("a tensor"), None);
    let y = g.op("Relu", &[&y], &[]);
    g.output(&y, "y", &shape);
    g.finish()
}

/// Shapes inside two profiles, at their limits, and outside both: all produce the same rows.
fn serves_profiles(backend: &dyn Backend) {
    let graph = Source::new("growing.onnx", growing_graph(), &["x"], &["y"]);
    let loaded = backend.load(&graph).expect("the growing graph");
    let rows = |low: usize, usual: usize, high: usize| ShapeProfile {
        inputs: vec![ShapeBounds {
            min: vec![low, COLS],
            opt: vec![usual, COLS],
            max: vec![high, COLS],
        }],
    };
    let profiles = [rows(1, 4, 8), rows(8, 32, 40)];
    let mut noise = Noise::new(8);
    let x = noise.vec(50 * COLS);
    let run = |n: usize| {
        let plan = loaded.compile(&[vec![n, COLS]], &profiles);
        let plan = plan.expect("a plan for the rows");
        assert_eq!(plan.output_shape(0), [n, COLS]);
        let mut session = plan.session().expect("a session");
        session.set(0, &x[..n * COLS]).expect("x");
        session.run().expect("a run");
        session.output(0).to_vec()
    };
    let all = run(50);
    let mut worst = 0f32;
    for n in [1, 4, 8, 9, 32, 40, 41] {
        let part = run(n);
        assert_eq!(part.len(), n * COLS);
        let differences = part.iter().zip(&all).map(|(a, b)| (a - b).abs());
        worst = differences.fold(worst, f32::max);
    }
    println!("  worst difference between profiles {worst:.1e}");
    // Sums of five products, added in any order.
    assert!(worst < 2e-6, "{worst}");
}

/// A model is shared between threads: concurrent compilation is safe, and a plan outlives its
/// model.
fn compiles_side_by_side(backend: &dyn Backend) {
    let graph = Source::new("growing.onnx", growing_graph(), &["x"], &["y"]);
    let x = Noise::new(9).vec(8 * COLS);
    let run = |plan: Box<dyn Plan>, n: usize| {
        assert_eq!(plan.output_shape(0), [n, COLS]);
        let mut session = plan.session().expect("a session");
        session.set(0, &x[..n * COLS]).expect("x");
        session.run().expect("a run");
        session.output(0).to_vec()
    };
    let expected = |n: usize| {
        let model = backend.load(&graph).expect("the growing graph");
        let plan = model.compile(&[vec![n, COLS]], &[]).expect("a plan");
        drop(model);
        run(plan, n)
    };
    let model = backend.load(&graph).expect("the growing graph");
    thread::scope(|scope| {
        for n in [1, 3, 8] {
            let (model, run, expected) = (&model, &run, &expected);
            scope.spawn(move || {
                let expected = expected(n);
                for _ in 0..3 {
                    let plan = model.compile(&[vec![n, COLS]], &[]).expect("a plan");
                    assert_eq!(run(plan, n), expected);
                }
            });
        }
    });
    // A shape that the graph does not support leaves the model unchanged.
    assert!(model.compile(&[vec![2, COLS + 1]], &[]).is_err());
    let plan = model.compile(&[vec![3, COLS]], &[]).expect("a plan");
    assert_eq!(run(plan, 3), expected(3));
}

fn refuses_other_counts(backend: &dyn Backend) {
    let graph = Source::new("small.onnx", small_graph(), &["x", "z"], &["y"]);
    let model = backend.load(&graph).expect("the small graph");
    let shape = vec![ROWS, COLS];
    for shapes in [vec![], vec![shape.clone()], vec![shape; 3]] {
        let e = model.compile(&shapes, &[]).err().expect("an error");
        let e = e.to_string();
        assert!(e.contains("small.onnx") && e.lines().count() == 1, "{e}");
    }
}

fn puts_nothing_out_before_a_run(backend: &dyn Backend) {
    let session = small(backend).session().expect("a session");
    assert!(session.output(0).is_empty());
}

fn drops_in_any_order(backend: &dyn Backend) {
    let (x, z) = inputs(11);
    let plan = small(backend);
    let expected = answer(&*plan, &x, &z);
    let mut sessions: Vec<_> = (0..3).map(|_| plan.session().expect("a session")).collect();
    // Drop the plan first: sessions keep what they need.
    drop(plan);
    drop(sessions.remove(1));
    for mut session in sessions {
        session.set(0, &x).expect("x");
        session.set(1, &z).expect("z");
        session.run().expect("a run");
        assert_eq!(session.output(0), expected);
    }
}

fn says_how_it_is(backend: &dyn Backend) {
    let health = backend.health();
    assert!(!health.answering.is_empty() && !backend.name().is_empty());
    assert_eq!(backend.describe().lines().count(), 1);
    let tiling_hint = backend.tiling_hint();
    assert!(tiling_hint.frame > 0 && tiling_hint.region > 0 && tiling_hint.sessions > 0);
    assert!(
        health
            .reason()
            .is_none_or(|reason| reason.lines().count() == 1)
    );
}

fn refuses_other_sizes(backend: &dyn Backend) {
    let mut session = small(backend).session().expect("a session");
    match session.set(0, &[0.0; 7]) {
        Err(BackendError::Size {
            tensor,
            expected,
            found,
            ..
        }) => {
            assert_eq!((tensor.as_str(), expected, found), ("x", ROWS * COLS, 7));
        }
        other => panic!("{other:?}"),
    }
}

fn refuses_missing_inputs(backend: &dyn Backend) {
    let (x, z) = inputs(6);
    let plan = small(backend);
    let mut session = plan.session().expect("a session");
    session.set(0, &x).expect("x");
    let e = session.run().expect_err("z is missing").to_string();
    assert!(e.contains('z') && e.lines().count() == 1, "{e}");
    // The session stays usable.
    session.set(1, &z).expect("z");
    session.run().expect("a run");
    assert_eq!(session.output(0), answer(&*plan, &x, &z));
}

fn refuses_garbage(backend: &dyn Backend) {
    let graph = small_graph();
    for onnx in [&b"this is no graph"[..], &[], &graph[..graph.len() / 2]] {
        let e = compile(backend, onnx).err().expect("an error").to_string();
        assert!(e.contains("small.onnx") && e.lines().count() == 1, "{e}");
    }
}

fn refuses_unknown_names(backend: &dyn Backend) {
    let onnx = small_graph();
    let shape: &[usize] = &[ROWS, COLS];
    for (inputs, outputs) in [
        ([("x", shape), ("nothing", shape)], ["y"]),
        ([("x", shape), ("z", shape)], ["nothing"]),
    ] {
        let compiled = compile_once(backend, "small.onnx", &onnx[..], &inputs, &outputs);
        let e = compiled.err().expect("an error").to_string();
        assert!(e.contains("nothing") && e.lines().count() == 1, "{e}");
    }
}
