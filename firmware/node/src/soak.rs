//! A long run with everything going wrong, and the proof that it does no harm.
//!
//! A generated scene is played; faults are injected at random into source, engine and a UDP link.
//! Every answer is computed again by a model without faults and compared bit by bit. Memory is
//! watched, and every kind of fault must have left its mark in counters and journal.

use std::{
    net::UdpSocket,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use loftup_runtime::image::Rgb8;
use loftup_wire::{Decoder, Encoder, Handshake, MAX_FRAME, Message, Text, message::Role};

use crate::{
    answer::Answer,
    assemble::{self, model_factory},
    config::{self, Config, SinkKind, SourceKind},
    frame::RawFrame,
    inject::{Plan, SourceFault},
    metrics::{Drop, Event},
    model::{Model, Prepared, Question},
    pipeline::{Node, Outlet},
    regions::Finder,
    sink::{Context, Sink, SinkError},
    source::{Pace, Scenes},
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
    /// Bytes that are leaked with each answer on purpose, to see that it is noticed.
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

/// A kind of fault: what was done, and what was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub fault: &'static str,
    /// How often it was injected.
    pub injected: u64,
    /// How often the node counted it.
    pub noticed: u64,
    /// Entries of the journal that speak of it.
    pub noted: u64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Frames that the source gave.
    pub captured: u64,
    /// Answers published.
    pub published: u64,
    /// Frames dropped, for whatever reason.
    pub dropped: u64,
    /// Answers compared with those of a model without faults.
    pub compared: u64,
    /// Answers that differed.
    pub differing: u64,
    /// Answers that came out of order or twice.
    pub misordered: u64,
    /// Answers that the comparison had no time for.
    pub not_compared: u64,
    /// The greatest age of an answer when it was published, microseconds.
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
            // Nearly all: the last ones may find the node stopping. The engine's may also hit a
            // frame that is dropped for another reason.
            let share = if row.fault == ENGINE { 5 } else { 9 };
            let noticed = 10 * (row.noticed + 2) >= share * row.injected;
            let explained = row.injected == 0 || (noticed && row.noted > 0);
            expect(
                explained,
                format!(
                    "{}: injected {}, noticed {}, in the journal {}",
                    row.fault, row.injected, row.noticed, row.noted
                ),
            );
        }
        wrong
    }
}

/// Computes every answer again, without faults.
struct Comparison {
    model: Arc<dyn Model>,
    scenes: Scenes,
    config: Config,
    tally: Arc<Mutex<Tally>>,
    last: Option<u64>,
    raw: RawFrame,
    expected: Answer,
    finder: Finder,
    leak: usize,
    leaked: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Tally {
    compared: u64,
    differing: u64,
    misordered: u64,
    oldest_us: u64,
}

impl Comparison {
    fn compute(&mut self, answer: &Answer) -> Result<(), Box<dyn std::error::Error>> {
        self.scenes.draw(answer.number, &mut self.raw);
        let picture = Rgb8::new(self.raw.width, self.raw.height, self.raw.bytes.clone())?;
        let level = self.config.levels()[answer.level];
        let (mut prepared, mut features) = (Prepared::default(), None);
        self.model.prepare(&picture, level.size, &mut prepared)?;
        self.model.backbone(&prepared, &mut features)?;
        let question = Question {
            queries: &self.config.queries(),
            regions_only: level.regions_only,
            least_region: self.config.regions.least_pixels,
            most_regions: self.config.regions.most,
            camera: config::size([self.raw.width, self.raw.height]),
        };
        let features = features.ok_or("no features")?;
        self.model.upsample(
            &prepared,
            &features,
            &question,
            &mut self.finder,
            &mut self.expected,
        )?;
        Ok(())
    }
}

impl Sink for Comparison {
    fn name(&self) -> &str {
        "comparison"
    }

