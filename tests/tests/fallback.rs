//! A failing backend is replaced by another one without losing a frame. It is tract with injected
//! faults, so that both backends return bit-identical features.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loftup_runtime::backend::{
    Backend, BackendError, CpuBackend, Fallback, FallbackOptions, State,
    fault::{Fault, Faults, Faulty, unavailable},
};
use loftup_tests::{
    conformance,
    frames::{SIZE, frame, perceptor, view},
    synthetic::upsampler_bundle,
};

const TILE: usize = 8;
/// Number of tiles of a frame of 43 x 29 pixels.
const TILES: u64 = 24;
/// They are preceded by the run that computes keys and values.
const RUNS: u64 = TILES + 1;

fn quick() -> FallbackOptions {
    FallbackOptions {
        // Long compared with a run of a tile, which takes a few milliseconds, even on a busy
        // machine.
        run_limit: Duration::from_millis(1500),
        start_limit: Duration::from_secs(3),
        ..FallbackOptions::default()
    }
}

fn faulty(faults: &Arc<Faults>) -> Arc<dyn Backend> {
    Arc::new(Faulty::new(CpuBackend, faults.clone()))
}

fn fallback(faults: &Arc<Faults>, options: FallbackOptions) -> Arc<Fallback> {
    Arc::new(Fallback::new(
        Ok(faulty(faults)),
        Arc::new(CpuBackend),
        options,
    ))
}

/// A frame computed by tract alone.
fn expected(bundle: &std::path::Path) -> Vec<f32> {
    let tract = perceptor(bundle, Arc::new(CpuBackend), 1, TILE);
    frame(&view(&tract, SIZE).unwrap()).unwrap()
}

#[test]
fn a_sound_fallback_conforms() {
    conformance::run(&*fallback(&Faults::none(), quick()), &[]);
}

#[test]
fn a_fallback_without_its_preferred_engine_conforms() {
    let none = Fallback::new(Err(unavailable("no GPU")), Arc::new(CpuBackend), quick());
    conformance::run(&none, &[]);
}

#[test]
fn an_engine_alone_under_watch_conforms() {
    conformance::run(&Fallback::alone(faulty(&Faults::none()), quick()), &[]);
}

#[test]
fn a_fallback_that_fails_at_random_conforms() {
    // Invalid requests must fail on either backend, and valid ones succeed.
    for seed in 0..4 {
        let faults = Faults::none();
        faults.at_random(seed, 0.2, &[Fault::Error, Fault::Nan, Fault::Infinity]);
        let options = FallbackOptions {
            retry_after: Some(Duration::ZERO),
            ..quick()
        };
        let backend = fallback(&faults, options);
        conformance::run(&*backend, &[]);
        let health = backend.health();
        println!("seed {seed}: {:?}", health.counters);
        assert!(faults.injected() > 0 && health.counters.fallback_runs > 0);
    }
}

#[test]
fn no_frame_is_lost_whichever_run_fails_and_however() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let expected = expected(&bundle);
    for fault in [Fault::Error, Fault::Nan, Fault::Infinity] {
        for at in [0, 1, 2, 13, TILES - 1, TILES] {
            let faults = Faults::none();
            faults.at_run(at, fault);
            let backend = fallback(&faults, quick());
            let perceptor = perceptor(&bundle, backend, 1, TILE);
            assert_eq!(perceptor.health().state, State::Healthy);
            let got = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
            assert!(got == expected, "{fault:?} at run {at}");
            let health = perceptor.health();
            assert_eq!(health.answering, "tract");
            let reason = health.reason().unwrap();
            assert!(
                reason.contains(".onnx") && !reason.contains('\n'),
                "{reason}"
            );
            let counters = health.counters;
            assert_eq!(counters.preferred_runs, at, "{counters:?}");
            assert_eq!(counters.fallback_runs, RUNS - at);
            assert_eq!(counters.errors + counters.not_finite, 1);
            // The next frame as well.
            let again = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
            assert!(again == expected);
            assert_eq!(faults.runs(), at + 1, "the failed engine was left alone");
        }
    }
}

