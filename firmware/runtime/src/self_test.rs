//! Records which parts of a bundle have been compared with its reference outputs.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;

/// A part of a bundle with its own reference outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The backbone.
    Backbone,
    /// The upsampler, fed with reference features.
    Upsampler,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backbone => "backbone",
            Self::Upsampler => "upsampler",
        })
    }
}

/// Whether a part has been compared in this process.
#[derive(Debug, Default)]
pub(crate) struct SelfTest {
    pub done: AtomicBool,
    /// Held while comparing.
    pub running: Mutex<()>,
}

impl SelfTest {
    /// Requires another comparison, because another engine will run.
    pub fn reset(&self) {
        self.done.store(false, Relaxed);
    }
}
