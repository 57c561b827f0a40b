//! What a run copies, and memory that the GPU shares with the CPU.

use loftup_tensorrt::cuda::Stream;
use loftup_tensorrt::testing::Fake;
use loftup_tensorrt::{Copied, Executor, Layout};

use crate::bench::*;

/// Bytes in the log of asynchronous copies.
fn logged(fake: &Fake) -> Copied {
    let sum = |call: &str| {
        let calls = fake.calls();
        let bytes = calls.iter().filter_map(|line| line.strip_prefix(call));
        bytes.map(|n| n.trim().parse::<u64>().unwrap()).sum()
    };
    Copied {
        to_device: sum("cuMemcpyHtoDAsync"),
        to_host: sum("cuMemcpyDtoHAsync"),
    }
}

fn times(fake: &Fake, call: &str) -> usize {
    let calls = fake.calls();
    calls.iter().filter(|line| line.starts_with(call)).count()
}

#[test]
fn a_run_copies_what_the_executor_says() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    let mut executor = bench.executor(FIXED, None);
    executor.prepare().unwrap();
    let copied = executor.copied_per_run();
    // 1x3x6x10 and 240 floats.
    let expected = Copied {
        to_device: 4 * 180,
        to_host: 4 * 240,
    };
    assert_eq!(copied, expected);
    fill(executor.input_mut("image").unwrap(), 0.5);
    executor.run(LONG).unwrap();
    assert_eq!(logged(&bench.fake), copied);
    executor.keep_on_device("features").unwrap();
    executor.run(LONG).unwrap();
    assert_eq!(executor.copied_per_run().to_host, 0);
    assert_eq!(logged(&bench.fake).to_host, copied.to_host);
    drop(executor);
    bench.finish();
}

#[test]
fn nothing_is_copied_if_the_gpu_shares_the_memory_of_the_cpu() {
    for layout in Layout::ALL {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        bench.fake.set("integrated", "1");
        for graph in [false, true] {
            let mut executor = bench.executor(DYNAMIC, Some(range()));
            executor.use_zero_copy(true).unwrap();
            executor.use_graph(graph).unwrap();
            let copies = logged(&bench.fake);
            let allocated = times(&bench.fake, "cuMemAlloc");
            // Larger, smaller, and back, three runs each: regular, captured, and launched.
            for (height, width) in [(4i64, 4i64), (32, 20), (5, 7)] {
                executor.set_shape("image", &[1, 3, height, width]).unwrap();
                for run in 0..3 {
                    let value = run as f32 + 0.5;
                    fill(executor.input_mut("image").unwrap(), value);
                    executor.run(LONG).unwrap();
                    let output = floats(executor.output("features").unwrap());
                    assert_eq!(output.len() as i64, height * width * 4);
                    assert!(worst(&output, value) < 1e-6, "{layout:?}, run {run}");
                }
                assert_eq!(executor.is_captured(), graph);
                assert_eq!(executor.copied_per_run(), Copied::default());
            }
            assert_eq!(logged(&bench.fake), copies);
            assert_eq!(times(&bench.fake, "cuMemAlloc"), allocated);
            // Turned off again.
            executor.use_zero_copy(false).unwrap();
            fill(executor.input_mut("image").unwrap(), 2.0);
            executor.run(LONG).unwrap();
            let output = floats(executor.output("features").unwrap());
            assert!(worst(&output, 2.0) < 1e-6);
            assert_ne!(logged(&bench.fake), copies);
        }
        bench.finish();
    }
}

#[test]
fn a_gpu_with_its_own_memory_copies() {
    let Some(bench) = Bench::new(Layout::V11) else {
        return;
    };
    assert!(!bench.device.shares_host_memory().unwrap());
    let mut executor = bench.executor(FIXED, None);
    executor.use_zero_copy(true).unwrap();
    fill(executor.input_mut("image").unwrap(), 0.5);
    executor.run(LONG).unwrap();
    assert!(worst(&floats(executor.output("features").unwrap()), 0.5) < 1e-6);
    assert_eq!(logged(&bench.fake), executor.copied_per_run());
    assert_ne!(executor.copied_per_run(), Copied::default());
    assert_eq!(times(&bench.fake, "cuMemHostGetDevicePointer"), 0);
    drop(executor);
    bench.finish();
}

#[test]
fn an_output_that_stays_on_the_gpu_is_in_its_memory() {
    let Some(bench) = Bench::new(Layout::V10) else {
        return;
    };
    bench.fake.set("integrated", "1");
    let stream = Stream::new(&bench.device).unwrap();
    let engine = bench.engine(FIXED, None);
    let mut executor = Executor::new(&engine, &stream).unwrap();
    executor.use_zero_copy(true).unwrap();
    executor.prepare().unwrap();
    let before = times(&bench.fake, "cuMemAlloc");
    executor.keep_on_device("features").unwrap();
    executor.prepare().unwrap();
    assert_eq!(times(&bench.fake, "cuMemAlloc"), before + 1);
    fill(executor.input_mut("image").unwrap(), 0.5);
    executor.run(LONG).unwrap();
    drop((executor, engine, stream));
    bench.finish();
}