#[test]
fn no_frame_is_lost_when_the_engine_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let expected = expected(&bundle);
    for at in [0, 7, TILES] {
        let faults = Faults::none();
        faults.at_run(at, Fault::Hang);
        let options = FallbackOptions {
            run_limit: Duration::from_millis(300),
            start_limit: Duration::from_millis(400),
            ..quick()
        };
        let perceptor = perceptor(&bundle, fallback(&faults, options), 1, TILE);
        let start = Instant::now();
        let got = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
        println!("hang at run {at}: the frame took {:?}", start.elapsed());
        assert!(got == expected, "hang at run {at}");
        assert!(start.elapsed() < Duration::from_secs(30));
        let health = perceptor.health();
        assert!(health.reason().unwrap().contains("timed out after"));
        assert_eq!((health.counters.timeouts, health.counters.stuck), (1, 1));
        // Dropping everything does not wait for hung calls; if they return, they are counted.
        let before = Instant::now();
        faults.release();
        while perceptor.health().counters.stuck > 0 {
            assert!(before.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn everything_is_dropped_without_waiting_for_what_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let faults = Faults::none();
    faults.at_run(3, Fault::Hang);
    let options = FallbackOptions {
        run_limit: Duration::from_millis(300),
        ..quick()
    };
    let perceptor = perceptor(&bundle, fallback(&faults, options), 1, TILE);
    frame(&view(&perceptor, SIZE).unwrap()).unwrap();
    let before = Instant::now();
    drop(perceptor);
    assert!(before.elapsed() < Duration::from_secs(1));
    faults.release();
}

#[test]
fn a_slow_engine_within_its_limit_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let faults = Faults::none();
    faults.during_runs(4, 8, Fault::Slow(Duration::from_millis(30)));
    let perceptor = perceptor(&bundle, fallback(&faults, quick()), 2, TILE);
    let got = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
    assert!(got == expected(&bundle));
    let health = perceptor.health();
    assert_eq!((health.answering, health.state), ("faulty", State::Healthy));
    assert_eq!(health.counters.preferred_runs, RUNS);
}

#[test]
fn sessions_that_fail_at_the_same_time_lose_nothing_and_warn_of_one_state() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let expected = expected(&bundle);
    for seed in 0..6 {
        let faults = Faults::none();
        faults.at_random(seed, 0.5, &[Fault::Error, Fault::Nan]);
        let perceptor = perceptor(&bundle, fallback(&faults, quick()), 4, TILE);
        let got = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
        assert!(got == expected, "seed {seed}");
        let counters = perceptor.health().counters;
        println!("seed {seed}: {counters:?}");
        assert_eq!(counters.preferred_runs + counters.fallback_runs, RUNS);
        assert!(counters.fallback_runs > 0);
    }
}

#[test]
fn a_graph_that_cannot_be_built_is_run_by_the_other_engine() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    for build in [0, 1] {
        let faults = Faults::none();
        faults.at_build(build);
        let perceptor = perceptor(&bundle, fallback(&faults, quick()), 1, TILE);
        let got = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
        assert!(got == expected(&bundle));
        let health = perceptor.health();
        assert!(health.reason().unwrap().contains("injected failure of"));
        assert_eq!(health.counters.errors, 1);
    }
}

#[test]
fn an_engine_that_cannot_be_opened_is_the_reason_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let backend = Fallback::new(
        Err(unavailable("no GPU is there")),
        Arc::new(CpuBackend),
        quick(),
    );
    assert_eq!(backend.tiling_hint(), CpuBackend.tiling_hint());
    let perceptor = perceptor(&bundle, Arc::new(backend), 1, TILE);
    assert!(
        perceptor
            .health()
            .reason()
            .unwrap()
            .contains("no GPU is there")
    );
    let got = frame(&view(&perceptor, SIZE).unwrap()).unwrap();
    assert!(got == expected(&bundle));
    assert_eq!(perceptor.health().answering, "tract");
}

#[test]
fn after_a_while_the_engine_is_tried_again_beside_the_runs() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let expected = expected(&bundle);
    let faults = Faults::none();
    // Failing from run 5 on.
    faults.during_runs(5, u64::MAX, Fault::Error);
    let options = FallbackOptions {
        retry_after: Some(Duration::from_millis(20)),
        ..quick()
    };
    let perceptor = perceptor(&bundle, fallback(&faults, options), 1, TILE);
    let view = view(&perceptor, SIZE).unwrap();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(frame(&view).unwrap() == expected, "{what}");
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        }
    };
    let counters = || perceptor.health().counters;
    until("retries fail", &|| counters().retries >= 3);
    assert_eq!(perceptor.health().answering, "tract");
    faults.clear();
    until("it works again", &|| {
        perceptor.health().state == State::Healthy
    });
    let before = counters().preferred_runs;
    assert!(frame(&view).unwrap() == expected);
    assert!(counters().preferred_runs > before);
    println!("{:?}", counters());
}

