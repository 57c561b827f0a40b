//! Where images come from.

mod images;
mod piped;
pub(crate) mod recording;
mod scenes;
#[cfg(feature = "v4l")]
mod v4l;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use images::{Images, list};
pub use piped::{Launcher, Piped};
pub use recording::Recording;
pub use scenes::Scenes;
#[cfg(feature = "v4l")]
pub use v4l::Camera;

use crate::frame::RawFrame;

/// The node's clock: microseconds since its start. Never runs backwards.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// What became of a wait for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// One came.
    Frame,
    /// None came yet.
    Nothing,
    /// None will come any more.
    End,
}

/// A source that failed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// An image.
    #[error(transparent)]
    Image(#[from] loftup_runtime::image::ImageError),
    /// A recording.
    #[error("{}: {what}", path.display())]
    Recording {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A device that is gone: the source is opened again.
    #[error("{}: {cause}", path.display())]
    Gone {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Something that gives images. What it gives is checked afterwards, so that a source need not
/// be trusted.
pub trait Source: Send {
    /// Waits for the next image, some 100 ms at most, and puts it into `into`, whose memory is
    /// used again. Numbers rise by one for each image taken, whether it is given or not; the
    /// time stamp is that of `clock`.
    ///
    /// # Errors
    /// A failure that may pass: it is asked again. After [`SourceError::Gone`] a new source is opened
    /// instead.
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError>;
}

/// Makes a source: at the start, and again when the last one hangs or falls silent.
pub type SourceFactory = Arc<dyn Fn() -> Result<Box<dyn Source>, SourceError> + Send + Sync>;

/// What a program says that knows nothing of V4L2.
#[cfg(not(feature = "v4l"))]
pub(crate) const NO_V4L: &str =
    "this program was built without cameras: build it with --features v4l";

/// The longest that a source sleeps at once.
const NAP: Duration = Duration::from_millis(100);

/// Images at a steady rate. An image whose time has passed is skipped, and counts as lost.
#[derive(Debug, Clone)]
pub struct Pace {
    period_us: f64,
    start_us: Option<u64>,
    next: u64,
}

impl Pace {
    /// So many images a second.
    pub fn new(rate_hz: f64) -> Self {
        Self {
            period_us: 1e6 / rate_hz.clamp(0.001, 1e6),
            start_us: None,
            next: 0,
        }
    }

    /// Waits for the time of the next image, or a nap. Gives its number and time, where that has
    /// come. A number is never skipped here: a slow reader gets old ones late.
    pub fn wait(&mut self, clock: &Clock) -> Option<(u64, u64)> {
        let now = clock.now_us();
        let start = *self.start_us.get_or_insert(now);
        let due = start + (self.next as f64 * self.period_us) as u64;
        let wait = Duration::from_micros(due.saturating_sub(now));
        std::thread::sleep(wait.min(NAP));
        if wait > NAP {
            return None;
        }
        let number = self.next;
        // Images are taken on time whoever waits for them; those not waited for are overwritten
        // in the camera.
        let late = (clock.now_us() - due) as f64 / self.period_us;
        self.next += 1 + (late as u64).saturating_sub(1);
        Some((number, due.max(now.min(clock.now_us()))))
    }

    /// Seconds from the first image to that of this number.
    pub fn seconds(&self, number: u64) -> f64 {
        number as f64 * self.period_us / 1e6
    }
}
