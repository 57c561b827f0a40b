//! Who may use the preferred engine now.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{BackendError, Counters, State};

/// When an engine is given up, and when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackOptions {
    /// The longest a run may take.
    pub run_limit: Duration,
    /// The longest the making of a session and its first run may take: drivers load code then.
    pub start_limit: Duration,
    /// How long after a failure the preferred engine is tried again; `None` is never.
    pub retry_after: Option<Duration>,
    /// Threads that may be left hanging in the preferred engine before it is never tried again:
    /// each keeps its memory.
    pub max_hung_threads: u64,
    /// Whether the engine standing in is made ready together with the preferred one, so that it
    /// takes over without a pause. Takes its time and memory even where nothing fails.
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
    /// Use the preferred engine.
    Preferred,
    /// Find out whether it works again, without waiting for it.
    Retry,
    /// Leave it alone.
    Fallback,
}

/// The state of one [`super::Fallback`], shared by all of its plans and sessions.
pub(super) struct Supervisor {
    pub options: FallbackOptions,
    name: &'static str,
    /// What stands in, for messages.
    fallback: Option<&'static str>,
    /// Same as `phase` being `Healthy`: what every run looks at.
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
        /// When it last failed or was last tried.
        last: Instant,
        /// Whether a session is trying it, begun at `last`.
        trying: bool,
        /// Whether it may work again one day.
        hopeless: bool,
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

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// What a session may do now. At most one at a time is told to [`Admission::Retry`].
    pub fn admit(&self) -> Admission {
        if self.is_healthy() {
            return Admission::Preferred;
        }
        let Some(after) = self.options.retry_after else {
            return Admission::Fallback;
        };
        match &mut *self.lock() {
            Phase::Healthy => Admission::Preferred,
            Phase::Degraded {
                last,
                trying,
                hopeless,
                ..
            } => {
                // One at a time: each may hang. A session that nobody runs any more does not say
                // how it went; after twice its limit it is forgotten.
                let busy = *trying && last.elapsed() < 2 * self.options.start_limit;
                if *hopeless || busy || last.elapsed() < after || !self.may_hang() {
                    return Admission::Fallback;
                }
                (*last, *trying) = (Instant::now(), true);
                self.retries.fetch_add(1, Relaxed);
                log::info!("trying {} again", self.name);
                Admission::Retry
            }
        }
    }

    /// Whether one more thread may be risked.
    pub fn may_hang(&self) -> bool {
        self.stuck.load(Relaxed) < self.options.max_hung_threads
    }

    /// Whether a thread is inside the preferred engine that was given up.
    pub fn hangs(&self) -> bool {
        self.stuck.load(Relaxed) > 0
    }

    /// The preferred engine has answered.
    pub fn succeeded(&self) {
        self.preferred_runs.fetch_add(1, Relaxed);
        if self.is_healthy() {
            return;
        }
        let mut phase = self.lock();
        // A run that began before the engine was given up for good says nothing.
        if matches!(
            *phase,
            Phase::Degraded {
                hopeless: false,
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

    /// Counts a failure of the preferred engine.
    pub fn count(&self, error: &BackendError) {
        let counter = match error {
            BackendError::Timeout { .. } => &self.timeouts,
            BackendError::NotFinite { .. } => &self.not_finite,
            BackendError::Wrong { .. } => &self.wrong,
            _ => &self.errors,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Moves everything to the engine standing in; the first time with a warning. Where none
    /// stands in, every use goes on failing by itself, and nothing is moved.
    pub fn degrade(&self, error: &BackendError, hopeless: bool) {
        let Some(fallback) = self.fallback else {
            return;
        };
        let now = Instant::now();
        let reason = error.to_string();
        let mut phase = self.lock();
        match &mut *phase {
            Phase::Healthy => {
                // Where nothing of the engine is there, nobody waits for it.
                let expected = !matches!(error, BackendError::Unavailable { absent: true, .. });
                let level = match expected {
                    true => log::Level::Warn,
                    false => log::Level::Info,
                };
                log::log!(level, "{reason}; {fallback} carries on");
                *phase = Phase::Degraded {
                    reason,
                    since: now,
                    last: now,
                    trying: false,
                    hopeless,
                };
            }
            Phase::Degraded {
                reason: old,
                last,
                trying,
                hopeless: old_hopeless,
                ..
            } => {
                if *old_hopeless && !hopeless {
                    return;
                }
                log::info!("{} still fails: {reason}", self.name);
                *old = reason;
                *old_hopeless = hopeless;
                (*last, *trying) = (now, false);
            }
        }
        self.healthy.store(false, Relaxed);
    }

    pub fn state(&self) -> State {
        match &*self.lock() {
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
