//! Failures at every step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loftup_tensorrt::cuda::{DeviceBuffer, Stream};
use loftup_tensorrt::{Context, Error, Executor, Layout, Runtime, ShapeRange};

use crate::bench::*;

#[test]
fn a_refused_enqueue_is_an_error_with_the_reason_and_leaves_the_executor_usable() {
    for layout in [Layout::V8, Layout::V10, Layout::V11] {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        let mut executor = bench.executor(FIXED, None);
        executor.run(LONG).unwrap();
        bench.fake.set("enqueue", "false");
        let error = executor.run(LONG).unwrap_err();
        assert!(
            error.to_string().contains("illegal memory access"),
            "{error}"
        );
        assert!(
            executor.output("features").is_err(),
            "the old output must not be readable"
        );
        bench.fake.set("enqueue", "ok");
        fill(executor.input_mut("image").unwrap(), 3.0);
        executor.run(LONG).unwrap();
        assert!(worst(&floats(executor.output("features").unwrap()), 3.0) < 1e-6);
        drop(executor);
        bench.finish();
    }
}

#[test]
fn not_a_number_comes_out_as_it_is() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let mut executor = bench.executor(FIXED, None);
    bench.fake.set("enqueue", "nan");
    executor.run(LONG).unwrap();
    assert!(
        floats(executor.output("features").unwrap())
            .iter()
            .all(|value| value.is_nan())
    );
    drop(executor);
    bench.finish();
}

#[test]
fn a_hung_gpu_is_a_timeout_and_its_memory_is_never_freed_under_it() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let mut executor = bench.executor(FIXED, None);
    bench.fake.set("stream", "stuck");
    let start = Instant::now();
    let error = executor.run(SHORT).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    // Its memory cannot be accessed, but the run can be waited for.
    assert!(executor.input_mut("image").is_err() && executor.output("features").is_err());
    assert!(executor.start().is_err());
    bench.fake.set("stream", "ok");
    executor.wait(LONG).unwrap();
    executor.output("features").unwrap();
    // Once more, but now drop it.
    bench.fake.set("stream", "stuck");
    assert!(matches!(executor.run(SHORT), Err(Error::Timeout { .. })));
    drop(executor);
    let calls = bench.fake.calls();
    assert!(
        !calls.iter().any(|call| call.starts_with("~Context")),
        "{calls:#?}"
    );
    assert_eq!(bench.fake.violations(), Vec::<String>::new());
}

#[test]
fn a_hang_inside_tensorrt_can_be_watched_from_another_thread() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let mut executor = bench.executor(FIXED, None);
    bench.fake.set("enqueue", "hang");
    let (send, receive) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        let done = executor.run(LONG);
        send.send(()).unwrap();
        (executor, done)
    });
    assert!(
        receive.recv_timeout(SHORT).is_err(),
        "the call is still inside TensorRT"
    );
    bench.fake.set("enqueue", "ok");
    let (executor, done) = worker.join().unwrap();
    done.unwrap();
    drop(executor);
    bench.finish();
}

#[test]
fn a_broken_gpu_is_reported_by_name() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let mut executor = bench.executor(FIXED, None);
    bench.fake.set("stream", "broken");
    let error = executor.run(LONG).unwrap_err();
    assert!(matches!(error, Error::Cuda { code: 700, .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("CUDA_ERROR_ILLEGAL_ADDRESS (700)"),
        "{error}"
    );
    assert!(error.to_string().contains("must be restarted"), "{error}");
    bench.fake.set("stream", "ok");
    drop(executor);
    bench.finish();
}

#[test]
fn full_memory_is_an_error_and_leaks_nothing() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let engine = bench.engine(FIXED, None);
    let stream = Stream::new(&bench.device).unwrap();
    bench.fake.set("memory", "full");
    let error = Executor::new(&engine, &stream).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("CUDA_ERROR_OUT_OF_MEMORY (2); the GPU is out of memory"),
        "{error}"
    );
    bench.fake.set("memory", "there");
    bench.fake.set("context", "null");
    let error = Executor::new(&engine, &stream).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                call: "createExecutionContext",
                ..
            }
        ),
        "{error}"
    );
    drop((engine, stream));
    bench.finish();
}

