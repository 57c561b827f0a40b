//! The health of a backend.

use std::time::Instant;

/// The health of a backend.
#[derive(Debug, Clone)]
pub struct Health {
    /// Name of the backend in use.
    pub answering: &'static str,
    /// Whether it is the preferred one.
    pub state: State,
    /// Statistics.
    pub counters: Counters,
}

impl Health {
    /// A backend without a fallback, and without failures.
    pub fn healthy(name: &'static str) -> Self {
        Self {
            answering: name,
            state: State::Healthy,
            counters: Counters::default(),
        }
    }

    /// Why the preferred backend is not in use; `None` if it is.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Healthy => None,
            State::Degraded { reason, .. } => Some(reason),
        }
    }
}

/// Whether the preferred backend is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The preferred backend is in use.
    Healthy,
    /// The fallback is in use.
    Degraded {
        /// The reason, in one line.
        reason: String,
        /// Start of this state.
        since: Instant,
    },
}

/// Statistics since the backend was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Runs completed by the preferred backend.
    pub preferred_runs: u64,
    /// Runs completed by the fallback, including those that failed on the preferred backend.
    pub fallback_runs: u64,
    /// Errors of the preferred backend, while loading or running.
    pub errors: u64,
    /// Runs of the preferred backend with outputs that were not finite.
    pub not_finite: u64,
    /// Comparisons with the reference outputs of a bundle that the preferred backend failed.
    pub wrong: u64,
    /// Timeouts of the preferred backend.
    pub timeouts: u64,
    /// Retries of the preferred backend.
    pub retries: u64,
    /// Threads that are currently hung in the preferred backend.
    pub stuck: u64,
}
