//! CPU time of each stage of the queries graph, summed over all threads of the process.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::cpu_time;

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

/// A stopwatch of this thread's CPU time.
pub(crate) struct Stopwatch(Duration);

impl Stopwatch {
    pub fn start() -> Self {
        Self(cpu_time::thread())
    }

    /// Adds the time since the last call to `stage`.
    pub fn lap(&mut self, stage: Stage) {
        let now = cpu_time::thread();
        let elapsed = now.saturating_sub(self.0).as_nanos() as u64;
        NANOSECONDS[stage as usize].fetch_add(elapsed, Ordering::Relaxed);
        self.0 = now;
    }
}
