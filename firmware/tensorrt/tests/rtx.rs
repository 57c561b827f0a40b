//! Tests with NVIDIA's real TensorRT-RTX, which can parse and build without a GPU: parser, builder,
//! configuration, profiles and progress monitor, with the 10.x tables (1.4, except for the
//! configuration) and the 11.x tables (1.7).
//!
//! Runs if `tools/fetch_tensorrt.sh` has downloaded the libraries, each test in its own process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use loftup_tensorrt::cuda::{Cuda, Device};
use loftup_tensorrt::testing::{Fake, cached, in_child, skipped};
use loftup_tensorrt::{
    Builder, DataType, Error, Layout, Library, OnnxParser, Progress, Runtime, ShapeRange,
    TensorInfo,
};

const RELEASES: [(&str, Layout); 2] = [("rtx-1.4", Layout::Rtx1_4), ("rtx-1.7", Layout::Rtx1_5)];

/// Runs `body` in a child process with the release, if it was downloaded.
fn with(release: usize, test: &str, body: impl FnOnce(&Library)) {
    let (name, layout) = RELEASES[release];
    let Some(directory) = cached(name) else {
        return;
    };
    in_child(test, || {
        let library = Library::open(&directory).unwrap();
        assert_eq!(library.layout(), layout);
        assert!(library.can_build());
        body(&library);
    });
}

/// Defines a test for both releases.
macro_rules! with_both {
    ($(#[$meta:meta])* $name:ident, $body:expr) => {
        mod $name {
            use super::*;
            #[test]
            fn with_rtx_1_4() {
                with(0, concat!(stringify!($name), "::with_rtx_1_4"), $body);
            }
            #[test]
            fn with_rtx_1_7() {
                with(1, concat!(stringify!($name), "::with_rtx_1_7"), $body);
            }
        }
    };
}

fn model(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(name),
    )
    .unwrap()
}

struct Steps(AtomicU32, u32);

impl Progress for Steps {
    fn step_done(&self, _: &str, _: u32) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) < self.1
    }
}

struct Built {
    engine: Vec<u8>,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    steps: u32,
}

fn build(
    library: &Library,
    name: &str,
    workspace: u64,
    range: Option<ShapeRange>,
    most_steps: u32,
) -> Result<Built, Error> {
    let builder = Builder::new(library, None)?;
    assert_eq!(builder.dla_core_count()?, 0);
    let mut parser = OnnxParser::new(builder.network()?)?;
    parser.parse(&model(name), None)?;
    let network = parser.network();
    assert!(network.layer_count()? >= 5);
    let mut config = builder.config()?;
    config.set_workspace(workspace)?;
    assert_eq!(config.workspace()?, workspace);
    config.allow_tf32(false)?;
    config.set_targets(&[(8, 6)])?;
    if let Some(range) = range {
        let mut profile = builder.profile()?;
        profile.set(range)?;
        assert_eq!(config.add_profile(&profile)?, 0);
    }
    let steps = Arc::new(Steps(AtomicU32::new(0), most_steps));
    config.set_progress(steps.clone())?;
    let start = Instant::now();
    let engine = builder.build(network, &config)?.as_slice().to_vec();
    println!(
        "{} {name}: {} bytes in {:.2} s, {} steps",
        library.version(),
        engine.len(),
        start.elapsed().as_secs_f64(),
        steps.0.load(Ordering::SeqCst)
    );
    assert!(engine.len() > 10_000);
    let (inputs, outputs) = (network.inputs()?, network.outputs()?);
    Ok(Built {
        engine,
        inputs,
        outputs,
        steps: steps.0.load(Ordering::SeqCst),
    })
}

fn range(input: &str, low: [i64; 4], opt: [i64; 4], high: [i64; 4]) -> ShapeRange {
    ShapeRange {
        input: input.into(),
        min: low.to_vec(),
        opt: opt.to_vec(),
        max: high.to_vec(),
    }
}

fn check(tensor: &TensorInfo, name: &str, data_type: DataType, shape: &[i64]) {
    assert_eq!(
        (
            tensor.name.as_str(),
            tensor.data_type,
            tensor.shape.as_slice()
        ),
        (name, data_type, shape)
    );
}

