//! Supervises the stages, the source, the temperature and the engine, and shuts the node down.

mod restart;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::{self, JoinHandle},
    time::Duration,
};

use sd_notify::NotifyState;

use restart::Loading;

use super::{
    publish,
    shared::{CAPTURE, PUBLISH, Shared},
    thermal::Thermal,
};
use crate::{
    error::NodeError,
    health::Reason,
    mailbox::{Mailbox, RecvResult},
    metrics::{DropReason, Event},
    model::ModelFactory,
    source::SourceFactory,
};

/// Interval between two checks.
const TICK: Duration = Duration::from_millis(10);
pub(super) const SECOND_US: u64 = 1_000_000;
/// Window of the latencies in health reports.
const LATENCY_WINDOW_US: u64 = 10 * SECOND_US;

/// The components that the supervisor restarts and joins.
pub(super) struct Components {
    pub(super) model: ModelFactory,
    pub(super) source: SourceFactory,
    /// Threads to join at the end.
    pub(super) threads: Vec<JoinHandle<()>>,
}

pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) components: Components,
    /// Threads of the capture and the stages, by watchdog index, except those that hung.
    pub(super) workers: Vec<(usize, JoinHandle<()>)>,
    pub(super) restarts: VecDeque<u64>,
    loading: Option<Loading>,
    pub(super) loaded_once: bool,
    thermal: Option<Thermal>,
    /// Half of systemd's watchdog timeout, if set.
    watchdog_us: Option<u64>,
    next_watchdog_us: u64,
    next_second_us: u64,
    window_since_us: u64,
    /// Number of outputs and time of the last rate update.
    rate_base: (u64, u64),
    silent: bool,
    /// Why the node failed.
    failure: Option<String>,
}

impl Supervisor {
    pub fn new(shared: Arc<Shared>, components: Components) -> Self {
        let thermal = shared.config.thermal.as_ref().and_then(Thermal::new);
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Self {
            thermal,
            watchdog_us: watchdog
                .map(|limit| u64::try_from((limit / 2).as_micros()).unwrap_or(u64::MAX)),
            next_watchdog_us: 0,
            next_second_us: SECOND_US,
            window_since_us: 0,
            rate_base: (0, 0),
            workers: Vec::new(),
            restarts: VecDeque::new(),
            loading: None,
            loaded_once: false,
            silent: false,
            failure: None,
            shared,
            components,
        }
    }

    pub fn run(mut self) -> Result<(), NodeError> {
        self.load()?;
        self.start_capture()?;
        let shared = self.shared.clone();
        self.components
            .threads
            .push(spawn("publish", move || publish::run(&shared))?);
        while !self.shared.stop.load(SeqCst) && !self.shared.published_all.load(SeqCst) {
            thread::sleep(TICK);
            let now = self.shared.now();
            if let Err(e) = self.tick(now) {
                self.fail(Reason::Internal, e.to_string());
            }
            if self.failure.is_some() {
                break;
            }
        }
        self.shut_down();
        match self.failure {
            Some(why) => Err(NodeError::Failed(why)),
            None => Ok(()),
        }
    }

    fn tick(&mut self, now: u64) -> Result<(), NodeError> {
        self.check_loading(now)?;
        self.check_stages(now)?;
        self.check_source(now);
        if let Some(thermal) = &mut self.thermal {
            thermal.poll(&self.shared, now);
        }
        if now >= self.next_second_us {
            self.next_second_us = now + SECOND_US;
            self.every_second(now);
        }
        if let Some(period_us) = self.watchdog_us
            && now >= self.next_watchdog_us
        {
            self.next_watchdog_us = now.saturating_add(period_us);
            notify(NotifyState::Watchdog);
        }
        Ok(())
    }

    /// Ends the node with an error.
    pub(super) fn fail(&mut self, reason: Reason, why: String) {
        self.shared.monitor.failed(self.shared.now(), reason, &why);
        self.failure.get_or_insert(why);
    }

    fn check_source(&mut self, now: u64) {
        let since = now.saturating_sub(self.shared.last_frame_us.load(SeqCst));
        let silent = since > 1000 * self.shared.config.source.timeout_ms;
        if silent == self.silent {
            return;
        }
        self.silent = silent;
        let why = match silent {
            true => {
                self.shared.metrics.count(Event::Silence, 1);
                "no valid frame within source.timeout_ms"
            }
            false => "a frame arrived",
        };
        self.shared.monitor.set(now, Reason::NoFrames, silent, why);
    }

