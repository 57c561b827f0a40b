//! Statistics of NAF's normalizations that are reused in a video.

use std::sync::Arc;

use loftup_bundle::Size;
use loftup_kernels::naf::{EncodedImage, Naf};

/// The statistics of NAF's group normalizations in a video: those of every n-th frame, which are also used
/// for the frames after it. Keep one for each video and each output size.
///
/// NAF normalizes by the mean and variance of the whole image. If these are reused, a change of a pixel
/// affects only what is near it, and encodings of unchanged pixels are not computed again. A frame of
/// another size has its own statistics. The CPU reuses statistics; other engines compute those of each
/// frame.
///
/// It keeps the last frame's encodings, up to 256 MiB.
#[derive(Debug)]
pub struct NafStatistics {
    interval: u32,
    /// Number of frames with the current statistics.
    frames: u32,
    last: Option<Arc<EncodedImage>>,
}

impl NafStatistics {
    /// Statistics of every `interval`-th frame. With an interval of 1 (or 0), every frame has its own.
    pub fn every(interval: u32) -> Self {
        Self {
            interval,
            frames: 0,
            last: None,
        }
    }

    /// Forgets the statistics: call it at the start of another video or scene.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// Returns the last frame if the next one of this size uses its statistics.
    pub(super) fn last(&self, naf: &Arc<Naf>, size: Size) -> Option<&Arc<EncodedImage>> {
        let usable = |last: &&Arc<EncodedImage>| {
            self.frames < self.interval
                && last.is_of(naf)
                && last.size() == (size.height, size.width)
        };
        self.last.as_ref().filter(usable)
    }

    /// Keeps a frame, which has its own statistics (`own`) or those of [`Self::last`].
    pub(super) fn keep(&mut self, frame: &Arc<EncodedImage>, own: bool) {
        if self.interval > 1 {
            self.frames = if own { 1 } else { self.frames + 1 };
            self.last = Some(frame.clone());
        }
    }
}