#[test]
fn engines_of_another_version_are_stale_and_damaged_ones_are_not() {
    let Some(ten) = Bench::new(Layout::V10) else {
        return;
    };
    let Some(eleven) = Bench::new(Layout::V11) else {
        return;
    };
    let bytes = eleven.build(FIXED, None).unwrap();
    let runtime = Runtime::new(&ten.library, &ten.device).unwrap();
    for (bytes, expected) in [(bytes.as_slice(), true), (b"garbage", false), (b"", false)] {
        match runtime.deserialize(bytes).unwrap_err() {
            Error::Deserialize { stale, message } => assert_eq!(stale, expected, "{message}"),
            other => panic!("{other}"),
        }
    }
    drop(runtime);
    ten.finish();
    eleven.finish();
}

#[test]
fn parser_errors_name_the_node_where_the_version_tells() {
    for layout in Layout::ALL {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        for (onnx, cut) in [
            (FIXED, FIXED.len() / 2),
            (FIXED, 0),
            (&[0xffu8; 64][..], 64),
        ] {
            let error = bench.build(&onnx[..cut], None).unwrap_err();
            assert!(matches!(error, Error::Parse { .. }), "{error}");
        }
        bench
            .fake
            .set("parse_error", "DequantizeLinear: input has type Int32");
        let error = bench.build(FIXED, None).unwrap_err();
        let place = if layout == Layout::V8 {
            "node number 3"
        } else {
            "node fake_node (FakeOperator)"
        };
        let text = error.to_string();
        assert!(
            text.contains(place) && text.contains("input has type Int32"),
            "{text}"
        );
        bench.finish();
    }
}

#[test]
fn build_failures_become_errors_of_their_own() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    assert!(matches!(
        bench.build(DYNAMIC, None),
        Err(Error::NoProfile { .. })
    ));
    let mut wrong = range();
    wrong.max[1] = 5;
    assert!(matches!(
        bench.build(DYNAMIC, Some(wrong)),
        Err(Error::Profile { .. })
    ));
    let other = ShapeRange {
        input: "unknown".into(),
        ..range()
    };
    assert!(matches!(
        bench.build(DYNAMIC, Some(other)),
        Err(Error::NoProfile { .. })
    ));
    bench
        .fake
        .set("build_error", "Requested size was 285614268 bytes.");
    let expected = Error::WorkspaceTooSmall {
        needed: Some(285_614_268),
        limit: 1 << 30,
    };
    assert_eq!(bench.build(FIXED, None), Err(expected));
    bench.fake.set(
        "build_error",
        "Could not find any implementation for node conv.",
    );
    let error = bench.build(FIXED, None).unwrap_err();
    assert!(
        matches!(&error, Error::Build { message } if message.contains("conv")),
        "{error}"
    );
    bench.finish();
}

#[test]
fn missing_or_small_memory_is_refused_before_the_gpu_sees_it() {
    let Some(bench) = Bench::new(Layout::V11) else {
        return;
    };
    let engine = bench.engine(FIXED, None);
    let stream = Stream::new(&bench.device).unwrap();
    let mut context = Context::new(&engine).unwrap();
    let buffer = |bytes| Arc::new(DeviceBuffer::new(&bench.device, bytes).unwrap());
    let text = context.enqueue(&stream).unwrap_err().to_string();
    assert!(
        text.contains("input image has no buffer; bind one of 720 bytes"),
        "{text}"
    );
    context.bind("image", &buffer(719)).unwrap();
    context.bind("features", &buffer(960)).unwrap();
    let text = context.enqueue(&stream).unwrap_err().to_string();
    assert!(
        text.contains("needs 720 bytes, but its buffer has 719"),
        "{text}"
    );
    // The context keeps bound buffers alive.
    context.bind("image", &buffer(720)).unwrap();
    context.enqueue(&stream).unwrap();
    stream.wait(LONG).unwrap();
    assert!(matches!(
        context.bind("nothing", &buffer(1)),
        Err(Error::NoTensor { .. })
    ));
    drop((context, engine, stream));
    bench.finish();
}
