//! What the threads of a node share.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
};

use super::job::{Job, Pool};
use crate::{
    answer::Answer,
    config::{Config, Level},
    control::Control,
    degradation::DegradationController,
    frame::FrameValidator,
    health::{Monitor, Reason},
    histogram::Mark,
    mailbox::Mailbox,
    metrics::{DropReason, Metrics},
    model::Model,
    sink::Report,
    source::Clock,
    sync::lock,
};

/// The stages that are watched, in order.
pub(super) const WATCHED: usize = 5;
pub(super) const CAPTURE: usize = 0;
pub(super) const PUBLISH: usize = 4;

/// Everything that the threads share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) levels: Vec<Level>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) monitor: Monitor,
    pub(super) control: Control,
    pub(super) degradation: Mutex<DegradationController>,
    pub(super) pool: Pool,
    /// Used in turn.
    pub(super) answers: Mutex<VecDeque<Arc<Answer>>>,
    /// Before pre-processing, backbone, upsampling and publishing.
    pub(super) queues: [Mailbox<Box<Job>>; 4],
    pub(super) sink_queues: Vec<Mailbox<Arc<Answer>>>,
    /// Since when each stage works on a frame, microseconds plus one; 0 while it waits.
    pub(super) beats: [AtomicU64; WATCHED],
    pub(super) model: Mutex<Option<Arc<dyn Model>>>,
    pub(super) validator: Mutex<FrameValidator>,
    /// Rises whenever the model's stages are started again; older threads end.
    pub(super) generation: AtomicU64,
    pub(super) capture_generation: AtomicU64,
    pub(super) failures: AtomicU32,
    pub(super) last_frame_us: AtomicU64,
    pub(super) last_sequence: AtomicU64,
    pub(super) stop: AtomicBool,
    pub(super) published_all: AtomicBool,
    pub(super) sinks_open: AtomicU32,
    pub(super) recent: Mutex<(Mark, Report)>,
    pub(super) notes: Mutex<HashMap<&'static str, (u64, u64)>>,
    /// How many sinks fail, by what the node is degraded by.
    pub(super) failing: Mutex<BTreeMap<Reason, u32>>,
    pub(super) wants_picture: bool,
}

/// Between two notes of one kind in the journal.
const NOTE_EVERY_US: u64 = 1_000_000;

/// What was told of a fault, so that one that lasts is told once.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) text: String,
    at_us: u64,
}

impl Told {
    /// Whether it is news: another fault than before, a second after that at least.
    pub(super) fn is_news(&mut self, now: u64, text: &str) -> bool {
        let first = self.text.is_empty();
        if self.text == text || !first && now < self.at_us + NOTE_EVERY_US {
            return false;
        }
        (self.text, self.at_us) = (text.into(), now);
        true
    }

    /// The fault is over.
    pub(super) fn over(&mut self) {
        self.text.clear();
    }
}

impl Shared {
    pub(super) fn now(&self) -> u64 {
        self.clock.now_us()
    }

    /// Writes into the journal, once a second at most for each kind.
    pub(super) fn log_throttled(&self, kind: &'static str, text: impl FnOnce() -> String) {
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
    pub(super) fn sink_changed(&self, reason: Reason, fails: bool, why: &str) {
        let mut failing = lock(&self.failing);
        let count = failing.entry(reason).or_default();
        *count = match fails {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        self.monitor.set(self.now(), reason, *count > 0, why);
    }

    /// A frame ends here.
    pub(super) fn discard(&self, job: Box<Job>, why: DropReason) {
        self.metrics.dropped(why);
        self.pool.put(job);
    }

    pub(super) fn level(&self) -> (usize, Level) {
        let level = lock(&self.degradation).level().min(self.levels.len() - 1);
        (level, self.levels[level])
    }
}
