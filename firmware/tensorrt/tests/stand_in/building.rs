//! Builders, configurations, progress.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use loftup_tensorrt::{Builder, Error, Layout, OnnxParser, Progress};

use crate::bench::*;

#[test]
fn networks_are_made_with_the_flags_of_their_version() {
    for (layout, flags) in [
        (Layout::V8, 1),
        (Layout::V10, 2),
        (Layout::V11, 1),
        (Layout::Rtx1_4, 2),
        (Layout::Rtx1_5, 1),
    ] {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        let builder = Builder::new(&bench.library, Some(&bench.device)).unwrap();
        let network = builder.network().unwrap();
        assert_eq!(network.is_strongly_typed(), layout != Layout::V8);
        let mut config = builder.config().unwrap();
        config.allow_lower_precision(true, true).unwrap();
        config.allow_tf32(false).unwrap();
        let calls = bench.fake.calls();
        position(&calls, &format!("createNetworkV2 flags {flags}"));
        let set: Vec<&str> = calls
            .iter()
            .filter_map(|call| call.strip_prefix("setFlag "))
            .collect();
        let expected: &[&str] = if layout == Layout::V8 {
            &["0", "1", "10"]
        } else {
            &[]
        };
        assert_eq!(set, expected);
        position(
            &calls,
            if layout == Layout::V8 {
                "clearFlag 7"
            } else {
                "clearFlag 6"
            },
        );
        drop((config, network, builder));
        bench.finish();
    }
}

#[test]
fn dla_is_chosen_with_fallback_to_the_gpu_where_there_is_one() {
    for layout in Layout::ALL {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        bench.fake.set("dla_cores", "2");
        let builder = Builder::new(&bench.library, Some(&bench.device)).unwrap();
        assert_eq!(builder.dla_core_count().unwrap(), 2);
        let mut config = builder.config().unwrap();
        let used = config.use_dla(1);
        if layout.is_rtx() {
            assert!(matches!(used, Err(Error::Missing { what: "DLA", .. })));
        } else {
            used.unwrap();
            let calls = bench.fake.calls();
            for call in ["setDefaultDeviceType 1", "setDLACore 1", "setFlag 3"] {
                position(&calls, call);
            }
        }
        drop((config, builder));
        bench.finish();
    }
}

struct Watcher {
    stop_at: u32,
    steps: AtomicU32,
    phases: Mutex<Vec<String>>,
}

impl Progress for Watcher {
    fn phase_started(&self, phase: &str, parent: Option<&str>, steps: u32) {
        assert_eq!((phase, parent, steps), ("build", None, 3));
        self.phases.lock().unwrap().push("start".into());
    }
    fn step_done(&self, _: &str, step: u32) -> bool {
        assert_eq!(self.steps.fetch_add(1, Ordering::SeqCst), step);
        step < self.stop_at
    }
    fn phase_finished(&self, _: &str) {
        self.phases.lock().unwrap().push("finish".into());
    }
}

#[test]
fn a_build_reports_progress_and_can_be_cancelled_from_ten_on() {
    for layout in Layout::ALL {
        for stop_at in [1, 9] {
            let Some(bench) = Bench::new(layout) else {
                return;
            };
            let builder = Builder::new(&bench.library, Some(&bench.device)).unwrap();
            let mut parser = OnnxParser::new(builder.network().unwrap()).unwrap();
            parser.parse(FIXED, None).unwrap();
            let mut config = builder.config().unwrap();
            let watcher = Arc::new(Watcher {
                stop_at,
                steps: 0.into(),
                phases: Mutex::default(),
            });
            let attached = config.set_progress(watcher.clone());
            if layout == Layout::V8 {
                assert!(matches!(attached, Err(Error::Missing { .. })));
                continue;
            }
            attached.unwrap();
            let built = builder.build(parser.network(), &config);
            if stop_at == 1 {
                assert_eq!(built.unwrap_err(), Error::Cancelled);
            } else {
                built.unwrap();
            }
            let steps = if stop_at == 1 { 2 } else { 3 };
            assert_eq!(watcher.steps.load(Ordering::SeqCst), steps);
            assert_eq!(*watcher.phases.lock().unwrap(), ["start", "finish"]);
            drop((config, parser, builder));
            bench.finish();
        }
    }
}

#[test]
fn timing_caches_are_attached_and_read_back() {
    for layout in Layout::ALL {
        let Some(bench) = Bench::new(layout) else {
            return;
        };
        let builder = Builder::new(&bench.library, Some(&bench.device)).unwrap();
        let mut config = builder.config().unwrap();
        assert!(config.timing_cache().unwrap().is_none());
        config.set_timing_cache(&[]).unwrap();
        config.set_timing_cache(b"old timings").unwrap();
        assert_eq!(
            config.timing_cache().unwrap().unwrap().as_slice(),
            b"timings"
        );
        bench.fake.set("cache", "mismatch");
        assert!(matches!(
            config.set_timing_cache(b"x"),
            Err(Error::Refused { .. })
        ));
        drop((config, builder));
        bench.finish();
    }
}