#[test]
fn an_engine_that_hangs_again_and_again_is_given_up_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let expected = expected(&bundle);
    let faults = Faults::none();
    faults.during_runs(0, u64::MAX, Fault::Hang);
    let options = FallbackOptions {
        run_limit: Duration::from_millis(60),
        start_limit: Duration::from_millis(200),
        retry_after: Some(Duration::ZERO),
        max_hung_threads: 2,
        ..quick()
    };
    let perceptor = perceptor(&bundle, fallback(&faults, options), 1, TILE);
    let start = Instant::now();
    while perceptor.health().counters.stuck < 2 {
        let view = view(&perceptor, SIZE).unwrap();
        assert!(frame(&view).unwrap() == expected);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    let before = faults.runs();
    for _ in 0..4 {
        let view = view(&perceptor, SIZE).unwrap();
        assert!(frame(&view).unwrap() == expected);
        std::thread::sleep(Duration::from_millis(100));
    }
    let counters = perceptor.health().counters;
    println!("{counters:?}");
    assert_eq!((counters.stuck, faults.runs()), (2, before));
    faults.release();
}

#[test]
fn alone_every_failure_is_an_error_and_the_next_run_is_tried() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    for (fault, part) in [
        (Fault::Error, "injected failure of"),
        (Fault::Nan, "returned NaN at flat index"),
        (Fault::Infinity, "returned inf at flat index"),
        (Fault::Hang, "timed out after 400 ms"),
    ] {
        let faults = Faults::none();
        faults.at_run(6, fault);
        let options = FallbackOptions {
            run_limit: Duration::from_millis(400),
            ..quick()
        };
        let backend = Fallback::alone(faulty(&faults), options);
        assert_eq!(backend.name(), "faulty");
        let perceptor = perceptor(&bundle, Arc::new(backend), 1, TILE);
        let view = view(&perceptor, SIZE).unwrap();
        let e = frame(&view).unwrap_err().to_string();
        assert!(e.contains(part) && !e.contains('\n'), "{e}");
        assert_eq!(perceptor.health().answering, "faulty");
        assert!(frame(&view).unwrap() == expected(&bundle));
        faults.release();
    }
}

#[test]
fn a_question_that_is_wrong_moves_nothing() {
    let faults = Faults::none();
    let backend = fallback(&faults, quick());
    for case in ["refuses what is no graph", "refuses unknown names"] {
        let (_, run) = conformance::CASES
            .iter()
            .find(|(name, _)| *name == case)
            .unwrap();
        run(&*backend);
        assert_eq!(backend.health().state, State::Healthy, "{case}");
    }
}

#[test]
fn what_is_not_a_number_before_the_engine_is_no_fault_of_it() {
    use loftup_onnx::Graph;
    use loftup_runtime::backend::compile_once;
    let mut g = Graph::new("relu");
    let x = g.input("x", &[2usize.into()]);
    let y = g.op("Sqrt", &[&x], &[]);
    g.output(&y, "y", &[2usize.into()]);
    let backend = fallback(&Faults::none(), quick());
    let onnx = g.finish();
    let plan = compile_once(&*backend, "sqrt.onnx", onnx, &[("x", &[2])], &["y"]).unwrap();
    let mut session = plan.session().unwrap();
    session.set(0, &[4.0, f32::NAN]).unwrap();
    session.run().unwrap();
    assert!(session.output(0)[0] == 2.0 && session.output(0)[1].is_nan());
    assert_eq!(backend.health().state, State::Healthy);
    // Here the graph itself makes it not finite, which the fallback confirms.
    session.set(0, &[4.0, -1.0]).unwrap();
    session.run().unwrap();
    assert!(session.output(0)[1].is_nan());
    assert!(matches!(backend.health().state, State::Degraded { .. }));
}

#[test]
fn cancelling_a_build_is_not_a_failure() {
    struct Cancelled;
    impl Backend for Cancelled {
        fn name(&self) -> &'static str {
            "cancelled"
        }
        fn load(
            &self,
            graph: &loftup_runtime::backend::Graph,
        ) -> Result<Arc<dyn loftup_runtime::backend::Model>, BackendError> {
            Err(BackendError::Cancelled {
                graph: graph.name.to_string(),
            })
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let bundle = upsampler_bundle(12, 3, directory.path());
    let backend = Fallback::new(Ok(Arc::new(Cancelled)), Arc::new(CpuBackend), quick());
    let perceptor = perceptor(&bundle, Arc::new(backend), 1, TILE);
    let e = view(&perceptor, SIZE).err().expect("cancelled").to_string();
    assert!(e.contains("cancelled"), "{e}");
    assert_eq!(perceptor.health().state, State::Healthy);
}
