//! Watches the stages, the heat and the engine, and ends the node.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use loftup_board::{Limits, ThermalGuard, ThermalState, Thermometer, linux::ThermalZone};

use super::{
    shared::{CAPTURE, PUBLISH, Shared, WATCHED},
    stages,
};
use crate::{
    config,
    error::NodeError,
    health::Reason,
    mailbox::Mailbox,
    metrics::{DropReason, Event, Stage},
    model::{Model, ModelError, ModelFactory},
    notify::Notifier,
    source::SourceFactory,
    sync::lock,
};

/// Between two looks.
const TICK: Duration = Duration::from_millis(10);
const SECOND_US: u64 = 1_000_000;
/// The time that latencies in health reports are of.
const RECENT_US: u64 = 10 * SECOND_US;

/// The hottest of several zones.
struct Hottest(Vec<ThermalZone>);

impl Thermometer for Hottest {
    type Error = loftup_board::linux::LinuxError;

    fn read_cc(&mut self) -> Result<i16, Self::Error> {
        let mut hottest = i16::MIN;
        for zone in &mut self.0 {
            hottest = hottest.max(zone.read_cc()?);
        }
        Ok(hottest)
    }
}

pub(super) struct Started {
    pub(super) model: ModelFactory,
    pub(super) source: SourceFactory,
    pub(super) notifier: Notifier,
    pub(super) threads: Vec<std::thread::JoinHandle<()>>,
}

type Loaded = Result<Arc<dyn Model>, ModelError>;

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    parts: Started,
    guard: Option<(ThermalGuard<Hottest>, u64)>,
    heat: ThermalState,
    next_heat_us: u64,
    next_second_us: u64,
    next_alive_us: u64,
    recent_since_us: u64,
    rate_from: (u64, u64),
    restarts: VecDeque<u64>,
    loading: Option<(mpsc::Receiver<Loaded>, u64)>,
    loaded_once: bool,
    silent: bool,
    /// Why it ends, where it fails.
    failure: Option<String>,
}

impl Supervisor {
    pub fn new(shared: Arc<Shared>, parts: Started) -> Self {
        let guard = shared.config.thermal.as_ref().and_then(guard);
        Self {
            guard,
            heat: ThermalState::Normal,
            next_heat_us: 0,
            next_second_us: SECOND_US,
            next_alive_us: 0,
            recent_since_us: 0,
            rate_from: (0, 0),
            restarts: VecDeque::new(),
            loading: None,
            loaded_once: false,
            silent: false,
            failure: None,
            shared,
            parts,
        }
    }

