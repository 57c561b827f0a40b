//! Progress of engine builds, and the state of the backend in messages.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use loftup_runtime::backend::{
    Health,
    engine_cache::{BuildEvent, BuildWatch, LogWatch},
};
use serde_json::{Value, json};

use crate::{interrupt, progress};

/// Logs engine builds, and cancels them on Ctrl-C.
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

/// An engine that was built or loaded.
#[derive(Debug, Clone)]
pub struct Ready {
    pub graph: String,
    pub bytes: usize,
    /// Build time; `None` if it came from the cache.
    pub seconds: Option<f64>,
}

/// Shows engine builds on a progress line and collects the results.
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

    /// Ends the progress line; returns the engines in build order.
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
                    "{graph}: being built by another process; waited {} s",
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

/// Counters of the backend, as JSON.
pub fn runs(health: &Health) -> Value {
    let c = &health.counters;
    json!({
        "preferred": c.preferred_runs,
        "fallback": c.fallback_runs,
        "errors": c.errors,
        "not_finite": c.not_finite,
        "wrong": c.wrong,
        "timeouts": c.timeouts,
    })
}

/// Whether the fallback backend may have been used, so that the name of the engine alone does not say
/// enough.
pub fn is_noteworthy(health: &Health) -> bool {
    let c = &health.counters;
    c.preferred_runs > 0 || c.not_finite + c.timeouts + c.wrong > 0
}

/// The engine, and the reason for a fallback.
pub fn summary(health: &Health, engine: &str) -> String {
    match health.reason() {
        None => format!("engine: {engine}"),
        Some(reason) => format!("engine: {engine} (fallback: {reason})"),
    }
}