    fn answer(&mut self, answer: &Answer, _: &Context<'_>) -> Result<(), SinkError> {
        let computed = self.compute(answer);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.misordered += u64::from(self.last.is_some_and(|last| last >= answer.sequence));
        self.last = Some(answer.sequence);
        tally.oldest_us = tally
            .oldest_us
            .max(answer.published_us.saturating_sub(answer.captured_us));
        computed.map_err(|e| SinkError::Other(format!("the comparison failed: {e}")))?;
        tally.compared += 1;
        // Bit by bit: features are compared as they are, and none is NaN.
        tally.differing += u64::from(self.expected.parts() != answer.parts());
        if self.leak > 0 {
            self.leaked.push(vec![1; self.leak]);
        }
        Ok(())
    }
}

/// The row of all faults of the engine.
const ENGINE: &str = "engine";

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

/// The other side of the link: greets, and counts the frames that arrive whole.
fn listen(socket: &UdpSocket, stop: &AtomicBool, heard: &AtomicU64) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut encoder, mut decoder) = (
        Encoder::new(),
        Decoder::<{ loftup_wire::MAX_PACKET }>::new(),
    );
    let mut handshake = Handshake::new(Role::Monitor, Text::default());
    let (mut buffer, mut frame) = ([0; 2048], [0; MAX_FRAME]);
    while !stop.load(SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut replies = Vec::new();
        decoder.push_slice(&buffer[..length], |found| {
            let Ok(found) = found else { return };
            heard.fetch_add(1, SeqCst);
            if let Ok(Message::Hello(hello)) = found.message() {
                replies.extend(handshake.receive(&hello));
            }
        });
        for reply in replies {
            if let Ok(bytes) = encoder.encode(&reply.into(), &mut frame) {
                socket.send_to(bytes, from)?;
            }
        }
    }
    Ok(())
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
    let pace = Pace::new(config.source.rate_hz);
    parts.sinks.push(Outlet {
        sink: Box::new(Comparison {
            model: model_factory(&config, None)()?,
            scenes: Scenes::new(config.source.seed, sides[0], sides[1], pace),
            config: config.clone(),
            tally: tally.clone(),
            last: None,
            raw: RawFrame::default(),
            expected: Answer::default(),
            finder: Finder::default(),
            leak: options.leak,
            leaked: Vec::new(),
        }),
        // Long enough that nothing escapes it.
        queue: 256,
    });
    let node = Node::start(parts)?;
    let handle = node.handle();
    let (stop, heard) = (AtomicBool::new(false), AtomicU64::new(0));
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
    let kinds = handle.monitor().kinds();
    let noted = |names: &[&str]| names.iter().filter_map(|n| kinds.get(n)).sum::<u64>();
    let mut rows: Vec<Row> = SourceFault::ALL
        .into_iter()
        .map(|fault| {
            let (noticed, names): (u64, &[&str]) = match fault {
                SourceFault::Drop => (metrics.events(Event::SourceLost), &["frames lost"]),
                SourceFault::Duplicate => (metrics.drops(Drop::Duplicate), &["duplicate"]),
                SourceFault::Reorder => (metrics.drops(Drop::Reordered), &["reordered"]),
                SourceFault::Truncate => (metrics.drops(Drop::Truncated), &["truncated"]),
                SourceFault::WrongSize => (metrics.drops(Drop::WrongSize), &["wrong_size"]),
                SourceFault::Stuck => (metrics.events(Event::Silence), &["state"]),
                SourceFault::TimeJump => (metrics.events(Event::TimeJump), &["time jump"]),
            };
            Row {
                fault: fault.name(),
                injected: injection.source.count(fault),
                noticed,
                noted: noted(names),
            }
        })
        .collect();
    rows.push(Row {
        fault: ENGINE,
        injected: injection.backend.injected(),
        noticed: metrics.drops(Drop::Failed)
            + metrics.drops(Drop::Abandoned)
            + metrics.events(Event::DeadlineMissed),
        noted: noted(&["failed", "restart", "step"]),
    });
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
        heard: heard.load(SeqCst),
        hangs: metrics.events(Event::Hang),
        state_changes: handle.monitor().changes(),
        rows,
        end: end.map_err(|e| e.to_string()),
    })
}
