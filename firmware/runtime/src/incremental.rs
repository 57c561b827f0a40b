//! Incremental upsampling of video: computes only the tiles that changed.

use std::sync::Arc;

use crate::{
    EncodedFrame, Guidance, RuntimeError, Sink,
    backend::State,
    encoded_frame::{LoftUpFrame, Upsampling},
    guidance::bit_eq,
    heads::Head,
    tiles::{Rect, Tiling},
    upsampler::Keys,
};

/// Upsamples consecutive frames, computing and delivering only the tiles that can have changed.
/// For the other tiles, the earlier output is still bit-identical on a deterministic engine (a CPU
/// is).
///
/// A tile depends on the features, the head, and the guidance inside it and up to two pixels
/// around it; it is skipped if all of these are bit-identical. This saves time only if
/// - features are reused for several frames because the backbone runs on every n-th frame: new
///   features change every tile;
/// - the color range is [`ColorRange::Fixed`](crate::ColorRange::Fixed): otherwise a pixel that
///   becomes the darkest or brightest of its channel changes all others;
/// - pixels stay the same where nothing moves: sensor noise changes every tile;
///   [`RgbImage::suppress_noise`](crate::image::RgbImage::suppress_noise) removes it.
///
/// It keeps the keys and the guidance of the last frame, but no output.
#[derive(Default)]
pub struct IncrementalUpsampler {
    last: Option<LastFrame>,
}

/// The inputs of the last frame's tiles.
struct LastFrame {
    keys: Arc<Keys>,
    guidance: Arc<Guidance>,
    head: Option<Head>,
    tiling: Tiling,
    upsampler: u64,
    engine: Engine,
}

/// Identifies the engine in use. Two values are equal only if no other engine ran in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Engine {
    name: &'static str,
    uses_fallback: bool,
    runs_of_others: u64,
}

impl Engine {
    fn of(frame: &LoftUpFrame<'_>) -> Self {
        let health = frame.upsampler.backend.health();
        let uses_fallback = health.state != State::Healthy;
        let counters = health.counters;
        Self {
            name: health.answering,
            uses_fallback,
            runs_of_others: match uses_fallback {
                true => counters.preferred_runs,
                false => counters.fallback_runs,
            },
        }
    }
}

/// Numbers of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateStats {
    /// Tiles that were computed and delivered.
    pub computed: usize,
    /// Tiles in total.
    pub tiles: usize,
}

impl IncrementalUpsampler {
    /// Creates an upsampler without a previous frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Computes the tiles of the whole frame that changed, in any order; all tiles the first time
    /// and after a failure.
    ///
    /// # Errors
    /// Same as [`EncodedFrame::frame`].
    pub fn frame(
        &mut self,
        frame: &EncodedFrame<'_>,
        sink: Sink<'_>,
    ) -> Result<UpdateStats, RuntimeError> {
        let tiling = Tiling::new(frame.whole(), frame.frame_tile());
        self.update(frame, tiling, sink)
    }

    /// Computes the tiles of a region that changed. A region other than the last one is computed
    /// completely.
    ///
    /// # Errors
    /// Same as [`EncodedFrame::region`].
    pub fn region(
        &mut self,
        frame: &EncodedFrame<'_>,
        rect: Rect,
        sink: Sink<'_>,
    ) -> Result<UpdateStats, RuntimeError> {
        frame.check_region(rect)?;
        let tiling = Tiling::new(rect, frame.region_tile());
        self.update(frame, tiling, sink)
    }

    /// Forgets the last frame: the next one is computed completely.
    pub fn reset(&mut self) {
        self.last = None;
    }

    fn update(
        &mut self,
        frame: &EncodedFrame<'_>,
        tiling: Tiling,
        sink: Sink<'_>,
    ) -> Result<UpdateStats, RuntimeError> {
        let Upsampling::LoftUp(loftup) = &frame.upsampling else {
            // Cheaper than comparing every tile.
            self.last = None;
            let all: Vec<usize> = (0..tiling.len()).collect();
            frame.tiles(&tiling, &all, sink)?;
            return Ok(UpdateStats {
                computed: all.len(),
                tiles: all.len(),
            });
        };
        let engine = Engine::of(loftup);
        // Taken, because after a failure it is unknown what the sink has received.
        let last = self
            .last
            .take()
            .filter(|last| last.serves(loftup, frame.head, &tiling, engine));
        let changed: Vec<usize> = match &last {
            Some(last) if Arc::ptr_eq(&last.guidance, &loftup.guidance) => Vec::new(),
            Some(last) => (0..tiling.len())
                .filter(|i| {
                    let rect = tiling.tile(*i).compute;
                    !last.guidance.same_tile(&loftup.guidance, rect)
                })
                .collect(),
            None => (0..tiling.len()).collect(),
        };
        if !changed.is_empty() {
            frame.tiles(&tiling, &changed, sink)?;
        }
        // If another engine took over during the frame, the sink has tiles of both.
        if Engine::of(loftup) == engine {
            self.last = Some(LastFrame {
                keys: loftup.keys.clone(),
                guidance: loftup.guidance.clone(),
                head: match last.and_then(|last| last.head) {
                    // `serves` has checked that it is the same.
                    Some(head) => Some(head),
                    None => frame.head.cloned(),
                },
                tiling,
                upsampler: loftup.upsampler.id,
                engine,
            });
        }
        Ok(UpdateStats {
            computed: changed.len(),
            tiles: tiling.len(),
        })
    }
}

impl LastFrame {
    /// Whether everything except the guidance is the same.
    fn serves(
        &self,
        frame: &LoftUpFrame<'_>,
        head: Option<&Head>,
        tiling: &Tiling,
        engine: Engine,
    ) -> bool {
        let same_head = match (&self.head, head) {
            (None, None) => true,
            (Some(a), Some(b)) => a.bit_eq(b),
            _ => false,
        };
        self.upsampler == frame.upsampler.id
            && self.engine == engine
            && self.tiling == *tiling
            && (self.guidance.width(), self.guidance.height())
                == (frame.guidance.width(), frame.guidance.height())
            && same_head
            && self.keys.bit_eq(&frame.keys)
    }
}

impl Keys {
    fn bit_eq(&self, other: &Self) -> bool {
        self.tokens == other.tokens
            && self.moments == other.moments
            && self.tensors.len() == other.tensors.len()
            && (self.tensors.iter())
                .zip(&other.tensors)
                .all(|(a, b)| bit_eq(a, b))
    }
}
