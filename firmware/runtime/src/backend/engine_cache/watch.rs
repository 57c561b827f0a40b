//! Progress and cancellation of engine builds.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// A progress event.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum BuildEvent<'a> {
    /// Another process is building the engine; repeated.
    Waiting {
        /// Name of the graph.
        graph: &'a str,
        /// The file that the other process is building.
        file: &'a Path,
        /// Time spent waiting.
        elapsed: Duration,
    },
    /// A cached engine exists but cannot be used (any more).
    Rebuilding {
        /// The file.
        file: &'a Path,
        /// The reason.
        why: &'a str,
    },
    /// The engine is being built; repeated at least once per second.
    Building {
        /// Name of the graph.
        graph: &'a str,
        /// Time spent building.
        elapsed: Duration,
        /// Innermost phase in progress, its completed steps, and its total steps, if known.
        phase: Option<(&'a str, u32, u32)>,
    },
    /// The engine has been built.
    Built {
        /// Name of the graph.
        graph: &'a str,
        /// Build time.
        elapsed: Duration,
        /// Size of the engine.
        bytes: usize,
    },
    /// The engine was read from the cache.
    Loaded {
        /// Name of the graph.
        graph: &'a str,
        /// Size of the engine.
        bytes: usize,
    },
}

/// Receives progress events, from several threads.
pub trait BuildWatch: Send + Sync {
    /// Called for each event.
    fn event(&self, event: &BuildEvent<'_>);

    /// Whether to cancel the build. TensorRT 8 cannot be cancelled during a build.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Logs the start, the end, and every ten seconds in between.
#[derive(Debug, Default)]
pub struct LogWatch {
    /// Time of the last progress message.
    last: Mutex<Option<Instant>>,
}

impl LogWatch {
    fn due(&self, elapsed: Duration) -> bool {
        const PAUSE: Duration = Duration::from_secs(10);
        let mut last = self.last.lock();
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
                log::warn!("{}: rebuilding the engine: {why}", file.display());
            }
            BuildEvent::Building { graph, elapsed, .. } if self.due(*elapsed) => log::warn!(
                "{graph}: building an engine for this GPU; it is cached and can take minutes ({} s)",
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
