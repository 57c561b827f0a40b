//! Following the building of engines, and stopping it.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What happens on the way to an engine.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum BuildEvent<'a> {
    /// Another process builds it; comes again and again.
    Waiting {
        /// The graph.
        graph: &'a str,
        /// The file that will appear.
        file: &'a Path,
        /// Since when.
        elapsed: Duration,
    },
    /// A file is there and cannot be used, or not any more.
    Rebuilding {
        /// The file.
        file: &'a Path,
        /// Why.
        why: &'a str,
    },
    /// It is being built; comes at least every second.
    Building {
        /// The graph.
        graph: &'a str,
        /// Since when.
        elapsed: Duration,
        /// Innermost phase under way, its steps done, and all of its steps; where TensorRT tells.
        phase: Option<(&'a str, u32, u32)>,
    },
    /// It is built.
    Built {
        /// The graph.
        graph: &'a str,
        /// How long it took.
        elapsed: Duration,
        /// Its length.
        bytes: usize,
    },
    /// It was there.
    Loaded {
        /// The graph.
        graph: &'a str,
        /// Its length.
        bytes: usize,
    },
}

/// Whoever wants to know. Called from several threads.
pub trait BuildWatch: Send + Sync {
    /// Something has happened.
    fn event(&self, event: &BuildEvent<'_>);

    /// Whether to stop. TensorRT 8 cannot be stopped while it builds.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Writes to the log: at the beginning, every ten seconds, and at the end.
#[derive(Debug, Default)]
pub struct LogWatch {
    /// When something of a long wait was last written.
    last: Mutex<Option<Instant>>,
}

impl LogWatch {
    fn due(&self, elapsed: Duration) -> bool {
        const PAUSE: Duration = Duration::from_secs(10);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let first = last.is_none_or(|last| last.elapsed() > elapsed);
        let due = first || last.is_some_and(|last| last.elapsed() >= PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

impl BuildWatch for LogWatch {
    fn event(&self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Waiting {
                graph,
                file,
                elapsed,
            } if self.due(*elapsed) => log::warn!(
                "{graph}: waiting for another process that is building {} ({} s)",
                file.display(),
                elapsed.as_secs()
            ),
            BuildEvent::Rebuilding { file, why } => {
                log::warn!("{}: building the engine again: {why}", file.display());
            }
            BuildEvent::Building { graph, elapsed, .. } if self.due(*elapsed) => log::warn!(
                "{graph}: building an engine for this GPU, once; this can take minutes ({} s)",
                elapsed.as_secs()
            ),
            BuildEvent::Built {
                graph,
                elapsed,
                bytes,
            } => log::info!(
                "{graph}: engine of {:.1} MB built in {:.1} s",
                *bytes as f64 / 1e6,
                elapsed.as_secs_f64()
            ),
            BuildEvent::Loaded { graph, bytes } => {
                log::debug!("{graph}: engine of {:.1} MB loaded", *bytes as f64 / 1e6);
            }
            _ => {}
        }
    }
}
