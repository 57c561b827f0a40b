//! Incremental upsampling of video: computes only the tiles that changed.

use std::sync::Arc;

use crate::{
    EncodedFrame, Guidance, RuntimeError, Sink,
    backend::State,
    encoded_frame::{LoftUpFrame, Upsampling},
    filter::naf::NafFrame,
    guidance::bit_eq,
    heads::Head,
    tiles::{Rect, Tiling},
    upsampler::Keys,
};

/// Upsamples consecutive frames, computing and delivering only the tiles that can have changed.
/// For the other tiles, the earlier output is still bit-identical on a deterministic engine (a CPU
/// is).
///
/// A tile of LoftUp depends on the features, the head, and the guidance inside it and up to two pixels
/// around it; it is skipped if all of these are bit-identical. A tile of NAF depends on the blocks of
/// 4x4 cells, or so, that its pixels attend to. This saves time only if
/// - features are reused for several frames because the backbone runs on every n-th frame: new
///   features change every tile;
/// - the color range is [`ColorRange::Fixed`](crate::ColorRange::Fixed): otherwise a pixel that
///   becomes the darkest or brightest of its channel changes all others; with NAF, frames share their
///   statistics ([`NafStatistics`](crate::NafStatistics));
/// - pixels stay the same where nothing moves: sensor noise changes every tile;
///   [`RgbImage::suppress_noise`](crate::image::RgbImage::suppress_noise) removes it.
///
/// It keeps the inputs of the last frame, but no output.
#[derive(Default)]
pub struct IncrementalUpsampler {
    last: Option<LastFrame>,
}

/// The last frame.
struct LastFrame {
    inputs: Inputs,
    head: Option<Head>,
    tiling: Tiling,
}

/// What the tiles of a frame are computed from.
enum Inputs {
    LoftUp {
        keys: Arc<Keys>,
        guidance: Arc<Guidance>,
        upsampler: u64,
        engine: Engine,
    },
    Naf(NafFrame),
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
        let inputs = Inputs::of(&frame.upsampling);
        // Taken, because after a failure it is unknown what the sink has received.
        let last = self
            .last
            .take()
            .filter(|last| last.tiling == tiling && same_head(last.head.as_ref(), frame.head));
        let changed: Vec<usize> = match last.as_ref().map(|last| &last.inputs).zip(inputs.as_ref())
        {
            Some((last, inputs)) if inputs.follow(last) => (0..tiling.len())
                .filter(|i| !inputs.same_tile(last, tiling.tile(*i).compute))
                .collect(),
            _ => (0..tiling.len()).collect(),
        };
        if !changed.is_empty() {
            frame.tiles(&tiling, &changed, sink)?;
        }
        let stats = UpdateStats {
            computed: changed.len(),
            tiles: tiling.len(),
        };
        self.last = inputs
            .filter(|inputs| inputs.complete(&frame.upsampling))
            .map(|inputs| LastFrame {
                inputs,
                head: match last.and_then(|last| last.head) {
                    // It has been checked to be the same.
                    Some(head) => Some(head),
                    None => frame.head.cloned(),
                },
                tiling,
            });
        Ok(stats)
    }
}

fn same_head(a: Option<&Head>, b: Option<&Head>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.bit_eq(b),
        _ => false,
    }
}

impl Inputs {
    /// The inputs of a frame whose tiles can be skipped.
    fn of(upsampling: &Upsampling<'_>) -> Option<Self> {
        match upsampling {
            Upsampling::LoftUp(frame) => Some(Self::LoftUp {
                keys: frame.keys.clone(),
                guidance: frame.guidance.clone(),
                upsampler: frame.upsampler.id,
                engine: Engine::of(frame),
            }),
            Upsampling::Filter(frame) => frame.as_naf().cloned().map(Self::Naf),
        }
    }

    /// Whether no other engine has taken over since: otherwise, the sink has tiles of both.
    fn complete(&self, upsampling: &Upsampling<'_>) -> bool {
        match (self, upsampling) {
            (Self::LoftUp { engine, .. }, Upsampling::LoftUp(frame)) => {
                Engine::of(frame) == *engine
            }
            _ => true,
        }
    }

    /// Whether everything that all tiles depend on is the same as in the `last` frame.
    fn follow(&self, last: &Self) -> bool {
        match (self, last) {
            (
                Self::LoftUp {
                    keys,
                    guidance,
                    upsampler,
                    engine,
                },
                Self::LoftUp {
                    keys: last_keys,
                    guidance: last_guidance,
                    upsampler: last_upsampler,
                    engine: last_engine,
                },
            ) => {
                let size = |guidance: &Guidance| (guidance.width(), guidance.height());
                (upsampler, engine) == (last_upsampler, last_engine)
                    && size(guidance) == size(last_guidance)
                    && keys.bit_eq(last_keys)
            }
            (Self::Naf(frame), Self::Naf(last)) => frame.follows(last),
            _ => false,
        }
    }

    /// Whether a tile has the same inputs as in the `last` frame, which this one follows.
    fn same_tile(&self, last: &Self, rect: Rect) -> bool {
        match (self, last) {
            (Self::LoftUp { guidance, .. }, Self::LoftUp { guidance: last, .. }) => {
                Arc::ptr_eq(guidance, last) || guidance.same_tile(last, rect)
            }
            (Self::Naf(frame), Self::Naf(last)) => frame.same_tile(last, rect),
            _ => false,
        }
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