    pub fn run(mut self) -> Result<(), NodeError> {
        self.load()?;
        self.start_capture()?;
        let shared = self.shared.clone();
        self.parts
            .threads
            .push(spawn("publish", move || stages::publish(&shared))?);
        while !self.shared.stop.load(SeqCst) && !self.shared.published_all.load(SeqCst) {
            thread::sleep(TICK);
            let now = self.shared.now();
            let tick = self.tick(now);
            if let Err(e) = tick {
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
        self.check_temperature(now);
        if now >= self.next_second_us {
            self.next_second_us = now + SECOND_US;
            self.every_second(now);
        }
        if let Some(period) = self.parts.notifier.period()
            && now >= self.next_alive_us
        {
            self.next_alive_us = now + u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
            self.parts.notifier.say("WATCHDOG=1");
        }
        Ok(())
    }

    fn fail(&mut self, reason: Reason, why: String) {
        self.shared.monitor.failed(self.shared.now(), reason, &why);
        self.failure.get_or_insert(why);
    }

    /// Opens the model on a thread of its own: that may take long, or hang.
    fn load(&mut self) -> Result<(), NodeError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let factory = self.parts.model.clone();
        // Not among the threads waited for at the end.
        spawn("load", move || {
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| factory()));
            let made = made
                .unwrap_or_else(|_| Err(ModelError::Other("opening the bundle panicked".into())));
            // Nobody listens where it was given up.
            let _ = sender.send(made);
        })?;
        self.loading = Some((receiver, self.shared.now()));
        Ok(())
    }

    fn check_loading(&mut self, now: u64) -> Result<(), NodeError> {
        let Some((receiver, since)) = &self.loading else {
            return Ok(());
        };
        match receiver.try_recv() {
            Ok(Ok(model)) => {
                self.loading = None;
                *lock(&self.shared.model) = Some(model);
                if !self.loaded_once {
                    self.loaded_once = true;
                    log::info!("the model is ready after {:.1} s", now as f64 / 1e6);
                    self.parts.notifier.say("READY=1");
                }
                self.start_stages()
            }
            Ok(Err(e)) => {
                self.loading = None;
                if !self.loaded_once {
                    self.fail(Reason::Bundle, e.to_string());
                    return Ok(());
                }
                self.restart_model(now, &format!("opening it again failed: {e}"))
            }
            Err(mpsc::TryRecvError::Empty) => {
                if now.saturating_sub(*since) > 1000 * self.shared.config.watchdog.start_ms {
                    self.loading = None;
                    return self.restart_model(
                        now,
                        "opening the bundle takes longer than watchdog.start_ms",
                    );
                }
                Ok(())
            }
            Err(mpsc::TryRecvError::Disconnected) => {
                self.loading = None;
                self.restart_model(now, "opening the bundle ended without a result")
            }
        }
    }

    fn start_stages(&mut self) -> Result<(), NodeError> {
        let generation = self.shared.generation.load(SeqCst);
        for (index, name) in ["preprocess", "backbone", "upsample"]
            .into_iter()
            .enumerate()
        {
            let shared = self.shared.clone();
            spawn(name, move || stages::work(&shared, index, generation))?;
        }
        Ok(())
    }

    fn start_capture(&mut self) -> Result<(), NodeError> {
        let generation = self.shared.capture_generation.load(SeqCst);
        let (shared, factory) = (self.shared.clone(), self.parts.source.clone());
        spawn("capture", move || {
            stages::capture(&shared, &factory, generation)
        })?;
        Ok(())
    }

    fn check_stages(&mut self, now: u64) -> Result<(), NodeError> {
        let shared = self.shared.clone();
        let config = &shared.config;
        let busy = |stage: usize| match shared.beats[stage].load(SeqCst) {
            0 => 0,
            since => now.saturating_sub(since - 1),
        };
        let hang_us = 1000 * config.watchdog.hang_ms;
        let source_us = hang_us.max(1000 * config.source.timeout_ms);
        if busy(CAPTURE) > source_us {
            self.shared.metrics.count(Event::Hang, 1);
            self.shared.capture_generation.fetch_add(1, SeqCst);
            self.shared.beats[CAPTURE].store(0, SeqCst);
            if self.may_restart(now, "the source hangs") {
                self.start_capture()?;
            }
        }
        if let Some(stage) = (1..PUBLISH).find(|stage| busy(*stage) > hang_us) {
            self.shared.metrics.count(Event::Hang, 1);
            return self.restart_model(now, &format!("{} hangs", Stage::ALL[stage]));
        }
        if self.shared.failures.load(SeqCst) >= config.watchdog.failures {
            let n = self.shared.failures.swap(0, SeqCst);
            return self.restart_model(now, &format!("{n} frames failed in a row"));
        }
        Ok(())
    }

    /// Gives up the model's stages with their model, and starts new ones.
    fn restart_model(&mut self, now: u64, why: &str) -> Result<(), NodeError> {
        self.shared.generation.fetch_add(1, SeqCst);
        *lock(&self.shared.model) = None;
        for stage in 1..PUBLISH {
            if self.shared.beats[stage].swap(0, SeqCst) != 0 {
                self.shared.metrics.dropped(DropReason::Abandoned);
            }
        }
        if self.may_restart(now, why) {
            self.load()?;
        }
        Ok(())
    }

    /// Counts a restart; too many end the node.
    fn may_restart(&mut self, now: u64, why: &str) -> bool {
        let w = self.shared.config.watchdog.clone();
        self.shared.metrics.count(Event::Restart, 1);
        self.shared.monitor.recovering(now, why);
        self.shared.monitor.note(now, "restart", why.into());
        self.restarts.push_back(now);
        let since = now.saturating_sub(SECOND_US * w.window_s);
        self.restarts.retain(|at| *at >= since);
        if self.restarts.len() <= w.most_restarts as usize {
            return true;
        }
        let why = format!(
            "{} restarts in {} s, the last because {why}",
            self.restarts.len(),
            w.window_s
        );
        self.fail(Reason::Internal, why);
        false
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
                "no good frame within source.timeout_ms"
            }
            false => "a frame came",
        };
        self.shared.monitor.set(now, Reason::NoFrames, silent, why);
    }

    fn check_temperature(&mut self, now: u64) {
        let Some((guard, period_us)) = &mut self.guard else {
            return;
        };
        if now >= self.next_heat_us {
            self.next_heat_us = now + *period_us;
            let heat = match guard.poll() {
                Ok(heat) => heat,
                Err(e) => {
                    let text = e.to_string();
                    self.shared.log_throttled("thermometer", || text);
                    guard.state()
                }
            };
            let cc = guard.last_cc();
            self.shared
                .metrics
                .temperature_cc
                .store(cc.map_or(i64::MIN, i64::from), Relaxed);
            if heat != self.heat {
                self.heat = heat;
                let why = match cc {
                    Some(cc) => format!("{:.1} degrees", f64::from(cc) / 100.0),
                    None => "the thermometer is dead".into(),
                };
                let hot = heat > ThermalState::Normal;
                self.shared
                    .monitor
                    .note(now, "heat", format!("{heat:?}: {why}"));
                self.shared.monitor.set(now, Reason::TooHot, hot, &why);
            }
        }
        let mut degradation = lock(&self.shared.degradation);
        let step = degradation.heat(self.heat, now);
        let level = degradation.level();
        drop(degradation);
        self.shared.stepped(step, level, "of heat");
    }

    fn every_second(&mut self, now: u64) {
        let shared = &self.shared;
        let model = lock(&shared.model).clone();
        if let Some(model) = model {
            let fallback = model.fallback();
            let is = fallback.is_some();
            if is != shared.monitor.holds(Reason::Fallback) {
                let why = fallback.unwrap_or_else(|| "the preferred engine answers again".into());
                shared.monitor.set(now, Reason::Fallback, is, &why);
            }
        }
        let answers = shared.metrics.answers();
        let (before, at) = self.rate_from;
        let seconds = (now - at).max(1) as f64 / 1e6;
        self.rate_from = (answers, now);
        let mut recent = lock(&shared.recent);
        let q = shared.metrics.latency.quantiles_since(&recent.0);
        recent.1.rate_hz = (answers - before) as f64 / seconds;
        if q.count > 0 {
            (recent.1.latency_p50_us, recent.1.latency_p99_us) = (q.p50_us, q.p99_us);
        }
        if now >= self.recent_since_us + RECENT_US {
            self.recent_since_us = now;
            shared.metrics.latency.mark(&mut recent.0);
        }
        drop(recent);
        let changes = shared.monitor.changes();
        let counted = shared.metrics.events(Event::StateChange);
        shared
            .metrics
            .count(Event::StateChange, changes.saturating_sub(counted));
    }

    /// Lets frames on their way be finished, then closes everything.
    fn shut_down(&mut self) {
        let shared = &self.shared;
        self.parts.notifier.say("STOPPING=1");
        shared.stop.store(true, SeqCst);
        let end = shared.now() + 1000 * shared.config.watchdog.drain_ms;
        while !shared.published_all.load(SeqCst) && shared.now() < end {
            let no_model = lock(&shared.model).is_none();
            if no_model || self.failure.is_some() {
                // Nobody works on what waits.
                shared.generation.fetch_add(1, SeqCst);
                shared.queues.iter().for_each(Mailbox::close);
            }
            thread::sleep(TICK);
        }
        shared.generation.fetch_add(1, SeqCst);
        shared.capture_generation.fetch_add(1, SeqCst);
        shared.queues.iter().for_each(Mailbox::close);
        for stage in 1..WATCHED - 1 {
            if shared.beats[stage].swap(0, SeqCst) != 0 {
                shared.metrics.dropped(DropReason::Shutdown);
            }
        }
        for queue in &shared.queues[..PUBLISH - 1] {
            while let crate::mailbox::RecvResult::Item(job) = queue.recv(Duration::ZERO) {
                shared.discard(job, DropReason::Shutdown);
            }
        }
        let end = shared.now() + SECOND_US + 1000 * shared.config.watchdog.drain_ms;
        while (!shared.published_all.load(SeqCst) || shared.sinks_open.load(SeqCst) > 0)
            && shared.now() < end
        {
            thread::sleep(TICK);
        }
        let m = &shared.metrics;
        let q = m.latency.quantiles();
        let ms = |us: u64| us as f64 / 1000.0;
        log::info!(
            "{} frames captured, {} processed and {} dropped; latency {:.1} ms (p50), {:.1} (p99), {:.1} at most",
            m.captured.load(Relaxed),
            m.answers(),
            m.all_drops(),
            ms(q.p50_us),
            ms(q.p99_us),
            ms(q.max_us)
        );
        let open = shared.sinks_open.load(SeqCst);
        if open > 0 {
            shared.monitor.note(
                shared.now(),
                "shutdown",
                format!("{open} sinks did not end in time"),
            );
            return;
        }
        for thread in self.parts.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread panicked");
            }
        }
    }
}

fn guard(config: &config::Thermal) -> Option<(ThermalGuard<Hottest>, u64)> {
    let cc = |degrees: f64| (degrees * 100.0).round() as i16;
    let limits = Limits::new(
        cc(config.hot_c),
        cc(config.critical_c),
        cc(config.hysteresis_c),
    );
    // Checked with the configuration.
    let limits = limits
        .inspect_err(|e| log::error!("{e}: no thermal guard"))
        .ok()?;
    let zones = config.zones.iter().map(ThermalZone::new).collect();
    Some((
        ThermalGuard::new(Hottest(zones), limits),
        1000 * config.period_ms,
    ))
}

pub(super) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, NodeError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|cause| NodeError::Io {
            what: format!("no thread for {name}"),
            cause,
        })
}
