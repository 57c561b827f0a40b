//! A camera that is far faster than the model: frames are dropped, and nothing else happens. Alone
//! in its process, so that its memory can be measured.

mod common;

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use loftup_node::{
    answer::Answer,
    assemble,
    config::Config,
    frame::RawFrame,
    inject::Plan,
    metrics::DropReason,
    pipeline::{Node, SinkHandle},
    sink::{Context, Sink, SinkError},
    soak::resident,
    source::{Clock, Pace, Poll, Scenes, Source, SourceError},
};

const RATE_HZ: f64 = 1000.0;
const MAX_AGE_US: u64 = 800_000;
const WARM_UP: Duration = Duration::from_secs(3);
const LENGTH: Duration = Duration::from_secs(9);

/// Images that were drawn in advance, as fast as a camera may give them.
struct Fast {
    pictures: Arc<Vec<RawFrame>>,
    pace: Pace,
}

impl Source for Fast {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let Some((number, stamp_us)) = self.pace.wait(clock) else {
            return Ok(Poll::Nothing);
        };
        into.clone_from(&self.pictures[number as usize % self.pictures.len()]);
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

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        let age = answer.published_us - answer.captured_us;
        self.0.lock().unwrap().push((answer.sequence, age));
        Ok(())
    }
}

#[test]
fn a_camera_that_is_too_fast_costs_frames_but_never_order_age_or_memory() {
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
    let pictures = Arc::new((0..64).map(draw).collect::<Vec<_>>());
    let (mut parts, _) = assemble::parts(config, &Plan::default()).unwrap();
    parts.source = Arc::new(move || {
        let pictures = pictures.clone();
        Ok(Box::new(Fast {
            pictures,
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
    let captured = m.captured.load(SeqCst);
    assert_eq!(
        captured,
        m.answers() + m.all_drops(),
        "every frame is accounted for"
    );
    let seen = seen.0.lock().unwrap();
    assert!(
        seen.windows(2).all(|w| w[0].0 < w[1].0),
        "once each and in order"
    );
    let oldest = seen.iter().map(|(_, age)| *age).max().unwrap();
    let mib = |n: u64| n as f64 / f64::from(1 << 20);
    let (first, most) = (memory[0], memory.iter().copied().max().unwrap());
    println!(
        "{captured} frames, {} answered, {} displaced before preprocessing; oldest {oldest} us, {:?}; {:.2} MiB, at most {:.2}",
        seen.len(),
        m.drops(DropReason::BeforePreprocess),
        m.latency.quantiles(),
        mib(first),
        mib(most)
    );
    assert!(
        captured > 2 * seen.len() as u64,
        "the camera was not too fast: {captured} and {}",
        seen.len()
    );
    assert!(seen.len() > 50, "{} answers", seen.len());
    assert!(oldest <= MAX_AGE_US, "{oldest} us");
    assert!(
        most - first < 8 << 20,
        "memory grew from {first} to {most} bytes"
    );
}
