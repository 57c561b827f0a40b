//! State shared by the threads of a node.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
};

use parking_lot::Mutex;

use super::job::{Job, JobPool};
use crate::{
    config::{Config, Level},
    control::Control,
    degradation::DegradationController,
    frame::FrameValidator,
    health::{Monitor, Reason},
    mailbox::Mailbox,
    metrics::{DropReason, Metrics},
    model::Model,
    output::FrameOutput,
    sink::HealthReport,
    source::Clock,
    tracking::Tracking,
};

/// Number of stages under the watchdog: capture, preprocess, backbone, upsample, publish.
pub(super) const WATCHED: usize = 5;
pub(super) const CAPTURE: usize = 0;
pub(super) const PUBLISH: usize = 4;

/// State shared by all threads.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) levels: Vec<Level>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) monitor: Monitor,
    pub(super) control: Control,
    pub(super) tracking: Option<Tracking>,
    pub(super) degradation: Mutex<DegradationController>,
    pub(super) jobs: JobPool,
    /// Published outputs. Each is reused once no sink holds it.
    pub(super) outputs: Mutex<VecDeque<Arc<FrameOutput>>>,
    /// The queues before preprocess, backbone, upsample and publish.
    pub(super) queues: [Mailbox<Box<Job>>; 4],
    pub(super) sink_queues: Vec<Mailbox<Arc<FrameOutput>>>,
    /// When each stage started on its current frame, in microseconds plus one; 0 while idle.
    pub(super) busy_since: [AtomicU64; WATCHED],
    pub(super) model: Mutex<Option<Arc<dyn Model>>>,
    pub(super) validator: Mutex<FrameValidator>,
    /// Incremented when the model's stages are restarted. Threads of earlier generations exit.
    pub(super) generation: AtomicU64,
    pub(super) capture_generation: AtomicU64,
    /// Number of consecutive failed frames.
    pub(super) failures: AtomicU32,
    pub(super) last_frame_us: AtomicU64,
    /// Smallest sequence number that may still be published.
    pub(super) next_sequence: AtomicU64,
    pub(super) stop: AtomicBool,
    pub(super) published_all: AtomicBool,
    pub(super) open_sinks: AtomicU32,
    /// Rate and latencies of the last health update.
    pub(super) recent: Mutex<HealthReport>,
    pub(super) throttled: Mutex<HashMap<&'static str, Throttle>>,
    /// Number of failing sinks, by the reason for degrading the node.
    pub(super) failing_sinks: Mutex<BTreeMap<Reason, u32>>,
    pub(super) needs_image: bool,
}

/// Minimum interval between two journal entries of one kind.
const LOG_INTERVAL_US: u64 = 1_000_000;

/// The earliest time of the next journal entry of a kind, and the number of entries suppressed since the last.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    due_us: u64,
    suppressed: u64,
}

/// Suppresses repeats of a message, so that a lasting fault is logged once.
#[derive(Debug, Default)]
pub(super) struct RepeatFilter {
    text: String,
    at_us: u64,
}

impl RepeatFilter {
    /// Whether `text` should be logged: it differs from the last message, which was logged at least a
    /// second ago.
    pub(super) fn is_new(&mut self, now: u64, text: &str) -> bool {
        let first = self.text.is_empty();
        if self.text == text || !first && now < self.at_us + LOG_INTERVAL_US {
            return false;
        }
        (self.text, self.at_us) = (text.into(), now);
        true
    }

    /// Call when the fault is over: its message may be logged again.
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }
}

impl Shared {
    pub(super) fn now(&self) -> u64 {
        self.clock.now_us()
    }

    /// Adds a journal entry, at most once a second for each kind.
    pub(super) fn log_throttled(&self, kind: &'static str, text: impl FnOnce() -> String) {
        let now = self.now();
        let mut throttled = self.throttled.lock();
        let throttle = throttled.entry(kind).or_default();
        if now < throttle.due_us {
            throttle.suppressed += 1;
            return;
        }
        throttle.due_us = now + LOG_INTERVAL_US;
        let suppressed = std::mem::take(&mut throttle.suppressed);
        drop(throttled);
        let text = match suppressed {
            0 => text(),
            n => format!("{} ({n} more since the last message)", text()),
        };
        self.monitor.record(now, kind, text);
    }

    /// Records that a sink starts to fail or works again. The node is healthy if all sinks are.
    pub(super) fn sink_changed(&self, reason: Reason, failing: bool, why: &str) {
        let mut failing_sinks = self.failing_sinks.lock();
        let count = failing_sinks.entry(reason).or_default();
        *count = match failing {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        self.monitor.set(self.now(), reason, *count > 0, why);
    }

    /// Drops a frame.
    pub(super) fn discard(&self, job: Box<Job>, reason: DropReason) {
        self.metrics.frame_dropped(reason);
        self.jobs.release(job);
    }

    /// The degradation step and its settings.
    pub(super) fn level(&self) -> (usize, Level) {
        let level = self.degradation.lock().level().min(self.levels.len() - 1);
        (level, self.levels[level])
    }
}
