//! Decides when to use the preferred backend.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{BackendError, Counters, State};

/// When to give up on a backend, and when to retry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackOptions {
    /// Time limit of a run.
    pub run_limit: Duration,
    /// Time limit for creating a session and its first run, during which drivers load code.
    pub start_limit: Duration,
    /// Time after a failure until the preferred backend is retried; `None` for never.
    pub retry_after: Option<Duration>,
    /// Maximum number of hung threads in the preferred backend. Beyond that it is never retried,
    /// since each keeps its memory.
    pub max_hung_threads: u64,
    /// Whether the fallback is prepared together with the preferred backend, so that it takes over
    /// without a delay. Costs its time and memory even without failures.
    pub warm: bool,
}

impl Default for FallbackOptions {
    fn default() -> Self {
        Self {
            run_limit: Duration::from_secs(2),
            start_limit: Duration::from_secs(30),
            retry_after: None,
            max_hung_threads: 4,
            warm: false,
        }
    }
}

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Use the preferred backend.
    Preferred,
    /// Retry the preferred backend, without waiting for it.
    Retry,
    /// Use the fallback.
    Fallback,
}

/// The state of one [`super::Fallback`], shared by all of its plans and sessions.
pub(super) struct Supervisor {
    pub options: FallbackOptions,
    name: &'static str,
    /// Name of the fallback, for messages.
    fallback: Option<&'static str>,
    /// Whether `phase` is `Healthy`, for a fast check in every run.
    healthy: AtomicBool,
    phase: Mutex<Phase>,
    preferred_runs: AtomicU64,
    fallback_runs: AtomicU64,
    errors: AtomicU64,
    not_finite: AtomicU64,
    wrong: AtomicU64,
    timeouts: AtomicU64,
    retries: AtomicU64,
    pub stuck: Arc<AtomicU64>,
}

enum Phase {
    Healthy,
    Degraded {
        reason: String,
        since: Instant,
        /// Time of the last failure or retry.
        last: Instant,
        /// Whether a session is retrying, since `last`.
        trying: bool,
        /// Whether it will never be retried.
        permanent: bool,
    },
}

impl Supervisor {
    pub fn new(
        name: &'static str,
        fallback: Option<&'static str>,
        options: FallbackOptions,
    ) -> Self {
        Self {
            options,
            name,
            fallback,
            healthy: AtomicBool::new(true),
            phase: Mutex::new(Phase::Healthy),
            preferred_runs: AtomicU64::new(0),
            fallback_runs: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            not_finite: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            stuck: Arc::new(AtomicU64::new(0)),
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// What a session may do now. At most one at a time gets [`Admission::Retry`].
    pub fn admit(&self) -> Admission {
        if self.is_healthy() {
            return Admission::Preferred;
        }
        let Some(after) = self.options.retry_after else {
            return Admission::Fallback;
        };
        match &mut *self.phase.lock() {
            Phase::Healthy => Admission::Preferred,
            Phase::Degraded {
                last,
                trying,
                permanent,
                ..
            } => {
                // One at a time, because each may hang. A session that is no longer used does not
                // report its result; it is ignored after twice the time limit.
                let busy = *trying && last.elapsed() < 2 * self.options.start_limit;
                if *permanent || busy || last.elapsed() < after || !self.may_hang() {
                    return Admission::Fallback;
                }
                (*last, *trying) = (Instant::now(), true);
                self.retries.fetch_add(1, Relaxed);
                log::info!("retrying {}", self.name);
                Admission::Retry
            }
        }
    }

    /// Whether another thread may be started, given that it could hang.
    pub fn may_hang(&self) -> bool {
        self.stuck.load(Relaxed) < self.options.max_hung_threads
    }

    /// Whether a thread is hung in the preferred backend.
    pub fn hangs(&self) -> bool {
        self.stuck.load(Relaxed) > 0
    }

    /// Records a completed run of the preferred backend.
    pub fn succeeded(&self) {
        self.preferred_runs.fetch_add(1, Relaxed);
        if self.is_healthy() {
            return;
        }
        let mut phase = self.phase.lock();
        // A run that started before the backend was given up permanently does not count.
        if matches!(
            *phase,
            Phase::Degraded {
                permanent: false,
                ..
            }
        ) {
            log::warn!("{} works again", self.name);
            *phase = Phase::Healthy;
            self.healthy.store(true, Relaxed);
        }
    }

    pub fn fallback_ran(&self) {
        self.fallback_runs.fetch_add(1, Relaxed);
    }

    /// Counts a failure of the preferred backend.
    pub fn count(&self, error: &BackendError) {
        let counter = match error {
            BackendError::Timeout { .. } => &self.timeouts,
            BackendError::NotFinite { .. } => &self.not_finite,
            BackendError::Wrong { .. } => &self.wrong,
            _ => &self.errors,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Switches everything to the fallback; the first time with a warning. Without a fallback
    /// nothing is switched, and every use fails on its own.
    pub fn degrade(&self, error: &BackendError, permanent: bool) {
        let Some(fallback) = self.fallback else {
            return;
        };
        let now = Instant::now();
        let reason = error.to_string();
        let mut phase = self.phase.lock();
        match &mut *phase {
            Phase::Healthy => {
                // If nothing of the backend is installed, its absence is expected.
                let expected = !matches!(error, BackendError::Unavailable { absent: true, .. });
                let level = match expected {
                    true => log::Level::Warn,
                    false => log::Level::Info,
                };
                log::log!(level, "{reason}; falling back to {fallback}");
                *phase = Phase::Degraded {
                    reason,
                    since: now,
                    last: now,
                    trying: false,
                    permanent,
                };
            }
            Phase::Degraded {
                reason: old,
                last,
                trying,
                permanent: old_permanent,
                ..
            } => {
                if *old_permanent && !permanent {
                    return;
                }
                log::info!("{} still fails: {reason}", self.name);
                *old = reason;
                *old_permanent = permanent;
                (*last, *trying) = (now, false);
            }
        }
        self.healthy.store(false, Relaxed);
    }

    pub fn state(&self) -> State {
        match &*self.phase.lock() {
            Phase::Healthy => State::Healthy,
            Phase::Degraded { reason, since, .. } => State::Degraded {
                reason: reason.clone(),
                since: *since,
            },
        }
    }

    pub fn counters(&self) -> Counters {
        Counters {
            preferred_runs: self.preferred_runs.load(Relaxed),
            fallback_runs: self.fallback_runs.load(Relaxed),
            errors: self.errors.load(Relaxed),
            not_finite: self.not_finite.load(Relaxed),
            wrong: self.wrong.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            retries: self.retries.load(Relaxed),
            stuck: self.stuck.load(Relaxed),
        }
    }
}
