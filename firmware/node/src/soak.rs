//! Soak test with fault injection.
//!
//! Plays a generated scene while random faults are injected into the source, the engine and a UDP
//! link, over which a controller starts, renames and stops objects and replaces the words. Every output
//! is recomputed by a model without faults and compared bit by bit. Memory must not grow, and every kind
//! of fault must show up in the counters and the journal.

mod compare;
mod link;
mod pace;
mod rows;

use std::{
    net::UdpSocket,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use rows::Row;

use compare::{Comparison, FedFrames, Totals};
use link::{PeerCounters, Script, receive};
use pace::held_back;

use crate::{
    assemble::{self, model_factory},
    config::{self, Config, SinkKind, SourceKind},
    inject::Plan,
    metrics::Event,
    pipeline::{Node, SinkHandle},
    tracking::Tracking,
};

/// Duration of a hung call of the engine: several times the watchdog's limit. The call keeps the memory of its
/// model, and many calls that hang at the same time would look like a leak.
const HANG: Duration = Duration::from_secs(5);

/// Options of a soak test.
#[derive(Debug, Clone)]
pub struct Options {
    /// Duration.
    pub length: Duration,
    /// Time after which memory is measured, or the end of the first hang if that is later: until then only one
    /// model has been in memory.
    pub warm_up: Duration,
    /// Faults to inject.
    pub plan: Plan,
    /// Bytes to leak with each output, to test the leak detection.
    pub leak: usize,
    /// Maximum growth of memory, in bytes.
    pub max_growth: u64,
}

impl Options {
    /// All kinds of faults, often.
    pub fn new(length: Duration, seed: u64) -> Self {
        let text = "source.drop=0.01,source.duplicate=0.01,source.reorder=0.01,source.truncate=0.01,\
                    source.wrong-size=0.01,source.stuck=0.003,source.time-jump=0.01,link.flip=0.001,\
                    link.drop=0.005,link.split=0.01,link.stall=0.001,backend.error=0.001,\
                    backend.nan=0.001,backend.infinity=0.0005,backend.slow=0.001,backend.hang=0.0002";
        // A test asserts that it can be parsed.
        let mut plan: Plan = text.parse().unwrap_or_default();
        plan.seed = seed;
        plan.source.stuck_ms = 800;
        Self {
            length,
            warm_up: (length / 4).min(Duration::from_secs(60)),
            plan,
            leak: 0,
            max_growth: 8 << 20,
        }
    }
}

/// Result of a soak test.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Frames from the source.
    pub captured: u64,
    /// Outputs published.
    pub published: u64,
    /// Frames dropped, for any reason.
    pub dropped: u64,
    /// Outputs compared with those of a model without faults.
    pub compared: u64,
    /// Outputs that differ.
    pub differing: u64,
    /// Outputs that were duplicate or out of order.
    pub misordered: u64,
    /// Outputs that were not compared.
    pub not_compared: u64,
    /// Outputs that a full queue of a sink dropped.
    pub sink_dropped: u64,
    /// The last errors of sinks in the journal.
    pub sink_errors: Vec<String>,
    /// Maximum latency of an output, in microseconds.
    pub oldest_us: u64,
    /// Latency limit, in microseconds.
    pub max_age_us: u64,
    /// Resident memory after warm-up and at the end, in bytes.
    pub memory: (u64, u64),
    /// Maximum growth of memory, in bytes.
    pub max_growth: u64,
    /// Valid frames that the peer of the link received.
    pub received: u64,
    /// Commands of the peer: executed, refused, without a reply.
    pub commands: (u64, u64, u64),
    /// Frames that the tracker processed, and outputs with a visible object.
    pub tracked: (u64, u64),
    /// Number of sets of words that outputs were computed with.
    pub word_sets: u64,
    /// Stages that hung and were abandoned.
    pub hangs: u64,
    /// State changes.
    pub state_changes: u64,
    /// Counts of each kind of fault.
    pub rows: Vec<Row>,
    /// Result of the node.
    pub end: Result<(), String>,
}

impl Outcome {
    /// Growth of memory after warm-up, in bytes.
    pub fn growth(&self) -> u64 {
        self.memory.1.saturating_sub(self.memory.0)
    }

    /// Everything that failed; empty if the test passed.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut expect = |ok: bool, what: String| {
            if !ok {
                failures.push(what);
            }
        };
        if let Err(e) = &self.end {
            expect(false, format!("the node ended with: {e}"));
        }
        expect(self.compared > 0, "no output was compared".into());
        expect(
            self.differing == 0,
            format!(
                "{} outputs differ from a run without faults",
                self.differing
            ),
        );
        expect(
            self.misordered == 0,
            format!("{} outputs were duplicate or out of order", self.misordered),
        );
        expect(
            self.not_compared == 0,
            format!(
                "{} outputs were not compared: {} dropped by full queues, errors of sinks: {:?}",
                self.not_compared, self.sink_dropped, self.sink_errors
            ),
        );
        expect(
            self.captured == self.published + self.dropped,
            format!(
                "of {} frames, {} were published and {} dropped: the sum does not match",
                self.captured, self.published, self.dropped
            ),
        );
        let (done, refused, given_up) = self.commands;
        expect(
            5 * (refused + given_up) <= done + 10,
            format!(
                "of the peer's commands, {done} were executed, {refused} refused, {given_up} lost"
            ),
        );
        expect(
            self.oldest_us <= self.max_age_us,
            format!(
                "maximum latency {} us, limit {} us",
                self.oldest_us, self.max_age_us
            ),
        );
        expect(
            self.growth() < self.max_growth,
            format!(
                "memory grew by {} bytes, limit {}",
                self.growth(),
                self.max_growth
            ),
        );
        for row in &self.rows {
            expect(
                row.is_explained(),
                format!(
                    "{}: {} injected, {} counted, {} in the journal",
                    row.fault, row.injected, row.counted, row.journaled
                ),
            );
        }
        failures
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

