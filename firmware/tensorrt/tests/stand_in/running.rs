//! Engines and executors without failures.

use std::sync::Arc;
use std::time::Duration;

use loftup_tensorrt::cuda::{DeviceBuffer, Event, Stream};
use loftup_tensorrt::testing::Fake;
use loftup_tensorrt::{DataType, Error, Executor, Layout};

use crate::bench::*;

#[test]
fn a_model_goes_through_parser_builder_engine_and_context_in_every_layout() {
    for layout in Layout::ALL {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        let mut executor = bench.executor(FIXED, None);
        let input = executor.engine().input("image").unwrap().clone();
        assert_eq!(
            (input.data_type, input.shape.as_slice()),
            (DataType::F32, &[1i64, 3, 6, 10][..])
        );
        assert_eq!(executor.engine().profile_count(), 1);
        fill(executor.input_mut("image").unwrap(), 0.25);
        assert!(
            executor.output("features").is_err(),
            "an output before the first run"
        );
        executor.run(LONG).unwrap();
        let output = floats(executor.output("features").unwrap());
        assert_eq!(output.len(), 240);
        let off = worst(&output, 0.25);
        println!("{layout:?}: worst error {off:e}");
        assert!(off < 1e-6);
        drop(executor);
        let calls = bench.fake.calls();
        assert!(position(&calls, "cuInit") < position(&calls, "createInferBuilder_INTERNAL"));
        let order = [
            "parse ",
            "buildSerializedNetwork",
            "new HostMemory",
            "createInferRuntime_INTERNAL",
            "new Engine",
            "new Context",
            "enqueueV3",
        ];
        assert!(
            order.is_sorted_by_key(|name| position(&calls, name)),
            "{calls:#?}"
        );
        // The order of deletions.
        let order = [
            "~Parser",
            "~Network",
            "~Builder ",
            "~Context",
            "~Engine",
            "~Runtime",
        ];
        assert!(
            order.is_sorted_by_key(|name| position(&calls, name)),
            "{calls:#?}"
        );
        bench.finish();
    }
}

#[test]
fn dynamic_shapes_follow_the_profile_in_every_layout() {
    for layout in Layout::ALL {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        let mut executor = bench.executor(DYNAMIC, Some(range()));
        let engine = Arc::clone(executor.engine());
        assert_eq!(
            engine.profile_shapes("image", 0).unwrap()[2],
            [2, 3, 32, 32]
        );
        assert!(engine.profile_shapes("image", 1).is_err());
        assert!(
            executor.input_mut("image").is_err(),
            "an input of unknown size"
        );
        assert!(matches!(executor.run(LONG), Err(Error::Shape { .. })));
        // Larger, smaller, and back.
        for (height, width) in [(4i64, 4i64), (32, 20), (5, 7), (32, 32)] {
            executor.set_shape("image", &[1, 3, height, width]).unwrap();
            fill(executor.input_mut("image").unwrap(), 1.5);
            executor.run(LONG).unwrap();
            assert_eq!(executor.shape("features").unwrap(), [1, height * width, 4]);
            let output = floats(executor.output("features").unwrap());
            assert_eq!(output.len() as i64, height * width * 4);
            assert!(worst(&output, 1.5) < 1e-6);
        }
        for wrong in [
            &[1i64, 3, 33, 32][..],
            &[1, 4, 8, 8],
            &[3, 8, 8],
            &[1, 3, -1, 8],
        ] {
            assert!(
                matches!(executor.set_shape("image", wrong), Err(Error::Shape { .. })),
                "{wrong:?}"
            );
        }
        assert!(matches!(
            executor.set_shape("unknown", &[1]),
            Err(Error::NoTensor { .. })
        ));
        drop((engine, executor));
        bench.finish();
    }
}

#[test]
fn half_precision_graphs_keep_their_types() {
    for layout in Layout::ALL {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        let mut executor = bench.executor(HALF, None);
        assert_eq!(
            executor.engine().output("features").unwrap().data_type,
            DataType::F16
        );
        // 0x3800 is 0.5.
        for element in executor.input_mut("image").unwrap().chunks_exact_mut(2) {
            element.copy_from_slice(&0x3800u16.to_le_bytes());
        }
        executor.run(LONG).unwrap();
        let output = executor.output("features").unwrap();
        assert_eq!(output.len(), 480);
        assert_eq!(u16::from_le_bytes([output[0], output[1]]), 0x3800);
        drop(executor);
        bench.finish();
    }
}

