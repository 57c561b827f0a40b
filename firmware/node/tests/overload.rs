//! A camera that is much faster than the model: frames are dropped, but order, age and memory stay
//! within limits. In a separate process, so that memory can be measured.

mod common;

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use loftup_node::{
    assemble,
    config::Config,
    frame::RawFrame,
    inject::Plan,
    metrics::DropReason,
    output::FrameOutput,
    pipeline::{Node, SinkHandle},
    sink::{Context, Sink, SinkError},
    soak::resident,
    source::{Clock, Pace, Poll, Scenes, Source, SourceError},
};

const RATE_HZ: f64 = 1000.0;
const MAX_AGE_US: u64 = 800_000;
const WARM_UP: Duration = Duration::from_secs(3);
const LENGTH: Duration = Duration::from_secs(9);

/// Prerendered images at a high frame rate.
struct Fast {
    images: Arc<Vec<RawFrame>>,
    pace: Pace,
}

impl Source for Fast {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let Some((number, stamp_us)) = self.pace.wait(clock) else {
            return Ok(Poll::Nothing);
        };
        into.clone_from(&self.images[number as usize % self.images.len()]);
        (into.number, into.stamp_us) = (number, stamp_us);
        Ok(Poll::Frame)
    }
}

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<(u64, u64)>>>);

impl Sink for Seen {
    fn name(&self) -> &str {
        "seen"
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        let age = frame.published_us - frame.captured_us;
        self.0.lock().unwrap().push((frame.sequence, age));
        Ok(())
    }
}

#[test]
fn overload_drops_frames_but_keeps_order_age_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let more = format!(
        "[pipeline]\nmax_age_ms = {0}\ndeadline_ms = {0}\n",
        MAX_AGE_US / 1000
    );
    let config = Config::parse(
        &common::config_text(&more),
        &folder.path().join("node.toml"),
    )
    .unwrap();
    let scenes = Scenes::new(5, 96, 64, Pace::new(20.0));
    let draw = |number| {
        let mut frame = RawFrame::default();
        scenes.draw(number, &mut frame);
        frame
    };
    let images = Arc::new((0..64).map(draw).collect::<Vec<_>>());
    let (mut parts, _) = assemble::parts(config, &Plan::default()).unwrap();
    parts.source = Arc::new(move || {
        let images = images.clone();
        Ok(Box::new(Fast {
            images,
            pace: Pace::new(RATE_HZ),
        }))
    });
    let seen = Seen::default();
    parts.sinks.push(SinkHandle {
        sink: Box::new(seen.clone()),
        queue: 2,
    });
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());
    let start = Instant::now();
    let mut memory = Vec::new();
    while start.elapsed() < LENGTH {
        thread::sleep(Duration::from_millis(50));
        if start.elapsed() > WARM_UP {
            memory.push(resident());
        }
    }
    handle.stop();
    thread.join().unwrap().unwrap();

    let m = handle.metrics();
    let captured = m.captured();
    assert_eq!(
        captured,
        m.published() + m.total_drops(),
        "every frame is published or dropped"
    );
    let seen = seen.0.lock().unwrap();
    assert!(
        seen.windows(2).all(|w| w[0].0 < w[1].0),
        "outputs are unique and in order"
    );
    let oldest = seen.iter().map(|(_, age)| *age).max().unwrap();
    let mib = |n: u64| n as f64 / f64::from(1 << 20);
    let (first, max) = (memory[0], memory.iter().copied().max().unwrap());
    println!(
        "{captured} frames, {} published, {} displaced before preprocessing; oldest {oldest} us, {:?}; {:.2} MiB, max {:.2}",
        seen.len(),
        m.drops(DropReason::BeforePreprocess),
        m.latency.quantiles(),
        mib(first),
        mib(max)
    );
    assert!(
        captured > 2 * seen.len() as u64,
        "the camera was too slow: {captured} and {}",
        seen.len()
    );
    assert!(seen.len() > 50, "{} outputs", seen.len());
    assert!(oldest <= MAX_AGE_US, "{oldest} us");
    assert!(
        max - first < 8 << 20,
        "memory grew from {first} to {max} bytes"
    );
}
