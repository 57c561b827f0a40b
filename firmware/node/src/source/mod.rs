//! Image sources.

mod images;
mod piped;
pub(crate) mod recording;
#[cfg(feature = "zenoh")]
mod ros2;
mod scenes;
#[cfg(feature = "v4l")]
mod v4l;
mod video;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use images::{Images, list};
pub use piped::{Launcher, Piped};
pub use recording::Recording;
#[cfg(feature = "zenoh")]
pub use ros2::{Listener, Ros2, Topic};
pub use scenes::Scenes;
#[cfg(feature = "v4l")]
pub use v4l::Camera;
pub use video::Video;

use crate::frame::RawFrame;

/// The node's monotonic clock, in microseconds since its start.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The current time.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Result of polling a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// A frame is available.
    Frame,
    /// No frame yet.
    Nothing,
    /// No frame yet, and none expected: the source is starting, or waits until the next one is due.
    Starting,
    /// The source has ended.
    End,
}

/// Why a source failed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file cannot be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// An image cannot be decoded.
    #[error(transparent)]
    Image(#[from] loftup_runtime::image::ImageError),
    /// A recording is invalid.
    #[error("{}: {what}", path.display())]
    Recording {
        /// Its path.
        path: PathBuf,
        /// What is invalid.
        what: String,
    },
    /// A device was lost: the source is reopened.
    #[error("{}: {cause}", path.display())]
    Gone {
        /// Its path.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// A video cannot be decoded.
    #[error(transparent)]
    Video(#[from] loftup_runtime::video::VideoError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A source of images. Its frames are validated by the caller.
pub trait Source: Send {
    /// Waits for the next image, about 100 ms at most, and writes it to `into`, reusing its buffer.
    /// Numbers increase by one with every captured image, delivered or not. Time stamps are those of
    /// `clock`.
    ///
    /// # Errors
    /// The caller tries again; after [`SourceError::Gone`] it reopens the source first.
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError>;
}

/// Opens the source, at start and after it hangs or delivers nothing.
pub type SourceFactory = Arc<dyn Fn() -> Result<Box<dyn Source>, SourceError> + Send + Sync>;

/// The error in builds without V4L2.
#[cfg(not(feature = "v4l"))]
pub(crate) const NO_V4L: &str =
    "this program was built without camera support: build it with --features v4l";

/// The error in builds without zenoh.
#[cfg(not(feature = "zenoh"))]
pub(crate) const NO_ZENOH: &str =
    "this program was built without zenoh: build it with --features zenoh";

/// Maximum time that a source sleeps at once.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// A constant frame rate. Frames whose time has passed are skipped and count as lost.
#[derive(Debug, Clone)]
pub struct Pace {
    period_us: f64,
    start_us: Option<u64>,
    next: u64,
}

impl Pace {
    /// A rate in frames per second.
    pub fn new(rate_hz: f64) -> Self {
        Self {
            period_us: 1e6 / rate_hz.clamp(0.001, 1e6),
            start_us: None,
            next: 0,
        }
    }

    /// Waits until the next frame is due, but at most `MAX_SLEEP`. Returns its number and time if it
    /// is due.
    pub fn wait(&mut self, clock: &Clock) -> Option<(u64, u64)> {
        let now = clock.now_us();
        let start = *self.start_us.get_or_insert(now);
        let due = start + (self.next as f64 * self.period_us) as u64;
        let wait = Duration::from_micros(due.saturating_sub(now));
        std::thread::sleep(wait.min(MAX_SLEEP));
        if wait > MAX_SLEEP {
            return None;
        }
        let number = self.next;
        // Like a camera, skip the frames that were not read in time.
        let late = (clock.now_us() - due) as f64 / self.period_us;
        self.next += 1 + (late as u64).saturating_sub(1);
        Some((number, due.max(now.min(clock.now_us()))))
    }

    /// Time of a frame since the first one, in seconds.
    pub fn seconds(&self, number: u64) -> f64 {
        number as f64 * self.period_us / 1e6
    }
}
