//! CPU time of each stage of the queries graph, summed over all threads of the process.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// A stage of the queries graph. Indexes `NAMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Stage {
    Fourier,
    Conv1,
    Conv2,
    Attention,
    Mlp,
    Other,
}

const NAMES: [&str; 6] = [
    "Fourier features",
    "first convolution",
    "second convolution",
    "attention",
    "MLP",
    "layout and last linear layer",
];

static NANOSECONDS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// Name of each stage and the CPU time that it has taken in this process so far, over all threads.
pub fn stages() -> impl Iterator<Item = (&'static str, Duration)> {
    NAMES
        .into_iter()
        .zip(&NANOSECONDS)
        .map(|(name, ns)| (name, Duration::from_nanos(ns.load(Ordering::Relaxed))))
}

/// A stopwatch of this thread's CPU time, in nanoseconds.
pub(crate) struct Stopwatch(u64);

impl Stopwatch {
    pub fn start() -> Self {
        Self(now())
    }

    /// Adds the time since the last call to `stage`.
    pub fn lap(&mut self, stage: Stage) {
        let now = now();
        let elapsed = now.saturating_sub(self.0);
        NANOSECONDS[stage as usize].fetch_add(elapsed, Ordering::Relaxed);
        self.0 = now;
    }
}

fn now() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    let unsigned = |x: i64| u64::try_from(x).unwrap_or(0);
    unsigned(t.tv_sec) * 1_000_000_000 + unsigned(t.tv_nsec)
}
