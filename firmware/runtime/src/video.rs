//! Pictures that follow one another: only what changed is computed.

use std::sync::Arc;

use crate::{
    Guidance, RuntimeError, Sink, View,
    backend::State,
    guidance::same_bits,
    heads::Head,
    tiles::{Rect, Tiling},
    upsampler::Keys,
};

/// A question that is asked of one frame after another, of which only the tiles that can have
/// changed are computed and delivered: what the sink was given for the other tiles of earlier
/// frames is still true, to the bit, on an engine that gives the same answer twice (a CPU does).
///
/// A tile depends on the features, on the head, and on the guidance inside it and up to two pixels
/// around it; it is left out where all of these are the same to the bit. So this pays where
/// - the features are kept for several frames, by a backbone that runs on every nth: other
///   features change every tile;
/// - colors are scaled by a [`ColorRange::Fixed`](crate::ColorRange::Fixed): otherwise a pixel
///   that becomes the darkest or the brightest of its channel changes all others;
/// - the picture is the same where nothing moves: a sensor's noise changes every tile.
///   [`Rgb8::hold`](crate::image::Rgb8::hold) keeps it still.
///
/// It keeps the keys and the scaled picture of the last frame, no answer.
#[derive(Default)]
pub struct Video {
    last: Option<Seen>,
}

/// What the tiles of an answer depended on.
struct Seen {
    keys: Arc<Keys>,
    guidance: Arc<Guidance>,
    head: Option<Head>,
    tiling: Tiling,
    upsampler: u64,
    engine: Engine,
}

/// Which engine answered: equal as long as no other one did, between as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Engine {
    name: &'static str,
    uses_fallback: bool,
    runs_of_others: u64,
}

impl Engine {
    fn of(view: &View<'_>) -> Self {
        let health = view.upsampler.backend.health();
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

/// How much of an answer was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// Tiles that were computed and delivered.
    pub computed: usize,
    /// Tiles of the answer.
    pub tiles: usize,
}

impl Video {
    /// Before the first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// What changed of the whole frame, tile by tile in any order; all of it the first time, and
    /// after a failure.
    ///
    /// # Errors
    /// As [`View::frame`].
    pub fn frame(&mut self, view: &View<'_>, sink: Sink<'_>) -> Result<Update, RuntimeError> {
        let tiling = Tiling::new(view.whole(), view.upsampler.frame_tile());
        self.update(view, tiling, sink)
    }

    /// What changed of a part of the frame. Another part than the last time is computed anew.
    ///
    /// # Errors
    /// As [`View::region`].
    pub fn region(
        &mut self,
        view: &View<'_>,
        rect: Rect,
        sink: Sink<'_>,
    ) -> Result<Update, RuntimeError> {
        view.check_region(rect)?;
        let tiling = Tiling::new(rect, view.upsampler.region_tile());
        self.update(view, tiling, sink)
    }

    /// Forgets the last frame: the next one is computed and delivered whole.
    pub fn forget(&mut self) {
        self.last = None;
    }

    fn update(
        &mut self,
        view: &View<'_>,
        tiling: Tiling,
        sink: Sink<'_>,
    ) -> Result<Update, RuntimeError> {
        let engine = Engine::of(view);
        // Taken: after a failure nothing is known of what the sink has.
        let last = self
            .last
            .take()
            .filter(|last| last.serves(view, &tiling, engine));
        let changed: Vec<usize> = match &last {
            Some(last) if Arc::ptr_eq(&last.guidance, &view.guidance) => Vec::new(),
            Some(last) => (0..tiling.len())
                .filter(|i| {
                    let rect = tiling.tile(*i).compute;
                    !last.guidance.same_tile(&view.guidance, rect)
                })
                .collect(),
            None => (0..tiling.len()).collect(),
        };
        if !changed.is_empty() {
            view.tiles(&tiling, &changed, sink)?;
        }
        // Where another engine took over in the middle, tiles of both are there.
        if Engine::of(view) == engine {
            self.last = Some(Seen {
                keys: view.keys.clone(),
                guidance: view.guidance.clone(),
                head: match last.and_then(|last| last.head) {
                    // It is the same.
                    Some(head) => Some(head),
                    None => view.head.cloned(),
                },
                tiling,
                upsampler: view.upsampler.id,
                engine,
            });
        }
        Ok(Update {
            computed: changed.len(),
            tiles: tiling.len(),
        })
    }
}

impl Seen {
    /// Whether answers to `view` depend on the same, but for the guidance.
    fn serves(&self, view: &View<'_>, tiling: &Tiling, engine: Engine) -> bool {
        let same_head = match (&self.head, view.head) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same_bits(b),
            _ => false,
        };
        self.upsampler == view.upsampler.id
            && self.engine == engine
            && self.tiling == *tiling
            && (self.guidance.width(), self.guidance.height())
                == (view.guidance.width(), view.guidance.height())
            && same_head
            && self.keys.same_bits(&view.keys)
    }
}

impl Keys {
    fn same_bits(&self, other: &Self) -> bool {
        self.tokens == other.tokens
            && self.tensors.len() == other.tensors.len()
            && (self.tensors.iter())
                .zip(&other.tensors)
                .all(|(a, b)| same_bits(a, b))
    }
}
