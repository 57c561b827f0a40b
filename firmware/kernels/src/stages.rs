//! Where the time goes: processor time of each stage, summed over all threads of the process.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// A stage of the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Stage {
    Fourier,
    First,
    Second,
    Attention,
    Mlp,
    Rest,
}

const NAMES: [&str; 6] = [
    "Fourier features",
    "first convolution",
    "second convolution",
    "attention",
    "MLP",
    "layout and last map",
];

static NANOSECONDS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// Processor time that each stage has taken in this process so far, in all threads.
pub fn stages() -> impl Iterator<Item = (&'static str, Duration)> {
    NAMES
        .into_iter()
        .zip(&NANOSECONDS)
        .map(|(name, ns)| (name, Duration::from_nanos(ns.load(Ordering::Relaxed))))
}

/// A clock of this thread's processor time.
pub(crate) struct Clock(u64);

impl Clock {
    pub fn start() -> Self {
        Self(now())
    }

    /// Counts what has passed since the last call towards `stage`.
    pub fn lap(&mut self, stage: Stage) {
        let now = now();
        let passed = now.saturating_sub(self.0);
        NANOSECONDS[stage as usize].fetch_add(passed, Ordering::Relaxed);
        self.0 = now;
    }
}

fn now() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    let part = |x: i64| u64::try_from(x).unwrap_or(0);
    part(t.tv_sec) * 1_000_000_000 + part(t.tv_nsec)
}
