//! The stages on their threads, and who watches over them.
//!
//! ```text
//! source -> capture -> [1] -> pre-process -> [1] -> backbone -> [1] -> upsample + head -> [1] -> publish -> [1] -> each sink
//! ```
//!
//! Each `[1]` is a [`Mailbox`] in which the newest frame wins. A frame travels in a [`Job`], whose
//! memory is used again. Every frame ends in exactly one counter: published, or one of
//! [`Drop`].

mod job;
mod sinks;
mod stages;
mod supervisor;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use crate::{
    answer::Answer,
    config::{self, Config, Level},
    control::Control,
    frame::Intake,
    health::{Monitor, Reason},
    histogram::Mark,
    http,
    ladder::{Ladder, Policy},
    mailbox::Mailbox,
    metrics::{Drop, Metrics},
    model::{Model, ModelFactory},
    notify::Notifier,
    sink::{Report, Sink},
    source::{Clock, Source, SourceError},
};

pub use job::Job;
use job::Pool;

/// Makes a source: at the start, and again when the last one hangs or falls silent.
pub type SourceFactory = Arc<dyn Fn() -> Result<Box<dyn Source>, SourceError> + Send + Sync>;

/// A sink and the length of the queue before it.
pub struct Outlet {
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// Answers that may wait for it.
    pub queue: usize,
}

/// What a node is made of.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Where the model comes from.
    pub model: ModelFactory,
    /// Where pictures come from.
    pub source: SourceFactory,
    /// Where answers go.
    pub sinks: Vec<Outlet>,
    /// The service manager.
    pub notifier: Notifier,
}

/// A node that could not go on. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A thread or socket could not be had.
    #[error("{what}: {cause}")]
    Io {
        /// For what.
        what: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It gave up.
    #[error("the node failed: {0}")]
    Failed(String),
}

/// The stages that are watched, in order.
const WATCHED: usize = 5;
const CAPTURE: usize = 0;
const PUBLISH: usize = 4;

/// Everything that the threads share.
struct Shared {
    config: Config,
    levels: Vec<Level>,
    clock: Clock,
    metrics: Metrics,
    monitor: Monitor,
    control: Control,
    ladder: Mutex<Ladder>,
    pool: Pool,
    /// Used in turn.
    answers: Mutex<VecDeque<Arc<Answer>>>,
    /// Before pre-processing, backbone, upsampling and publishing.
    queues: [Mailbox<Box<Job>>; 4],
    outlets: Vec<Mailbox<Arc<Answer>>>,
    /// Since when each stage works on a frame, microseconds plus one; 0 while it waits.
    beats: [AtomicU64; WATCHED],
    model: Mutex<Option<Arc<dyn Model>>>,
    intake: Mutex<Intake>,
    /// Rises whenever the model's stages are started anew; older threads end.
    generation: AtomicU64,
    capture_generation: AtomicU64,
    failures: AtomicU32,
    last_frame_us: AtomicU64,
    last_sequence: AtomicU64,
    stop: AtomicBool,
    published_all: AtomicBool,
    sinks_open: AtomicU32,
    recent: Mutex<(Mark, Report)>,
    notes: Mutex<HashMap<&'static str, (u64, u64)>>,
    /// How many sinks fail, by what the node is degraded by.
    failing: Mutex<BTreeMap<Reason, u32>>,
    wants_picture: bool,
}

/// What the lock guards is whole between any two statements, so a panic elsewhere leaves it usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between two notes of one kind in the journal.
const NOTE_EVERY_US: u64 = 1_000_000;

/// What was told of a fault, so that one that lasts is told once.
#[derive(Debug, Default)]
struct Told {
    text: String,
    at_us: u64,
}

impl Told {
    /// Whether it is news: another fault than before, a second after that at least.
    fn is_news(&mut self, now: u64, text: &str) -> bool {
        let first = self.text.is_empty();
        if self.text == text || !first && now < self.at_us + NOTE_EVERY_US {
            return false;
        }
        (self.text, self.at_us) = (text.into(), now);
        true
    }

    /// The fault is over.
    fn over(&mut self) {
        self.text.clear();
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.now_us()
    }

    /// Writes into the journal, once a second at most for each kind.
    fn note(&self, kind: &'static str, text: impl FnOnce() -> String) {
        let now = self.now();
        let mut notes = lock(&self.notes);
        let (next, passed_over) = notes.entry(kind).or_insert((0, 0));
        if now < *next {
            *passed_over += 1;
            return;
        }
        *next = now + NOTE_EVERY_US;
        let more = std::mem::take(passed_over);
        drop(notes);
        let text = match more {
            0 => text(),
            n => format!("{} (and {n} more since the last note)", text()),
        };
        self.monitor.note(now, kind, text);
    }