    /// Updates the engine's state, the output rate and the latencies of health reports.
    fn every_second(&mut self, now: u64) {
        let shared = &self.shared;
        let model = shared.model.lock().clone();
        if let Some(model) = model {
            let fallback = model.fallback();
            let active = fallback.is_some();
            if active != shared.monitor.holds(Reason::Fallback) {
                let why = fallback.unwrap_or_else(|| "the preferred engine works again".into());
                shared.monitor.set(now, Reason::Fallback, active, &why);
            }
        }
        let published = shared.metrics.published();
        let (before, at) = self.rate_base;
        let seconds = (now - at).max(1) as f64 / 1e6;
        self.rate_base = (published, now);
        let q = shared.metrics.latency.window();
        let mut recent = shared.recent.lock();
        recent.rate_hz = (published - before) as f64 / seconds;
        if q.count > 0 {
            (recent.latency_p50_us, recent.latency_p99_us) = (q.p50_us, q.p99_us);
        }
        drop(recent);
        if now >= self.window_since_us + LATENCY_WINDOW_US {
            self.window_since_us = now;
            shared.metrics.latency.restart_window();
        }
        let changes = shared.monitor.changes();
        let counted = shared.metrics.events(Event::StateChange);
        shared
            .metrics
            .count(Event::StateChange, changes.saturating_sub(counted));
    }

    /// Lets the frames in the pipeline finish, then closes everything.
    fn shut_down(&mut self) {
        let shared = self.shared.clone();
        notify(NotifyState::Stopping);
        shared.stop.store(true, SeqCst);
        let end = shared.now() + 1000 * shared.config.watchdog.drain_ms;
        while !shared.published_all.load(SeqCst) && shared.now() < end {
            let no_model = shared.model.lock().is_none();
            if no_model || self.failure.is_some() {
                // No stage will process the queued frames.
                shared.generation.fetch_add(1, SeqCst);
                shared.queues.iter().for_each(Mailbox::close);
            }
            thread::sleep(TICK);
        }
        shared.capture_generation.fetch_add(1, SeqCst);
        let mut busy = shared.abandon_stages(DropReason::Shutdown);
        busy[CAPTURE] = shared.busy_since[CAPTURE].swap(0, SeqCst) != 0;
        shared.queues.iter().for_each(Mailbox::close);
        // Threads that are not busy may be about to count a frame.
        self.forget(|stage| busy[stage]);
        let end = shared.now() + SECOND_US;
        while self.workers.iter().any(|(_, thread)| !thread.is_finished()) && shared.now() < end {
            thread::sleep(TICK);
        }
        for queue in &shared.queues[..PUBLISH - 1] {
            while let RecvResult::Item(job) = queue.recv(Duration::ZERO) {
                shared.discard(job, DropReason::Shutdown);
            }
        }
        let end = shared.now() + SECOND_US + 1000 * shared.config.watchdog.drain_ms;
        while (!shared.published_all.load(SeqCst) || shared.open_sinks.load(SeqCst) > 0)
            && shared.now() < end
        {
            thread::sleep(TICK);
        }
        let m = &shared.metrics;
        let q = m.latency.quantiles();
        let ms = |us: u64| us as f64 / 1000.0;
        log::info!(
            "{} frames captured, {} published, {} dropped; latency {:.1} ms (p50), {:.1} ms (p99), {:.1} ms (max)",
            m.captured(),
            m.published(),
            m.total_drops(),
            ms(q.p50_us),
            ms(q.p99_us),
            ms(q.max_us)
        );
        let open = shared.open_sinks.load(SeqCst);
        if open > 0 {
            shared.monitor.record(
                shared.now(),
                "shutdown",
                format!("{open} sinks did not finish in time"),
            );
            return;
        }
        for thread in self.components.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread panicked");
            }
        }
    }
}

/// Notifies systemd, if the node runs under it.
pub(super) fn notify(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        log::warn!("cannot notify systemd: {e}");
    }
}

pub(super) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, NodeError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|cause| NodeError::Thread {
            name: name.into(),
            cause,
        })
}
