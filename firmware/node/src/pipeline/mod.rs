//! The stages on their threads, and who watches over them.
//!
//! ```text
//! source -> capture -> [1] -> pre-process -> [1] -> backbone -> [1] -> upsample + head -> [1] -> publish -> [1] -> each sink
//! ```
//!
//! Each `[1]` is a [`Mailbox`] in which the newest frame wins. A frame travels in a [`Job`], whose
//! memory is used again. Every frame ends in exactly one counter: published, or one of
//! [`DropReason`](crate::metrics::DropReason).

mod job;
mod shared;
mod sinks;
mod stages;
mod supervisor;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use crate::{
    config::{self, Config},
    control::Control,
    degradation::{DegradationController, Policy},
    frame::FrameValidator,
    health::Monitor,
    http,
    mailbox::Mailbox,
    metrics::Metrics,
    model::ModelFactory,
    notify::Notifier,
    source::Clock,
};

pub use crate::{error::NodeError, sink::SinkHandle, source::SourceFactory};
pub use job::Job;
use job::Pool;
use shared::{Shared, WATCHED};
use supervisor::{Started, spawn};

/// What a node is made of.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Where the model comes from.
    pub model: ModelFactory,
    /// Where images come from.
    pub source: SourceFactory,
    /// Where outputs go.
    pub sinks: Vec<SinkHandle>,
    /// The service manager.
    pub notifier: Notifier,
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    parts: Started,
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
    /// Starts the threads. Nothing is processed before [`Node::run`].
    ///
    /// # Errors
    /// Where a thread or the address of the metrics cannot be had.
    pub fn start(parts: Parts) -> Result<Self, NodeError> {
        let config = parts.config;
        let (d, p) = (&config.degrade, &config.pipeline);
        let policy = Policy {
            miss_limit: d.miss_limit,
            recover_after: d.recover_after,
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
            degradation: Mutex::new(DegradationController::new(policy)),
            pool: Pool::new(2 * WATCHED + 4 * p.queue),
            answers: Mutex::new(answers),
            queues: std::array::from_fn(|_| Mailbox::new(p.queue)),
            sink_queues: parts.sinks.iter().map(|o| Mailbox::new(o.queue)).collect(),
            beats: Default::default(),
            model: Mutex::new(None),
            validator: Mutex::new(FrameValidator::new(
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
        for (i, handle) in parts.sinks.into_iter().enumerate() {
            let shared = shared.clone();
            shared.sinks_open.fetch_add(1, SeqCst);
            let name = format!("sink {}", handle.sink.name());
            threads.push(spawn(&name, move || sinks::run(&shared, i, handle.sink))?);
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
