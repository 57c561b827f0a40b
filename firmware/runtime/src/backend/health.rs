//! How an engine is, for whoever depends on it.

use std::time::Instant;

/// How an engine is.
#[derive(Debug, Clone)]
pub struct Health {
    /// Name of the engine that answers now.
    pub answering: &'static str,
    /// Whether it is the one that should.
    pub state: State,
    /// What has happened so far.
    pub counters: Counters,
}

impl Health {
    /// An engine that has no other to fall back to and has not failed.
    pub fn healthy(name: &'static str) -> Self {
        Self {
            answering: name,
            state: State::Healthy,
            counters: Counters::default(),
        }
    }

    /// Why the preferred engine does not answer; `None` where it does.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Healthy => None,
            State::Degraded { reason, .. } => Some(reason),
        }
    }
}

/// Whether the preferred engine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does.
    Healthy,
    /// Another one stands in for it.
    Degraded {
        /// Why, in one line.
        reason: String,
        /// Since when.
        since: Instant,
    },
}

/// What has happened since the engine was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Runs that the preferred engine answered.
    pub preferred_runs: u64,
    /// Runs that the engine standing in answered, those that the preferred one failed included.
    pub fallback_runs: u64,
    /// Errors of the preferred engine, in loading as in running.
    pub errors: u64,
    /// Answers of the preferred engine that were not finite.
    pub not_finite: u64,
    /// Times the preferred engine was compared with the reference outputs of a bundle and was
    /// wrong.
    pub wrong: u64,
    /// Times the preferred engine did not answer in time.
    pub timeouts: u64,
    /// Times the preferred engine was tried again.
    pub retries: u64,
    /// Threads that are inside the preferred engine now and will perhaps never come back.
    pub stuck: u64,
}