with_both!(
    single_precision_is_built_and_described,
    |library: &Library| {
        let built = build(library, "small_fp32.onnx", 1 << 28, None, u32::MAX).unwrap();
        check(&built.inputs[0], "image", DataType::F32, &[1, 3, 6, 10]);
        check(&built.outputs[0], "features", DataType::F32, &[1, 60, 4]);
        assert_eq!((built.inputs.len(), built.outputs.len()), (1, 1));
        assert!(
            built.steps > 10,
            "the progress monitor received {} steps",
            built.steps
        );
    }
);

with_both!(
    half_precision_is_strongly_typed_and_smaller,
    |library: &Library| {
        let single = build(library, "small_fp32.onnx", 1 << 28, None, u32::MAX).unwrap();
        let half = build(library, "small_fp16.onnx", 1 << 28, None, u32::MAX).unwrap();
        check(&half.inputs[0], "image", DataType::F16, &[1, 3, 6, 10]);
        check(&half.outputs[0], "features", DataType::F16, &[1, 60, 4]);
        assert!(half.engine.len() < single.engine.len());
    }
);

with_both!(
    free_dimensions_are_built_with_a_profile,
    |library: &Library| {
        let shapes = range("image", [1, 3, 4, 4], [1, 3, 6, 10], [2, 3, 32, 32]);
        let built = build(
            library,
            "small_dynamic.onnx",
            1 << 28,
            Some(shapes),
            u32::MAX,
        )
        .unwrap();
        check(&built.inputs[0], "image", DataType::F32, &[-1, 3, -1, -1]);
        check(&built.outputs[0], "features", DataType::F32, &[-1, -1, 4]);
    }
);

with_both!(profiles_that_do_not_fit_are_refused, |library: &Library| {
    let error = build(library, "small_dynamic.onnx", 1 << 28, None, 1)
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        matches!(error, Error::NoProfile { .. }) && text.contains("image"),
        "{text}"
    );
    for (shapes, expected) in [
        (
            range("image", [1, 3, 8, 8], [1, 3, 4, 4], [1, 3, 16, 16]),
            "must ascend",
        ),
        (
            range("image", [1, 1, 4, 4], [1, 3, 4, 4], [1, 3, 16, 16]),
            "fixed at 3",
        ),
        (
            range("other", [1, 3, 4, 4], [1, 3, 4, 4], [1, 3, 4, 4]),
            "no optimization profile covers",
        ),
    ] {
        let text = build(library, "small_dynamic.onnx", 1 << 28, Some(shapes), 1)
            .err()
            .unwrap()
            .to_string();
        assert!(text.contains(expected), "{text}");
    }
});

with_both!(
    too_little_workspace_is_an_error_of_its_own,
    |library: &Library| {
        for limit in [0, 1024, 1_000_000] {
            let error = build(library, "wide.onnx", limit, None, u32::MAX)
                .err()
                .unwrap();
            println!("{error}");
            assert_eq!(
                error,
                Error::WorkspaceTooSmall {
                    needed: None,
                    limit
                }
            );
        }
        build(library, "wide.onnx", 1 << 28, None, u32::MAX).unwrap();
    }
);

with_both!(broken_models_are_parse_errors, |library: &Library| {
    let whole = model("small_fp32.onnx");
    let builder = Builder::new(library, None).unwrap();
    let fresh = || OnnxParser::new(builder.network().unwrap()).unwrap();
    // Truncated anywhere, or with modified bytes: an error or a graph, never a crash.
    let mut refused = 0;
    for cut in (0..whole.len()).step_by(97) {
        match fresh().parse(&whole[..cut], None) {
            Err(Error::Parse { .. }) => refused += 1,
            Err(other) => panic!("cut at {cut}: {other}"),
            Ok(()) => {}
        }
    }
    assert!(refused >= 20, "{refused}");
    let mut bytes = whole.clone();
    for position in (0..bytes.len()).step_by(131) {
        bytes[position] ^= 0x55;
        if let Err(error) = fresh().parse(&bytes, None) {
            assert!(matches!(error, Error::Parse { .. }), "{error}");
        }
        bytes[position] ^= 0x55;
    }
    let error = fresh()
        .parse(&model("unknown_operator.onnx"), None)
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("node culprit (NoSuchOperator)"), "{text}");
    assert!(!text.contains('\n'), "{text}");
    println!("{text}");
});