    /// A sink fails from now on, or works again. The node is well when all of them are.
    fn sink_changed(&self, reason: Reason, fails: bool, why: &str) {
        let mut failing = lock(&self.failing);
        let count = failing.entry(reason).or_default();
        *count = match fails {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        self.monitor.set(self.now(), reason, *count > 0, why);
    }

    /// A frame ends here.
    fn discard(&self, job: Box<Job>, why: Drop) {
        self.metrics.dropped(why);
        self.pool.put(job);
    }

    fn level(&self) -> (usize, Level) {
        let level = lock(&self.ladder).level().min(self.levels.len() - 1);
        (level, self.levels[level])
    }
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    parts: Started,
}

struct Started {
    model: ModelFactory,
    source: SourceFactory,
    notifier: Notifier,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Stops a node and looks at it, from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Lets frames on their way be finished, then ends.
    pub fn stop(&self) {
        self.0.stop.store(true, SeqCst);
    }

    /// All counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// State and journal.
    pub fn monitor(&self) -> &Monitor {
        &self.0.monitor
    }

    /// What can be changed.
    pub fn control(&self) -> &Control {
        &self.0.control
    }

    /// The clock that time stamps are of.
    pub fn clock(&self) -> Clock {
        self.0.clock
    }

    /// Metrics in Prometheus' format.
    pub fn prometheus(&self) -> String {
        let uptime = self.0.now() as f64 / 1e6;
        self.0.metrics.prometheus(self.0.monitor.state(), uptime)
    }
}

impl Node {
    /// Starts the threads. Nothing is answered before [`Node::run`].
    ///
    /// # Errors
    /// Where a thread or the address of the metrics cannot be had.
    pub fn start(parts: Parts) -> Result<Self, NodeError> {
        let config = parts.config;
        let (d, p) = (&config.degrade, &config.pipeline);
        let policy = Policy {
            misses: d.misses,
            grow_after: d.grow_after,
            heat_step_us: config.thermal.as_ref().map_or(0, |t| 1000 * t.step_ms),
            steps: d.step.len(),
        };
        let needed = 2 + parts.sinks.iter().map(|o| o.queue + 1).sum::<usize>();
        let mut answers = VecDeque::with_capacity(2 * needed);
        answers.resize_with(needed, Arc::default);
        let shared = Arc::new(Shared {
            levels: config.levels(),
            clock: Clock::start(),
            metrics: Metrics::default(),
            monitor: Monitor::default(),
            control: Control::new(config.queries(), &config.model.head),
            ladder: Mutex::new(Ladder::new(policy)),
            pool: Pool::new(2 * WATCHED + 4 * p.queue),
            answers: Mutex::new(answers),
            queues: std::array::from_fn(|_| Mailbox::new(p.queue)),
            outlets: parts.sinks.iter().map(|o| Mailbox::new(o.queue)).collect(),
            beats: Default::default(),
            model: Mutex::new(None),
            intake: Mutex::new(Intake::new(
                config.source.size.map(config::size),
                1000 * p.max_age_ms,
            )),
            generation: AtomicU64::new(0),
            capture_generation: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            last_frame_us: AtomicU64::new(0),
            last_sequence: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            published_all: AtomicBool::new(false),
            sinks_open: AtomicU32::new(0),
            recent: Mutex::default(),
            notes: Mutex::default(),
            failing: Mutex::default(),
            wants_picture: parts.sinks.iter().any(|o| o.sink.wants_picture()),
            config,
        });
        let mut threads = Vec::new();
        for (i, outlet) in parts.sinks.into_iter().enumerate() {
            let shared = shared.clone();
            shared.sinks_open.fetch_add(1, SeqCst);
            let name = format!("sink {}", outlet.sink.name());
            threads.push(spawn(&name, move || sinks::run(&shared, i, outlet.sink))?);
        }
        if let Some(server) = &shared.config.metrics {
            let handle = Handle(shared.clone());
            let page: http::Page = Arc::new(move |path| match path {
                "/metrics" => Some(handle.prometheus()),
                "/health" => Some(format!("{}\n", handle.monitor().state())),
                _ => None,
            });
            http::Server::start(server.listen, page).map_err(|cause| NodeError::Io {
                what: format!(
                    "metrics.listen {}: give another address, or end what uses it",
                    server.listen
                ),
                cause,
            })?;
        }
        Ok(Self {
            shared,
            parts: Started {
                model: parts.model,
                source: parts.source,
                notifier: parts.notifier,
                threads,
            },
        })
    }

    /// To stop it and look at it.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Runs until it is stopped, the source ends, or it cannot go on. Whatever comes, sinks are
    /// flushed.
    ///
    /// # Errors
    /// [`NodeError::Failed`].
    pub fn run(self) -> Result<(), NodeError> {
        supervisor::Supervisor::new(self.shared, self.parts).run()
    }
}

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, NodeError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|cause| NodeError::Io {
            what: format!("no thread for {name}"),
            cause,
        })
}
