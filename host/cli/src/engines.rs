//! What the commands say of engines.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use loftup_runtime::backend::{
    Health,
    engine_cache::{BuildEvent, BuildWatch, LogWatch},
};
use serde_json::{Value, json};

use crate::{interrupt, progress};

/// Follows builds in the log, and stops them on Ctrl-C.
#[derive(Debug, Default)]
pub struct Watch(LogWatch);

impl BuildWatch for Watch {
    fn event(&self, event: &BuildEvent<'_>) {
        self.0.event(event);
    }

    fn cancelled(&self) -> bool {
        interrupt::pending()
    }
}

/// An engine that is there now.
#[derive(Debug, Clone)]
pub struct Ready {
    pub graph: String,
    pub bytes: usize,
    /// How long it was built; `None` where it was there already.
    pub seconds: Option<f64>,
}

/// Follows builds on a line of the terminal, and remembers what became of them.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    log: LogWatch,
    ready: Mutex<Vec<Ready>>,
}

impl Bar {
    pub fn new() -> Self {
        Self {
            bar: progress::spinner(),
            log: LogWatch::default(),
            ready: Mutex::default(),
        }
    }

    /// What is ready, in order.
    pub fn finish(&self) -> Vec<Ready> {
        self.bar.finish_and_clear();
        std::mem::take(&mut self.ready.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, graph: &str, bytes: usize, seconds: Option<f64>) {
        let graph = graph.to_owned();
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.push(Ready {
            graph,
            bytes,
            seconds,
        });
    }
}

impl BuildWatch for Bar {
    fn event(&self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Building {
                graph,
                elapsed,
                phase,
            } if !self.bar.is_hidden() => {
                let phase = phase.map_or(String::new(), |(name, done, steps)| {
                    format!(", {name} {done}/{steps}")
                });
                let seconds = elapsed.as_secs();
                self.bar
                    .set_message(format!("building {graph}: {seconds} s{phase}"));
            }
            BuildEvent::Waiting { graph, elapsed, .. } if !self.bar.is_hidden() => {
                self.bar.set_message(format!(
                    "{graph}: another process builds it; waiting for {} s",
                    elapsed.as_secs()
                ));
            }
            BuildEvent::Built {
                graph,
                elapsed,
                bytes,
            } => self.keep(graph, *bytes, Some(elapsed.as_secs_f64())),
            BuildEvent::Loaded { graph, bytes } => self.keep(graph, *bytes, None),
            other => self.bar.suspend(|| self.log.event(other)),
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::pending()
    }
}

/// How often which engine ran, for JSON.
pub fn runs(health: &Health) -> Value {
    let c = &health.counters;
    json!({
        "preferred": c.preferred_runs,
        "standing_in": c.fallback_runs,
        "errors": c.errors,
        "not_finite": c.not_finite,
        "wrong": c.wrong,
        "timeouts": c.timeouts,
    })
}

/// Whether there is more to say of the engine than its name: another one answers, or answered
/// for a while.
pub fn is_worth_a_line(health: &Health) -> bool {
    let c = &health.counters;
    c.preferred_runs > 0 || c.not_finite + c.timeouts + c.wrong > 0
}

/// The engine, and why it is not another one.
pub fn summary(health: &Health, engine: &str) -> String {
    match health.reason() {
        None => format!("engine: {engine}"),
        Some(reason) => format!("engine: {engine}, because {reason}"),
    }
}
