//! The stages on their threads, and their supervisor.
//!
//! ```text
//! source -> capture -> [1] -> preprocess -> [1] -> backbone -> [1] -> upsample + head -> [1] -> publish -> [1] -> each sink
//! ```
//!
//! Each `[1]` is a [`Mailbox`] that keeps the newest frame. A frame travels in a [`Job`], whose
//! buffers are reused. Every frame ends in exactly one counter: published, or a
//! [`DropReason`](crate::metrics::DropReason).

mod capture;
mod cpu_limit;
mod job;
mod publish;
mod shared;
mod sinks;
mod stages;
mod supervisor;
mod thermal;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;

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
    source::Clock,
    tracking::Tracking,
};

pub use crate::{error::NodeError, sink::SinkHandle, source::SourceFactory};
pub use job::Job;
use job::JobPool;
use shared::{Shared, WATCHED};
use supervisor::{Components, Supervisor, spawn};

/// The parts of a node.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Opens the model.
    pub model: ModelFactory,
    /// Opens the source.
    pub source: SourceFactory,
    /// The sinks.
    pub sinks: Vec<SinkHandle>,
}

/// A node.
pub struct Node {
    shared: Arc<Shared>,
    components: Components,
}

/// Stops and inspects a node from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Stops the node after the frames in the pipeline have finished.
    pub fn stop(&self) {
        self.0.stop.store(true, SeqCst);
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// State and journal.
    pub fn monitor(&self) -> &Monitor {
        &self.0.monitor
    }

    /// Settings that can be changed while the node runs.
    pub fn control(&self) -> &Control {
        &self.0.control
    }

    /// The tracker, if there is one.
    pub fn tracking(&self) -> Option<&Tracking> {
        self.0.tracking.as_ref()
    }

    /// The clock of all time stamps.
    pub fn clock(&self) -> Clock {
        self.0.clock
    }

    /// The metrics in the Prometheus text format.
    pub fn prometheus(&self) -> String {
        let uptime_s = self.0.now() as f64 / 1e6;
        self.0.metrics.encode(self.0.monitor.state(), uptime_s)
    }
}

impl Node {
    /// Starts the sinks and the metrics server. [`Node::run`] then processes frames.
    ///
    /// # Errors
    /// If the address of the metrics server is not available, or a thread cannot be started.
    pub fn start(parts: Parts) -> Result<Self, NodeError> {
        let config = parts.config;
        let (d, p) = (&config.degrade, &config.pipeline);
        let server = match config.metrics {
            Some(metrics) => {
                let address = metrics.listen;
                let server = http::Server::bind(address);
                Some(server.map_err(|cause| NodeError::MetricsAddress { address, cause })?)
            }
            None => None,
        };
        let policy = Policy {
            miss_limit: d.miss_limit,
            recover_after: d.recover_after,
            heat_step_us: config.thermal.as_ref().map_or(0, |t| 1000 * t.step_ms),
            steps: d.step.len(),
        };
        let count = 2 + parts.sinks.iter().map(|o| o.queue + 1).sum::<usize>();
        let mut outputs = VecDeque::with_capacity(2 * count);
        outputs.resize_with(count, Arc::default);
        let shared = Arc::new(Shared {
            levels: config.levels(),
            clock: Clock::start(),
            metrics: Metrics::default(),
            monitor: Monitor::default(),
            control: Control::of(&config),
            tracking: config.track.as_ref().map(Tracking::new),
            degradation: Mutex::new(DegradationController::new(policy)),
            jobs: JobPool::new(2 * WATCHED + 4 * p.queue),
            outputs: Mutex::new(outputs),
            queues: std::array::from_fn(|_| Mailbox::new(p.queue)),
            sink_queues: parts.sinks.iter().map(|o| Mailbox::new(o.queue)).collect(),
            busy_since: Default::default(),
            model: Mutex::new(None),
            validator: Mutex::new(FrameValidator::new(
                config.source.size.map(config::size),
                1000 * p.max_age_ms,
            )),
            generation: AtomicU64::new(0),
            capture_generation: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            last_frame_us: AtomicU64::new(0),
            next_sequence: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            published_all: AtomicBool::new(false),
            open_sinks: AtomicU32::new(0),
            recent: Mutex::default(),
            throttled: Mutex::default(),
            failing_sinks: Mutex::default(),
            needs_image: parts.sinks.iter().any(|o| o.sink.needs_image()),
            config,
        });
        let mut threads = Vec::new();
        for (i, handle) in parts.sinks.into_iter().enumerate() {
            let shared = shared.clone();
            shared.open_sinks.fetch_add(1, SeqCst);
            let name = format!("sink {}", handle.sink.name());
            threads.push(spawn(&name, move || sinks::run(&shared, i, handle.sink))?);
        }
        if let Some(server) = server {
            let handle = Handle(shared.clone());
            let pages: http::Pages = Box::new(move |path| match path {
                "/metrics" => Some(handle.prometheus()),
                "/health" => Some(format!("{}\n", handle.monitor().state())),
                _ => None,
            });
            // Not joined: it serves until the process ends.
            spawn("http", move || server.serve(&pages))?;
        }
        Ok(Self {
            shared,
            components: Components {
                model: parts.model,
                source: parts.source,
                threads,
            },
        })
    }

    /// A handle to stop and inspect the node.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Runs until the node is stopped, the source ends, or a fault cannot be repaired. The sinks
    /// are flushed in any case.
    ///
    /// # Errors
    /// [`NodeError::Failed`].
    pub fn run(self) -> Result<(), NodeError> {
        Supervisor::new(self.shared, self.components).run()
    }
}
