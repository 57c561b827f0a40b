//! A long run with everything going wrong, and the proof that it does no harm.
//!
//! A generated scene is played; faults are injected at random into source, engine and a UDP link.
//! Every output is computed again by a model without faults and compared bit by bit. Memory is
//! watched, and every kind of fault must have left its mark in counters and journal.

mod compare;
mod link;
mod rows;

use std::{
    net::UdpSocket,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

pub use rows::Row;

use compare::{Comparison, Tally};
use link::{Heard, listen};

use crate::{
    assemble::{self, model_factory},
    config::{self, Config, SinkKind, SourceKind},
    inject::Plan,
    metrics::Event,
    pipeline::{Node, SinkHandle},
};

/// How it is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long.
    pub length: Duration,
    /// After so long, memory counts.
    pub warm_up: Duration,
    /// What goes wrong.
    pub plan: Plan,
    /// Bytes that are leaked with each output on purpose, to see that it is noticed.
    pub leak: usize,
    /// The most that memory may grow.
    pub most_growth: u64,
}

impl Options {
    /// Everything goes wrong, often.
    pub fn new(length: Duration, seed: u64) -> Self {
        let text = "source.drop=0.01,source.duplicate=0.01,source.reorder=0.01,source.truncate=0.01,\
                    source.wrong-size=0.01,source.stuck=0.003,source.time-jump=0.01,link.flip=0.001,\
                    link.drop=0.005,link.split=0.01,link.stall=0.001,backend.error=0.001,\
                    backend.nan=0.001,backend.infinity=0.0005,backend.slow=0.001,backend.hang=0.0002";
        // Every word of it is known, as a test asserts.
        let mut plan: Plan = text.parse().unwrap_or_default();
        plan.seed = seed;
        plan.source.stuck_ms = 800;
        Self {
            length,
            warm_up: (length / 4).min(Duration::from_secs(60)),
            plan,
            leak: 0,
            most_growth: 8 << 20,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Frames that the source gave.
    pub captured: u64,
    /// Outputs published.
    pub published: u64,
    /// Frames dropped, for whatever reason.
    pub dropped: u64,
    /// Outputs compared with those of a model without faults.
    pub compared: u64,
    /// Outputs that differed.
    pub differing: u64,
    /// Outputs that came out of order or twice.
    pub misordered: u64,
    /// Outputs that the comparison had no time for.
    pub not_compared: u64,
    /// The greatest age of an output when it was published, microseconds.
    pub oldest_us: u64,
    /// The greatest age allowed.
    pub most_age_us: u64,
    /// Resident memory after warming up and at the end, bytes.
    pub memory: (u64, u64),
    /// The most that it may grow.
    pub most_growth: u64,
    /// Whole frames that the other side of the link heard.
    pub heard: u64,
    /// Times a stage hung and was given up.
    pub hangs: u64,
    /// Changes of state.
    pub state_changes: u64,
    /// Faults by kind.
    pub rows: Vec<Row>,
    /// How the node ended.
    pub end: Result<(), String>,
}

impl Outcome {
    /// Growth of memory after warming up.
    pub fn growth(&self) -> u64 {
        self.memory.1.saturating_sub(self.memory.0)
    }

    /// Everything that is wrong; nothing where all is well.
    pub fn faults(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expect = |ok: bool, what: String| {
            if !ok {
                wrong.push(what);
            }
        };
        if let Err(e) = &self.end {
            expect(false, format!("it ended with: {e}"));
        }
        expect(self.compared > 0, "nothing was compared".into());
        expect(
            self.differing == 0,
            format!(
                "{} answers differ from a run without faults",
                self.differing
            ),
        );
        expect(
            self.misordered == 0,
            format!("{} answers came out of order or twice", self.misordered),
        );
        expect(
            self.not_compared == 0,
            format!("{} answers were not compared", self.not_compared),
        );
        expect(
            self.captured == self.published + self.dropped,
            format!(
                "{} frames came, {} were published and {} dropped: some are lost",
                self.captured, self.published, self.dropped
            ),
        );
        expect(
            self.oldest_us <= self.most_age_us,
            format!(
                "an answer was {} us old, allowed are {}",
                self.oldest_us, self.most_age_us
            ),
        );
        expect(
            self.growth() < self.most_growth,
            format!(
                "memory grew by {} bytes, allowed are {}",
                self.growth(),
                self.most_growth
            ),
        );
        for row in &self.rows {
            // Nearly all: the last ones may find the node stopping.
            expect(
                row.is_explained(),
                format!(
                    "{}: injected {}, noticed {}, in the journal {}",
                    row.fault, row.injected, row.noticed, row.noted
                ),
            );
        }
        wrong
    }
}

/// Resident memory of this process, in bytes.
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|t| t.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Runs it. The model of `config` is used; its source gives way to a scene and its sinks to those
/// described above.
///
/// # Errors
/// Where the run cannot begin. What goes wrong in it is in the [`Outcome`].
pub fn run(config: &Config, options: &Options) -> Result<Outcome, Box<dyn std::error::Error>> {
    let mut config = config.clone();
    let sides = config.source.size.unwrap_or([160, 120]);
    config.source.kind = SourceKind::Scenes;
    config.source.path = None;
    config.source.size = Some(sides);
    config.source.timeout_ms = 500;
    config.watchdog.hang_ms = config.watchdog.hang_ms.min(1000);
    config.watchdog.most_restarts = 1000;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    config.sink = vec![toml::from_str::<config::Sink>("kind = \"udp\"")?];
    config.sink[0].bind = Some("127.0.0.1:0".parse()?);
    config.sink[0].peer = Some(socket.local_addr()?);
    debug_assert_eq!(config.sink[0].kind, SinkKind::Udp);

    let tally: Arc<Mutex<Tally>> = Arc::default();
    let (mut parts, injection) = assemble::parts(config.clone(), &options.plan)?;
    parts.sinks.push(SinkHandle {
        sink: Box::new(Comparison::new(
            model_factory(&config, None)()?,
            &config,
            sides,
            tally.clone(),
            options.leak,
        )),
        // Long enough that nothing escapes it.
        queue: 256,
    });
    let node = Node::start(parts)?;
    let handle = node.handle();
    let (stop, heard) = (AtomicBool::new(false), Heard::default());
    let (end, samples) = thread::scope(|scope| {
        scope.spawn(|| listen(&socket, &stop, &heard));
        let node = scope.spawn(|| node.run());
        let start = Instant::now();
        let mut samples = Vec::new();
        while start.elapsed() < options.length && !node.is_finished() {
            thread::sleep(Duration::from_millis(200));
            samples.push((start.elapsed(), resident()));
        }
        // What hangs may come back, so that the process can end.
        handle.stop();
        let end = node.join().unwrap_or(Ok(()));
        injection.backend.release();
        stop.store(true, SeqCst);
        (end, samples)
    });

    let warm: Vec<u64> = samples
        .iter()
        .filter(|(at, _)| *at >= options.warm_up)
        .map(|(_, n)| *n)
        .collect();
    let part = warm.len().div_ceil(4).max(1);
    // The highest of the first and of the last quarter: both see the same ups and downs.
    let first = warm.iter().take(part).max().copied().unwrap_or_default();
    let last = warm
        .iter()
        .rev()
        .take(part)
        .max()
        .copied()
        .unwrap_or_default();

    let metrics = handle.metrics();
    let rows = rows::rows(&injection, &handle, &heard);
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let published = metrics.answers();
    Ok(Outcome {
        captured: metrics.captured.load(SeqCst),
        published,
        dropped: metrics.all_drops(),
        compared: tally.compared,
        differing: tally.differing,
        misordered: tally.misordered,
        not_compared: published.saturating_sub(tally.compared),
        oldest_us: tally.oldest_us,
        most_age_us: 1000 * config.pipeline.max_age_ms,
        memory: (first, last),
        most_growth: options.most_growth,
        heard: heard.frames.load(SeqCst),
        hangs: metrics.events(Event::Hang),
        state_changes: handle.monitor().changes(),
        rows,
        end: end.map_err(|e| e.to_string()),
    })
}