#[test]
fn one_engines_output_feeds_another_without_leaving_the_gpu() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let stream = Stream::new(&bench.device).unwrap();
    let engine = bench.engine(DYNAMIC, Some(range()));
    let mut first = Executor::new(&engine, &stream).unwrap();
    first.set_shape("image", &[1, 3, 4, 4]).unwrap();
    first.keep_on_device("features").unwrap();
    // The output [1, 16, 4] does not have the rank of the input.
    let mut second = Executor::new(&engine, &stream).unwrap();
    let error = second
        .share_input("image", &mut first, "features")
        .unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    drop(second);

    // An engine whose input has the shape of the first engine's output.
    let chain = bench.engine(&identity_onnx("features", &[1, 16, 4]), None);
    let mut second = Executor::new(&chain, &stream).unwrap();
    second
        .share_input("features", &mut first, "features")
        .unwrap();
    assert!(
        second.input_mut("features").is_err(),
        "a shared input cannot be written"
    );
    for value in [0.5, -2.0] {
        fill(first.input_mut("image").unwrap(), value);
        first.start().unwrap();
        second.start().unwrap();
        second.wait(LONG).unwrap();
        first.wait(LONG).unwrap();
        assert!(first.output("features").is_err(), "it stays on the GPU");
        let mean = (0..64).map(|i| Fake::expected(value, i)).sum::<f32>() / 64.0;
        let off = worst(&floats(second.output("out").unwrap()), mean);
        assert!(off < 1e-5, "{off}");
    }
    let elsewhere = Stream::new(&bench.device).unwrap();
    let mut third = Executor::new(&chain, &elsewhere).unwrap();
    let error = third
        .share_input("features", &mut first, "features")
        .unwrap_err();
    assert!(error.to_string().contains("different streams"), "{error}");
    drop((first, second, third, chain, engine, stream, elsewhere));
    bench.finish();
}

/// A model with one input and an output `out` of the same shape, as hand-written protobuf.
fn identity_onnx(input: &str, shape: &[u8]) -> Vec<u8> {
    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        [
            &[number << 3 | 2, u8::try_from(body.len()).unwrap()][..],
            body,
        ]
        .concat()
    }
    let dims: Vec<u8> = shape
        .iter()
        .flat_map(|extent| field(1, &[1 << 3, *extent]))
        .collect();
    let tensor = [&[1 << 3, 1][..], &field(2, &dims)].concat();
    let value = |name: &str| [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat();
    field(
        7,
        &[field(11, &value(input)), field(12, &value("out"))].concat(),
    )
}

#[test]
fn the_second_run_is_captured_and_later_runs_are_launched_as_one() {
    let Some(bench) = Bench::new(Layout::V11) else {
        return;
    };
    let mut executor = bench.executor(DYNAMIC, Some(range()));
    executor.use_graph(true).unwrap();
    for (run, size) in [(0, 6i64), (1, 6), (2, 6), (3, 9), (4, 9), (5, 9)] {
        if run == 0 || run == 3 {
            executor.set_shape("image", &[1, 3, size, size]).unwrap();
        }
        let value = run as f32;
        fill(executor.input_mut("image").unwrap(), value);
        executor.run(LONG).unwrap();
        assert!(worst(&floats(executor.output("features").unwrap()), value) < 1e-5);
        assert_eq!(executor.is_captured(), run % 3 != 0, "run {run}");
    }
    let calls = bench.fake.calls();
    let times = |name: &str| calls.iter().filter(|call| call.starts_with(name)).count();
    assert_eq!(
        (
            times("cuStreamBeginCapture"),
            times("cuGraphLaunch"),
            times("enqueueV3")
        ),
        (2, 4, 4)
    );
    drop(executor);
    bench.finish();
}

#[test]
fn an_engine_that_cannot_be_captured_runs_plainly() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    bench.fake.set("capture", "fail");
    let mut executor = bench.executor(FIXED, None);
    executor.use_graph(true).unwrap();
    for _ in 0..3 {
        fill(executor.input_mut("image").unwrap(), 2.0);
        executor.run(LONG).unwrap();
        assert!(worst(&floats(executor.output("features").unwrap()), 2.0) < 1e-6);
    }
    assert!(!executor.is_captured());
    drop(executor);
    bench.finish();
}

#[test]
fn engines_and_executors_are_used_from_several_threads() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let engine = bench.engine(FIXED, None);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (engine, device) = (&engine, &bench.device);
            scope.spawn(move || {
                let stream = Stream::new(device).unwrap();
                let mut executor = Executor::new(engine, &stream).unwrap();
                for run in 0..5 {
                    let value = (number * 10 + run) as f32;
                    fill(executor.input_mut("image").unwrap(), value);
                    executor.run(LONG).unwrap();
                    assert!(worst(&floats(executor.output("features").unwrap()), value) < 1e-4);
                }
            });
        }
    });
    drop(engine);
    bench.finish();
}

#[test]
fn events_and_plain_copies_work() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let stream = Stream::new(&bench.device).unwrap();
    let (start, end) = (
        Event::new(&bench.device).unwrap(),
        Event::new(&bench.device).unwrap(),
    );
    assert!(!end.is_past().unwrap());
    start.record(&stream).unwrap();
    let buffer = DeviceBuffer::new(&bench.device, 5).unwrap();
    buffer.upload(b"hello").unwrap();
    let mut back = [0; 5];
    buffer.download(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    assert!(buffer.upload(b"too long").is_err() && buffer.download(&mut [0; 6]).is_err());
    end.record(&stream).unwrap();
    assert!(end.is_past().unwrap());
    assert_eq!(start.elapsed(&end).unwrap(), Duration::from_micros(1500));
    assert_eq!(bench.device.compute_capability().unwrap(), (8, 7));
    assert_eq!(bench.device.name().unwrap(), "Pretend GPU");
    drop((stream, start, end, buffer));
    bench.finish();
}
