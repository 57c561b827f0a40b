//! Loads the model, starts the stages, and restarts what hangs or keeps failing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::SeqCst,
        mpsc::{self, TryRecvError},
    },
};

use sd_notify::NotifyState;

use super::{SECOND_US, Supervisor, notify, spawn};
use crate::{
    error::NodeError,
    health::Reason,
    metrics::{DropReason, Event, Stage},
    model::{Model, ModelError},
    pipeline::{
        capture,
        shared::{CAPTURE, PUBLISH},
        stages,
    },
};

type Loaded = Result<Arc<dyn Model>, ModelError>;

/// A model that is being loaded, and the start time.
pub(super) struct Loading {
    receiver: mpsc::Receiver<Loaded>,
    since_us: u64,
}

impl Supervisor {
    /// Loads the model on a separate thread, because this may take long or hang.
    pub(super) fn load(&mut self) -> Result<(), NodeError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let factory = self.components.model.clone();
        // Not joined at the end: it may hang.
        spawn("load", move || {
            let loaded = catch_unwind(AssertUnwindSafe(|| factory()));
            let loaded = loaded
                .unwrap_or_else(|_| Err(ModelError::Other("opening the bundle panicked".into())));
            // The receiver is gone if loading took too long.
            let _ = sender.send(loaded);
        })?;
        self.loading = Some(Loading {
            receiver,
            since_us: self.shared.now(),
        });
        Ok(())
    }

    pub(super) fn check_loading(&mut self, now: u64) -> Result<(), NodeError> {
        let Some(loading) = &self.loading else {
            return Ok(());
        };
        let limit_us = 1000 * self.shared.config.watchdog.start_ms;
        let timed_out = now.saturating_sub(loading.since_us) > limit_us;
        let result = loading.receiver.try_recv();
        if let Err(TryRecvError::Empty) = result
            && !timed_out
        {
            return Ok(());
        }
        self.loading = None;
        match result {
            Ok(Ok(model)) => {
                let shared = self.shared.clone();
                let (control, words) = (&shared.control, shared.config.words.as_ref());
                if let (None, Some(name)) = (control.words(), words.and_then(|w| w.head.as_ref())) {
                    match model.words(name) {
                        Ok(words) => control.set_words(words),
                        Err(e) => {
                            self.fail(Reason::Bundle, e.to_string());
                            return Ok(());
                        }
                    }
                }
                *shared.model.lock() = Some(model);
                if !self.loaded_once {
                    self.loaded_once = true;
                    log::info!("model loaded in {:.1} s", now as f64 / 1e6);
                    notify(NotifyState::Ready);
                }
                self.start_stages()
            }
            Ok(Err(e)) if !self.loaded_once => {
                self.fail(Reason::Bundle, e.to_string());
                Ok(())
            }
            Ok(Err(e)) => self.restart_model(now, &format!("reopening the bundle failed: {e}")),
            Err(TryRecvError::Empty) => {
                self.restart_model(now, "opening the bundle took longer than watchdog.start_ms")
            }
            Err(TryRecvError::Disconnected) => {
                self.restart_model(now, "opening the bundle ended without a result")
            }
        }
    }

    fn start_stages(&mut self) -> Result<(), NodeError> {
        let generation = self.shared.generation.load(SeqCst);
        for (index, name) in stages::THREADS.into_iter().enumerate() {
            let shared = self.shared.clone();
            let thread = spawn(name, move || stages::run(&shared, index, generation))?;
            self.workers.push((index + 1, thread));
        }
        Ok(())
    }

    pub(super) fn start_capture(&mut self) -> Result<(), NodeError> {
        let generation = self.shared.capture_generation.load(SeqCst);
        let (shared, factory) = (self.shared.clone(), self.components.source.clone());
        let thread = spawn("capture", move || {
            capture::run(&shared, &factory, generation);
        })?;
        self.workers.push((CAPTURE, thread));
        Ok(())
    }

    /// Drops the handles of threads that hang, which may never end, and of those that have ended.
    pub(super) fn forget(&mut self, hangs: impl Fn(usize) -> bool) {
        self.workers
            .retain(|(stage, thread)| !hangs(*stage) && !thread.is_finished());
    }

    /// Restarts stages that hang or keep failing.
    pub(super) fn check_stages(&mut self, now: u64) -> Result<(), NodeError> {
        let shared = self.shared.clone();
        let config = &shared.config;
        let busy = |stage: usize| match shared.busy_since[stage].load(SeqCst) {
            0 => 0,
            since => now.saturating_sub(since - 1),
        };
        let hang_us = 1000 * config.watchdog.hang_ms;
        let source_us = hang_us.max(1000 * config.source.timeout_ms);
        if busy(CAPTURE) > source_us {
            shared.metrics.count(Event::Hang, 1);
            shared.capture_generation.fetch_add(1, SeqCst);
            shared.busy_since[CAPTURE].store(0, SeqCst);
            self.forget(|stage| stage == CAPTURE);
            if self.may_restart(now, "the source hangs") {
                self.start_capture()?;
            }
        }
        if let Some(stage) = (1..PUBLISH).find(|stage| busy(*stage) > hang_us) {
            shared.metrics.count(Event::Hang, 1);
            return self.restart_model(now, &format!("{} hangs", Stage::ALL[stage]));
        }
        if shared.failures.load(SeqCst) >= config.watchdog.failures {
            let n = shared.failures.swap(0, SeqCst);
            return self.restart_model(now, &format!("{n} frames failed in a row"));
        }
        Ok(())
    }

    /// Abandons the stages together with their model, and loads a new one.
    fn restart_model(&mut self, now: u64, why: &str) -> Result<(), NodeError> {
        let busy = self.shared.abandon_stages(DropReason::Abandoned);
        self.forget(|stage| busy[stage]);
        if self.may_restart(now, why) {
            self.load()?;
        }
        Ok(())
    }

    /// Counts a restart. If there were too many within the window, the node fails and this returns `false`.
    fn may_restart(&mut self, now: u64, why: &str) -> bool {
        let w = self.shared.config.watchdog.clone();
        self.shared.metrics.count(Event::Restart, 1);
        self.shared.monitor.recovering(now, why);
        self.shared.monitor.record(now, "restart", why.into());
        self.restarts.push_back(now);
        let since = now.saturating_sub(SECOND_US * w.window_s);
        self.restarts.retain(|at| *at >= since);
        if self.restarts.len() <= w.max_restarts as usize {
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
}