with_both!(a_build_is_cancelled_by_its_monitor, |library: &Library| {
    let error = build(library, "small_fp32.onnx", 1 << 28, None, 3)
        .err()
        .unwrap();
    assert_eq!(error, Error::Cancelled);
    build(library, "small_fp32.onnx", 1 << 28, None, u32::MAX).unwrap();
});

with_both!(
    targets_the_library_does_not_know_are_refused,
    |library: &Library| {
        let builder = Builder::new(library, None).unwrap();
        let mut config = builder.config().unwrap();
        config.set_targets(&[(7, 5), (8, 9), (12, 0)]).unwrap();
        let text = config.set_targets(&[(8, 7)]).unwrap_err().to_string();
        assert!(
            text.contains("Compute capability is invalid or not supported"),
            "{text}"
        );
        assert!(matches!(
            config.use_dla(0),
            Err(Error::Missing { what: "DLA", .. })
        ));
    }
);

with_both!(
    a_timing_cache_is_attached_and_read_back,
    |library: &Library| {
        let builder = Builder::new(library, None).unwrap();
        let mut config = builder.config().unwrap();
        match config.set_timing_cache(&[]) {
            Ok(()) => {
                let bytes = config.timing_cache().unwrap().unwrap();
                println!(
                    "{}: empty timing cache of {} bytes",
                    library.version(),
                    bytes.as_slice().len()
                );
            }
            // TensorRT-RTX may not support it when building ahead of time; then it returns an
            // error.
            Err(error) => println!("{}: {error}", library.version()),
        }
        if let Err(error) = config.set_timing_cache(b"not a timing cache") {
            println!("{}: {error}", library.version());
        }
    }
);

with_both!(an_engine_is_not_read_without_a_gpu, |library: &Library| {
    let built = build(library, "small_fp32.onnx", 1 << 28, None, u32::MAX).unwrap();
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    if Cuda::find().is_ok() {
        skipped("this machine has a GPU");
        return;
    }
    // The mock libcuda, which only this crate uses, gets past the check for a GPU.
    let device = Device::new(&Cuda::open(&fake.libcuda()).unwrap(), 0).unwrap();
    match Runtime::new(library, &device) {
        Ok(mut runtime) => {
            runtime.set_max_threads(2).unwrap();
            let error = runtime.deserialize(&built.engine).unwrap_err();
            println!("{}: {error}", library.version());
            assert!(matches!(error, Error::Refused { .. }), "{error}");
            for damaged in [&built.engine[..100], &b"nonsense"[..]] {
                let error = runtime.deserialize(damaged).unwrap_err();
                println!("{}: {error}", library.version());
                assert!(
                    matches!(error, Error::Deserialize { stale: false, .. }),
                    "{error}"
                );
            }
        }
        Err(error) => {
            println!("{}: {error}", library.version());
            assert!(
                matches!(error, Error::NoCuda { .. } | Error::Refused { .. }),
                "{error}"
            );
        }
    }
});

with_both!(builders_come_and_go_in_any_order, |library: &Library| {
    for _ in 0..3 {
        let builder = Builder::new(library, None).unwrap();
        let other = Builder::new(library, None).unwrap();
        let network = builder.network().unwrap();
        let config = builder.config().unwrap();
        let foreign = other.config().unwrap();
        assert!(matches!(
            builder.build(&network, &foreign),
            Err(Error::Argument(_))
        ));
        let profile = other.profile().unwrap();
        // Objects created by a builder keep it alive.
        drop(builder);
        assert!(network.inputs().unwrap().is_empty());
        drop((config, network, profile, other, foreign));
    }
});
