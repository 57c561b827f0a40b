//! Threads and tile size.

use loftup_bundle::Size;

/// How a bundle is executed.
#[derive(Debug, Clone, Copy)]
pub struct ExecutionOptions {
    /// Number of threads that compute tiles.
    pub threads: usize,
    /// Maximum side of a tile in pixels. `None` uses the backend's preferred size.
    pub tile: Option<usize>,
}

impl Default for ExecutionOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            tile: None,
        }
    }
}

impl ExecutionOptions {
    /// Clamps the options: at least one thread, and a tile no longer than the maximum side of an output.
    pub(crate) fn clamped(self) -> Self {
        Self {
            threads: self.threads.max(1),
            tile: self.tile.map(|side| side.min(Size::LONGEST_SIDE)),
        }
    }
}