/// Runs a soak test with the model of `config`. Its source is replaced by a generated scene, and its
/// sinks by a UDP link and the comparison.
///
/// # Errors
/// If the test cannot start. Failures of the test are in the [`Outcome`].
pub fn run(config: &Config, options: &Options) -> Result<Outcome, Box<dyn std::error::Error>> {
    let mut config = config.clone();
    let sides = config.source.size.unwrap_or([160, 120]);
    config.source.kind = SourceKind::Scenes;
    config.source.path = None;
    config.source.size = Some(sides);
    config.source.timeout_ms = 500;
    config.watchdog.hang_ms = config.watchdog.hang_ms.min(1000);
    config.watchdog.max_restarts = 1000;
    // Long enough for the comparison to finish.
    config.watchdog.drain_ms = config.watchdog.drain_ms.max(30_000);
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    config.sink = vec![toml::from_str::<config::Sink>("kind = \"udp\"")?];
    config.sink[0].bind = Some("127.0.0.1:0".parse()?);
    config.sink[0].peer = Some(socket.local_addr()?);
    debug_assert_eq!(config.sink[0].kind, SinkKind::Udp);

    let totals: Arc<Mutex<Totals>> = Arc::default();
    let fed = FedFrames::default();
    let (mut parts, injection) = assemble::parts(config.clone(), &options.plan)?;
    injection.backend.limit_hangs(HANG);
    parts.sinks.push(SinkHandle {
        sink: Box::new(Comparison::new(
            model_factory(&config, None)()?,
            &config,
            sides,
            (&totals, &fed),
            options.leak,
        )?),
        // Long enough that no output is dropped.
        queue: 256,
    });
    let running = Arc::new(OnceLock::new());
    parts.source = held_back(parts.source, &running, &totals);
    let node = Node::start(parts)?;
    let handle = node.handle();
    // It is empty until here.
    let _ = running.set(handle.clone());
    *fed.lock() = handle.tracking().and_then(Tracking::record);
    let (stop, peer) = (AtomicBool::new(false), PeerCounters::default());
    let (end, samples, warm_up) = thread::scope(|scope| {
        let script = Script::new(&config, sides);
        scope.spawn(|| receive(&socket, script, &stop, &peer));
        let node = scope.spawn(|| node.run());
        let start = Instant::now();
        let (mut samples, mut first_hang) = (Vec::new(), None);
        while start.elapsed() < options.length && !node.is_finished() {
            thread::sleep(Duration::from_millis(200));
            samples.push((start.elapsed(), resident()));
            if first_hang.is_none() && handle.metrics().events(Event::Hang) > 0 {
                first_hang = Some(start.elapsed());
            }
        }
        // Injected hangs end here, so that their threads can exit.
        handle.stop();
        let end = node.join().unwrap_or(Ok(()));
        injection.backend.release();
        stop.store(true, SeqCst);
        let warm_up = first_hang.map_or(Duration::ZERO, |at| {
            (at + 2 * HANG).min(options.length * 3 / 4)
        });
        (end, samples, warm_up.max(options.warm_up))
    });

    let warm: Vec<u64> = samples
        .iter()
        .filter(|(at, _)| *at >= warm_up)
        .map(|(_, n)| *n)
        .collect();
    let quarter = warm.len().div_ceil(4).max(1);
    // Compares the maxima of the first and the last quarter, to be robust against fluctuations.
    let first = warm.iter().take(quarter).max().copied().unwrap_or_default();
    let last = warm
        .iter()
        .rev()
        .take(quarter)
        .max()
        .copied()
        .unwrap_or_default();

    let metrics = handle.metrics();
    let rows = rows::rows(&injection, &handle, &peer);
    let totals = totals.lock();
    let published = metrics.published();
    Ok(Outcome {
        captured: metrics.captured(),
        published,
        dropped: metrics.total_drops(),
        compared: totals.compared,
        differing: totals.differing,
        misordered: totals.misordered,
        not_compared: published.saturating_sub(totals.compared),
        sink_dropped: metrics.events(Event::SinkDropped),
        sink_errors: handle
            .monitor()
            .journal()
            .into_iter()
            .filter(|entry| entry.kind == "sink")
            .map(|entry| entry.text)
            .collect(),
        oldest_us: totals.oldest_us,
        max_age_us: 1000 * config.pipeline.max_age_ms,
        memory: (first, last),
        max_growth: options.max_growth,
        received: peer.frames.load(SeqCst),
        commands: (
            peer.done.load(SeqCst),
            peer.refused.load(SeqCst),
            peer.given_up.load(SeqCst),
        ),
        tracked: (totals.tracked, totals.with_objects),
        word_sets: totals.word_sets,
        hangs: metrics.events(Event::Hang),
        state_changes: handle.monitor().changes(),
        rows,
        end: end.map_err(|e| e.to_string()),
    })
}
